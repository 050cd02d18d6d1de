"""What a run is about to do: where it is, when it ends, and what it reports first."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import secrets
from collections.abc import Iterator
from pathlib import Path

from gpt2cli.config.finetune import DEFAULT_STEPS, FinetuneConfig
from gpt2cli.distributed import cluster, rendezvous
from gpt2cli.errors import BadDataError, UsageError
from gpt2cli.files import paths
from gpt2cli.records import Alert, Notice, Record
from gpt2cli.storage import run_log
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.storage.state import State
from gpt2cli.text import dataset
from gpt2cli.text.tokenizer import Tokenizer, check_fits
from gpt2cli.training import memory

SEED_BITS = 32
HASHED_BYTES = 1 << 24


def last_step(config: FinetuneConfig, state: State, per_epoch: int) -> int | None:
    """Returns the step at which training ends, or None if only a signal ends it."""
    if config.until_step is not None:
        return config.until_step
    if config.epochs is not None:
        left = config.epochs * per_epoch - state.windows
        return state.step + max(
            0, math.ceil(left / (config.batch_size * config.accumulate_gradients))
        )
    if config.steps == -1:
        return None
    return state.step + (DEFAULT_STEPS if config.steps is None else config.steps)


def is_done(config: FinetuneConfig, start: CheckpointSource) -> bool:
    """Returns whether the run has all the steps that are asked for, and their validation.

    It lacks that if a signal stopped it after its last step.
    """
    if config.until_step is None or start.step < config.until_step:
        return False
    state = start.state
    owes = state is not None and state.held_out and state.val_step != state.step
    return start.step > config.until_step or not (owes and config.val_every)


def keep_best(folder: Path, start: CheckpointSource) -> None:
    """Writes the best.json of a run that was killed before it could."""
    step, loss = start.state.lowest if start.state else (0, None)
    if loss is not None:
        run_log.write_best(folder, step, loss)


def what_is_safe(step: int) -> str:
    """Returns what a command that is stopped after a step has to say."""
    done = f"Step {step} is saved" if step else "No step was done yet"
    return f"{done}; the same command goes on from there."


def check_settings(config: FinetuneConfig, start: CheckpointSource, tokenizer: Tokenizer) -> int:
    """Returns the window; checks what the options and the model ask of each other.

    Raises:
        UsageError: an option asks for more than the model has.
        BadDataError: the vocabulary does not fit the model.
    """
    hparams = start.hparams
    check_fits(tokenizer, hparams)
    window = config.window or hparams.n_ctx
    if window > hparams.n_ctx:
        raise UsageError(f"--window {window} is more than the model's n_ctx, {hparams.n_ctx}.")
    prefix = len(tokenizer.encode(config.sample_prefix, special=True))
    if prefix > hparams.n_ctx:
        raise UsageError(f"--sample-prefix has {prefix} tokens; the window holds {hparams.n_ctx}.")
    return window


def check_divisible(batch_size: int, count: int) -> None:
    """Raises UsageError unless a micro-batch can be shared evenly by `count` devices."""
    if batch_size % count:
        lower, upper = batch_size // count * count, (batch_size // count + 1) * count
        fits = f"{lower} or {upper}" if lower else str(upper)
        raise UsageError(
            f"--batch-size {batch_size} cannot be shared by {count} devices; give {fits}."
        )


def first_state(
    config: FinetuneConfig, start: CheckpointSource, name: str, chat_template: str
) -> State:
    """Returns where the run is: as it was saved, or at its beginning; a new corpus begins anew.

    Args:
        config: the settings.
        start: where the weights come from.
        name: identifies the corpus.
        chat_template: how the run knows conversations, in Jinja; or empty.

    Raises:
        BadDataError: the run's adapters are others than those that are asked for.
        UsageError: --lora-alpha is given without --lora-rank.
    """
    state = start.state or State(
        step=start.step, seed=secrets.randbits(SEED_BITS), model_name=start.model_name
    )
    seed = state.seed if config.seed is None else config.seed
    rank, alpha = adapters(config, start)
    state = dataclasses.replace(
        state,
        seed=seed,
        optimizer=config.optimizer,
        lora_rank=rank,
        lora_alpha=alpha,
        chat_template=chat_template,
    )
    if state.corpus == name:
        return state
    return dataclasses.replace(state, corpus=name, windows=0)


def adapters(config: FinetuneConfig, start: CheckpointSource) -> tuple[int, float]:
    """Returns rank and alpha of the adapters to train; both 0 if the weights are trained.

    Raises:
        BadDataError: the run's are others than those that are asked for.
        UsageError: --lora-alpha is given without --lora-rank.
    """
    if not start.step:
        rank = config.lora_rank or 0
        if config.lora_alpha is not None and not rank:
            raise UsageError("--lora-alpha is of adapters; give --lora-rank too.")
        return rank, float(2 * rank if config.lora_alpha is None else config.lora_alpha)
    rank, alpha = (start.state.lora_rank, start.state.lora_alpha) if start.state else (0, 0.0)
    if config.lora_rank not in (None, rank) or config.lora_alpha not in (None, alpha):
        known = f"with --lora-rank {rank} --lora-alpha {alpha:g}" if rank else "in full"
        raise BadDataError(
            f"The run {start.folder} was trained {known}. To train adapters of other settings "
            f"beside its weights, give another --run-name and --restore-from {start.folder}."
        )
    return rank, alpha


def is_frugal(config: FinetuneConfig, state: State) -> bool:
    """Returns whether the settings ask for memory to be saved before time."""
    return config.use_memory_saving_gradients or state.lora_rank > 0


def origin(start: CheckpointSource) -> str:
    """Returns a hash that is the same if training starts from the same weights at one step."""
    digest = hashlib.sha256(repr((start.step, start.hparams, start.state)).encode())
    if start.prefix is not None:
        index = paths.index_file(start.prefix)
        # The index has the checksums of all weights; in Hugging Face's form their beginning does.
        with (index if index.exists() else start.prefix).open("rb") as file:
            digest.update(file.read(HASHED_BYTES))
    return digest.hexdigest()[:16]


def met(
    together: cluster.Cluster | None,
    config: FinetuneConfig,
    start: CheckpointSource,
    state: State,
    encoded: dataset.Data,
) -> tuple[State, rendezvous.Line | None]:
    """Waits for the other processes; returns the state with the seed that all take, and the line.

    In a single process it is the state as it is, and no line.

    Raises:
        BadDataError: they are not about to train the same.
        TryLaterError: not all come.
    """
    if together is None:
        return state, None
    same = cluster.facts(
        config,
        corpus=encoded.name,
        validation=encoded.held_out_name,
        start=origin(start),
        devices=memory.devices(config.device),
    )
    line = rendezvous.meet(together, same, state.seed, config.wait_minutes)
    return dataclasses.replace(state, seed=line.seed), line


def repeated(folder: Path, start: CheckpointSource) -> Iterator[str]:
    """Yields a line on the steps that a process trained and could not save."""
    last = run_log.last_step(folder)
    if start.state and last > start.step:
        yield f"Steps {start.step + 1} to {last} were not saved; they are trained again."


def opening(
    start: CheckpointSource, state: State, encoded: dataset.Data, trained: int
) -> Iterator[Record]:
    """Yields the lines that tell what is about to be trained, from where, and on what."""
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
    beside = f", and {encoded.held_out_tokens:,} held out" if encoded.held_out_tokens else ""
    yield Notice(f"corpus: {len(encoded.tokens):,} tokens{beside}")
    if start.state and start.state.corpus != state.corpus:
        yield Notice("The corpus is another one than before; a new epoch begins.")
