"""Names of models, and folders of models as they come from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.files import paths
from tests import foreign_models
from tests.sources import fetched_for, source_of


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES = {
    "124M": ("124m", "117M", "117m", "gpt2", "GPT-2", "gpt2-small", "openai-community/gpt2"),
    "355M": ("355m", "345M", "gpt2-medium", "GPT2-Medium", "openai-community/gpt2-medium"),
    "774M": ("774m", "gpt2-large"),
    "1558M": ("1558m", "gpt2-xl", "openai-community/gpt2-xl", "1.5B"),
    "tiny": ("Tiny",),
}


@pytest.mark.parametrize(
    ("true", "name"), [(t, name) for t, names in NAMES.items() for name in names]
)
def test_every_name_of_a_model_leads_to_it(true: str, name: str) -> None:
    (needed,) = fetched_for(GenerateConfig(model_name=name))
    assert needed.name == true
    assert paths.known_name(name) == true
    again = fetched_for(FinetuneConfig(dataset=("x",), model_name=name))
    assert again == [needed]


@pytest.mark.parametrize("name", ["gpt2-german", "./here/gpt2", "125M"])
def test_a_model_that_cannot_be_fetched_gets_no_command_to_fetch_it(name: str) -> None:
    with pytest.raises(MissingInputError) as caught:
        source_of(GenerateConfig(model_name=name))
    assert f"download {name}" not in str(caught.value)
    assert "fetches 124M, 355M, 774M, 1558M, tiny" in str(caught.value)


def test_an_archive_and_a_file_are_called_what_they_are(place: Path) -> None:
    with pytest.raises(MissingInputError, match=r"names an archive.*Unpack it"):
        source_of(GenerateConfig(model_name="run1.tar.gz"))
    (place / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(MissingInputError, match=r"is a file, and a model is a folder"):
        source_of(GenerateConfig(model_name="./m.gguf"))


def test_a_folder_here_of_a_known_name_is_taken_if_it_holds_a_model(place: Path) -> None:
    (place / "gpt2").mkdir()
    assert paths.base_model("models", "gpt2") == Path("models/124M")
    foreign_models.write(place / "gpt2")
    (place / "models" / "124M").mkdir(parents=True)
    start = source_of(GenerateConfig(model_name="gpt2"))
    assert (start.folder, start.model_name) == (Path("gpt2"), "gpt2")
    # Nothing is fetched in its place.
    assert fetched_for(GenerateConfig(model_name="gpt2")) == []


def hub_cache(place: Path) -> Path:
    """Writes a folder as the Hub's cache has it: links to blobs, in snapshots."""
    root = place / "models--someone--gpt2-tales"
    blobs = foreign_models.write(root / "blobs")
    for revision in ("abc", "def"):
        snapshot = root / "snapshots" / revision
        snapshot.mkdir(parents=True)
        for path in blobs.iterdir():
            (snapshot / path.name).symlink_to(path)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    return root


def test_the_root_of_a_hub_cache_is_a_model(place: Path) -> None:
    root = hub_cache(place)
    start = source_of(GenerateConfig(model_name=root.name))
    assert start.folder.name == "abc"
    assert start.model_name == root.name
    for options in ({"model_name": str(root)}, {"restore_from": str(root)}):
        found = source_of(FinetuneConfig(dataset=("x",), **options))  # type: ignore[arg-type]
        assert found.folder.name == "abc"
    # A name from elsewhere leads nowhere else.
    (root / "refs" / "main").write_text("../../..")
    assert source_of(GenerateConfig(model_name=root.name)).folder.name in ("abc", "def")


@pytest.mark.parametrize("how", ["model_name", "restore_from", "file"])
def test_a_peft_adapter_is_called_so_with_the_way_out(how: str, place: Path) -> None:
    (place / "lora").mkdir()
    (place / "lora" / "adapter_config.json").write_text('{"base_model_name_or_path": "gpt2"}')
    foreign_models.write_weights(
        place / "lora" / "adapter_model.safetensors", foreign_models.arrays()
    )
    options = {
        "model_name": {"model_name": "lora"},
        "restore_from": {"restore_from": "lora"},
        "file": {"restore_from": "lora/adapter_model.safetensors"},
    }[how]
    with pytest.raises(BadDataError, match=r"PEFT adapter to 'gpt2'.*merge_and_unload"):
        source_of(FinetuneConfig(dataset=("x",), **options))  # type: ignore[arg-type]
