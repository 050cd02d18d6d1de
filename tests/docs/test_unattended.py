"""The recipes for unattended runs: scripts that parse, units that systemd takes."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2cli.errors import TryLaterError
from tests.docs import pages
from tests.docs.pages import ROOT


def blocks(language: str) -> list[str]:
    return [content for _, content in pages.blocks(pages.page("unattended"), language)]


def test_every_script_is_one() -> None:
    scripts = blocks("sh")
    assert len(scripts) == 4
    for script in scripts:
        shell = "bash" if script.startswith("#!/bin/bash") else "sh"
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), script


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    service, timer = blocks("ini")
    unit = configparser.ConfigParser()
    unit.read_string(service)
    assert unit["Service"]["RestartForceExitStatus"] == str(TryLaterError.exit_code)
    assert unit["Service"]["SuccessExitStatus"] == "129 130 143"
    program = unit["Service"]["ExecStart"].split()[0]
    assert unit["Unit"]["Wants"] == unit["Unit"]["After"] == "network-online.target"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd to ask")
    (tmp_path / "gpt.service").write_text(service.replace(program, shutil.which("true") or ""))
    (tmp_path / "gpt.timer").write_text(timer)
    paths = [tmp_path / "gpt.service", tmp_path / "gpt.timer"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True
    )
    assert str(tmp_path) not in done.stderr
    assert "gpt." not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("code", "requeued"),
    [(0, False), (75, True), (137, True), (143, True), (1, False), (65, False)],
)
def test_the_slurm_script_ends_with_the_code_and_requeues_where_that_helps(
    tmp_path: Path, code: int, requeued: bool
) -> None:
    (script,) = [block for block in blocks("sh") if "#SBATCH" in block]
    write_program(tmp_path / "srun", f'echo srun "$@" >> {tmp_path}/told; exit {code}')
    write_program(tmp_path / "scontrol", f'echo scontrol "$@" >> {tmp_path}/told')
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    assert subprocess.run(["bash", "-c", script], env=environment).returncode == code
    told = (tmp_path / "told").read_text().splitlines()
    assert told[0].startswith("srun --kill-on-bad-exit=1 gpt2cli finetune texts/ --cluster slurm")
    assert told[1:] == ["scontrol requeue 7"] * requeued


def write_program(path: Path, lines: str) -> None:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


@pytest.mark.slow
def test_the_nightly_script_promotes_only_what_is_better(tmp_path: Path) -> None:
    (script,) = [block for block in blocks("sh") if "nightly.sh" in block]
    quick = "--steps 4 --val-every 2 --window 32 --no-xla --model-name tiny --learning-rate 1e-3"
    (tmp_path / "nightly.sh").write_text(script.replace("--steps 500", quick))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("The cat sat on the mat. " * 400)
    (tmp_path / "held-out.txt").write_text("The cat sat on the mat again. " * 40)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    activate = f"PATH={Path(sys.executable).parent}:$PATH\n"
    (tmp_path / ".venv" / "bin" / "activate").write_text(activate)

    def night(code: int = 0) -> str:
        # As cron runs it: elsewhere, and with no environment.
        done = subprocess.run(
            ["sh", str(tmp_path / "nightly.sh")],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    assert night().startswith("promoted: ")
    run = tmp_path / "checkpoint" / "nightly"
    assert json.loads((run / "best.json").read_text())["step"] > 0
    served = tmp_path / "served" / "model.safetensors"
    first = served.read_bytes()
    # What is served is better than what comes of a run that learns nothing.
    learns = (tmp_path / "nightly.sh").read_text()
    (tmp_path / "nightly.sh").write_text(learns.replace("1e-3", "1e-9"))
    shutil.rmtree(run)
    assert night() == ""
    assert served.read_bytes() == first
    # On another text what is served counts as what it is there.
    (tmp_path / "nightly.sh").write_text(learns)
    (tmp_path / "held-out.txt").write_text("The dog sat on the log. " * 40)
    (tmp_path / "texts" / "one.txt").write_text("The dog sat on the log. " * 400)
    assert night().startswith("promoted: ")
    # A failing judge ends it with its code.
    (tmp_path / "served" / "config.json").write_text("{")
    assert night(65) == ""


class Machine:
    """A machine whose start-up script is run at every boot."""

    def __init__(self, place: Path) -> None:
        (script,) = [block for block in blocks("sh") if "/mnt/work" in block]
        self.place = place
        self.work = place / "work"
        self.programs = self.work / ".venv" / "bin"
        self.programs.mkdir(parents=True)
        (place / "bucket").mkdir()
        activate = f"PATH={self.programs}:{Path(sys.executable).parent}:$PATH\n"
        (self.programs / "activate").write_text(activate)
        self.program("gpt2cli", f'exec {sys.executable} -m gpt2cli "$@"')
        for name in ("shutdown", "mail", "sleep"):
            self.program(name, f'echo {name} "$@" >> {place}/told; [ {name} != mail ] || cat >&2')
        # The model that would be downloaded is replaced by the one that needs no network.
        self.script = script.replace("/mnt/", f"{place}/").replace("355M", "tiny")
        self.script = self.script.replace("20000", "2")

    def program(self, name: str, lines: str) -> None:
        write_program(self.programs / name, lines)

    def boot(self) -> tuple[list[str], str]:
        """Returns what was called, and what was mailed."""
        (self.place / "told").write_text("")
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.place),
            "GPT2CLI_FINETUNE_XLA": "false",
            "PYTHONPATH": str(ROOT),
        }
        # Not found before the environment is activated.
        shell = f"PATH={self.programs}:$PATH\n{self.script}"
        done = subprocess.run(
            ["sh", "-c", shell], env=environment, capture_output=True, text=True, timeout=280
        )
        return (self.place / "told").read_text().splitlines(), done.stderr


MAIL = "mail -s training failed root"
OFF = "shutdown -h now"


@pytest.mark.slow
def test_the_start_up_script_trains_exports_copies_and_shuts_down(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.work / "texts").mkdir()
    (machine.work / "texts" / "one.txt").write_text("The cat sat on the mat. " * 40)
    assert machine.boot()[0] == [OFF]
    assert (tmp_path / "bucket" / "mine.tar.gz").stat().st_size > 1_000_000
    assert (machine.work / "checkpoint" / "run1" / "model-2.index").exists()
    # The bucket is gone.
    shutil.rmtree(tmp_path / "bucket")
    told, mailed = machine.boot()
    assert told == [MAIL, OFF]
    assert "cp: " in mailed
    shutil.rmtree(machine.work / "texts")
    assert machine.boot()[0] == [MAIL, OFF]


def test_the_start_up_script_runs_again_on_75_and_mails_what_fails(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    fails = "case $1 in {verb}) echo no luck >&2; exit {code} ;; esac"
    once = f"[ $1 != finetune ] || [ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; exit 75; }}"
    machine.program("gpt2cli", f"{once}\ntouch mine.tar.gz")
    assert machine.boot()[0] == ["sleep 60", OFF]
    for verb, code in (("download", 69), ("finetune", 65), ("export", 73)):
        machine.program("gpt2cli", fails.format(verb=verb, code=code))
        told, mailed = machine.boot()
        assert told == [MAIL, OFF]
        assert "no luck" in mailed
    for code in (129, 130, 143):
        machine.program("gpt2cli", fails.format(verb="finetune", code=code))
        assert machine.boot()[0] == []


def test_the_start_up_script_makes_an_environment_that_was_half_made(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.programs / "gpt2cli").unlink()
    machine.program("pip", f'echo pip "$@" >> {tmp_path}/told; exit 1')
    machine.program("python3", "exit 0")
    assert machine.boot()[0] == ["pip install ./gpt2cli[gpu]", MAIL, OFF]
