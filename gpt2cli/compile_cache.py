"""What XLA has compiled, kept in the user's cache folder, so that the next command starts faster.

TensorFlow trusts what lies there, and runs it. So each file is sealed by a checksum when a command
ends well enough to do so; what is not sealed, or damaged, is removed before TensorFlow loads.
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
import time
from pathlib import Path

from gpt2cli.errors import BadDataError
from gpt2cli.reading import content

FLAGS = "TF_XLA_FLAGS"
DIRECTORY_FLAG = "--tf_xla_persistent_cache_directory"
SEAL = ".sha256"
# More than a few models' programs take (bytes); beyond it the oldest go.
MOST_BYTES = 256_000_000
# A disk with less room gets no cache (bytes): XLA gives up where it cannot write.
LEAST_FREE = 256_000_000
# After this, a file that is not whole is no other process's work (seconds).
ABANDONED_SECONDS = 86_400


def enable() -> Path | None:
    """Lets TensorFlow keep what it compiles; returns where, or None where it will not be kept.

    It must be called before TensorFlow loads. A folder that TF_XLA_FLAGS names is left to the user.
    """
    if DIRECTORY_FLAG in os.environ.get(FLAGS, ""):
        return None
    place = private(f"xla-{fingerprint()}")
    if place is None:
        return None
    try:
        clean(place)
    except OSError:
        return None
    kept = f"{DIRECTORY_FLAG}={place} --tf_xla_persistent_cache_device_types=CPU"
    os.environ[FLAGS] = f"{os.environ.get(FLAGS, '')} {kept}".strip()
    atexit.register(seal, place)
    return place


def private(name: str) -> Path | None:
    """Returns a folder of the user's own for what is kept from one command to the next.

    Args:
        name: the folder's, among ours in the user's cache.

    Returns:
        None where there can be none, or the disk has no room.
    """
    try:
        place = home() / name
        make_private(place)
        if not is_private(place) or shutil.disk_usage(place).free < LEAST_FREE:
            return None
    # RuntimeError is what there is to know where a user has no home.
    except (OSError, RuntimeError):
        return None
    return place


def make_private(place: Path) -> None:
    """Makes a folder and those above it, for their user alone whatever the umask says.

    The one above may be of an earlier gpt2cli, which let the umask decide.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    for folder in reversed((place, *place.parents)):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    if place.parent.lstat().st_uid == os.getuid() and not is_private(place.parent):
        place.parent.chmod(0o700)


def is_private(folder: Path) -> bool:
    """Returns whether a folder is the user's, no link, and nobody else may write to it."""
    facts = folder.lstat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & others
    )


def home() -> Path:
    """Returns where all lies that is kept.

    Raises:
        RuntimeError: the user has no home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".cache"
        # Some users have a home that is not there; it is not ours to make.
        if not base.parent.is_dir():
            raise RuntimeError(f"{base.parent} is no folder")
    return base / "gpt2cli"


def fingerprint() -> str:
    """Returns a hash of what a compiled program depends on beside itself."""
    spec = importlib.util.find_spec("tensorflow")
    origin = Path(spec.origin) if spec and spec.origin else Path()
    facts = [str(origin), origin.stat().st_mtime_ns, platform.machine(), processor()]
    facts += [os.environ.get(name) for name in (FLAGS, "XLA_FLAGS")]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def processor() -> str:
    """Returns what the processor can do, where Linux tells it."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return platform.processor()


def clean(place: Path) -> None:
    """Removes what is not sealed or damaged, and the oldest of what is too much.

    Raises:
        OSError: it cannot be removed.
    """
    kept = 0
    for path in sorted(place.glob("*.pb"), key=lambda path: -path.stat().st_mtime):
        kept += path.stat().st_size
        if kept > MOST_BYTES or not is_sealed(path):
            path.unlink()
    for path in place.iterdir():
        old = time.time() - path.stat().st_mtime > ABANDONED_SECONDS
        lonely = path.suffix == SEAL and not path.with_suffix("").exists()
        if lonely or (old and path.suffix not in (".pb", SEAL)):
            path.unlink()


def is_sealed(path: Path) -> bool:
    """Returns whether a file is what it was when it was sealed."""
    try:
        return content(seal_of(path)) == digest(path).encode()
    except (FileNotFoundError, BadDataError):
        return False


def seal(place: Path) -> None:
    """Seals the programs that have come; where that cannot be done, they will not be used again."""
    with contextlib.suppress(OSError, BadDataError):
        for path in place.glob("*.pb"):
            if not os.path.lexists(seal_of(path)):
                seal_of(path).write_text(digest(path), encoding="utf-8")


def seal_of(path: Path) -> Path:
    """Returns the file with a program's checksum."""
    return path.with_name(path.name + SEAL)


def digest(path: Path) -> str:
    """Returns a file's checksum."""
    return hashlib.sha256(content(path)).hexdigest()
