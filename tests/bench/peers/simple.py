"""gpt-2-simple, measured: one job a process, told as a line of JSON."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import gpt_2_simple as gpt2


def train(settings: argparse.Namespace) -> dict[str, Any]:
    session = gpt2.start_tf_sess()
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        gpt2.finetune(
            session,
            settings.text,
            model_name=Path(settings.model).name,
            model_dir=str(Path(settings.model).parent),
            steps=settings.steps,
            batch_size=settings.batch,
            accumulate_gradients=settings.accumulate,
            print_every=1,
            sample_every=10**9,
            save_every=10**9,
            checkpoint_dir=settings.folder,
        )
    # [step | seconds] loss=…
    lines = [line for line in told.getvalue().splitlines() if line.startswith("[") and "|" in line]
    seconds = [float(line.split("|")[1].split("]")[0]) for line in lines]
    end = time.time()
    begin = end - seconds[-1]
    return {"marks": [begin, *(begin + second for second in seconds)]}


def generate(settings: argparse.Namespace) -> dict[str, Any]:
    session = gpt2.start_tf_sess()
    model, folder = Path(settings.model).name, str(Path(settings.model).parent)
    gpt2.load_gpt2(session, model_name=model, model_dir=folder)
    first: list[float] = []
    whole: list[float] = []
    for _ in range(1 if settings.once else settings.steps):
        for length, times in ((1, first), (settings.length, whole))[settings.once :]:
            began = time.time()
            gpt2.generate(
                session,
                model_name=model,
                model_dir=folder,
                length=length,
                nsamples=settings.batch,
                batch_size=settings.batch,
                prefix="a " * settings.prompt,
                return_as_list=True,
            )
            times.append(time.time() - began)
    return {"first": first, "whole": whole, "done": time.time()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["train", "generate"])
    for name in ("model", "text", "folder"):
        parser.add_argument(f"--{name}")
    for name, default in (("batch", 1), ("window", 1024), ("accumulate", 1), ("steps", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--prompt", type=int, default=1)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--once", action="store_true", help="write once, and leave")
    settings = parser.parse_args()
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        found = {"train": train, "generate": generate}[settings.work](settings)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
