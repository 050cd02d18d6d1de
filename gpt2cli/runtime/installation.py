"""Which extras of this package are installed, and how to install one as the package itself is."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from importlib import metadata
from urllib.parse import unquote, urlsplit

PACKAGE = "gpt2cli"
# Those that users choose; the others are for its tests.
EXTRAS = ("fast", "gpu", "export", "plots")
# A package's name, and the extra that is asked of it.
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[([A-Za-z0-9._-]+)\])?")


def install_command(extra: str) -> str:
    """Returns the command that installs an extra, as `pip install 'gpt2cli[gpu]'`.

    What was not installed from a package index is described by direct_url.json
    (packaging.python.org, "Recording the Direct URL Origin of installed distributions").
    """
    try:
        origin = json.loads(metadata.distribution(PACKAGE).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    url = str(origin.get("url", ""))
    folder = origin.get("dir_info")
    if folder is not None:
        editable = "-e " if folder.get("editable") else ""
        return f"pip install {editable}{shlex.quote(f'{unquote(urlsplit(url).path)}[{extra}]')}"
    if url:
        source = f"{origin['vcs_info']['vcs']}+{url}" if "vcs_info" in origin else url
        return f"pip install {shlex.quote(f'{PACKAGE}[{extra}] @ {source}')}"
    return f"pip install {shlex.quote(f'{PACKAGE}[{extra}]')}"


def extras() -> dict[str, dict[str, str | None]]:
    """Returns the packages of each extra with their versions; None for one that is missing.

    An extra of another package, as `tensorflow[and-cuda]`, stands for that package's own.
    """
    found: dict[str, dict[str, str | None]] = {}
    for extra in EXTRAS:
        names = [name for name, inner in required(PACKAGE, extra) if not inner]
        for name, inner in required(PACKAGE, extra):
            names += [each for each, _ in required(name, inner)] if inner else []
        found[extra] = {name: version_of(name) for name in names}
    return found


def required(package: str, extra: str) -> list[tuple[str, str]]:
    """Returns what an extra of a package needs here: names, and the extras asked of those."""
    found = []
    with contextlib.suppress(metadata.PackageNotFoundError):
        for needed in metadata.requires(package) or []:
            wanted, _, marker = needed.partition(";")
            match = REQUIREMENT.match(wanted)
            asked = re.search(r"extra == ['\"]([^'\"]+)", marker)
            if match and asked and asked[1] == extra:
                found.append((match[1], match[2] or ""))
    return found


def version_of(package: str) -> str | None:
    """Returns the version of a package that is installed, without loading it; else None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
