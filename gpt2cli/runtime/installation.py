"""How to install an extra of this package, in the way in which the package itself is installed."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from urllib.parse import unquote, urlsplit

PACKAGE = "gpt2cli"


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
