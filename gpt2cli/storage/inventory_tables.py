"""The facts about models and runs as tables and lines for people."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator, Mapping

from gpt2cli import layout
from gpt2cli.errors import shortened
from gpt2cli.options import flag
from gpt2cli.progress import amount
from gpt2cli.storage.inventory import Facts

WIDTH, HEIGHT = 60, 10
# How a curve's points are drawn.
TRAINING, VALIDATION = ".", "o"
CORPUS = "dataset"
NUMBERS = (
    *(("layers", "n_layer"), ("heads", "n_head"), ("width", "n_embd")),
    *(("window", "n_ctx"), ("tokens", "n_vocab"), ("weights", "weights")),
)
# Settings of a run that say nothing about it.
UNINTERESTING = ("quiet", "verbose", "overwrite", "offline", "run_name", "checkpoint_dir")


def models_table(models: list[Facts], folder: str) -> str:
    """Returns the models as a table."""
    rows = [["", "model", "weights", "window", "size", "changed"]]
    for facts in models:
        row = ["-", "-"]
        if not facts["problem"]:
            row = [f"{facts['weights']:,}", f"{facts['n_ctx']:,}"]
        rows.append(["", facts["name"], *row, amount(facts["bytes"]), when(facts["changed"])])
    return titled_table("models", folder, rows, models, right=(2, 3, 4))


def runs_table(runs: list[Facts], folder: str) -> str:
    """Returns the runs as a table."""
    rows = [["", "run", "model", "step", "best loss", "size", "changed"]]
    for facts in runs:
        row = ["-", "-", "-"]
        if not facts["problem"]:
            row = [facts["model"] or "-", f"{facts['step']:,}", best_shown(facts)]
        rows.append(["", facts["name"], *row, amount(facts["bytes"]), when(facts["changed"])])
    return titled_table("runs", folder, rows, runs, right=(3, 5))


def titled_table(
    title: str, folder: str, rows: list[list[str]], found: list[Facts], *, right: tuple[int, ...]
) -> str:
    """Returns a table below its title, and below that what is wrong with some of its rows."""
    where = f"{title} in {shortened(folder)}:"
    if not found:
        return f"\n{where} none\n"
    wrong = [f"  {each['name']}: {each['problem']}" for each in found if each["problem"]]
    return "\n" + "".join(f"{line}\n" for line in (where, *layout.table(rows, right), *wrong))


def best_shown(facts: Facts) -> str:
    """Returns a run's lowest validation loss and its step."""
    if facts["best_step"] is None:
        return "-"
    loss = f"{facts['best_loss']:.4f} at step " if facts["best_loss"] is not None else "step "
    return f"{loss}{facts['best_step']:,}"


def when(changed: float) -> str:
    """Returns a time in the machine's own zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(changed)) if changed else "-"


def described_in_lines(facts: Facts, defaults: Mapping[str, object]) -> str:
    """Returns what is known of a run or model as lines for people, by finetune's defaults."""
    rows = [[facts["kind"], facts["path"]]]
    if facts["kind"] == "run":
        steps = ", ".join(f"{step:,}" for step in facts["checkpoints"][-10:])
        average = facts["average_loss"]
        rows += [
            ["base model", facts["model"] or "not known: gpt-2-simple wrote this run"],
            ["checkpoints", f"steps {steps}"],
            ["best", f"validation loss {best_shown(facts)}"],
            ["training loss", "not known" if average is None else f"{average:.4f} on average"],
        ]
        if facts["lora_rank"]:
            rows.append(["adapters", f"rank {facts['lora_rank']}"])
    rows += [[title, f"{facts[key]:,}"] for title, key in NUMBERS]
    rows.append(["on disk", f"{amount(facts['bytes'])}, changed {when(facts['changed'])}"])
    if "settings" in facts:
        rows.append(["settings", shown_settings(facts["settings"], defaults)])
    lines = [*layout.table(rows), *(drawn(facts["curve"]) if "curve" in facts else ())]
    return "".join(f"{line}\n" for line in lines)


def shown_settings(settings: Facts, defaults: Mapping[str, object]) -> str:
    """Returns the settings of a run's last start as options, but for those left at their defaults.

    They are what a file says: others may have written it.
    """
    words = []
    # The corpus comes first, as on a command line.
    for field in sorted(defaults, key=lambda each: each != CORPUS):
        value = settings.get(field)
        if field in UNINTERESTING or value is None or value == defaults[field]:
            continue
        several = value if isinstance(value, list) else [value]
        name = [] if field == CORPUS else [flag(field)]
        for each in several:
            given = [] if each is True else [shlex.quote(shortened(each))]
            words += [f"--no-{name[0][2:]}"] if each is False else [*name, *given]
    return " ".join(words) or "all at their defaults"


def drawn(curve: Facts) -> Iterator[str]:
    """Yields a run's losses as a plot."""
    lines = [(TRAINING, curve["average"]), (VALIDATION, curve["validation"])]
    finite = [(mark, [each for each in points if math.isfinite(each[1])]) for mark, points in lines]
    if any(points for _, points in finite):
        yield ""
        marks = f"{TRAINING} training, average; {VALIDATION} validation"
        yield f"loss over steps, logarithmic ({marks}):"
        yield from layout.curve(finite, width=WIDTH, height=HEIGHT)
