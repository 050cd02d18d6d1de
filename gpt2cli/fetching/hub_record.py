"""Which files of a model on the Hub are fetched, and hub.json, which says what they must be."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2cli import json_reader
from gpt2cli.config.download import is_address
from gpt2cli.errors import MissingInputError, UsageError, shortened
from gpt2cli.fetching.manifest import SHA256, Model, ModelFile, need, sound_facts
from gpt2cli.files import atomic
from gpt2cli.files.hub_names import COMMIT, MOST_CHARACTERS, REVISION, HubName
from gpt2cli.storage import huggingface
from gpt2cli.storage.base_models import MOST_RECORD_BYTES, RECORD
from gpt2cli.vocabulary import TOKENIZER

HUB = "https://huggingface.co"
# What says what the tokens are; all that is there is fetched.
TOKENS = (
    *(TOKENIZER, huggingface.VOCABULARY, huggingface.MERGES, "tokenizer_config.json"),
    *("added_tokens.json", "special_tokens_map.json", "generation_config.json"),
)
SHARD = re.compile(r"model-[0-9]{5}-of-[0-9]{5}\.safetensors")
MOST_SHARDS = 1000
GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
# The largest files that are believed (bytes).
MOST_SMALL_BYTES, MOST_WEIGHT_BYTES = 64_000_000, 1 << 40
# Weights in the forms of other libraries, which gpt2cli does not read.
OTHER_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5")


def hub_address() -> str:
    """Returns the Hub's address, which HF_ENDPOINT may name; raises UsageError if it is none."""
    given = os.environ.get("HF_ENDPOINT") or HUB
    if not is_address(given):
        raise UsageError(f"HF_ENDPOINT must be an HTTP address, not '{shortened(given)}'.")
    return given.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class HubRecord:
    """What is known of a model from the Hub, whose files are in the order of their fetching.

    It was asked for by the revision (a branch, tag or commit), which was `commit` then.
    """

    hub: HubName
    revision: str
    commit: str
    files: tuple[ModelFile, ...]

    @classmethod
    def of(
        cls, hub: HubName, revision: str, commit: str, files: dict[str, dict[str, Any]]
    ) -> HubRecord:
        """Returns a record of what others wrote; raises ValueError or the like if it cannot be."""
        sound = isinstance(revision, str) and len(revision) <= MOST_CHARACTERS
        need(sound and bool(REVISION.fullmatch(revision)), "revision", revision)
        need(isinstance(commit, str) and bool(COMMIT.fullmatch(commit)), "commit", commit)
        made = tuple(hub_file(name, facts) for name, facts in files.items())
        return cls(hub=hub, revision=revision, commit=commit, files=made)

    @property
    def small(self) -> tuple[ModelFile, ...]:
        """The files that say what kind of model it is, and hold no weights."""
        return tuple(file for file in self.files if not file.name.endswith(".safetensors"))

    @property
    def size(self) -> int:
        """The size of all files (bytes)."""
        return sum(file.sizes[0] for file in self.files)

    def model(self) -> Model:
        """Returns the model as it is fetched from the Hub."""
        host = f"{hub_address()}/{self.hub}/resolve/{self.commit}/{{file}}"
        return Model(name=str(self.hub), files=self.files, hosts=(host,), hub=self.hub)

    def save(self, folder: Path) -> None:
        """Writes hub.json into the model's folder."""
        files = {}
        for file in self.files:
            kind = "git_sha1" if file.is_blob else "sha256"
            files[file.name] = {"size": file.sizes[0], kind: file.hashes[0]}
        facts = {"name": str(self.hub), "revision": self.revision, "commit": self.commit}
        with atomic.disk_errors(folder / RECORD):
            atomic.write_whole(folder / RECORD, json.dumps({**facts, "files": files}, indent=1))


def read_hub_record(folder: Path, hub: HubName) -> HubRecord | None:
    """Returns what hub.json in a model's folder says; None: there is none; raises BadDataError."""
    path = folder / RECORD
    safe = f"Nothing was changed. Move {shortened(folder)} away, and download the model again."
    with sound_facts(shortened(path), safe, also=MissingInputError):
        if not path.exists():
            return None
        facts: dict[str, Any] = json_reader.read(path, most=MOST_RECORD_BYTES)
        need(facts["name"] == str(hub), "name", facts["name"])
        names = chosen_files(facts["files"], hub)
        files = {name: facts["files"][name] for name in names}
        return HubRecord.of(hub, facts["revision"], facts["commit"], files)


def hub_file(name: str, facts: dict[str, Any]) -> ModelFile:
    """Returns a file as hub.json describes it; raises as `HubRecord.of`."""
    size, is_blob = facts["size"], "sha256" not in facts
    most = MOST_WEIGHT_BYTES if name.endswith(".safetensors") else MOST_SMALL_BYTES
    need(type(size) is int and 0 < size <= most, f"size of {name}", size)
    digest = facts["git_sha1"] if is_blob else facts["sha256"]
    sound = isinstance(digest, str) and (GIT_SHA1 if is_blob else SHA256).fullmatch(digest)
    need(bool(sound), f"hash of {name}", digest)
    return ModelFile(name=name, sizes=(size,), hashes=(digest,), is_blob=is_blob)


def chosen_files(there: Collection[str], hub: HubName) -> list[str]:
    """Returns which files of a repository are needed, in the order in which they are fetched.

    Raises MissingInputError if one of them is missing.
    """
    weights = [huggingface.WEIGHTS]
    if huggingface.WEIGHTS not in there and huggingface.SHARDS in there:
        shards = sorted(name for name in there if SHARD.fullmatch(name))
        weights = [huggingface.SHARDS, *shards[:MOST_SHARDS]]
    if huggingface.CONFIG not in there:
        raise MissingInputError(
            f"{hub} has no {huggingface.CONFIG}, so it is not a model that transformers knows. "
            "Nothing was written. Give another name."
        )
    if weights[0] not in there:
        raise MissingInputError(missing_weights(there, hub))
    tokens = [name for name in TOKENS if name in there]
    if TOKENIZER not in there and not {huggingface.VOCABULARY, huggingface.MERGES} <= {*tokens}:
        raise MissingInputError(
            f"{hub} has neither {TOKENIZER} nor {huggingface.VOCABULARY} and {huggingface.MERGES}. "
            "Nothing was written. Fetch the repository whose vocabulary it uses, and put those "
            "files beside its weights."
        )
    return [*tokens, *weights, huggingface.CONFIG]


def missing_weights(there: Collection[str], hub: HubName) -> str:
    """Returns what to say of a repository without weights in safetensors."""
    others = [name for name in OTHER_WEIGHTS if name in there]
    if not others:
        return f"{hub} has no {huggingface.WEIGHTS}. Nothing was written. Give another name."
    return (
        f"{hub} has no {huggingface.WEIGHTS}, only {', '.join(others)}. Nothing was written. "
        f'Convert it, with transformers: AutoModelForCausalLM.from_pretrained("{hub}")'
        f'.save_pretrained("./{hub.name}"), and the same with AutoTokenizer; then give '
        f"--model-name ./{hub.name}."
    )
