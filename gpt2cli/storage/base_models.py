"""The folder of a base model, fetched by gpt2cli or brought from elsewhere."""

from __future__ import annotations

import shlex
from pathlib import Path

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError, MissingInputError, shortened
from gpt2cli.files import paths
from gpt2cli.files.hub_names import model_label
from gpt2cli.reading import needed
from gpt2cli.storage import huggingface

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
LONGEST_NAME_BYTES = 200


def first_file(folder: Path) -> Path:
    """Returns the file of a model folder that names its weights, or that is read before them."""
    return folder / (huggingface.CONFIG if huggingface.is_folder(folder) else paths.POINTER)


def present(folder: Path) -> Path:
    """Returns where in a model's folder its files are, as `opened` does.

    Raises:
        MissingInputError: it is not there.
        BadDataError: it is something else.
    """
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

    Raises:
        BadDataError: it holds a PEFT adapter, not a model.
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
    """Returns the snapshot in a folder of the Hub's cache, or None if the folder is not one.

    That is the one of the branch `main`, or else the newest.
    """
    places = folder / "snapshots"
    if not places.is_dir() or (folder / huggingface.CONFIG).exists():
        return None
    main = folder / "refs" / "main"
    if main.is_file():
        name = json_reader.content(main, LONGEST_NAME_BYTES).decode(errors="replace").strip()
        if name and Path(name).name == name and (places / name).is_dir():
            return places / name
    there = [path for path in places.iterdir() if path.is_dir()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)
