"""The folder of a base model: fetched, brought from elsewhere, or in transformers' cache."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError, MissingInputError, shortened
from gpt2cli.files import paths
from gpt2cli.files.hub_names import COMMIT, OWNED, HubName, model_label
from gpt2cli.reading import content, needed
from gpt2cli.storage import huggingface

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
# What is written beside a model from the Hub: its commit, and the sizes and hashes of its files.
RECORD = "hub.json"
MOST_RECORD_BYTES = 1_000_000
LONGEST_REF_BYTES = 200


def first_file(folder: Path) -> Path:
    """Returns the file of a model folder that names its weights, or that is read before them."""
    return folder / (huggingface.CONFIG if huggingface.is_folder(folder) else paths.POINTER)


def present(folder: Path) -> Path:
    """Returns where in a model's folder its files are; MissingInputError if it is not there."""
    if folder.is_dir():
        return opened(folder)
    where = shortened(folder)
    if folder.name.lower().endswith(ARCHIVES):
        raise MissingInputError(
            f"{where} names an archive, and a model is a folder. Unpack it first, and give the "
            "folder."
        )
    if folder.is_file():
        raise MissingInputError(f"{where} is a file, and a model is a folder. Give its folder.")
    there = shortened(paths.names_in(folder.parent))
    raise MissingInputError(f"There is no model {where}; {there}. {remedy(folder)}")


def remedy(folder: Path) -> str:
    """Returns how a model that is not there can be had."""
    name = model_label(folder.name)
    if folder.name in paths.FETCHED or "/" in name:
        parent = shlex.quote(str(folder.parent))
        place = "" if parent == "models" else f" --model-dir {parent}"
        if len(place) <= paths.SHOWN_PATH and place.isprintable():
            return f"Fetch it with `gpt2cli download {name}{place}`."
    return (
        f"`gpt2cli download` fetches {', '.join(paths.FETCHED)}, and OWNER/NAME from the Hub; "
        "another model must be there, or give the path of its folder."
    )


def opened(folder: Path) -> Path:
    """Returns where in a folder its files are: in a Hub cache they are a snapshot.

    Raises BadDataError if it holds a PEFT adapter, not a model.
    """
    place = snapshot(folder) or folder
    if (place / huggingface.ADAPTER).is_file() and not (place / paths.HPARAMS).exists():
        with needed(place / huggingface.ADAPTER):
            facts: dict[str, object] = json_reader.read(place / huggingface.ADAPTER)
        base = shortened(repr(facts.get("base_model_name_or_path")), 60)
        raise BadDataError(
            f"{shortened(place)} holds a PEFT adapter to {base}, not a model. Merge it first, with "
            "PEFT: PeftModel.from_pretrained(base, folder).merge_and_unload(), and save_pretrained."
        )
    return place


def snapshot(folder: Path) -> Path | None:
    """Returns the snapshot of `main`, or else the newest, in a folder of the Hub's cache."""
    places = folder / "snapshots"
    if not places.is_dir() or (folder / huggingface.CONFIG).exists():
        return None
    main = folder / "refs" / "main"
    if main.is_file():
        name = commit_in(main)
        if name and Path(name).name == name and (places / name).is_dir():
            return places / name
    there = [path for path in places.iterdir() if path.is_dir()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)


def commit_in(ref: Path) -> str:
    """Returns what a branch of the Hub's cache stands for."""
    return content(ref, LONGEST_REF_BYTES).decode(errors="replace").strip()


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
                commit = commit_in(ref)
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
