"""Trains one model on one device, and the same on two; prints how far they are apart.

    python -m tests.distributed.twice '{"optimizer": "sgd"}' …

Each argument is a options's settings. It is a program of its own because TensorFlow settles its
devices once in a process.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np

STEPS, BATCH = 20, 4


def main() -> None:
    os.environ["GPT2CLI_CPU_DEVICES"] = "2"
    from gpt2cli.runtime import tensorflow

    tensorflow.load(verbose=False)
    import tensorflow as tf

    from gpt2cli.runtime import devices

    devices.configure("cpu")
    strategy = tf.distribute.MirroredStrategy(devices.device_names())
    assert strategy.num_replicas_in_sync == 2
    for argument in sys.argv[1:]:
        sys.stdout.write(json.dumps(apart(strategy, json.loads(argument))) + "\n")


def apart(strategy: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the largest differences of losses, norms and weights, and the devices' weights'."""
    from gpt2cli.network import gpt2
    from gpt2cli.network.compiling import CompileMode
    from gpt2cli.training.backend import Backend, TrainingOptions
    from gpt2cli.training.replicas import ReplicatedTrainer
    from gpt2cli.training.step import Trainer
    from tests import models

    arrays = models.random_arrays(models.MINI)
    mode = CompileMode[settings.pop("mode", "OFF")]
    masked = settings.pop("masked", False)
    options = TrainingOptions(**{"clip_norm": 1.0, "backend": Backend(mode=mode), **settings})
    one = Trainer(gpt2.to_variables(arrays.items()), models.MINI, options)
    two = ReplicatedTrainer(strategy, gpt2.to_variables(arrays.items()), models.MINI, options)
    generator = np.random.default_rng(1)
    shape = (options.accumulate, BATCH, models.MINI.n_ctx + 1)
    numbers: list[tuple[float, float]] = []
    for step in range(1, STEPS + 1):
        batches = generator.integers(0, models.MINI.n_vocab, shape).astype(np.int32)
        if masked:
            # Most tokens of the first windows, and few of the last.
            borders = np.linspace(0.1, 0.9, BATCH)[:, None]
            batches = np.where(generator.random(shape) > borders, batches, ~batches)
        for trainer in (one, two):
            pending = trainer.step(batches, 1e-3, step=step, seed=5)
            assert pending is not None
            numbers.append(pending.fetch())
    told = np.array(numbers).reshape(STEPS, 2, 2)
    each = [trainer.weights for trainer in two._replicas]
    return {
        "losses": told[:, :, 0].tolist(),
        "norms": told[:, :, 1].tolist(),
        "weights": max(gap(one.weights[name], two.weights[name], name) for name in arrays),
        "devices": max(float(np.abs(each[0][n] - each[1][n]).max()) for n in arrays),
        "places": [weights["model/wte"].device[-5:] for weights in each],
    }


def gap(left: Any, right: Any, name: str) -> float:
    """Returns the largest difference, but for the keys' bias: its gradient is rounding alone."""
    difference = np.abs(left.numpy() - right.numpy())
    if name.endswith("c_attn/b"):
        third = len(difference) // 3
        difference[third : 2 * third] = 0
    return float(difference.max())


if __name__ == "__main__":
    main()
