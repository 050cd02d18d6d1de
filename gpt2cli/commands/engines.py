"""The model in an engine, for the commands that write with it or score by it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from functools import partial

from gpt2cli.config.chat import ChatConfig
from gpt2cli.config.evaluate import EvaluateConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.config.tokens import TokensConfig
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.load import EngineParams, load_engine
from gpt2cli.progress import announced
from gpt2cli.records import Record
from gpt2cli.runtime import tensorflow
from gpt2cli.storage.source import CheckpointSource, SourceNames, load
from gpt2cli.training import out_of_memory

LEANER, SINGLE = "Try a lower --batch-size, or --precision bfloat16.", "Try --precision bfloat16."


def engine_of(
    config: GenerateConfig | ChatConfig | EvaluateConfig | TokensConfig,
    names: SourceNames,
    source: CheckpointSource,
    stack: contextlib.ExitStack,
    *,
    many_rows: bool = True,
) -> Generator[Record, None, Engine]:
    """Returns the model, loaded; until the stack ends, memory that runs out is explained."""
    params = EngineParams(
        device=config.device,
        precision=config.precision,
        gpu_bytes=config.gpu_bytes,
        xla=config.xla,
    )
    remedy = LEANER if isinstance(config, GenerateConfig) else SINGLE
    line = f"loading {source.prefix}"
    if params.needs_tensorflow:
        with announced(line, quiet=config.quiet):
            tensorflow.load(verbose=config.verbose, keep_compiled=config.xla)
    stack.enter_context(out_of_memory.explained(config.device, config.gpu_bytes, remedy=remedy))
    read = partial(load_engine, params=params, many_rows=many_rows)
    with announced(line, quiet=config.quiet):
        return (yield from load(names, source, read))
