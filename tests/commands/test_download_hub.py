"""Models of the Hub by their names in every command, each a process, with signals and kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub_server
from tests import misbehaving_server as host
from tests.commands.test_download import wait_until
from tests.hub_server import COMMIT, NAME, Hub
from tests.misbehaving_server import Server

API = f"api/models/{NAME}/revision/main?blobs=true"
WEIGHTS = f"{COMMIT}/model.safetensors"
KILLS = 12
# Enough for a transfer to be stopped half-way: many rows of the embedding.
ROWS = 60_000


class Site:
    """A Hub with a model, and a folder to fetch it into."""

    def __init__(self, hub: Hub, large: Server, place: Path) -> None:
        self.hub, self.large, self.place = hub, large, place
        self.files = hub_server.repository(place / "source", ROWS)
        hub.publish(self.files)
        self.folder = place / "models" / "someone--gpt2-tales"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "gpt2cli", *words]

    def environment(self, **variables: str) -> dict[str, str]:
        own = {
            "HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.place / "cache"),
            "GPT2CLI_RETRY_SECONDS": "0", "TMPDIR": str(self.place / "tmp"),
        }  # fmt: skip
        rest = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        return {**rest, **own, **variables}

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.place,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command("download", NAME),
            cwd=self.place,
            env=self.environment(),
            stderr=subprocess.PIPE,
            text=True,
        )

    def wrong_files(self) -> list[str]:
        return [
            path.name
            for path in self.folder.glob("*")
            if path.name in self.files and path.read_bytes() != self.files[path.name]
        ]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    large = Server({})
    hub = Hub(large)
    (tmp_path / "tmp").mkdir()
    with large, hub:
        yield Site(hub, large, tmp_path)
    # What was looked at is gone, whatever happened.
    assert list((tmp_path / "tmp").iterdir()) == []


def test_each_command_fetches_the_model_that_it_names(site: Site) -> None:
    (site.place / "text.txt").write_text("the other the\n" * 20)
    offline = site.run("generate", "--model-name", NAME, "--length", "2", "--offline")
    assert offline.returncode == 66
    assert f"download {NAME}" in offline.stderr
    assert site.hub.asked == []
    written = site.run("generate", "--model-name", NAME, "--length", "2", "--device", "cpu")
    assert written.returncode == 0, written.stderr
    assert (site.folder / "config.json").exists()
    site.hub.asked.clear()
    for name in (NAME, f"{NAME}@{COMMIT[:10]}", f"{NAME}@main"):
        tokens = site.run("tokens", "the", "--model-name", name, GPT2CLI_OFFLINE="1")
        assert tokens.returncode == 0, tokens.stderr
    exported = site.run("export", "out", "--model-name", NAME, GPT2CLI_OFFLINE="1")
    assert exported.returncode == 0, exported.stderr
    assert f"base_model: {NAME}\n" in (site.place / "out" / "README.md").read_text()
    other = site.run("generate", "--model-name", f"{NAME}@v2")
    assert other.returncode == 65
    assert "holds revision main" in other.stderr
    assert site.hub.asked == []


def test_the_folder_of_a_run_and_a_path_are_not_looked_for_on_the_hub(site: Site) -> None:
    (site.place / "mine").mkdir()
    for name in ("mine/gpt2", "./a/b", "models/x"):
        missing = site.run("generate", "--model-name", name, "--model-dir", "mine")
        assert missing.returncode in (66, 69), missing.stderr
    # Only the folder that is not here may be an owner.
    assert {path for path, _ in site.hub.asked} <= {"api/models/models/x/revision/main?blobs=true"}


CODES = [
    (hub_server.refused(401, "RepoNotFound", "Repository not found"), 69, "Check the spelling"),
    (hub_server.refused(403, "GatedRepo", "restricted"), 69, "gated"),
    (host.status(503), 75, "503"),
    (host.status(200, b"{}"), 65, "sha"),
    (host.status(200, b'{"sha": "' + b"a" * 40 + b'", "siblings": []}'), 66, "config.json"),
]


@pytest.mark.parametrize(("behaviour", "code", "said"), CODES)
def test_a_refusal_has_the_contracts_code_and_leaves_nothing(
    behaviour: host.Behaviour, code: int, said: str, site: Site
) -> None:
    site.hub.always(API, behaviour)
    for words in (["download", NAME], ["generate", "--model-name", NAME, "--length", "2"]):
        refused = site.run(*words, HF_TOKEN="hf_secret")
        assert refused.returncode == code, refused.stderr
        assert said in refused.stderr
        assert "hf_secret" not in refused.stderr and "Traceback" not in refused.stderr
    assert not (site.place / "models").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_weights_come_keeps_them(site: Site, number: signal.Signals) -> None:
    site.large.bytes_per_second = 5e5
    process = site.start()
    part = site.folder / "model.safetensors.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 50_000)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "run again to resume" in said
    assert not (site.folder / "config.json").exists()
    kept = part.stat().st_size
    site.large.bytes_per_second = None
    assert site.run("download", NAME).returncode == 0
    assert (WEIGHTS, f"bytes={kept}-") in site.large.asked
    assert not site.wrong_files()


def test_a_signal_while_the_hub_is_asked_leaves_nothing(site: Site) -> None:
    site.hub.always(API, host.hang)
    process = site.start()
    wait_until(lambda: bool(site.hub.asked))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "before anything" in said
    assert not (site.place / "models").exists()


def test_of_two_downloads_the_second_waits(site: Site) -> None:
    site.large.bytes_per_second = 1e6
    first = site.start()
    wait_until(lambda: (site.folder / "model.safetensors.part").exists())
    second = site.start()
    said = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert "waiting" in said[1] and "already there" in said[1]
    assert site.large.count(WEIGHTS) == 1
    assert not site.wrong_files()


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_goes_on(site: Site) -> None:
    site.large.bytes_per_second = 1e6
    moments = random.Random(3)
    for _ in range(KILLS):
        process = site.start()
        time.sleep(moments.uniform(0.2, 1.2))
        process.kill()
        process.communicate()
        assert not site.wrong_files()
        if (site.folder / "config.json").exists():
            break
    site.large.bytes_per_second = None
    done = site.run("download", NAME)
    assert done.returncode == 0, done.stderr
    assert not site.wrong_files() and (site.folder / "config.json").exists()
    for left in (site.place / "tmp").glob("gpt2cli-*"):
        for path in left.iterdir():
            path.unlink()
        left.rmdir()


def test_neither_the_network_nor_tensorflow_is_loaded_if_all_is_there(site: Site) -> None:
    assert site.run("download", NAME).returncode == 0
    code = (
        "import sys; from gpt2cli.cli import main\n"
        "sys.argv = ['gpt2cli', 'download', sys.argv[1]]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code or 0)\n"
        "print({'requests', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, NAME],
        cwd=site.place,
        env=site.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\nset()\n", done
    assert "already there" in done.stderr
