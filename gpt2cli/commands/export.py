"""`gpt2cli export`: a run or a base model in, another program's format out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from gpt2cli import vocabulary
from gpt2cli.commands.engines import found_model
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.shared import SourceOptions
from gpt2cli.errors import BadDataError, UsageError
from gpt2cli.files import atomic, paths
from gpt2cli.files.exports import check_free, output, size_of
from gpt2cli.files.hub_names import model_label
from gpt2cli.formats import archive, gguf
from gpt2cli.formats.model import Model, write_model
from gpt2cli.hparams import HParams
from gpt2cli.progress import Bar, announced, portion
from gpt2cli.records import Alert, Exported, Notice, Record
from gpt2cli.runtime import tensorflow
from gpt2cli.runtime.installation import install_command
from gpt2cli.storage import run_log
from gpt2cli.storage.source import CheckpointSource, load
from gpt2cli.storage.state import State, read_state

# Formats that need TensorFlow.
NEED_TENSORFLOW = ("openai", "savedmodel")
WEIGHT_BYTES = {"float32": 4, "float16": 2, "q8_0": 1.0625}


def export(config: ExportConfig) -> Iterator[Record]:
    """Yields what was exported; all is checked before TensorFlow loads.

    Raises UsageError if the format does not fit the precision or lacks its library,
    MissingInputError or BadDataError if the weights are missing or damaged, and OutputError or
    DiskError if the destination exists or cannot be written to.
    """
    destination = Path(config.destination)
    if config.kind == "gguf" and find_spec("gguf") is None:
        raise UsageError(f"--format gguf needs the library gguf: `{install_command('export')}`.")
    check_free(destination, overwrite=config.overwrite, spare=[Path.cwd()])
    model = yield from found_model(config.part(SourceOptions))
    start = model.source
    check_free(destination, overwrite=config.overwrite, spare=[start.folder])
    if config.kind == "gguf":
        gguf.check_precision(start.hparams, config.precision)
    if config.kind == "tar":
        archive.check_packable(start.folder)
    yield from map(Alert, start.remarks())
    yield Notice(f"from {start.prefix}")
    with output(destination, overwrite=config.overwrite) as aside:
        atomic.need_room(destination, room(config, start))
        if config.kind in NEED_TENSORFLOW:
            with announced("loading TensorFlow", quiet=config.quiet):
                tensorflow.load(verbose=config.verbose)
        yield from load(model.names, start, partial(write_aside, config, start, aside))
        size = size_of(aside)
    yield Exported(path=config.destination, kind=config.kind, precision=config.precision, size=size)


def room(config: ExportConfig, start: CheckpointSource) -> int:
    """Returns what the export will take on the disk, or a little less (bytes)."""
    if config.kind == "tar" and start.prefix:
        sizes = 0
        for path in archive.members(start.folder, start.prefix):
            # What has no checkpoint any more is found when it is read.
            with contextlib.suppress(FileNotFoundError):
                sizes += path.stat().st_size
        return sizes
    return int(start.hparams.count() * WEIGHT_BYTES[config.precision])


def write_aside(
    config: ExportConfig, start: CheckpointSource, aside: Path, prefix: Path, hparams: HParams
) -> None:
    """Writes a checkpoint aside, in the format asked for; raises BadDataError if it is damaged."""
    state = state_of(prefix)
    with bar(config) as advance:
        model = Model(
            name=model_label(start.model_name),
            folder=start.folder,
            prefix=prefix,
            hparams=hparams,
            vocabulary=vocabulary.read_vocabulary(*start.vocabulary, hparams.n_vocab),
            precision=config.precision,
            gzipped=config.destination.endswith("gz"),
            state=state,
            chat_template=start.chat_template,
            settings=run_log.read_config(start.folder) if state else {},
            advance=advance,
        )
        write_model(model, aside, config.kind)


@contextlib.contextmanager
def bar(config: ExportConfig) -> Iterator[Callable[[int, int], object]]:
    """Yields what tells how far an export is: on a terminal a bar, else a line now and then."""
    line = f"writing {config.destination}"
    if config.quiet or not sys.stderr.isatty():
        with announced(line, quiet=config.quiet) as told:
            yield lambda done, total: told(f"{line}: {portion(done, total)}")
    else:
        drawn = Bar(line)
        with drawn:
            yield drawn.advance


def state_of(prefix: Path) -> State | None:
    """Returns the state of a checkpoint; None if gpt2cli did not train it."""
    step = paths.step_of(prefix)
    path = paths.state(prefix.parent, step)
    try:
        return read_state(prefix.parent, step) if step and path.exists() else None
    except FileNotFoundError as error:
        raise BadDataError(f"{path} is missing.") from error
