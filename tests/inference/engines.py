"""Both engines over the same random weights, for tests that ask each of them the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpt2cli.arrays import Array
from gpt2cli.inference import decode
from gpt2cli.inference.engine import Chosen, Engine
from gpt2cli.inference.sampling import SamplingParams
from tests import models, oracle

SMALL = models.SMALL
ARRAYS = models.random_arrays(SMALL, deviation=0.5)
HEADS, N_CTX = SMALL.n_head, SMALL.n_ctx
KINDS = ("cpu", "tensorflow")


def engine_of(kind: str, arrays: dict[str, Array] = ARRAYS, *, xla: bool = False) -> Engine:
    """Returns a new engine of small random weights."""
    if kind == "cpu":
        from gpt2cli.inference.cpu.engine import CPUEngine

        return CPUEngine(arrays.items(), SMALL)
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(arrays, SMALL, xla=xla)


def grown(
    engine: Engine, prompts: list[list[int]], length: int, *, seed: int = 0, **params: Any
) -> list[list[int]]:
    """Returns each prompt's new tokens, decoded in one batch."""
    streams = [decode.random_stream(seed, 0, number) for number in range(len(prompts))]
    return columns(decode.tokens(engine, SamplingParams(**params), prompts, streams, length))


def columns(steps: Iterable[Chosen]) -> list[list[int]]:
    """Returns each row's tokens of steps that each have one for every row."""
    return [list(row) for row in zip(*(chosen.tokens for chosen in steps), strict=True)]


def slid(prompt: list[int], length: int) -> list[int]:
    """Returns the greedy tokens, computed without a cache; a full window is halved."""
    context, new = list(prompt), []
    for _ in range(length):
        if len(context) > N_CTX:
            context = context[-(N_CTX // 2) :]
        new += oracle.greedy(ARRAYS, HEADS, context, 1)
        context.append(new[-1])
    return new
