"""The variables of a run: its weights; if adapters are trained, those beside frozen weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from gpt2cli.arrays import DType, Tensor, Weights
from gpt2cli.files import atomic, paths
from gpt2cli.hparams import LORA_SCALE, HParams
from gpt2cli.network import gpt2, lora
from gpt2cli.storage import bundle, bundle_writer, checkpoint, huggingface, run
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.storage.state import State


def load(
    start: CheckpointSource, state: State, folder: Path, frozen: DType, *, writes: bool = True
) -> tuple[Weights, Weights]:
    """Returns the variables that a run computes with, by name, and those that it saves.

    The weights that adapters are trained beside are held in the frozen type, and put into the run
    folder if this process writes.

    Raises:
        BadDataError: a checkpoint is damaged.
        OutputError, DiskError: the run folder cannot be written to.
    """
    hparams = start.hparams
    if start.prefix is None:
        weights = gpt2.to_variables(gpt2.initial_weights(hparams, state.seed))
        return weights, weights
    if not state.lora_rank:
        weights = gpt2.to_variables(checkpoint.load(start.prefix, hparams.shapes()))
        return weights, weights
    source = folder / paths.BASE
    if start.state is not None and start.state.lora_rank:
        adapters = checkpoint.load(start.prefix, hparams.lora_shapes(state.lora_rank))
    else:
        if writes:
            place_base(folder, start.prefix, hparams)
        else:
            source = start.prefix
        adapters = lora.new_adapters(hparams, state.lora_rank, state.lora_alpha, state.seed)
    base = checkpoint.load(source, hparams.shapes())
    saved = gpt2.to_variables(adapters)
    return held(base, frozen) | saved, saved


def held(arrays: Iterable[tuple[str, Tensor]], kind: DType) -> dict[str, Tensor]:
    """Returns variables that are not trained; matrices and embeddings are of the given type."""
    cast = ((n, tf.cast(a, kind if len(a.shape) > 1 else tf.float32)) for n, a in arrays)
    return gpt2.to_variables(cast, trainable=False)


def place_base(folder: Path, prefix: Path, hparams: HParams) -> None:
    """Puts a checkpoint's weights into a run folder, for adapters to be trained beside them."""
    with atomic.disk_errors(folder):
        if huggingface.is_weights(prefix) or LORA_SCALE in bundle.read_index(prefix)[0]:
            aside = folder / paths.SAVING / paths.BASE
            atomic.empty_folder(aside.parent)
            bundle_writer.write(aside, checkpoint.load(prefix, hparams.shapes()))
            prefix = aside
        run.place_base(folder, prefix)
        run.clean_up(folder)
