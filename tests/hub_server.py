"""A server on the loopback interface that answers as the Hugging Face Hub does.

tests/interop/test_hub.py lets huggingface_hub judge that.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests import foreign_models
from tests.misbehaving_server import Behaviour, Server, status

NAME = "someone/gpt2-tales"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = ".safetensors"


class Hub(Server):
    """Serves repositories; what is large is on another host, as the Hub has it."""

    def __init__(self, large: Server) -> None:
        super().__init__({})
        self._large, self._known = large, set[str]()

    def publish(
        self,
        files: dict[str, bytes],
        name: str = NAME,
        *,
        commit: str = COMMIT,
        revision: str = "main",
    ) -> dict[str, Any]:
        """Publishes a repository; returns what the API says of it, which may then be changed."""
        self._known.add(name)
        self.headers["X-Repo-Commit"] = commit
        for file, content in files.items():
            for at in {commit, revision}:
                path = f"{name}/resolve/{at}/{file}"
                self.files[path] = content
                if file.endswith(LARGE):
                    self._large.files[f"{commit}/{file}"] = content
                    self.always(path, self._elsewhere(f"{commit}/{file}", content))
        facts = {"id": name, "sha": commit, "gated": False, "siblings": siblings(files)}
        self.describe(facts, name, revision)
        self.describe(facts, name, commit)
        return facts

    def describe(self, facts: Any, name: str = NAME, revision: str = "main") -> None:
        """Makes this what the API answers."""
        path = f"api/models/{name}/revision/{revision}?blobs=true"
        self.files[path] = facts if isinstance(facts, bytes) else json.dumps(facts).encode()

    def missing(self, path: str) -> Behaviour:
        known = any(f"{name}/" in path for name in self._known)
        if not known:
            return refused(401, "RepoNotFound", "Repository not found")
        code = "RevisionNotFound" if "/revision/" in path else "EntryNotFound"
        return refused(404, code, "Not found")

    def _elsewhere(self, path: str, content: bytes) -> Behaviour:
        place = self._large.url.replace("127.0.0.1", "localhost")
        tag = hashlib.sha256(content).hexdigest()
        return status(
            302,
            Location=f"{place}/{path}",
            X_Linked_Etag=f'"{tag}"',
            X_Linked_Size=str(len(content)),
        )


def refused(code: int, reason: str, message: str) -> Behaviour:
    body = json.dumps({"error": message}).encode()
    headers = {"Content_Type": "application/json", "X_Error_Code": reason}
    return status(code, body, **headers, X_Error_Message=message)


def siblings(files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Returns how the API lists files; Git holds a pointer to what is large."""
    listed = []
    for name, content in files.items():
        entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob(content)}
        if name.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        listed.append(entry)
    return listed


def blob(content: bytes) -> str:
    """Returns a file's hash as Git computes it."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


def repository(place: Path, rows: int = 259, **files: Any) -> dict[str, bytes]:
    """Returns the files of a small GPT-2, and some that are not fetched."""
    folder = foreign_models.write(place, rows, **files)
    content = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {"README.md": b"# tales\n", "training_args.bin": b"\0" * 50, **content}
