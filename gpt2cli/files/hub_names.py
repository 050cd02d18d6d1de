"""Names of models on the Hugging Face Hub, and the folders that the models have here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gpt2cli.files.paths import known_name

# As the Hub allows them: letters, digits, and . _ - between them.
PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")
# The Hub keeps names from holding `--`, so that a folder's name says both parts.
NAME = re.compile(rf"({PART})(?:/|--)({PART})(?:@({REVISION.pattern}))?")
MOST_CHARACTERS = 96
COMMIT = re.compile(r"[0-9a-f]{40}")
SHORT_COMMIT = re.compile(r"[0-9a-f]{7,40}")
# Models that have been on the Hub since before names had owners.
OWNED = {"distilgpt2": "distilbert/distilgpt2"}


@dataclass(frozen=True, kw_only=True)
class HubName:
    """The name of a model on the Hub; `revision` is a branch, tag or commit, and None: any."""

    owner: str
    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def wanted(self) -> str:
        """The branch, tag or commit to ask for."""
        return self.revision or "main"

    @property
    def full(self) -> str:
        """The name as a command line gives it."""
        return f"{self}@{self.revision}" if self.revision else str(self)

    def folder(self, model_dir: str | Path) -> Path:
        """Returns where the model is, or is to be, in a folder of models."""
        return Path(model_dir) / f"{self.owner}--{self.name}"

    def is_revision(self, revision: str, commit: str) -> bool:
        """Returns whether what was fetched as `revision` is what is asked for."""
        if self.revision in (None, revision):
            return True
        short = SHORT_COMMIT.fullmatch(str(self.revision))
        return short is not None and commit.startswith(short[0])


def parse_hub_name(text: str) -> HubName | None:
    """Returns the name that OWNER/NAME[@REVISION], or such a model's folder, stands for.

    OpenAI's models are not fetched from the Hub, unless a revision is asked for.
    """
    plain, at, revision = text.partition("@")
    match = NAME.fullmatch(OWNED.get(plain, plain) + at + revision)
    if match is None or (known_name(plain) != plain and not revision):
        return None
    found = HubName(owner=match[1], name=match[2], revision=match[3])
    odd = ("--" in found.owner, "--" in found.name, ".." in text, "//" in revision)
    ends = found.name.endswith(".git") or revision.endswith(("/", ".lock"))
    if any(odd) or ends or max(len(str(found)), len(revision)) > MOST_CHARACTERS:
        return None
    return found


def meant_hub_name(model_dir: str, text: str) -> HubName | None:
    """Returns the name on the Hub that --model-name gives, unless it is of something here."""
    found, path = parse_hub_name(text), Path(text)
    if found is None or path.exists() or (Path(model_dir) / text).exists():
        return None
    # `texts/poem` in a folder that is here is the name of what is missing in it.
    return None if "/" in text.partition("@")[0] and path.parent.exists() else found


def model_label(name: str) -> str:
    """Returns what to call a model that is given by a name or path: OWNER/NAME, or one word."""
    found = parse_hub_name(name)
    return str(found) if found else Path(name).name
