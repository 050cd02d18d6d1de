"""The facts of the models, as they are shipped and as one's own file can tell them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.errors import BadDataError, UsageError
from gpt2cli.fetching import manifest
from tests.small_model import DATA, small_files, write_pins

MODELS = ("124M", "355M", "774M", "1558M")


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_seven_files_and_checkpoint_comes_last(name: str) -> None:
    model = manifest.find_model(name)
    assert len(model.files) == 7
    assert model.files[-1].name == "checkpoint"


@pytest.mark.parametrize("name", MODELS)
def test_the_data_file_has_four_bytes_a_weight(name: str) -> None:
    model = manifest.find_model(name)
    data = next(file for file in model.files if file.name == DATA)
    assert model.hparams is not None
    assert data.sizes == (4 * model.hparams.count(),)


def test_only_what_nobody_has_published_is_unpinned() -> None:
    unpinned = {
        (name, file.name)
        for name in MODELS
        for file in manifest.find_model(name).files
        if not file.hashes
    }
    assert unpinned == {
        ("774M", "hparams.json"),
        ("774M", "model.ckpt.index"),
        ("774M", "model.ckpt.meta"),
        ("774M", DATA),
        ("1558M", DATA),
    }


def test_the_old_names_are_the_same_models() -> None:
    assert manifest.find_model("117M") == manifest.find_model("124M")
    assert manifest.find_model("345M") == manifest.find_model("355M")


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("gpt2", "124M"),
        ("GPT2-medium", "355M"),
        ("774m", "774M"),
        ("openai-community/gpt2-xl", "1558M"),
    ],
)
def test_the_names_of_the_hub_are_the_same_models(name: str, true: str) -> None:
    assert manifest.find_model(name) == manifest.find_model(true)
    # Nothing is fetched into a folder of that name.
    assert not manifest.is_known(name)
    assert manifest.is_known(true)


def test_the_first_host_is_openais_and_only_two_models_have_a_second() -> None:
    first = manifest.find_model("124M").hosts[0]
    where = "https://openaipublic.blob.core.windows.net/gpt-2/models/124M/vocab.bpe"
    assert manifest.address(first, "124M", "vocab.bpe") == where
    assert [len(manifest.find_model(name).hosts) for name in MODELS] == [2, 2, 1, 1]


def test_a_mirror_holds_model_and_file_below_its_address() -> None:
    for mirror in ("http://host/models", "http://host/models/"):
        assert manifest.address(mirror, "124M", "vocab.bpe") == "http://host/models/124M/vocab.bpe"


def test_an_unknown_model_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"'125M'.*124M, 355M, 774M, 1558M, tiny"):
        manifest.find_model("125M")


def test_pins_of_ones_own_take_the_place_of_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write_pins(tmp_path / "pins.json", small_files(), hosts=["http://a/{model}/{file}"])
    monkeypatch.setenv("GPT2CLI_PINS", str(own))
    assert manifest.find_model("small").hosts == ("http://a/{model}/{file}",)
    with pytest.raises(UsageError, match="there are small, tiny"):
        manifest.find_model("124M")


@pytest.mark.parametrize("content", ["{", "[]", '{"hosts": [], "models": {"small": {}}}'])
def test_pins_that_cannot_be_used_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    own = tmp_path / "pins.json"
    own.write_text(content, encoding="utf-8")
    monkeypatch.setenv("GPT2CLI_PINS", str(own))
    with pytest.raises(BadDataError, match=str(own)):
        manifest.find_model("small")


def broken(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Returns a file of pins that has been changed."""
    own = write_pins(tmp_path / "pins.json", small_files(), hosts=["http://a"])
    known = json.loads(own.read_text(encoding="utf-8"))
    change(known)
    own.write_text(json.dumps(known), encoding="utf-8")
    return own


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/b", "..", ".", "", "a\0b", "\x1b[31m", "x" * 999]
)
def test_a_file_name_that_leads_elsewhere_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(known: dict[str, Any]) -> None:
        files = known["models"]["small"]["files"]
        files[name] = files.pop("vocab.bpe")

    monkeypatch.setenv("GPT2CLI_PINS", str(broken(tmp_path, change)))
    with pytest.raises(BadDataError, match="file name") as refusal:
        manifest.find_model("small")
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("url", ["file:///etc", "ftp://a/b", "http://[::bad/", "http://", "a", 7])
def test_a_host_that_is_no_address_of_https_is_refused(
    url: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = broken(tmp_path, lambda known: known.update(hosts=[{"url": url}]))
    monkeypatch.setenv("GPT2CLI_PINS", str(own))
    with pytest.raises(BadDataError):
        manifest.find_model("small")


@pytest.mark.parametrize("facts", [{"size": -1}, {"size": True}, {"sha256": "x"}, {"sha256": 7}])
def test_a_size_or_hash_that_is_none_is_refused(
    facts: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(known: dict[str, Any]) -> None:
        known["models"]["small"]["files"]["vocab.bpe"].update(facts)

    monkeypatch.setenv("GPT2CLI_PINS", str(broken(tmp_path, change)))
    with pytest.raises(BadDataError, match=next(iter(facts))):
        manifest.find_model("small")
