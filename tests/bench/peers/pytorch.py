"""Hugging Face's transformers on PyTorch, measured: one job a process, told as a line of JSON."""

from __future__ import annotations

import argparse
import functools
import json
import time
from typing import Any

import numpy as np
import torch
import transformers


def train(model: Any, settings: argparse.Namespace) -> dict[str, Any]:
    model.train()
    on_gpu = settings.device == "cuda"
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=on_gpu)
    forward = torch.compile(model) if settings.compile else model
    noise = np.random.default_rng(0)
    marks = [time.time()]
    for _ in range(settings.steps):
        optimizer.zero_grad()
        for _ in range(settings.accumulate):
            shape = (settings.batch, settings.window)
            tokens = torch.tensor(noise.integers(0, 50257, shape), device=settings.device)
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=on_gpu):
                loss = forward(tokens, labels=tokens).loss
            (loss / settings.accumulate).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        marks.append(time.time())
    return {"marks": marks, "allocated": torch.cuda.max_memory_allocated() if on_gpu else 0}


def limits(_model: Any, _settings: argparse.Namespace) -> dict[str, Any]:
    """Returns what the card does at most: TFLOP/s in bfloat16, and GB/s of copying its memory."""
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    long = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    found = {}
    for name, work, amount in (
        ("products, TFLOP/s", functools.partial(torch.mm, square, square), 2 * 8192**3 / 1e12),
        ("memory, GB/s", functools.partial(torch.clone, long), 2 * long.numel() / 1e9),
    ):
        work()
        torch.cuda.synchronize()
        began = time.time()
        for _ in range(20):
            work()
        torch.cuda.synchronize()
        found[name] = 20 * amount / (time.time() - began)
    return found


def generate(model: Any, settings: argparse.Namespace) -> dict[str, Any]:
    model.eval()
    if settings.device == "cuda":
        model.half()
    prompt = torch.randint(0, 50257, (settings.batch, settings.prompt), device=settings.device)
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
                if settings.device == "cuda":
                    torch.cuda.synchronize()
                times.append(time.time() - began)
    return {"first": first, "whole": whole, "done": time.time()}


def main() -> None:
    parser = argparse.ArgumentParser()
    works = {"train": train, "generate": generate, "limits": limits}
    parser.add_argument("work", choices=works)
    parser.add_argument("--model", help="a folder; without it, 124M of random weights")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    for name, default in (("batch", 1), ("window", 1024), ("accumulate", 1), ("steps", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--prompt", type=int, default=1)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--once", action="store_true", help="write once, and leave")
    settings = parser.parse_args()
    kind = transformers.GPT2LMHeadModel
    if settings.model:
        model = kind.from_pretrained(settings.model)
    else:
        model = kind(transformers.GPT2Config())
    print(json.dumps(works[settings.work](model.to(settings.device), settings)))


if __name__ == "__main__":
    main()
