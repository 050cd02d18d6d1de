"""What XLA and Numba have compiled, kept in the user's cache folder: the next start is faster.

Both trust what is there, and run it. So each file is sealed by a checksum when a command
ends well enough to do so; what is not sealed, or damaged, is removed before either looks there.
Wherever something is amiss with the folder, there is no cache, and nothing is said.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gpt2cli.errors import BadDataError
from gpt2cli.files import atomic
from gpt2cli.reading import content
from gpt2cli.runtime import hardware

FLAGS = "TF_XLA_FLAGS"
DIRECTORY_FLAG = "--tf_xla_persistent_cache_directory"
# A GPU by the name of its operations, and by that of its compiler.
DEVICES = "CPU,GPU,XLA_GPU_JIT"
# The file with a program's checksum.
SEAL = ".sha256"
# XLA's programs; Numba's indices and programs.
PROGRAMS = (".pb", ".nbi", ".nbc")
# Nobody else may write what is run.
FOREIGN_WRITERS = stat.S_IWGRP | stat.S_IWOTH
# More than a few models' programs take (bytes); beyond it the oldest go.
MOST_BYTES = 256_000_000
# A disk with less room gets no cache (bytes): XLA gives up if it cannot write.
LEAST_FREE = 256_000_000
# After this, an unfinished file is not the work of a running process (seconds).
ABANDONED_SECONDS = 86_400
# The folders of this process.
PREPARED: list[Path] = []


def enable() -> Path | None:
    """Lets TensorFlow keep what it compiles; returns where, or None if it will not be kept.

    It must be called before TensorFlow loads. A folder that TF_XLA_FLAGS names is left to the user.
    """
    if DIRECTORY_FLAG in os.environ.get(FLAGS, ""):
        return None
    place = private_folder(f"xla-{platform_hash()}")
    if place is None or not prepare_folder(place):
        return None
    kept = f"{DIRECTORY_FLAG}={place} --tf_xla_persistent_cache_device_types={DEVICES}"
    os.environ[FLAGS] = f"{os.environ.get(FLAGS, '')} {kept}".strip()
    return place


def prepare_folder(place: Path) -> bool:
    """Cleans a folder and has it sealed when the command ends; returns whether that can be."""
    with contextlib.suppress(OSError):
        remove_untrusted(place)
        PREPARED.append(place)
        return True
    return False


def private_folder(name: str) -> Path | None:
    """Returns a folder in the user's cache; None if it is not private, or the disk has no room."""
    try:
        place = cache_home() / name
        make_private(place)
        good = is_private(place) and is_writable(place)
        return place if good and shutil.disk_usage(place).free >= LEAST_FREE else None
    # RuntimeError means that the user has no home.
    except (OSError, RuntimeError):
        return None


def is_writable(place: Path) -> bool:
    """Returns whether files can be made in a folder, as far as trying tells."""
    with contextlib.suppress(OSError):
        tempfile.TemporaryFile(dir=place).close()
        return True
    return False


def compiled_programs(place: Path) -> Iterator[Path]:
    """Yields all programs in a folder and below it."""
    return (path for path in place.rglob("*") if path.suffix in PROGRAMS and path.is_file())


def make_private(place: Path) -> None:
    """Makes a folder and those above it, only for their user, whatever the umask says.

    The one above may be of an earlier gpt2cli, which let the umask decide.
    """
    for folder in reversed((place, *place.parents)):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    if place.parent.lstat().st_uid == os.getuid() and not is_private(place.parent):
        place.parent.chmod(0o700)


def is_private(folder: Path) -> bool:
    """Returns whether a folder is the user's, no link, and nobody else may write to it."""
    facts = folder.lstat()
    return (
        stat.S_ISDIR(facts.st_mode)
        and facts.st_uid == os.getuid()
        and not facts.st_mode & FOREIGN_WRITERS
    )


def cache_home() -> Path:
    """Returns the folder of all that is kept; raises RuntimeError if the user has no home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".cache"
        # Some users have a home that is not there; it is not ours to make.
        if not base.parent.is_dir():
            raise RuntimeError(f"{base.parent} is not a folder")
    return base / "gpt2cli"


def platform_hash() -> str:
    """Returns a hash of what a compiled program depends on beside itself."""
    spec = importlib.util.find_spec("tensorflow")
    origin = Path(spec.origin) if spec and spec.origin else Path()
    facts = [str(origin), origin.stat().st_mtime_ns, platform.machine(), cpu_flags()]
    facts += [os.environ.get(name) for name in (FLAGS, "XLA_FLAGS")]
    facts += hardware.gpu_models()
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def cpu_flags() -> str:
    """Returns what the processor can do, if Linux says it."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return platform.processor()


def remove_untrusted(place: Path) -> None:
    """Removes what is not sealed or damaged, and the oldest of what is too much."""
    kept = 0
    for path in list(place.rglob("*")):
        # A pipe, a link or the like under a program's name.
        if path.suffix in PROGRAMS and not stat.S_ISREG(path.lstat().st_mode):
            atomic.remove(path)
    for path in sorted(compiled_programs(place), key=lambda path: -path.stat().st_mtime):
        kept += path.stat().st_size
        if kept > MOST_BYTES or not is_sealed(path):
            atomic.remove(path)
    for path in [path for path in place.rglob("*") if not path.is_dir()]:
        old = time.time() - path.stat().st_mtime > ABANDONED_SECONDS
        lonely = path.suffix == SEAL and not path.with_suffix("").exists()
        if lonely or (old and path.suffix not in (*PROGRAMS, SEAL)):
            atomic.remove(path)


def is_sealed(path: Path) -> bool:
    """Returns whether a file is what it was when it was sealed."""
    with contextlib.suppress(FileNotFoundError, BadDataError):
        return content(path.with_name(path.name + SEAL)) == checksum(path).encode()
    return False


@atexit.register
def seal_prepared() -> None:
    """Seals what has come in the folders of this process; it is called when the process ends."""
    for place in PREPARED:
        seal(place)


def seal(place: Path) -> None:
    """Seals the programs that have come; if that cannot be done, they will not be used again."""
    with contextlib.suppress(OSError, BadDataError):
        for path in compiled_programs(place):
            mark = path.with_name(path.name + SEAL)
            # Numba writes its indices anew; what is older than its seal stays as it was sealed.
            if not os.path.lexists(mark) or mark.lstat().st_mtime_ns < path.stat().st_mtime_ns:
                mark.write_text(checksum(path), encoding="utf-8")


def checksum(path: Path) -> str:
    """Returns a file's checksum."""
    return hashlib.sha256(content(path)).hexdigest()
