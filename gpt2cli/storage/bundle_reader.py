"""The tensors of a checkpoint, read side by side without TensorFlow, their checksums verified."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gpt2cli import reading
from gpt2cli.arrays import Array
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.runtime.hardware import cores
from gpt2cli.storage import bundle, crc32c
from gpt2cli.storage.bundle import Entry

# Each holds a tensor; more threads than this gain little over the disk.
MOST_THREADS = 4


class Reader:
    """The tensors of the checkpoint with a prefix; `entries` says what there is, by name."""

    def __init__(self, prefix: Path) -> None:
        """Reads the index; raises as `bundle.read_index` does."""
        self._prefix = prefix
        self.entries, _ = bundle.read_index(prefix)

    def tensor(self, name: str) -> Array:
        """Returns one tensor; half precision comes as float32.

        Raises BadDataError if the checkpoint is damaged or lacks it, or it is not finite.
        """
        where = shortened(self._prefix)
        if (found := self.entries.get(name)) is None:
            raise BadDataError(f"{where} lacks {shortened(name)}.")
        if found.dtype not in bundle.TYPE_BYTES:
            raise BadDataError(f"{where}: {shortened(name)} is {found.dtype}.")
        try:
            content = read_bytes(found)
        except OSError as error:
            if error.errno not in reading.DAMAGE:
                raise reading.refusal(error, found.file) from error
            damage = f"{found.file}: {error.strerror}"
            raise BadDataError(f"{self._prefix} is damaged: {damage}.") from error
        if len(content) < found.size or crc32c.masked(content.data) != found.crc:
            damage = f"its checksum is not that of {found.file.name}"
            raise BadDataError(f"{self._prefix} is damaged at {name}: {damage}.")
        array = typed(content, found)
        check_finite(array, found.file, name)
        return array

    def tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Array]]:
        """Yields named tensors in their order, as `tensor` does; the next are read meanwhile."""
        threads = min(cores(), MOST_THREADS)
        ahead: deque[Future[tuple[str, Array]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for name in names:
                ahead.append(pool.submit(lambda name: (name, self.tensor(name)), name))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()


def read_bytes(entry: Entry) -> Array:
    """Returns a tensor's bytes as its file has them, uint8; fewer if the file is cut short."""
    with reading.opened(entry.file) as file:
        # What the file has not must not be made room for.
        there = max(os.fstat(file.fileno()).st_size - entry.offset, 0)
        file.seek(min(entry.offset, sys.maxsize))
        return np.fromfile(file, np.uint8, min(entry.size, there))


def typed(content: Array, entry: Entry) -> Array:
    """Returns bytes (uint8) as the tensor that they are; half precision comes as float32."""
    if entry.dtype == "bfloat16":
        # The upper half of a float32.
        return (content.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(entry.shape)
    array = content.view(np.dtype(entry.dtype).newbyteorder("<")).reshape(entry.shape)
    return array.astype(np.float32) if entry.dtype == "float16" else array


def single(array: Array) -> Array:
    """Returns a tensor as float32; what that cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def check_finite(array: Array, path: Path, name: str) -> None:
    """Raises BadDataError if a tensor holds NaN or infinity."""
    if array.dtype.kind != "f":
        return
    # One sum tells nearly always; it takes a small part of the time that reading takes.
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()
    if np.isfinite(total) or np.isfinite(array).all():
        return
    kind = "NaN" if np.isnan(array).any() else "infinity"
    raise BadDataError(
        f"{shortened(path)}: the weight {shortened(name)} holds {kind}, from which nothing can be "
        "computed. Take another checkpoint, or get the file again."
    )
