"""What a run says of itself, first and last."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator
from pathlib import Path

from gpt2cli.records import Alert, Notice, Record, StepReport
from gpt2cli.storage import run_log
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.storage.state import State
from gpt2cli.text.dataset import Data


def what_is_safe(step: int) -> str:
    """Returns what a command that is stopped after a step has to say."""
    done = f"Step {step} is saved" if step else "No step was done yet"
    return f"{done}; the same command goes on from there."


def opening(
    folder: Path, start: CheckpointSource, state: State, data: Data, trained: int
) -> Iterator[Record]:
    """Yields the lines that tell what is about to be trained, from where, and on what."""
    last = run_log.last_step(folder)
    if start.state and last > start.step:
        # A process trained them, and could not save them.
        yield Alert(f"Steps {start.step + 1} to {last} were not saved; they are trained again.")
    weights = f"{start.hparams.count():,} weights of {start.model_name}"
    if start.prefix is None:
        yield Notice(f"from scratch: {weights}, random, seed {state.seed}")
    else:
        yield Notice(f"from {start.prefix}: {weights}, step {start.step}, seed {state.seed}")
    if state.lora_rank:
        what = f"adapters of rank {state.lora_rank}, alpha {state.lora_alpha:g}"
        yield Notice(f"training: {trained:,} weights of {what}; the others stay as they are")
    elif trained < start.hparams.count():
        yield Notice(f"training: {trained:,} of the weights")
    if start.step and (start.state is None or start.state.optimizer != state.optimizer):
        which = f"the optimiser is {state.optimizer} now" if start.state else "it was not saved"
        yield Alert(f"This run has no optimiser state ({which}); its averages begin at zero.")
    beside = f", and {data.held_out_tokens:,} held out" if data.held_out_tokens else ""
    yield Notice(f"corpus: {len(data.tokens):,} tokens{beside}")
    if start.state and start.state.corpus != state.corpus:
        yield Notice("The corpus is another one than before; a new epoch begins.")


def closing(folder: Path, first: StepReport, state: State, seconds: float) -> Iterator[str]:
    """Yields what came of a training that ended by itself, after this process's seconds of it."""
    count, took = state.step - first.step + 1, datetime.timedelta(seconds=round(seconds))
    lowest, best = state.lowest
    told = f"{count:,} step{'s' if count > 1 else ''} in {took}: loss {first.loss:.2f} at step "
    told += f"{first.step}, {state.average:.2f} on average now"
    yield told + (f"; best validation {best:.4f} at step {lowest}" if best is not None else "")
    where = f" --checkpoint-dir {shlex.quote(str(folder.parent))}"
    where = "" if folder.parent == Path("checkpoint") else where
    yield f"next: gpt2cli generate --run-name {shlex.quote(folder.name)}{where}"
