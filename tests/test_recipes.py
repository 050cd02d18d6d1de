"""The recipes in the README for unattended runs: scripts that parse, units that systemd takes."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2cli.errors import TryLaterError

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README[README.index("## Unattended") : README.index("## Exit codes")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


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
    assert unit["Service"]["SuccessExitStatus"] == "143 130"
    program = unit["Service"]["ExecStart"].split()[0]
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


@pytest.mark.slow
def test_the_nightly_script_promotes_only_what_is_better(tmp_path: Path) -> None:
    (script,) = [block for block in blocks("sh") if "nightly.sh" in block]
    quick = "--steps 4 --val-every 2 --window 32 --no-xla --model-name tiny --learning-rate 1e-3"
    (tmp_path / "nightly.sh").write_text(script.replace("--steps 500", quick))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("The cat sat on the mat. " * 400)
    (tmp_path / "held-out.txt").write_text("The cat sat on the mat again. " * 40)

    def night() -> str:
        done = subprocess.run(
            ["sh", "nightly.sh"],
            cwd=tmp_path,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert night().startswith("promoted: ")
    first = float((tmp_path / "served.loss").read_text())
    run = tmp_path / "checkpoint" / "nightly"
    assert first > 0
    assert json.loads((run / "best.json").read_text())["step"] > 0
    served = (tmp_path / "served" / "model.safetensors").read_bytes()
    # What is served is better than anything that comes.
    (tmp_path / "served.loss").write_text("0.0001\n")
    assert night() == ""
    assert (tmp_path / "served" / "model.safetensors").read_bytes() == served
    assert (run / "checkpoint").read_text().startswith('model_checkpoint_path: "model-8"')


@pytest.mark.slow
def test_the_start_up_script_trains_exports_copies_and_shuts_down(tmp_path: Path) -> None:
    (script,) = [block for block in blocks("sh") if "/mnt/work" in block]
    work, programs = tmp_path / "work", tmp_path / "work" / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:{Path(sys.executable).parent}:$PATH\n")
    for name in ("shutdown", "mail"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/told\n')
        (programs / name).chmod(0o755)
    (tmp_path / "bucket").mkdir()
    (work / "texts").mkdir()
    (work / "texts" / "one.txt").write_text("The cat sat on the mat. " * 40)
    # The model that would be downloaded is replaced by the one that needs no network.
    short = script.replace("/mnt/", f"{tmp_path}/").replace("355M", "tiny").replace("20000", "2")

    def boot() -> int:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "GPT2CLI_FINETUNE_XLA": "false",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        return subprocess.run(["sh", "-c", short], env=environment, timeout=280).returncode

    assert boot() == 0
    assert (tmp_path / "told").read_text() == "shutdown -h now\n"
    assert (tmp_path / "bucket" / "mine.tar.gz").stat().st_size > 1_000_000
    assert (work / "checkpoint" / "run1" / "model-2.index").exists()
    shutil.rmtree(work / "texts")
    assert boot() == 0
    assert (
        (tmp_path / "told").read_text().endswith("mail -s training failed root\nshutdown -h now\n")
    )
