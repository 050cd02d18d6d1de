"""`gpt2cli download` as a process, against hosts that misbehave, signals and full disks."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gpt2cli.fetching.manifest import DATA as DATA_FOLDER
from tests import misbehaving_server as host
from tests.marks import few
from tests.misbehaving_server import Server
from tests.small_model import (
    DATA,
    DATA_BYTES,
    is_complete,
    served,
    small_files,
    write_pins,
    wrong_files,
)

FILES = small_files()
BIG = f"small/{DATA}"
KILLS = 20


class Site:
    """A server that has the small model, and a folder to fetch it into."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.models = folder / "models"
        self.small = self.models / "small"
        self.pins = write_pins(folder / "pins.json", FILES, hosts=[])

    def command(self, *options: str, mirror: str | None = None) -> list[str]:
        start = [sys.executable, "-m", "gpt2cli", "download", "small"]
        place = ["--model-dir", str(self.models), "--mirror", mirror or self.server.url]
        return [*start, *place, *options]

    def environment(self, **variables: str) -> dict[str, str]:
        own = {"GPT2CLI_PINS": str(self.pins), "GPT2CLI_RETRY_SECONDS": "0"}
        return {**os.environ, **own, **variables}

    def download(
        self, *options: str, mirror: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*options, mirror=mirror),
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(), env=self.environment(), stderr=subprocess.PIPE, text=True
        )

    def part(self) -> Path:
        return self.small / f"{DATA}.part"

    def wait_for_part(self) -> None:
        wait_until(lambda: self.part().exists() and self.part().stat().st_size > 100_000)

    def completes(self) -> bool:
        """Returns whether the next run, on a host that behaves, makes all right."""
        self.server.behave()
        return self.download().returncode == 0 and is_complete(self.small, FILES)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Server(served(FILES)) as server:
        yield Site(server, tmp_path)


def test_a_good_host_gives_a_complete_model(site: Site) -> None:
    done = site.download()
    assert (done.returncode, done.stdout) == (0, "")
    assert "small" in done.stderr and "MB" in done.stderr
    assert is_complete(site.small, FILES)


FAILURES = [
    (host.status(403, b"<?xml version='1.0'?><Code>AuthenticationFailed</Code>"), 69, "403"),
    (host.status(404, b"<html>gone</html>"), 69, "404"),
    (host.status(200, b"<!DOCTYPE html><title>log in</title>"), 69, "a web page"),
    (host.wrong_size, 69, f"{DATA_BYTES - 1:,} bytes in place of {DATA_BYTES:,}"),
    (host.too_long, 69, "more than"),
    (host.chunked_short, 69, "in place of"),
    (host.status(503), 75, "503"),
    (host.status(429, Retry_After="0"), 75, "429"),
    (host.status(429, Retry_After="9999"), 75, "9999 s"),
    (host.status(408), 75, "408"),
    (host.close, 75, "Tries: 6"),
    (host.cut(0), 75, "cut"),
    (host.no_length_cut(100), 75, "cut"),
    (host.wrong_bytes, 65, "twice"),
]


@pytest.mark.parametrize(("behaviour", "code", "said"), few(FAILURES, 4))
def test_a_failing_host_leaves_no_wrong_file_and_the_next_run_completes(
    site: Site, behaviour: host.Behaviour, code: int, said: str
) -> None:
    site.server.always(BIG, behaviour)
    failed = site.download()
    assert failed.returncode == code
    assert said in failed.stderr
    assert site.server.url in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (site.small / DATA).exists()
    assert not (site.small / "checkpoint").exists()
    assert not wrong_files(site.small, FILES)
    assert site.completes()


TROUBLES = {
    "cut at several places": [host.cut(n) for n in (0, 1, 511, 512, 70_000, 1_500_000)],
    "reset": [host.cut(200_000, reset=True)],
    "500, then good": [host.status(500), host.status(502)],
    "429 with a time to wait": [host.status(429, Retry_After="1")],
    "no length": [host.no_length],
    "no length and cut": [host.no_length_cut(1_000), host.no_length_cut(500)],
    "chunks": [host.chunked],
    "no ranges": host.no_ranges(1_000_000),
    "wrong bytes once": [host.wrong_bytes],
    "closed without an answer": [host.close],
}


@pytest.mark.parametrize("behaviours", few(TROUBLES.values(), 4), ids=TROUBLES)
def test_a_passing_trouble_is_overcome_in_one_run(
    site: Site, behaviours: list[host.Behaviour]
) -> None:
    site.server.script(BIG, behaviours)
    done = site.download()
    assert (done.returncode, is_complete(site.small, FILES)) == (0, True), done.stderr


def test_a_cut_transfer_goes_on_where_it_was(site: Site) -> None:
    site.server.script(BIG, [host.cut(1_000_000)])
    done = site.download()
    assert "resuming at 1.0 of 3.0 MB" in done.stderr
    assert [asked for path, asked in site.server.asked if path == BIG] == [None, "bytes=1000000-"]


def test_a_wrong_content_range_fails_and_the_next_run_starts_anew(site: Site) -> None:
    site.server.script(BIG, [host.cut(1_000_000), host.wrong_range])
    failed = site.download()
    assert failed.returncode == 75
    assert "Content-Range" in failed.stderr
    assert not (site.small / DATA).exists()
    # A host that goes on like this is no longer asked for ranges.
    site.server.always(BIG, host.wrong_range)
    assert site.download().returncode == 0
    assert is_complete(site.small, FILES)


def test_a_slow_host_is_waited_for(site: Site) -> None:
    site.server.always("small/model.ckpt.index", host.drip)
    done = site.download(GPT2CLI_TIMEOUT_SECONDS="1")
    assert (done.returncode, is_complete(site.small, FILES)) == (0, True), done.stderr


def test_a_host_that_falls_silent_is_asked_again(site: Site) -> None:
    site.server.script(BIG, [host.hang])
    done = site.download(GPT2CLI_TIMEOUT_SECONDS="0.5")
    assert "no answer in time" in done.stderr
    assert (done.returncode, is_complete(site.small, FILES)) == (0, True)


def test_a_redirect_is_followed(site: Site) -> None:
    with Server(served(FILES)) as other:
        for name in FILES:
            path = f"small/{name}"
            site.server.always(path, host.redirect(f"{other.url}/{path}"))
        assert site.download().returncode == 0
    assert is_complete(site.small, FILES)


def test_redirects_without_end_are_refused(site: Site) -> None:
    site.server.always("small/hparams.json", host.redirect("/small/hparams.json"))
    assert site.download().returncode == 69
    assert site.completes()


def test_a_host_that_is_not_there_is_tried_again_later(site: Site) -> None:
    with Server({}) as gone:
        url = gone.url
    alone = site.download(mirror=url)
    assert alone.returncode == 75
    assert "refused" in alone.stderr
    assert "Try the same command again later" in alone.stderr
    assert not site.small.exists()
    assert site.completes()


def test_the_next_mirror_goes_on_where_the_first_one_stopped(site: Site) -> None:
    with Server(served(FILES)) as second:
        site.server.script(BIG, [host.cut(2_000_000), *[host.close] * 9])
        done = site.download("--mirror", second.url)
        assert (done.returncode, is_complete(site.small, FILES)) == (0, True), done.stderr
        assert (BIG, "bytes=2000000-") in second.asked


def test_all_present_needs_no_network(site: Site) -> None:
    assert site.download().returncode == 0
    before = {path: path.stat().st_mtime_ns for path in site.small.iterdir()}
    assert site.download("--quiet").stderr == ""
    site.server.asked.clear()
    again = site.download()
    assert again.returncode == 0
    assert "already there" in again.stderr
    assert site.server.asked == []
    assert {path: path.stat().st_mtime_ns for path in site.small.iterdir()} == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (FILES[DATA][:1000], "1,000 bytes"),
        (b"<html>503</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    ],
)
def test_a_damaged_file_alone_is_fetched_again(site: Site, damage: bytes, said: str) -> None:
    assert site.download().returncode == 0
    (site.small / DATA).write_bytes(damage)
    site.server.asked.clear()
    repaired = site.download()
    assert repaired.returncode == 0
    assert said in repaired.stderr and DATA in repaired.stderr
    assert {path for path, _ in site.server.asked} == {BIG}
    assert is_complete(site.small, FILES)


def test_verify_finds_a_flipped_bit_in_a_large_file(site: Site) -> None:
    assert site.download().returncode == 0
    flipped = bytes([FILES[DATA][0] ^ 1]) + FILES[DATA][1:]
    (site.small / DATA).write_bytes(flipped)
    assert "already there" in site.download().stderr
    repaired = site.download("--verify")
    assert repaired.returncode == 0
    assert "SHA-256" in repaired.stderr
    assert is_complete(site.small, FILES)
    assert "verified" in site.download("--verify").stderr


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_goes_on(site: Site) -> None:
    site.server.bytes_per_second = 4e6
    moments = random.Random(7)
    resumed = 0
    for n in range(KILLS):
        resumed += site.part().exists()
        asked = len(site.server.asked)
        process = site.start()
        # Half of the moments lie anywhere, also in the start-up; half in the transfer.
        if n % 2:
            wait_until(partial(site.server.more_than, asked))
        time.sleep(moments.uniform(0.1, 0.8))
        process.kill()
        process.communicate()
        assert not wrong_files(site.small, FILES)
        if (site.small / "checkpoint").exists():
            shutil.rmtree(site.small)
    assert resumed > 2
    site.server.bytes_per_second = None
    assert site.completes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it_and_the_next_run_resumes(site: Site, number: signal.Signals) -> None:
    site.server.bytes_per_second = 1e6
    process = site.start()
    site.wait_for_part()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "stopped at" in said and "of 3.0 MB" in said and "run again to resume" in said
    assert not (site.small / DATA).exists()
    kept = site.part().stat().st_size
    assert kept > 0
    site.server.bytes_per_second = None
    assert site.completes()
    assert (BIG, f"bytes={kept}-") in site.server.asked


def test_of_two_downloads_the_second_waits(site: Site) -> None:
    site.server.bytes_per_second = 3e6
    first = site.start()
    site.wait_for_part()
    second = site.start()
    said = [process.communicate(timeout=30)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert f"process {first.pid}" in said[1] and "waiting" in said[1]
    assert "already there" in said[1]
    assert site.server.count(BIG) == 1
    assert is_complete(site.small, FILES)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "models"
    folder.mkdir()
    mount(folder, "size=1m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def mount(folder: Path, rules: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", rules, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")


def test_a_full_disk_is_seen_before_the_first_byte(small_disk: Path, site: Site) -> None:
    failed = site.download()
    assert failed.returncode == 74
    assert "3.0 MB" in failed.stderr and "are free" in failed.stderr
    assert site.server.asked == []
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    assert site.completes()


def test_a_disk_that_fills_up_on_the_way_is_not_retried(small_disk: Path, site: Site) -> None:
    # Without known sizes there is nothing to reckon with before the first byte.
    write_pins(site.pins, FILES, hosts=[], unpinned=(DATA,))
    failed = site.download()
    assert failed.returncode == 74
    assert "No space left" in failed.stderr
    assert site.server.count(BIG) == 1
    assert not wrong_files(site.small, FILES)
    write_pins(site.pins, FILES, hosts=[])
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    assert site.completes()


def test_a_folder_that_cannot_be_written_to_is_named(small_disk: Path, site: Site) -> None:
    subprocess.run(["mount", "-o", "remount,ro,size=9m", str(small_disk)], check=True)
    failed = site.download()
    assert failed.returncode == 73
    assert str(site.models) in failed.stderr
    subprocess.run(["mount", "-o", "remount,rw,size=9m", str(small_disk)], check=True)
    assert site.completes()


def test_a_file_in_the_folders_place_is_named_and_kept(site: Site) -> None:
    site.models.mkdir()
    site.small.write_text("mine", encoding="utf-8")
    failed = site.download()
    assert failed.returncode == 73
    assert str(site.small) in failed.stderr
    assert site.small.read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(not (DATA_FOLDER / "tiny").exists(), reason="tiny is not in this checkout")
def test_tiny_needs_no_network(site: Site) -> None:
    command = [*site.command()[:4], "tiny", *site.command()[5:]]
    done = subprocess.run(command, env=site.environment(), capture_output=True, check=False)
    assert done.returncode == 0
    assert site.server.asked == []
    names = {path.name for path in (site.models / "tiny").iterdir()}
    assert names == {path.name for path in (DATA_FOLDER / "tiny").iterdir()}


def test_unknown_models_and_mirrors_are_refused_before_anything_is_fetched(site: Site) -> None:
    wrong = subprocess.run(
        [*site.command(), "125M"],
        env=site.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert "'125M'" in wrong.stderr
    assert site.server.asked == []
    assert site.download("--mirror", "ftp://somewhere").returncode == 2


def test_neither_tensorflow_nor_the_network_is_loaded_where_all_is_there(site: Site) -> None:
    assert site.download().returncode == 0
    code = (
        "import sys; from gpt2cli.cli import main; sys.argv = sys.argv[1:]\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'tensorflow', 'requests'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, "gpt2cli", *site.command()[3:]]
    subprocess.run(command, env=site.environment(), check=True, timeout=60)
    shutil.rmtree(site.small)
    fetching = [*command[:2], code.replace(", 'requests'", ""), *command[3:]]
    subprocess.run(fetching, env=site.environment(), check=True, timeout=60)
