"""The command that a message proposes installs the extra where the package came from."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import pytest

from gpt2cli.runtime.installation import install_command


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'gpt2cli[gpu]'"),
        ({"url": "file:///a%20b/c", "dir_info": {}}, "pip install '/a b/c[gpu]'"),
        (
            {"url": "file:///src", "dir_info": {"editable": True}},
            "pip install -e '/src[gpu]'",
        ),
        (
            {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            "pip install 'gpt2cli[gpu] @ git+https://example.org/x.git'",
        ),
        (
            {
                "url": "https://example.org/x.git",
                "vcs_info": {"vcs": "git", "requested_revision": "v1.2", "commit_id": "1"},
                "subdirectory": "tools/cli",
            },
            "pip install 'gpt2cli[gpu] @ git+https://example.org/x.git@v1.2"
            "#subdirectory=tools/cli'",
        ),
        (
            {"url": "file:///src", "dir_info": {}, "subdirectory": "tools"},
            "pip install '/src/tools[gpu]'",
        ),
        ({"url": 7, "dir_info": [], "vcs_info": "git"}, "pip install 'gpt2cli[gpu]'"),
        (["url"], "pip install 'gpt2cli[gpu]'"),
        (
            {"url": "file:///dist/gpt2cli-1-py3-none-any.whl", "archive_info": {}},
            "pip install 'gpt2cli[gpu] @ file:///dist/gpt2cli-1-py3-none-any.whl'",
        ),
    ],
)
def test_an_extra_is_installed_from_where_the_package_came(
    origin: Any, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return json.dumps(origin) if origin else None

    monkeypatch.setattr(metadata, "distribution", lambda _name: Installed())
    assert install_command("gpu") == command


def test_a_package_that_is_not_installed_is_called_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert install_command("export") == "pip install 'gpt2cli[export]'"
