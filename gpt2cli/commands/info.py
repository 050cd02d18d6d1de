"""`gpt2cli info`: what is installed, which models and runs there are, and what a run did."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Iterator
from pathlib import Path

from gpt2cli import __version__
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.info import InfoConfig
from gpt2cli.errors import BadDataError, MissingInputError, shortened
from gpt2cli.files import paths
from gpt2cli.progress import announced
from gpt2cli.records import Record, Text
from gpt2cli.runtime import hardware, installation, tensorflow
from gpt2cli.storage import inventory, run_log
from gpt2cli.storage.inventory import Facts
from gpt2cli.storage.inventory_tables import described_in_lines, titled_table

LIBRARIES = {"tensorflow": "TensorFlow", "numpy": "NumPy"}
DEFAULTS = {field.name: field.default for field in dataclasses.fields(FinetuneConfig)}
MOST_POINTS = 1000


def info(config: InfoConfig) -> Iterator[Record]:
    """Yields what is installed and what there is; or what is known of the runs and models named.

    Raises MissingInputError if there is no run or model of a name, BadDataError if it is damaged.
    """
    as_text = config.format == "text"
    for number, name in enumerate(config.named):
        facts = described(config, name)
        between = "\n" if number and as_text else ""
        yield Text(between + (described_in_lines(facts, DEFAULTS) if as_text else as_json(facts)))
    if config.named:
        return
    installed = list(installed_facts())
    if config.tensorflow:
        installed.append({"kind": "tensorflow", "devices": seen_devices(config)})
    models = inventory.examined_in("model", Path(config.model_dir))
    runs = inventory.examined_in("run", Path(config.checkpoint_dir))
    if as_text:
        yield Text("".join(f"{line}\n" for line in told_installed(installed)))
        yield Text(titled_table("model", models, config.model_dir))
        yield Text(titled_table("run", runs, config.checkpoint_dir))
    else:
        yield from (Text(as_json(facts)) for facts in (*installed, *models, *runs))


def as_json(facts: Facts) -> str:
    """Returns facts as a line of JSON."""
    # A foreign config.json may say 1e999: infinity in Python, for which JSON has no number.
    finite = json.loads(json.dumps(facts), parse_constant=lambda _: None)
    return json.dumps(finite) + "\n"


def installed_facts() -> Iterator[Facts]:
    """Yields what is known of the installation and of the machine, without TensorFlow."""
    versions = {name: installation.version_of(name) for name in LIBRARIES}
    program = {"kind": "program", "version": __version__, "python": platform.python_version()}
    yield program | versions
    free = hardware.free_memory()
    yield {
        "kind": "machine",
        "cores": hardware.cores(),
        "free_bytes": free if math.isfinite(free) else None,
        "gpus": [
            {"name": gpu.name, "driver": gpu.driver, "bytes": gpu.total, "free_bytes": gpu.free}
            for gpu in hardware.visible_gpus()
        ],
        "problem": hardware.HIDDEN if hardware.gpus_hidden() else hardware.gpu_problem() or None,
    }
    for extra, packages in installation.extras().items():
        whole = bool(packages) and None not in packages.values()
        yield {"kind": "extra", "name": extra, "installed": whole, "packages": packages}


def seen_devices(config: InfoConfig) -> list[str]:
    """Returns the devices that TensorFlow sees, after loading it."""
    with announced("loading TensorFlow", quiet=config.quiet):
        tensorflow.load(verbose=config.verbose)
    import tensorflow as tf

    found = tf.config.list_physical_devices()
    return [str(device.name).removeprefix("/physical_device:") for device in found]


def told_installed(found: list[Facts]) -> Iterator[str]:
    """Yields what is installed as lines."""
    kinds = {facts["kind"]: facts for facts in found}
    program, machine = kinds["program"], kinds["machine"]
    versions = [f"gpt2cli {program['version']}", f"Python {program['python']}"]
    for name, title in LIBRARIES.items():
        versions.append(f"{title} {program[name] or 'is not installed'}")
    yield ", ".join(versions)
    free = machine["free_bytes"]
    memory = f", {free / 1e9:.1f} GB of memory free" if free is not None else ""
    yield f"CPU: {machine['cores']} cores{memory}"
    for gpu in machine["gpus"]:
        sizes = f"{gpu['free_bytes'] / 1e9:.1f} of {gpu['bytes'] / 1e9:.1f} GB free"
        yield f"GPU: {shortened(gpu['name'])}, {sizes}, driver {shortened(gpu['driver'])}"
    if machine["problem"] or not machine["gpus"]:
        yield f"GPU: none{': ' + machine['problem'] if machine['problem'] else ''}"
    if "tensorflow" in kinds:
        yield f"TensorFlow sees: {', '.join(kinds['tensorflow']['devices'])}"
    extras = [facts for facts in found if facts["kind"] == "extra"]
    there = [facts["name"] for facts in extras if facts["installed"]]
    yield f"extras: {', '.join(there) or 'none'}"
    for facts in extras:
        if not facts["installed"]:
            yield f"  {facts['name']} is missing: {installation.install_command(facts['name'])}"


def described(config: InfoConfig, name: str) -> Facts:
    """Returns all that is known of the run or model of a name; raises as `info` does."""
    run = Path(config.checkpoint_dir, name)
    is_run = run.is_dir() and not paths.is_path(name)
    folder = run if is_run else paths.base_model(config.model_dir, name)
    if not folder.is_dir():
        raise MissingInputError(
            f"There is no run or model {shortened(name)}: {paths.names_in(run.parent)}; "
            f"{paths.names_in(Path(config.model_dir))}. `gpt2cli info` lists what there is."
        )
    facts = inventory.examined("run" if is_run else "model", folder)
    if facts["problem"]:
        raise BadDataError(f"{shortened(folder)}: {facts['problem']}")
    if is_run:
        past = run_log.history(folder)
        average = inventory.thinned(past.steps, past.averages, MOST_POINTS)
        validation = inventory.thinned(past.val_steps, past.val_losses, MOST_POINTS)
        facts["settings"] = run_log.read_config(folder)
        facts["curve"] = {"average": average, "validation": validation}
    return facts
