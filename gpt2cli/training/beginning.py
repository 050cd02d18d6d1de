"""How a run begins or goes on: its state, its adapters, and whether it has all its steps."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from pathlib import Path

from gpt2cli.chat_template import CHAT_TEMPLATE
from gpt2cli.errors import BadDataError, UsageError
from gpt2cli.files import paths
from gpt2cli.storage import run_log
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.storage.state import State
from gpt2cli.text.dataset import Data
from gpt2cli.text.tokenizer import Tokenizer
from gpt2cli.training.schedule import is_due

SEED_BITS = 32
HASHED_BYTES = 1 << 24


def is_done(
    start: CheckpointSource, until: int | None, folder: Path, *, val_every: int, sample_every: int
) -> bool:
    """Returns whether the run has all the steps that are asked for, their validation and samples.

    It lacks these if a signal stopped it after its last step.
    """
    if until is None or start.step < until:
        return False
    state = start.state
    if start.step > until or state is None:
        return True
    owes_validation = val_every and state.held_out and state.val_step != state.step
    return not (owes_validation or owes_samples(folder, state.step, sample_every))


def check_lengths(prefix: str, window: int | None, tokenizer: Tokenizer, n_ctx: int) -> None:
    """Raises UsageError if the window or the samples' prefix is longer than the model's window."""
    if window is not None and window > n_ctx:
        raise UsageError(f"--window {window} is more than the model's n_ctx, {n_ctx}.")
    count = len(tokenizer.encode(prefix, special=True))
    if count > n_ctx:
        raise UsageError(f"--sample-prefix has {count} tokens; the window holds {n_ctx}.")


def first_state(start: CheckpointSource, rank: int | None, alpha: float | None) -> State:
    """Returns where the run is: as it was saved, or at its beginning, with adapters as asked for.

    Raises:
        BadDataError: the run's adapters are others.
        UsageError: --lora-alpha is given without --lora-rank.
    """
    state = start.state or State(
        step=start.step, seed=secrets.randbits(SEED_BITS), model_name=start.model_name
    )
    if not start.step:
        if alpha is not None and not rank:
            raise UsageError("--lora-alpha is of adapters; give --lora-rank too.")
        scaled = float(2 * (rank or 0) if alpha is None else alpha)
        return dataclasses.replace(state, lora_rank=rank or 0, lora_alpha=scaled)
    if rank not in (None, state.lora_rank) or alpha not in (None, state.lora_alpha):
        options = f"--lora-rank {state.lora_rank} --lora-alpha {state.lora_alpha:g}"
        known = f"with {options}" if state.lora_rank else "in full"
        raise BadDataError(
            f"The run {start.folder} was trained {known}. To train adapters of other settings "
            f"beside its weights, give another --run-name and --restore-from {start.folder}."
        )
    return state


def on_corpus(
    state: State, start: CheckpointSource, data: Data, *, seed: int | None, optimizer: str
) -> State:
    """Returns where the run is with what it trains on now; a new corpus begins anew.

    The seed is as asked for; None: the state's.
    """
    return dataclasses.replace(
        state,
        seed=state.seed if seed is None else seed,
        corpus=data.name,
        windows=state.windows if state.corpus == data.name else 0,
        optimizer=optimizer,
        chat_template=CHAT_TEMPLATE if data.has_conversations else start.chat_template,
    )


def origin(start: CheckpointSource) -> str:
    """Returns a hash that is the same if training starts from the same weights at one step."""
    digest = hashlib.sha256(repr((start.step, start.hparams, start.state)).encode())
    if start.prefix is not None:
        index = paths.index_file(start.prefix)
        # The index has the checksums of all weights; in Hugging Face's form their beginning does.
        with (index if index.exists() else start.prefix).open("rb") as file:
            digest.update(file.read(HASHED_BYTES))
    return digest.hexdigest()[:16]


def owes_samples(folder: Path, step: int, every: int) -> bool:
    """Returns whether a step's samples are due, and not yet in the run folder."""
    return step > 0 and is_due(step, every) and not run_log.samples_file(folder, step).exists()
