"""Models of the Hub on this machine: fetched by gpt2cli, or in transformers' cache."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError, MissingInputError, shortened
from gpt2cli.files.hub_names import COMMIT, OWNED, HubName
from gpt2cli.storage import huggingface

# What is written beside a model: its commit, and the sizes and hashes of its files.
RECORD = "hub.json"
MOST_RECORD_BYTES = 1_000_000
LONGEST_REF_BYTES = 200


def hub_folder(model_dir: str, hub: HubName) -> Path:
    """Returns where a model of the Hub is, or is to be: in --model-dir, or transformers' cache."""
    folder = hub.folder(model_dir)
    if (folder / huggingface.CONFIG).exists():
        return folder
    return cached_snapshot(hub) or folder


def check_revision(folder: Path, hub: HubName) -> None:
    """Raises BadDataError if a folder holds another revision than is asked for, or says none."""
    if hub.revision is None or folder.parent.name == "snapshots":
        return
    path = folder / RECORD
    facts: dict[str, object] = {}
    if path.exists():
        facts = json_reader.read(path, most=MOST_RECORD_BYTES)
    revision, commit = str(facts.get("revision", "")), str(facts.get("commit", ""))
    if not hub.is_revision(revision, commit):
        held = f"revision {shortened(revision, 60)} (commit {shortened(commit, 40)})"
        raise BadDataError(
            f"{shortened(folder)} holds {held if revision else 'an unknown revision'}, not "
            f"{hub.revision}. Nothing was changed. Move the folder away, or give another "
            f"--model-dir, and run `gpt2cli download {hub.full}`."
        )


def cache_folder() -> Path:
    """Returns where transformers keeps what it has fetched from the Hub."""
    if given := os.environ.get("HF_HUB_CACHE"):
        return Path(given).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{caches}/huggingface"
    return Path(home).expanduser() / "hub"


def cached_snapshot(hub: HubName) -> Path | None:
    """Returns the whole snapshot of a model in transformers' cache, or None."""
    names = [f"{hub.owner}--{hub.name}", *(short for short in OWNED if OWNED[short] == str(hub))]
    for name in names:
        # What cannot be read is fetched, as if it were missing; without a home RuntimeError comes.
        with contextlib.suppress(
            OSError, RuntimeError, ValueError, BadDataError, MissingInputError
        ):
            root = cache_folder() / f"models--{name}"
            ref, commit = root / "refs" / hub.wanted, hub.wanted
            if ref.is_file():
                commit = json_reader.content(ref, LONGEST_REF_BYTES).decode().strip()
            place = root / "snapshots" / commit
            if COMMIT.fullmatch(commit) and is_whole(place):
                return place
    return None


def is_whole(folder: Path) -> bool:
    """Returns whether a folder has every file that a GPT-2 needs, as far as names tell."""
    tokens = huggingface.vocabulary_files(folder)
    weights, index = folder / huggingface.WEIGHTS, folder / huggingface.SHARDS
    sharded = index.is_file() and not weights.is_file()
    needed = huggingface.shard_files(index) if sharded else [weights]
    return all(path.is_file() for path in (folder / huggingface.CONFIG, *tokens, *needed))
