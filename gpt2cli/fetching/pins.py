"""Which models can be fetched: their hosts, and the size and SHA-256 of each of their files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2cli.errors import BadDataError, UsageError
from gpt2cli.hparams import HParams
from gpt2cli.storage.folders import known_name, placed_name

# Names another file of the same form, for models of one's own on a host of one's own.
PINS_VARIABLE = "GPT2CLI_PINS"
BUNDLED = ("tiny",)
DATA = Path(__file__).parent.parent / "data"


@dataclass(frozen=True)
class Form:
    """One of the forms in which a file is good.

    Attributes:
        size: bytes, or None where it is not known.
        sha256: the hash in hexadecimal, or None where the file has no pin.
    """

    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class PinnedFile:
    """What is known of one file of a model.

    Attributes:
        name: as in the model's folder and on the hosts.
        forms: the form that the hosts have, then others that are as good.
        sure: A, hashed and matched by an independent record; B, one public record; C, derived.
    """

    name: str
    forms: tuple[Form, ...]
    sure: str = "A"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that a good file may have (bytes); empty where none is known."""
        return tuple(form.size for form in self.forms if form.size is not None)

    @property
    def hashes(self) -> tuple[str, ...]:
        """The SHA-256 that a good file may have; empty where the file has no pin."""
        return tuple(form.sha256 for form in self.forms if form.sha256 is not None)


@dataclass(frozen=True)
class Model:
    """What is known of one model.

    Attributes:
        name: such as 124M.
        hparams: its architecture.
        files: its files in the order in which they are fetched; `checkpoint` is the last.
        hosts: addresses to fetch from, in order, with `{model}` and `{file}` in them.
    """

    name: str
    hparams: HParams
    files: tuple[PinnedFile, ...]
    hosts: tuple[str, ...]


def is_known(name: str) -> bool:
    """Returns whether a model of that name can be had: by fetching, or because it is bundled."""
    return placed_name(name) == name and true_name(name) in (*BUNDLED, *read()[0].get("models", {}))


def true_name(name: str) -> str:
    """Returns what a model is called in the file of pins."""
    return name if name in read()[0].get("models", {}) else known_name(name)


def find(name: str) -> Model:
    """Returns what is known of a model; the old names 117M and 345M are known too.

    Raises:
        UsageError: no model has that name.
        BadDataError: the file that GPT2CLI_PINS names cannot be used.
    """
    known, source = read()
    wanted = true_name(name)
    if wanted not in known.get("models", {}):
        names = ", ".join([*known.get("models", {}), *BUNDLED])
        raise UsageError(f"There is no model {name!r} to fetch; there are {names}.")
    try:
        return model(wanted, known)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadDataError(
            f"{source}: the entry of {wanted} lacks or has a wrong {error}."
        ) from error


def read() -> tuple[dict[str, Any], str]:
    """Returns the content of the file of pins, and the file's name."""
    own = os.environ.get(PINS_VARIABLE)
    source = Path(own) if own else DATA / "pins.json"
    try:
        known = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadDataError(f"{source} cannot be read as JSON: {error}.") from error
    if not isinstance(known, dict):
        raise BadDataError(f"{source} must hold a JSON object with hosts and models.")
    return known, str(source)


def model(name: str, known: dict[str, Any]) -> Model:
    """Returns a model as the file of pins describes it."""
    entry = known["models"][name]
    hosts = [host["url"] for host in known["hosts"] if name in host.get("models", [name])]
    return Model(
        name=name,
        hparams=HParams(**entry["hparams"]),
        files=tuple(pinned_file(title, facts) for title, facts in entry["files"].items()),
        hosts=tuple(hosts),
    )


def pinned_file(name: str, facts: dict[str, Any]) -> PinnedFile:
    """Returns a file as the file of pins describes it."""
    forms = (facts, *facts.get("also", []))
    return PinnedFile(
        name, tuple(Form(f["size"], f["sha256"]) for f in forms), facts.get("sure", "A")
    )


def address(host: str, model_name: str, file_name: str) -> str:
    """Returns where a file of a model lies on a host or below a mirror's address."""
    pattern = host if "{file}" in host else host.rstrip("/") + "/{model}/{file}"
    return pattern.replace("{model}", model_name).replace("{file}", file_name)
