"""A tar of a run or a model folder, with everything that is needed to go on with it elsewhere."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path
from typing import IO, Any, cast

from tqdm.utils import CallbackIOWrapper

from gpt2cli import json_reader, reading
from gpt2cli.errors import BadDataError, UsageError
from gpt2cli.files import atomic, exports, paths
from gpt2cli.formats.model import Model
from gpt2cli.storage import huggingface, recovery, run_log

# Weights hardly shrink, however hard one tries.
GZIP_LEVEL = 1
MODE = 0o644


def check_packable(folder: Path) -> None:
    """Checks that a folder is of the kind that is packed; raises UsageError if it is not."""
    if huggingface.is_folder(folder):
        raise UsageError(
            f"--format tar packs runs and OpenAI's model folders, and {folder} is neither; "
            "--format openai makes a model folder of it."
        )


def write_archive(model: Model, path: Path) -> None:
    """Writes an archive that unpacks to where gpt2cli looks: `checkpoint/RUN` or `models/MODEL`."""
    step = paths.step_of(model.prefix)
    if step:
        recovery.verify(model.folder, model.prefix, resume=True)
    place = f"{'checkpoint' if step else 'models'}/{model.folder.resolve().name}"
    with contextlib.ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}
        try:
            # All are opened before the first is read: a run that goes on may remove them.
            for file in members(model.folder, model.prefix):
                files[file.name] = stack.enter_context(reading.opened(file))
        except FileNotFoundError as error:
            raise BadDataError(f"{error.filename} is missing.") from error
        except OSError as error:
            # What is read is not what cannot be written.
            raise reading.refusal(error, model.folder) from error
        index = paths.index_file(model.prefix)
        if index.name not in files:
            # It was there when the checkpoint was verified, and is the first to go.
            raise BadDataError(f"{index} is missing.")
        moment = max(os.fstat(file.fileno()).st_mtime for file in files.values())
        files |= written(model.folder, model.prefix, step)
        atomic.before("write", path)
        options: dict[str, Any] = {"compresslevel": GZIP_LEVEL} if model.gzipped else {}
        options["pax_headers"] = {"comment": exports.WORD.decode()}
        archive = stack.enter_context(
            tarfile.open(path, "x:gz" if model.gzipped else "x", **options)
        )
        entries = {name: entry(f"{place}/{name}", files[name], moment) for name in files}
        total, done = sum(each.size for each in entries.values()), 0

        def count(size: int) -> None:
            """Says how far the archive is."""
            nonlocal done
            done += size
            model.advance(done, total)

        for name, opened in files.items():
            archive.addfile(entries[name], cast(IO[bytes], CallbackIOWrapper(count, opened)))


def members(folder: Path, prefix: Path) -> list[Path]:
    """Returns the files that a checkpoint consists of, and those that belong to all checkpoints."""
    static, others = [folder / name for name in paths.STATIC_FILES], [folder / paths.TOKENS]
    own = sorted(prefix.parent.glob(f"{prefix.name}.*"))
    if step := paths.step_of(prefix):
        others += [*sorted(folder.glob(f"{paths.BASE}.*")), folder / run_log.CONFIG]
        own = paths.files_by_step(prefix.parent).get(step, [])
    return [*static, *(path for path in others if path.exists()), *own]


def written(folder: Path, prefix: Path, step: int) -> dict[str, IO[bytes]]:
    """Returns the files that differ in the archive, since it holds only one checkpoint."""
    files = {paths.POINTER: paths.pointer_text(prefix.name)}
    if step:
        files[paths.COUNTER] = f"{step}\n"
        files[run_log.LOG] = "".join(log_until(folder, step))
        with contextlib.suppress(FileNotFoundError):
            if run_log.best_step(folder) == step:
                files[run_log.BEST] = reading.content(folder / run_log.BEST).decode()
    return {name: io.BytesIO(text.encode()) for name, text in files.items() if text}


def log_until(folder: Path, step: int) -> list[str]:
    """Returns the lines of a run's log up to a step; what can't be read is left out."""
    lines = []
    for line in run_log.log_lines(folder):
        with contextlib.suppress(BadDataError, TypeError, UnicodeDecodeError):
            if json_reader.parse(line, run_log.LOG).get("step", 0) <= step:
                lines.append(line.decode())
    return lines


def entry(name: str, opened: IO[bytes], moment: float) -> tarfile.TarInfo:
    """Returns what the archive says of a file: its name, size and time, not whose it is."""
    info = tarfile.TarInfo(name)
    info.mtime = int(moment)
    info.size = opened.seek(0, io.SEEK_END)
    opened.seek(0)
    info.mode = MODE
    return info
