"""Hugging Face's transformers on PyTorch, measured: one job a process, told as a line of JSON."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
import transformers


def train(model: Any, settings: argparse.Namespace) -> dict[str, Any]:
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    noise = np.random.default_rng(0)
    marks = [time.time()]
    for _ in range(settings.steps):
        optimizer.zero_grad()
        for _ in range(settings.accumulate):
            shape = (settings.batch, settings.window)
            tokens = torch.tensor(noise.integers(0, 50257, shape))
            (model(tokens, labels=tokens).loss / settings.accumulate).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        marks.append(time.time())
    return {"marks": marks}


def generate(model: Any, settings: argparse.Namespace) -> dict[str, Any]:
    model.eval()
    prompt = torch.randint(0, 50257, (settings.batch, settings.prompt))
    first: list[float] = []
    whole: list[float] = []
    with torch.inference_mode():
        for _ in range(1 if settings.once else settings.steps):
            for length, times in ((1, first), (settings.length, whole))[settings.once :]:
                began = time.time()
                model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    do_sample=True,
                    max_new_tokens=length,
                    min_new_tokens=length,
                    pad_token_id=50256,
                )
                times.append(time.time() - began)
    return {"first": first, "whole": whole, "done": time.time()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["train", "generate"])
    parser.add_argument("--model", required=True)
    for name, default in (("batch", 1), ("window", 1024), ("accumulate", 1), ("steps", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--prompt", type=int, default=1)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--once", action="store_true", help="write once, and leave")
    settings = parser.parse_args()
    model = transformers.GPT2LMHeadModel.from_pretrained(settings.model)
    print(json.dumps({"train": train, "generate": generate}[settings.work](model, settings)))


if __name__ == "__main__":
    main()
