"""Which models can be fetched: their hosts, and the size and SHA-256 of each of their files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2cli import json_reader
from gpt2cli.config.download import is_address
from gpt2cli.errors import BadDataError, UsageError, shortened
from gpt2cli.files.hub_names import HubName
from gpt2cli.files.paths import known_name, placed_name
from gpt2cli.hparams import HParams

# Names another file of the same form, for models of one's own on a host of one's own.
PINS_VARIABLE = "GPT2CLI_PINS"
BUNDLED = ("tiny",)
DATA = Path(__file__).parent.parent / "data"
# A component of a path that every system takes, with room for `.part.json` behind it.
NAME = re.compile(r"(?!\.)[\w. +-]{1,100}", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_BYTES = 1 << 50
# Far beyond any GPT-2: what is larger would only cost memory.
MOST_LAYERS, MOST_WIDTH = 1000, 10_000_000


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What is known of one file of a model.

    Attributes:
        sizes: those that a good file may have (bytes), the hosts' first; empty if none is known.
        hashes: those that a good file may have, in hexadecimal; empty if the file has no pin.
        sure: A, hashed and matched by an independent record; B, one public record; C, derived.
        is_blob: whether its hash is the one that Git gives it, and not its SHA-256.
    """

    name: str
    sizes: tuple[int, ...]
    hashes: tuple[str, ...]
    sure: str = "A"
    is_blob: bool = False

    def new_hash(self) -> hashlib._Hash:
        """Returns what hashes the file's bytes, none of which it has seen."""
        if not self.is_blob:
            return hashlib.sha256()
        # As `git hash-object` does.
        return hashlib.sha1(b"blob %d\0" % self.sizes[0], usedforsecurity=False)


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of one model, such as 124M, or OWNER/NAME if it comes from the Hub.

    Attributes:
        files: its files in the order in which they are fetched; without the last one, which is
            `checkpoint` or `config.json`, no command takes the folder for a model.
        hosts: addresses to fetch from, in order, with `{model}` and `{file}` in them.
        hparams: its architecture; None: each of its files is known by its hash.
    """

    name: str
    files: tuple[ModelFile, ...]
    hosts: tuple[str, ...]
    hparams: HParams | None = None
    hub: HubName | None = None


def is_known(name: str) -> bool:
    """Returns whether a model of that name can be had: by fetching, or because it is bundled."""
    known = {*BUNDLED, *read_manifest()[0]["models"]}
    return placed_name(name) == name and true_name(name) in known


def true_name(name: str) -> str:
    """Returns what a model is called in the file of pins."""
    return name if name in read_manifest()[0]["models"] else known_name(name)


def find_model(name: str) -> Model:
    """Returns what is known of a model; the old names 117M and 345M are known too.

    Raises UsageError if no model has that name, BadDataError if the file of pins cannot be used.
    """
    known, source = read_manifest()
    wanted = true_name(name)
    if wanted not in known["models"]:
        names = shortened(", ".join([*known["models"], *BUNDLED]))
        raise UsageError(
            f"There is no model '{shortened(name)}' to fetch; there are {names}, and OWNER/NAME "
            "for one from the Hub."
        )
    with sound_facts(f"{shortened(source)}: the entry of {shortened(wanted)}"):
        return described_model(wanted, known)


def read_manifest() -> tuple[dict[str, Any], str]:
    """Returns the content of the file of pins, and the file's name."""
    own = os.environ.get(PINS_VARIABLE)
    source = Path(own) if own else DATA / "pins.json"
    try:
        known: dict[str, Any] = json_reader.read(source)
    except (OSError, ValueError) as error:
        raise BadDataError(f"{shortened(source)} cannot be read: {shortened(error)}.") from error
    if not isinstance(known.setdefault("models", {}), dict):
        raise BadDataError(f"{shortened(source)} must hold an object of models.")
    return known, str(source)


def described_model(name: str, known: dict[str, Any]) -> Model:
    """Returns a model as the file of pins describes it; raises ValueError or the like if not."""
    entry = known["models"][name]
    hosts = [host["url"] for host in known["hosts"] if name in host.get("models", [name])]
    need(bool(NAME.fullmatch(name)), "name", name)
    for host in hosts:
        need(isinstance(host, str) and is_address(address(host, "m", "f")), "host", host)
    for title, number in entry["hparams"].items():
        most = MOST_LAYERS if title == "n_layer" else MOST_WIDTH
        need(type(number) is int and 0 < number <= most, title, number)
    return Model(
        name=name,
        hparams=HParams(**entry["hparams"]),
        files=tuple(model_file(title, facts) for title, facts in entry["files"].items()),
        hosts=tuple(hosts),
    )


@contextlib.contextmanager
def sound_facts(
    where: str, safe: str = "", *, also: type[Exception] = ValueError
) -> Iterator[None]:
    """Within the block BadDataError, which ends with `safe`, names the fact that is not sound."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, also) as error:
        reason = f"{where} lacks or has a wrong {shortened(error)}. {safe}"
        raise BadDataError(reason.rstrip()) from error


def need(good: bool, what: str, value: object) -> None:
    """Raises ValueError, naming the value, unless it is good."""
    if not good:
        raise ValueError(f"{what}: {shortened(value)!r}")


def model_file(name: str, facts: dict[str, Any]) -> ModelFile:
    """Returns a file as the file of pins describes it; as `described_model`."""
    # It becomes a file's name beside others: nothing that leads elsewhere.
    need(bool(NAME.fullmatch(name)), "file name", name)
    forms = facts, *facts.get("also", [])
    sizes = tuple(form["size"] for form in forms if form["size"] is not None)
    hashes = tuple(form["sha256"] for form in forms if form["sha256"] is not None)
    for size in sizes:
        need(type(size) is int and 0 <= size <= MOST_BYTES, "size", size)
    for digest in hashes:
        need(isinstance(digest, str) and bool(SHA256.fullmatch(digest)), "sha256", digest)
    return ModelFile(name=name, sizes=sizes, hashes=hashes, sure=str(facts.get("sure", "A")))


def address(host: str, model_name: str, file_name: str) -> str:
    """Returns where a file of a model is on a host or below a mirror's address."""
    pattern = host if "{file}" in host else host.rstrip("/") + "/{model}/{file}"
    return pattern.replace("{model}", model_name).replace("{file}", file_name)
