"""Which models can be fetched, and how much of each is here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from gpt2cli import reading
from gpt2cli.errors import BadDataError
from gpt2cli.fetching import manifest
from gpt2cli.fetching.hub_record import read_hub_record
from gpt2cli.fetching.manifest import DATA, ModelFile
from gpt2cli.fetching.partial_file import PartialFile, size_of
from gpt2cli.files import paths
from gpt2cli.files.hub_names import HubName, parse_hub_name
from gpt2cli.layout import table
from gpt2cli.progress import amount, portion
from gpt2cli.storage.base_models import RECORD

Source = Literal["bundled", "openai", "hub"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listed:
    """A model that can be fetched, or that was; `name` is as `download` takes it.

    Attributes:
        bytes: the size of all its files, as far as it is known.
        bytes_here: how many of them are here.
        state: whether all its files are here, by their sizes; they are not hashed. Damaged: its
            hub.json is, which says what they are.
        revision: the branch, tag or commit of the Hub that it was fetched as.
        commit: what that was then.
        problem: what is wrong with its hub.json.
    """

    name: str
    source: Source
    folder: str
    bytes: int
    bytes_here: int
    state: Literal["complete", "partial", "missing", "damaged"]
    revision: str | None = None
    commit: str | None = None
    problem: str | None = None


def listed_models(model_dir: str) -> Iterator[Listed]:
    """Yields OpenAI's models, then those from the Hub that are in a folder of models."""
    for name in manifest.read_manifest()[0]["models"]:
        folder = paths.model_folder(model_dir, name)
        yield listed_model(name, "openai", folder, manifest.find_model(name).files)
    for name in manifest.BUNDLED:
        files = [
            ModelFile(name=path.name, sizes=(path.stat().st_size,), hashes=())
            for path in (DATA / name).glob("*")
        ]
        yield listed_model(name, "bundled", paths.model_folder(model_dir, name), files)
    for path in sorted(Path(model_dir).glob(f"*/{RECORD}")):
        if hub := parse_hub_name(path.parent.name):
            yield from fetched_model(hub, path.parent)


def fetched_model(hub: HubName, folder: Path) -> Iterator[Listed]:
    """Yields what is to be shown of a model from the Hub."""
    try:
        record = read_hub_record(folder, hub)
    except (BadDataError, OSError) as error:
        problem = str(reading.refusal(error, folder) if isinstance(error, OSError) else error)
        known = listed_model(str(hub), "hub", folder, ())
        yield dataclasses.replace(known, state="damaged", problem=problem)
        return
    if record is not None:
        known = listed_model(str(hub), "hub", folder, record.files)
        yield dataclasses.replace(known, revision=record.revision, commit=record.commit)


def listed_model(name: str, source: Source, folder: Path, files: Iterable[ModelFile]) -> Listed:
    """Returns what is to be shown of a model."""
    here, whole = 0, True
    for file in files:
        path = folder / file.name
        size = size_of(path)
        here += size or size_of(PartialFile(path).path) or 0
        whole = whole and (size in file.sizes if file.sizes else size is not None)
    return Listed(
        name=name,
        source=source,
        folder=str(folder),
        bytes=sum(max(file.sizes, default=0) for file in files),
        bytes_here=here,
        state="complete" if whole else "partial" if here else "missing",
    )


def models_as_table(models: Iterable[Listed]) -> str:
    """Returns a table for people: a line for each model, and below it what is wrong with some."""
    rows, problems = [("MODEL", "SIZE", "HERE", "FOLDER")], []
    for model in models:
        here = portion(model.bytes_here, model.bytes) if model.state == "partial" else model.state
        where = model.folder if model.bytes_here or model.problem else "-"
        at = f" ({model.revision}, {str(model.commit)[:12]})" if model.commit else ""
        size = "-" if model.problem else amount(model.bytes)
        rows.append((model.name, size, here, f"{where}{at}"))
        problems += [f"  {model.name}: {model.problem}"] if model.problem else []
    return "".join(f"{line}\n" for line in (*table(rows, right=(1,)), *problems))


def models_as_json(models: Iterable[Listed]) -> str:
    """Returns a JSON object for each model, on a line each."""
    return "".join(json.dumps(dataclasses.asdict(model)) + "\n" for model in models)
