"""Models from a server that answers as the Hub does, and from one that answers otherwise."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.commands.download import download
from gpt2cli.config.download import DownloadConfig
from gpt2cli.errors import (
    BadDataError,
    Gpt2cliError,
    MissingInputError,
    OutputError,
    RefusedError,
    TryLaterError,
    UsageError,
)
from gpt2cli.files.hub_names import parse_hub_name
from gpt2cli.storage import huggingface, safetensors
from gpt2cli.storage.base_models import RECORD
from tests import foreign_models, hub_server
from tests import misbehaving_server as host
from tests.hub_server import COMMIT, NAME, Hub
from tests.misbehaving_server import Server

OTHER_COMMIT = "f" * 40
WEIGHTS = f"{COMMIT}/model.safetensors"
API = f"api/models/{NAME}/revision/main?blobs=true"
FETCHED = {"config.json", "vocab.json", "merges.txt", "model.safetensors", RECORD}


class Site:
    """A Hub, the host of its large files, and a folder to fetch into."""

    def __init__(self, hub: Hub, large: Server, place: Path) -> None:
        self.hub, self.large, self.place = hub, large, place
        self.files = hub_server.repository(place / "source")
        self.facts = hub.publish(self.files)
        self.models = place / "models"
        self.folder = self.models / "someone--gpt2-tales"

    def download(self, name: str = NAME, **options: Any) -> str:
        config = DownloadConfig(models=(name,), model_dir=str(self.models), **options)
        return "\n".join(str(record) for record in download(config))

    def is_complete(self) -> bool:
        there = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        there.pop(RECORD)
        return there == {name: self.files[name] for name in FETCHED - {RECORD}}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    large = Server({})
    hub = Hub(large)
    with large, hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("GPT2CLI_RETRY_SECONDS", "0")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.chdir(tmp_path)
        yield Site(hub, large, tmp_path)


def test_what_a_gpt2_needs_is_fetched_and_what_it_was_is_kept(site: Site) -> None:
    said = site.download()
    assert site.is_complete()
    record = json.loads((site.folder / RECORD).read_text())
    assert (record["name"], record["revision"], record["commit"]) == (NAME, "main", COMMIT)
    assert COMMIT[:12] in said
    site.hub.asked.clear()
    site.large.asked.clear()
    assert "already there" in site.download()
    assert "every file verified" in site.download(verify=True)
    assert site.hub.asked == site.large.asked == []


def test_two_files_damaged_are_fetched_again_from_the_commit(site: Site) -> None:
    site.download()
    (site.folder / "merges.txt").write_bytes(b"#version: 0.2\nt h\n")
    weights = bytearray(site.files["model.safetensors"])
    weights[-1] ^= 1
    (site.folder / "model.safetensors").write_bytes(weights)
    site.hub.publish({"config.json": b"{}"}, commit=OTHER_COMMIT)
    said = site.download(verify=True)
    assert "Git hash" in said or "bytes in place of" in said
    assert "has the SHA-256" in said
    assert site.is_complete()


def test_a_file_of_the_right_size_with_another_git_hash_is_found(site: Site) -> None:
    site.download()
    wrong = site.files["vocab.json"].replace(b"256", b"255")
    (site.folder / "vocab.json").write_bytes(wrong)
    assert "has the Git hash" in site.download()
    assert site.is_complete()


def test_half_fetched_it_goes_on_with_the_commit_that_it_began_with(site: Site) -> None:
    size = len(site.files["model.safetensors"])
    site.large.script(WEIGHTS, [host.cut(size // 2), *[host.status(503)] * 9])
    with pytest.raises(TryLaterError, match="are kept"):
        site.download()
    # No command takes it for a model.
    assert not (site.folder / "config.json").exists()
    site.large.behave()
    site.large.asked.clear()
    site.hub.publish({"config.json": b"{}"}, commit=OTHER_COMMIT)
    said = site.download()
    assert "resuming at" in said
    assert site.large.asked == [(WEIGHTS, f"bytes={size // 2}-")]
    assert site.is_complete()


def test_the_token_goes_to_the_hub_and_not_where_the_hub_leads(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    said = site.download()
    assert len(site.hub.authorized) == len(site.hub.asked)
    assert {token for _, token in site.hub.authorized} == {"Bearer hf_secret"}
    assert site.large.asked and site.large.authorized == []
    assert "hf_secret" not in said
    kept = [path.read_bytes() for path in site.models.rglob("*") if path.is_file()]
    assert not any(b"hf_secret" in content for content in kept)


@pytest.mark.parametrize("code", [200, 400, 404])
def test_a_host_that_sends_the_token_back_does_not_get_it_shown(
    code: int, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", f"hf_{'secret' * 6}")

    def echo(handler: host.Handler, _content: bytes) -> None:
        sent = handler.headers["Authorization"]
        # In a message such a body is cut: no part of the token may be left.
        body = f"<html>{'padding ' * 10}{sent}</html>".encode()
        host.status(code, body, Content_Type=sent[7:])(handler, b"")

    site.hub.always(API, echo)
    with pytest.raises(RefusedError) as refusal:
        site.download()
    assert "secret" not in str(refusal.value)


def test_the_token_goes_to_no_mirror(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Server({f"{NAME}/{name}": content for name, content in site.files.items()}) as mirror:
        site.download(mirror=(mirror.url,))
        assert mirror.count(f"{NAME}/model.safetensors") == 1
        assert mirror.authorized == []
    assert site.is_complete()
    assert site.large.asked == []


def test_a_mirror_gets_its_own_password_beside_a_token_for_the_hub(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Server({f"{NAME}/{name}": content for name, content in site.files.items()}) as mirror:
        said = site.download(mirror=(mirror.url.replace("://", "://me:password@"),))
        assert {sent for _, sent in mirror.authorized} == {"Basic bWU6cGFzc3dvcmQ="}
    assert "password@" not in said
    assert site.is_complete()


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "\N{BULLET}" * 8])
def test_what_cannot_be_a_token_is_refused_and_not_shown(
    token: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match="HF_TOKEN") as refusal:
        site.download()
    assert token not in str(refusal.value)
    assert site.hub.asked == []


def test_a_revision_is_asked_for_and_another_one_is_noticed(site: Site) -> None:
    site.hub.publish(site.files, revision="v1.0", commit=OTHER_COMMIT)
    assert "v1.0 is commit ffffffffffff" in site.download(f"{NAME}@v1.0")
    assert "already there" in site.download(f"{NAME}@v1.0")
    assert "already there" in site.download(f"{NAME}@{OTHER_COMMIT[:8]}")
    assert "already there" in site.download(NAME)
    for other in ("main", COMMIT, "v2"):
        with pytest.raises(BadDataError, match=rf"holds revision v1\.0 .*, not {other}"):
            site.download(f"{NAME}@{other}")
    assert site.is_complete()


def test_one_model_in_two_revisions_is_a_contradiction(site: Site) -> None:
    config = DownloadConfig(models=(NAME, f"{NAME}@v1"), model_dir=str(site.models))
    with pytest.raises(UsageError, match="one model"):
        list(download(config))
    assert site.hub.asked == []


def test_weights_in_several_files_are_fetched_together(site: Site) -> None:
    named = foreign_models.arrays()
    half = len(named) // 2
    parts, where = [dict([*named.items()][:half]), dict([*named.items()][half:])], dict[str, str]()
    del site.files["model.safetensors"]
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        foreign_models.write_weights(site.place / name, part)
        site.files[name] = (site.place / name).read_bytes()
        where.update(dict.fromkeys(part, name))
    site.files[huggingface.SHARDS] = json.dumps({"weight_map": where}).encode()
    site.hub.publish(site.files)
    site.download()
    assert huggingface.weights(site.folder).name == huggingface.SHARDS
    huggingface.check(huggingface.weights(site.folder), foreign_models.shape())
    # A part that the index names and the Hub has not.
    where["lm_head.weight"] = "model-00003-of-00003.safetensors"
    site.files[huggingface.SHARDS] = json.dumps({"weight_map": where}).encode()
    site.hub.publish(site.files, "someone/other")
    with pytest.raises(MissingInputError, match=r"model-00003-of-00003\.safetensors is missing"):
        site.download("someone/other")
    assert not (site.models / "someone--other").exists()


def cached(site: Site, name: str = "someone--gpt2-tales", ref: str = "main") -> Path:
    """Writes a model as transformers' cache has it."""
    root = site.place / "cache" / "hub" / f"models--{name}"
    snapshot = root / "snapshots" / OTHER_COMMIT
    foreign_models.write(snapshot)
    (root / "refs").mkdir()
    (root / "refs" / ref).write_text(OTHER_COMMIT)
    return snapshot


def test_what_transformers_has_fetched_is_not_fetched_again(site: Site) -> None:
    snapshot = cached(site)
    assert str(snapshot) in site.download()
    assert str(snapshot) in site.download(f"{NAME}@{OTHER_COMMIT}")
    assert site.hub.asked == []
    assert not site.models.exists()
    # Another revision is not there, nor is a snapshot without its weights whole.
    site.download(f"{NAME}@{COMMIT}")
    assert site.is_complete()
    (snapshot / "model.safetensors").unlink()
    assert "already there" in site.download(f"{NAME}@{COMMIT}")


@pytest.mark.parametrize("damage", ["ref", "shards", "weights", "config", "no home"])
def test_a_cache_that_is_damaged_is_as_if_it_were_not_there(
    damage: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = cached(site)
    ref = snapshot.parent.parent / "refs" / "main"
    if damage == "ref":
        ref.write_bytes(b"../../..\xff\0")
    elif damage == "shards":
        (snapshot / "model.safetensors").unlink()
        (snapshot / huggingface.SHARDS).write_text("{")
    elif damage == "no home":
        for name in ("HF_HOME", "XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_HUB_CACHE", "~nobody-of-this-name/hub")
    else:
        (snapshot / f"{'model.safetensors' if damage == 'weights' else 'config.json'}").unlink()
    site.download()
    assert site.is_complete()


def test_distilgpt2_is_a_name_of_its_own(site: Site) -> None:
    site.hub.publish(site.files, "distilbert/distilgpt2")
    site.download("distilgpt2")
    assert (site.models / "distilbert--distilgpt2" / "config.json").exists()
    snapshot = cached(site, "distilgpt2")
    site.models.rename(site.place / "gone")
    assert str(snapshot) in site.download("distilgpt2")


def test_openais_own_models_come_from_openai(site: Site) -> None:
    for name in ("gpt2", "openai-community/gpt2", "openai/gpt2-xl", "124M", "gpt2-medium"):
        assert parse_hub_name(name) is None
    assert str(parse_hub_name("openai-community/gpt2@main")) == "openai-community/gpt2"


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "a/../b", "a/..", "./a", "/etc/passwd", "a/b/c", "a//b", ".a/b", "a/.b", "a/b."),
        *("a--b/c", "a/b--c", "a/b@../c", "a/b@", "a/b@x//y", "a/b@-x", "a/b@x@y", "a/b.git"),
        *(
            "a\0/b",
            "a/b\n",
            "a b/c",
            "\N{LATIN SMALL LETTER E WITH ACUTE}/b",
            "a/" + "b" * 95,
            "-a/b",
        ),
        *("a/b@x.lock", "a/b@x/", "a/b@x y", "a/b@" + "x" * 97),
    ],
)
def test_a_name_that_leads_elsewhere_is_not_one_of_the_hub(name: str) -> None:
    assert parse_hub_name(name) is None


def test_every_name_has_a_folder_of_its_own(tmp_path: Path) -> None:
    names = [f"{a}/{b}" for a in ("a", "a-b", "a_b", "a.b", "A") for b in ("c", "b-c", "c.d", "_c")]
    folders = {parse_hub_name(name).folder(tmp_path) for name in names}  # type: ignore[union-attr]
    assert len(folders) == len(names)
    assert {folder.parent for folder in folders} == {tmp_path}
    assert {str(parse_hub_name(folder.name)) for folder in folders} == set(names)


REFUSALS: list[tuple[host.Behaviour, str]] = [
    (hub_server.refused(401, "RepoNotFound", "Repository not found"), "Check the spelling"),
    (hub_server.refused(404, "RepoNotFound", "Repository not found"), "Check the spelling"),
    (host.status(404), "Check the spelling"),
    (hub_server.refused(404, "RevisionNotFound", "Invalid rev id"), "has no revision main"),
    (hub_server.refused(403, "GatedRepo", "Access restricted"), "gated.*Accept.*HF_TOKEN"),
    (hub_server.refused(401, "GatedRepo", "Access restricted"), "gated.*Accept.*HF_TOKEN"),
    (host.status(200, b"<!DOCTYPE html><title>log in</title>"), "a web page"),
    (host.status(410), "410"),
]


@pytest.mark.parametrize(("behaviour", "said"), REFUSALS)
def test_a_refusal_of_the_hub_says_what_to_do(
    behaviour: host.Behaviour, said: str, site: Site
) -> None:
    site.hub.always(API, behaviour)
    with pytest.raises(RefusedError, match=said) as refusal:
        site.download()
    assert len(str(refusal.value)) < 500
    assert not site.models.exists()


def test_a_gated_model_whose_page_is_open_is_refused_by_its_files(site: Site) -> None:
    for name in site.files:
        site.hub.always(
            f"{NAME}/resolve/{COMMIT}/{name}", hub_server.refused(401, "GatedRepo", "restricted")
        )
    with pytest.raises(RefusedError, match=f"{NAME} is gated.*{site.hub.url}/{NAME}.*HF_TOKEN"):
        site.download()
    assert not site.models.exists()


def test_a_token_that_is_not_accepted_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    message = "Invalid credentials in Authorization header"
    site.hub.always(API, hub_server.refused(401, "", message))
    with pytest.raises(RefusedError, match="HF_TOKEN is not accepted"):
        site.download()


def test_a_busy_hub_is_asked_again(site: Site) -> None:
    site.hub.script(API, [host.status(429), host.status(503), host.close])
    site.download()
    assert site.is_complete()
    site.hub.always("api/models/a/b/revision/main?blobs=true", host.status(503))
    site.hub.files["api/models/a/b/revision/main?blobs=true"] = b"{}"
    with pytest.raises(TryLaterError, match="503"):
        site.download("a/b")


def test_an_answer_that_leads_to_another_host_is_not_followed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Server({API: site.hub.files[API]}) as other:
        site.hub.always(API, host.redirect(f"{other.url}/{API}"))
        with pytest.raises(RefusedError, match="another host"):
            site.download()
        assert other.asked == []
    assert not site.models.exists()


def endless(code: int, sent: list[int], **headers: str) -> host.Behaviour:
    """Answers with a body of 200 MB, and notes how much of it was taken."""

    def behave(handler: host.Handler, _content: bytes) -> None:
        handler.begin(code, 200_000_000, **headers)
        for _ in range(200):
            handler.wfile.write(b" " * 1_000_000)
            sent[0] += 1_000_000

    return behave


def test_of_an_answer_without_end_little_is_taken(site: Site) -> None:
    sent = [0]
    site.hub.always(API, endless(200, sent))
    with pytest.raises(RefusedError, match="more than the 10,000,000 bytes"):
        site.download()
    assert sent[0] < 50_000_000
    assert not site.models.exists()


def test_a_redirect_with_a_body_without_end_is_followed_without_it(site: Site) -> None:
    sent = [0]
    site.hub.script(API, [endless(302, sent, Location=f"/{API}")])
    site.download()
    assert site.is_complete()
    assert sent[0] < 50_000_000


def test_a_model_that_was_renamed_is_found_by_its_old_name(site: Site) -> None:
    old = API.replace(NAME, "someone/old")
    site.hub.files[old] = b""
    site.hub.always(old, host.redirect(f"/{API}"))
    for name in site.files:
        path = f"someone/old/resolve/{COMMIT}/{name}"
        site.hub.files[path] = b""
        site.hub.always(path, host.redirect(f"/{NAME}/resolve/{COMMIT}/{name}"))
    site.download("someone/old")
    assert (site.models / "someone--old" / "config.json").exists()


def changed(site: Site, **values: Any) -> dict[str, Any]:
    return {**site.facts, **values}


def with_entry(site: Site, name: str, **values: Any) -> dict[str, Any]:
    """Returns what the API says, but for some of what it says of a file."""
    entries = [e | values if e["rfilename"] == name else e for e in site.facts["siblings"]]
    return changed(site, siblings=entries)


HOSTILE: dict[str, Any] = {
    "no JSON": lambda site: b"{",
    "a list": lambda site: [],
    "nests": lambda site: b"[" * 100_000,
    "nothing": lambda site: {},
    "huge": lambda site: b" " * 10_000_001,
    "no commit": lambda site: changed(site, sha=None),
    "a path for a commit": lambda site: changed(site, sha="../../../../etc"),
    "files of another kind": lambda site: changed(site, siblings={"a": 1}),
    "a file of another kind": lambda site: changed(site, siblings=["config.json"]),
    "no files": lambda site: changed(site, siblings=[]),
    "a path": lambda site: changed(
        site, siblings=[{**e, "rfilename": f"../{e['rfilename']}"} for e in site.facts["siblings"]]
    ),
    "no size": lambda site: with_entry(site, "config.json", size=None),
    "a size below 0": lambda site: with_entry(site, "config.json", size=-1),
    "a size that is not whole": lambda site: with_entry(site, "config.json", size=1.5),
    "a vocabulary of 1 TB": lambda site: with_entry(site, "vocab.json", size=1 << 40),
    "weights of 1 EB": lambda site: with_entry(
        site, "model.safetensors", lfs={"sha256": "0" * 64, "size": 1 << 60, "pointerSize": 1}
    ),
    "no hash": lambda site: with_entry(site, "config.json", blobId=None),
    "a hash of another kind": lambda site: with_entry(site, "config.json", blobId="0" * 64),
    "no hash of weights": lambda site: with_entry(
        site, "model.safetensors", lfs={"size": 10, "pointerSize": 1}
    ),
    "an lfs of another kind": lambda site: with_entry(site, "model.safetensors", lfs=7),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_answer_that_is_not_the_hubs_is_refused_and_nothing_is_written(
    kind: str, site: Site
) -> None:
    site.hub.describe(HOSTILE[kind](site))
    with pytest.raises(Gpt2cliError) as refusal:
        site.download()
    assert refusal.value.exit_code in (65, 66, 69)
    assert len(str(refusal.value)) < 500 and str(refusal.value).isprintable()
    assert not site.models.exists()
    assert not list(site.place.glob("**/*.part"))


def test_weights_larger_than_the_disk_are_seen_before_they_come(site: Site) -> None:
    lfs = {"sha256": "0" * 64, "size": 1 << 39, "pointerSize": 134}
    site.hub.describe(with_entry(site, "model.safetensors", lfs=lfs))
    with pytest.raises(Gpt2cliError, match="are free") as refusal:
        site.download()
    assert refusal.value.exit_code == 74
    assert not site.models.exists()


def test_wrong_bytes_are_fetched_twice_and_then_refused(site: Site) -> None:
    site.large.always(WEIGHTS, host.wrong_bytes)
    with pytest.raises(BadDataError, match="twice what came has the SHA-256"):
        site.download()
    assert not (site.folder / "model.safetensors").exists()
    assert not (site.folder / "config.json").exists()
    site.large.behave()
    site.download()
    assert site.is_complete()


def test_a_small_file_with_another_git_hash_is_refused(site: Site) -> None:
    site.hub.always(f"{NAME}/resolve/{COMMIT}/merges.txt", host.wrong_bytes)
    with pytest.raises(BadDataError, match="twice what came has the Git hash"):
        site.download()
    assert not site.models.exists()


ANOTHER: dict[str, tuple[dict[str, Any], str]] = {
    "llama": ({"config": {"model_type": "llama"}}, "model_type is 'llama'"),
    "relu": ({"config": {"activation_function": "relu"}}, "activation_function is 'relu'"),
    "no shape": ({"config": {"n_layer": None}}, "n_layer"),
    "another tokenizer": (
        {"tokenizer": foreign_models.tokenizer_json(normalizer={"type": "NFKC"})},
        "normalizer is NFKC",
    ),
    "too few tokens": ({"rows": 200}, "has no token that ends a text"),
}


@pytest.mark.parametrize("kind", ANOTHER)
def test_what_is_not_a_gpt2_is_refused_before_its_weights_come(kind: str, site: Site) -> None:
    files, said = ANOTHER[kind]
    site.hub.publish(hub_server.repository(site.place / "another", **files), "someone/another")
    with pytest.raises(BadDataError, match=said) as refusal:
        site.download("someone/another")
    assert "someone/another" in str(refusal.value)
    assert "transformers" in str(refusal.value) and "Nothing was written" in str(refusal.value)
    assert site.large.asked == []
    assert not site.models.exists()


def test_weights_that_are_only_in_pytorchs_format_get_the_way_out(site: Site) -> None:
    del site.files["model.safetensors"]
    site.hub.publish({**site.files, "pytorch_model.bin": b"PK"}, "someone/old")
    with pytest.raises(MissingInputError, match=r"only pytorch_model\.bin.*save_pretrained"):
        site.download("someone/old")
    site.hub.publish(site.files, "someone/none")
    with pytest.raises(MissingInputError, match=r"has no model\.safetensors"):
        site.download("someone/none")
    assert not site.models.exists()


@pytest.mark.parametrize("lost", ["config.json", "merges.txt"])
def test_a_repository_without_a_file_that_is_needed_is_refused(lost: str, site: Site) -> None:
    del site.files[lost]
    site.hub.publish(site.files, "someone/less")
    with pytest.raises(MissingInputError, match=lost):
        site.download("someone/less")
    assert not site.models.exists()


def test_a_folder_that_gpt2cli_did_not_fetch_is_left_as_it_is(site: Site) -> None:
    foreign_models.write(site.folder)
    before = {path: path.read_bytes() for path in site.folder.iterdir()}
    with pytest.raises(OutputError, match="did not fetch it"):
        site.download()
    assert {path: path.read_bytes() for path in site.folder.iterdir()} == before
    assert site.hub.asked == []


@pytest.mark.parametrize(
    "change",
    [
        *({"name": "else/where"}, {"commit": "../x"}, {"files": []}, {"files": {}}),
        *({"revision": 7}, {"revision": ""}, {"revision": "\x1b]0;mine\x07"}),
    ],
)
def test_a_damaged_record_is_named_and_nothing_is_changed(
    change: dict[str, Any], site: Site
) -> None:
    site.download()
    path = site.folder / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadDataError, match=r"hub\.json.*download the model again"):
        site.download()
    assert "hub.json" in rows(site)[NAME]["problem"]
    assert (site.folder / "model.safetensors").exists()


def test_a_wrong_endpoint_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hub.example.org")
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        site.download()


def rows(site: Site) -> dict[str, dict[str, Any]]:
    config = DownloadConfig(model_dir=str(site.models), list=True, format="jsonl")
    lines = "".join(str(record) for record in download(config)).splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


def test_the_list_says_what_is_here_and_how_much_of_it(site: Site) -> None:
    before = rows(site)
    assert [*before] == ["124M", "355M", "774M", "1558M", "tiny"]
    assert {row["state"] for row in before.values()} == {"missing"}
    assert before["124M"]["bytes"] == 499_734_388
    assert not site.models.exists()
    size = len(site.files["model.safetensors"])
    site.large.script(WEIGHTS, [host.cut(size // 2), *[host.status(503)] * 9])
    with pytest.raises(TryLaterError):
        site.download()
    half = rows(site)[NAME]
    assert half["state"] == "partial"
    assert size // 2 < half["bytes_here"] < half["bytes"]
    site.large.behave()
    site.download()
    site.download("tiny")
    after = rows(site)
    assert after["tiny"]["state"] == after[NAME]["state"] == "complete"
    assert after[NAME]["bytes"] == after[NAME]["bytes_here"]
    assert (after[NAME]["revision"], after[NAME]["commit"]) == ("main", COMMIT)
    (site.folder / "merges.txt").write_bytes(b"short")
    assert rows(site)[NAME]["state"] == "partial"
    table = str(next(iter(download(DownloadConfig(model_dir=str(site.models), list=True)))))
    (line,) = [line for line in table.splitlines() if line.startswith(NAME)]
    assert COMMIT[:12] in line and str(site.folder) in line
    assert len(safetensors.read_header(site.folder / "model.safetensors")) > 10


@pytest.mark.parametrize("content", ["{", '{"name": "someone/else"}', "[" * 1000])
def test_a_damaged_record_is_one_row_of_the_list(site: Site, content: str) -> None:
    site.download()
    other = site.models / "someone--other"
    shutil.copytree(site.folder, other)
    (other / "hub.json").write_text(content)
    found = rows(site)
    assert found[NAME]["state"] == "complete"
    assert found["someone/other"]["state"] == "damaged"
    assert "hub.json" in found["someone/other"]["problem"]
    table = str(next(iter(download(DownloadConfig(model_dir=str(site.models), list=True)))))
    assert re.search(rf"^someone/other +- +damaged +{other}$", table, re.MULTILINE)
    assert table.endswith(f"  someone/other: {found['someone/other']['problem']}\n")


def test_a_format_without_a_list_is_refused() -> None:
    with pytest.raises(UsageError, match="--list"):
        DownloadConfig(format="jsonl")
