"""A small run for tests of several devices: its model, text, command and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from gpt2cli.storage import bundle
from tests import models

TEXT = "".join(f"{n}. The cat sat on the mat, and the other cat sat there.\n" for n in range(60))


class Command:
    """`gpt2cli finetune` with the options that all these tests share."""

    config: ClassVar[dict[str, Any]] = {
        "dataset": ("text.txt",),
        "model_name": "small",
        "seed": 1,
        "batch_size": 4,
        "accumulate_gradients": 2,
        "learning_rate": 1e-3,
        "sample_every": 0,
        "val_every": 2,
        "xla": False,
    }

    def __call__(self) -> list[str]:
        words = ["finetune", "text.txt"]
        for name, value in self.config.items():
            if name == "xla":
                words.append("--no-xla")
            elif name != "dataset":
                words += ["--" + name.replace("_", "-"), str(value)]
        return words


command = Command()


def model_and_text(place: Path) -> None:
    models.write_model(place / "models" / "small", models.MINI)
    (place / "text.txt").write_text(TEXT)


def arrays(run: Path, step: int) -> dict[str, Any]:
    from gpt2cli.storage import checkpoint

    prefix = run / f"model-{step}"
    return dict(checkpoint.load(prefix, bundle.read_index(prefix)[0]))


def losses(run: Path) -> list[float]:
    """Returns the losses that a run's log tells of, step by step."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["event"] == "step"]
