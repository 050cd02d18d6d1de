"""Models that come with gpt2cli itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2cli.errors import MissingInputError, OutputError
from gpt2cli.fetching.base import install_bundled
from tests.small_model import is_complete, small_files

FILES = small_files()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / "data" / "tiny" / name).write_bytes(content)
    return tmp_path / "data"


def install(folder: Path, data: Path) -> str:
    return " ".join(str(record) for record in install_bundled("tiny", folder, data=data))


def test_a_bundled_model_is_copied_whole(tmp_path: Path, data: Path) -> None:
    assert "complete" in install(tmp_path / "models" / "tiny", data)
    assert is_complete(tmp_path / "models" / "tiny", FILES)
    assert "already there" in install(tmp_path / "models" / "tiny", data)


def test_a_damaged_file_of_a_bundled_model_is_put_right(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    install(folder, data)
    (folder / "vocab.bpe").write_bytes(FILES["vocab.bpe"][::-1])
    (folder / "hparams.json").unlink()
    kept = (folder / "encoder.json").stat().st_mtime_ns
    assert "vocab.bpe" in install(folder, data)
    assert is_complete(folder, FILES)
    assert (folder / "encoder.json").stat().st_mtime_ns == kept


def test_checkpoint_is_the_last_file_to_come(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "gpt2cli.files.atomic.before", lambda what, path: operations.append((what, path.name))
    )
    install(tmp_path / "models" / "tiny", data)
    renamed = [name for what, name in operations if what == "rename"]
    assert renamed[-1] == "checkpoint"
    assert sorted(renamed) == sorted(FILES)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, data: Path) -> None:
    (tmp_path / "models").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="models"):
        install(tmp_path / "models" / "tiny", data)


def test_an_installation_without_the_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="install gpt2cli again"):
        install(tmp_path / "models" / "tiny", tmp_path)
