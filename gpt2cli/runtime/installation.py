"""Which extras of this package are installed, and how to install one as the package itself is."""

from __future__ import annotations

import contextlib
import re
import shlex
from importlib import metadata
from urllib.parse import unquote, urlsplit

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError
from gpt2cli.json_reader import Json

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
        text = metadata.distribution(PACKAGE).read_text("direct_url.json")
        origin: dict[str, Json] = json_reader.parse(text or "{}", "it")
    except (metadata.PackageNotFoundError, ValueError, BadDataError):
        origin = {}
    url, inside = word(origin, "url"), word(origin, "subdirectory")
    if isinstance(folder := origin.get("dir_info"), dict):
        path = f"{unquote(urlsplit(url).path)}{inside and '/' + inside}[{extra}]"
        return f"pip install {'-e ' if folder.get('editable') is True else ''}{shlex.quote(path)}"
    named = f"{PACKAGE}[{extra}]"
    if url:
        tool, revision = (word(origin.get("vcs_info"), k) for k in ("vcs", "requested_revision"))
        source = f"{tool and tool + '+'}{url}{revision and '@' + revision}"
        named += f" @ {source}{inside and '#subdirectory=' + inside}"
    return f"pip install {shlex.quote(named)}"


def word(facts: Json, name: str) -> str:
    """Returns a text among the facts of direct_url.json; empty if there is none."""
    found = facts.get(name) if isinstance(facts, dict) else None
    return found if isinstance(found, str) else ""


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
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None
