"""Does small jobs on one device, and prints what came of each as a line of JSON.

    python -m tests.gpu.worker cpu '{"job": "losses", "precision": "float32"}' …

It is a program of its own because TensorFlow settles its devices once in a process, and results of
a GPU are compared with a CPU's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpt2cli.hparams import HParams
from tests import models

# Heads as wide as GPT-2's, so that attention is cuDNN's in half precision.
SMALL = HParams(n_vocab=1000, n_ctx=256, n_embd=128, n_head=2, n_layer=2)
SHAPES = {"small": SMALL, "124M": models.GPT2_124M}
STEPS, PROMPT, LENGTH = 20, 12, 40


def run(device: str, *jobs: dict[str, Any], **environment: str) -> list[Any]:
    """Returns what came of some jobs on a device, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.worker", device, *map(json.dumps, jobs)],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    """Does the jobs that the command line names."""
    from gpt2cli.runtime import tensorflow

    tensorflow.load(verbose=False)
    from gpt2cli.runtime import devices

    device, *jobs = sys.argv[1], *map(json.loads, sys.argv[2:])
    precisions = {job.get("precision", "auto") for job in jobs}
    devices.configure(device, None, "float32" if precisions == {"float32"} else "auto")
    for job in jobs:
        found = JOBS[job.pop("job")](**job)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def losses(
    shape: str = "small",
    precision: str = "float32",
    batch: int = 4,
    steps: int = STEPS,
    parts: int = 1,
    **settings: Any,
) -> dict[str, Any]:
    """Trains some steps; returns losses, norms, how it was computed and the peak (bytes)."""
    import tensorflow as tf

    from gpt2cli.network import gpt2
    from gpt2cli.runtime import devices
    from gpt2cli.training import backend, replicas
    from gpt2cli.training.backend import TrainingOptions
    from gpt2cli.training.step import Trainer

    hparams = SHAPES[shape]
    window = hparams.n_ctx
    # TensorFlow settles its devices with whatever is computed first.
    names = devices.device_names()
    chosen = backend.choose_backend(
        hparams, precision, xla=True, batch=batch // parts, window=window
    )
    options = TrainingOptions(precision=precision, clip_norm=1.0, backend=chosen, **settings)
    weights = gpt2.to_variables(gpt2.initial_weights(hparams, 0))
    if parts > 1:
        strategy = tf.distribute.MirroredStrategy(names, tf.distribute.ReductionToOneDevice())
        trainer: Trainer = replicas.ReplicatedTrainer(strategy, weights, hparams, options)
    else:
        trainer = Trainer(weights, hparams, options)
    drawn = (options.accumulate, batch, window + 1)
    # The same in each step, so that there is something to learn.
    windows = np.random.default_rng(1).integers(0, hparams.n_vocab, drawn).astype(np.int32)
    told = []
    for step in range(1, steps + 1):
        pending = trainer.step(windows, 1e-3, step=step, seed=0)
        assert pending is not None
        told.append(pending.fetch())
    peak = 0
    if tf.config.get_visible_devices("GPU"):
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return {
        "losses": [loss for loss, _ in told],
        "norms": [norm for _, norm in told],
        "fused": chosen.fused,
        "why": chosen.reason,
        "peak": peak,
    }


def greedy(precision: str) -> list[int]:
    """Returns the likeliest tokens after a prompt, in float32."""
    assert precision == "float32"
    from gpt2cli.inference import decode
    from gpt2cli.inference.sampling import SamplingParams
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine

    engine = TensorFlowEngine(models.random_arrays(SMALL), SMALL)
    prompt = np.random.default_rng(2).integers(0, SMALL.n_vocab, PROMPT).tolist()
    params, streams = SamplingParams(temperature=0), [iter([0.5] * LENGTH)]
    steps = decode.tokens(engine, params, [prompt], streams, LENGTH)
    return [chosen.tokens[0] for chosen in steps]


def attention(kind: str, shape: tuple[int, int, int, int]) -> list[float]:
    """Returns how far cuDNN's attention and its gradients are from NumPy's in float64."""
    import tensorflow as tf

    from gpt2cli.network import fused_attention, xla_clusters

    batch, time, heads, head = shape
    noise = np.random.default_rng(3)
    width = heads * head
    product, upstream = (
        tf.cast(noise.standard_normal((batch, time, n)), tf.as_dtype(kind))
        for n in (3 * width, width)
    )
    bias = tf.constant(noise.standard_normal(3 * width), tf.float32)

    def graph(*tensors: Any) -> Any:
        with xla_clusters.clustering(enabled=True, gpu=True), tf.GradientTape() as tape:
            tape.watch(tensors[:2])
            found = fused_attention.causal(tensors[0], tensors[1], heads)
        return [found, *tape.gradient(found, tensors[:2], tensors[2])]

    found = tf.function(graph, autograph=False)(product, bias, upstream)
    wide = [tf.cast(x, tf.float64).numpy() for x in (product, bias, upstream)]
    expected = exact_attention(wide[0], wide[1], wide[2], heads)
    return [
        float(np.linalg.norm(tf.cast(one, tf.float64) - other) / np.linalg.norm(other))
        for one, other in zip(found, expected, strict=True)
    ]


def exact_attention(product: Any, bias: Any, upstream: Any, heads: int) -> list[Any]:
    """Returns causal attention over c_attn's product and bias, and its gradients, in NumPy."""
    batch, time, width = product.shape
    head = width // 3 // heads

    def split(x: Any) -> Any:
        return x.reshape(batch, time, heads, head).transpose(0, 2, 1, 3)

    def merged(x: Any) -> Any:
        return x.transpose(0, 2, 1, 3).reshape(batch, time, heads * head)

    query, key, value = map(split, np.split(product + bias, 3, axis=-1))
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(head)
    scores += np.triu(np.full((time, time), -np.inf), 1)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = powers / powers.sum(axis=-1, keepdims=True)
    found, of_found = shares @ value, split(upstream)
    of_shares = of_found @ value.transpose(0, 1, 3, 2)
    of_scores = shares * (of_shares - (of_shares * shares).sum(axis=-1, keepdims=True))
    of_query = of_scores @ key / np.sqrt(head)
    of_key = of_scores.transpose(0, 1, 3, 2) @ query / np.sqrt(head)
    of_value = shares.transpose(0, 1, 3, 2) @ of_found
    of_product = np.concatenate([merged(x) for x in (of_query, of_key, of_value)], axis=-1)
    return [merged(found), of_product, of_product.sum(axis=(0, 1))]


JOBS: dict[str, Callable[..., Any]] = {"losses": losses, "greedy": greedy, "attention": attention}

if __name__ == "__main__":
    main()
