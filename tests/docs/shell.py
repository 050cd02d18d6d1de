"""A shell in which the commands of the pages run: a small model for OpenAI's, no network.

What is long is made short by the environment, as the README says that every option can be.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gpt2cli
from gpt2cli.commands.export import export
from gpt2cli.config.export import ExportConfig
from tests.hub_server import Hub
from tests.misbehaving_server import Server
from tests.warm import Warm

TINY = Path(gpt2cli.__file__).parent / "data" / "tiny"
SHORT = {
    # A step, and its save.
    "GPT2CLI_FINETUNE_MAX_MINUTES": "0.0001",
    "GPT2CLI_FINETUNE_WINDOW": "32",
    "GPT2CLI_FINETUNE_SAMPLE_EVERY": "0",
    "GPT2CLI_FINETUNE_VAL_EVERY": "1",
    "GPT2CLI_FINETUNE_VAL_BATCHES": "1",
    "GPT2CLI_FINETUNE_XLA": "false",
    "GPT2CLI_GENERATE_XLA": "false",
    "GPT2CLI_CHAT_XLA": "false",
    "GPT2CLI_EVALUATE_XLA": "false",
}
PINNED = ("124M", "355M", "774M")

# Runs a command line in a folder.
Shell = Callable[[Path, str], "subprocess.CompletedProcess[str]"]


@contextlib.contextmanager
def shell(folder: Path, model: Path = TINY) -> Iterator[Shell]:
    """Gives a bash that has `gpt2cli`, and hosts on the loopback interface.

    Args:
        folder: where its programs and caches are.
        model: the model folder that stands for OpenAI's, and for distilgpt2.
    """
    programs = folder / "bin"
    programs.mkdir()
    large = Server({})
    hub = Hub(large)
    with Server({}) as server, large, hub, Warm(programs):
        hub.publish(exported(model, folder / "distilgpt2"), "distilbert/distilgpt2")
        server.files = write_pins(folder / "pins.json", server.url, model)
        environment = os.environ | SHORT
        environment["PATH"] = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache")}
        environment["GPT2CLI_PINS"] = str(folder / "pins.json")

        def run(place: Path, command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", command],
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )

        yield run


def write_pins(path: Path, url: str, model: Path) -> dict[str, bytes]:
    """Writes pins of models that are all this one; returns the files that a host has."""
    files = {file.name: file.read_bytes() for file in model.iterdir()}
    content = {name: files[name] for name in sorted(files, key=lambda name: name == "checkpoint")}
    facts = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in content.items()
    }
    entry = {"hparams": json.loads(files["hparams.json"]), "files": facts}
    known = {"hosts": [{"url": url}], "models": dict.fromkeys(PINNED, entry)}
    path.write_text(json.dumps(known), encoding="utf-8")
    return {f"{name}/{file}": data for name in PINNED for file, data in content.items()}


def exported(model: Path, folder: Path) -> dict[str, bytes]:
    """Returns the files of a repository on the Hub that holds a model."""
    list(export(ExportConfig(destination=str(folder), model_name=str(model))))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: content for name, content in files.items() if not name.startswith(".")}
