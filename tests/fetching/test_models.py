"""A model's folder, made complete; real checkpoints where nothing but their checksums is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt2cli.errors import BadDataError, RefusedError, UsageError
from gpt2cli.fetching.base import fetch_model
from gpt2cli.fetching.models import FetchOptions
from gpt2cli.hparams import HParams
from tests import misbehaving_server as host
from tests.misbehaving_server import Server
from tests.small_model import DATA, HPARAMS, is_complete, served, small_files, write_pins

INDEX = "model.ckpt.index"
GRAPH = b"\x08\x96\x01\x12\x03abc"
UNPINNED = ("hparams.json", INDEX, "model.ckpt.meta", DATA)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model of random weights in a real checkpoint."""
    from gpt2cli.storage import checkpoint as storage

    folder = tmp_path_factory.mktemp("real")
    noise = np.random.default_rng(1)
    shapes = HParams(**HPARAMS).shapes()
    weights = {name: noise.normal(size=size).astype(np.float32) for name, size in shapes.items()}
    storage.save(folder / "model.ckpt", weights)
    made = {name: (folder / name).read_bytes() for name in (INDEX, DATA)}
    return {**small_files(), "model.ckpt.meta": GRAPH, **made}


class Place:
    """A server with the model, pins that know little of it, and a folder."""

    def __init__(self, server: Server, folder: Path, files: dict[str, bytes]) -> None:
        self.server, self.files = server, files
        self.models = folder / "models"
        self.small = self.models / "small"
        self.pins = write_pins(folder / "pins.json", files, hosts=[server.url], unpinned=UNPINNED)

    def fetch(self, *, verify: bool = False, mirrors: tuple[str, ...] = ()) -> str:
        options = FetchOptions(verify=verify, mirrors=mirrors)
        records = fetch_model("small", str(self.models), options)
        return "\n".join(str(record) for record in records)


@pytest.fixture
def place(
    tmp_path: Path, checkpoint: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    with Server(served(checkpoint)) as server:
        made = Place(server, tmp_path, dict(checkpoint))
        monkeypatch.setenv("GPT2CLI_PINS", str(made.pins))
        monkeypatch.setenv("GPT2CLI_RETRY_SECONDS", "0")
        yield made


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_files_without_a_pin_are_verified_by_their_checksums_and_that_is_said(
    place: Place,
) -> None:
    said = place.fetch()
    assert said.startswith("Fetching small")
    assert "unpinned" in said and "CRC-32C" in said and INDEX in said
    assert is_complete(place.small, place.files)
    assert "already there" in place.fetch()
    assert "verified" in place.fetch(verify=True)


@pytest.mark.parametrize("name", [INDEX, DATA])
def test_a_flipped_bit_in_a_file_without_a_pin_is_found(place: Place, name: str) -> None:
    right = place.files[name]
    place.server.files[f"small/{name}"] = flipped(right, len(right) // 3)
    with pytest.raises(BadDataError, match=f"{name}: twice what came is damaged"):
        place.fetch()
    assert not (place.small / name).exists()
    place.server.files[f"small/{name}"] = right
    place.fetch()
    assert is_complete(place.small, place.files)


def test_another_models_index_is_found(place: Place) -> None:
    known = json.loads(place.pins.read_text(encoding="utf-8"))
    known["models"]["small"]["hparams"]["n_layer"] = 2
    place.pins.write_text(json.dumps(known), encoding="utf-8")
    wider = json.dumps({**HPARAMS, "n_layer": 2}).encode()
    place.server.files["small/hparams.json"] = wider
    with pytest.raises(BadDataError, match="is not of small: model/h1/ln_1/g is None"):
        place.fetch()


def test_verify_finds_a_flipped_bit_in_data_without_a_pin(place: Place) -> None:
    place.fetch()
    (place.small / DATA).write_bytes(flipped(place.files[DATA], 100))
    assert "already there" in place.fetch()
    assert "is damaged at model/" in place.fetch(verify=True)
    assert is_complete(place.small, place.files)


def test_mirrors_are_asked_in_order_and_the_default_host_only_at_the_end(place: Place) -> None:
    with Server({}) as empty, Server(served(place.files)) as full:
        said = place.fetch(mirrors=(empty.url, full.url))
        assert is_complete(place.small, place.files)
        assert empty.url in said
        assert len(full.asked) == len(place.files)
        # A mirror that failed once is not asked first again.
        assert len(empty.asked) == 1
    assert place.server.asked == []


def test_where_all_hosts_fail_the_first_ones_answer_decides(place: Place) -> None:
    with Server({}) as empty:
        place.server.always("small/hparams.json", host.status(503))
        with pytest.raises(RefusedError, match=r"404(.|\n)*elsewhere(.|\n)*503"):
            place.fetch(mirrors=(empty.url,))
    assert not place.small.exists()


def test_without_any_host_a_mirror_is_asked_for(place: Place) -> None:
    write_pins(place.pins, place.files, hosts=[])
    with pytest.raises(UsageError, match="--mirror"):
        place.fetch()


def test_an_old_name_uses_the_folder_of_that_name_where_there_is_one(
    tmp_path: Path, place: Place
) -> None:
    known = json.loads(place.pins.read_text(encoding="utf-8"))
    known["models"]["124M"] = known["models"].pop("small")
    place.pins.write_text(json.dumps(known), encoding="utf-8")
    for name, content in place.files.items():
        place.server.files[f"124M/{name}"] = content
    (place.models / "117M").mkdir(parents=True)
    list(fetch_model("117M", str(place.models), FetchOptions()))
    assert is_complete(place.models / "117M", place.files)
    assert not (place.models / "124M").exists()
