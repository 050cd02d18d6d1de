"""The facts about models and runs as tables and lines for people."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping

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


def best_shown(facts: Facts) -> str:
    """Returns a run's lowest validation loss and its step."""
    if facts["best_step"] is None:
        return "-"
    loss = f"{facts['best_loss']:.4f} at step " if facts["best_loss"] is not None else "step "
    return f"{loss}{facts['best_step']:,}"


def when(changed: float) -> str:
    """Returns a time in the machine's own zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(changed)) if changed else "-"


# What a table has beside the names of its kind.
COLUMNS: dict[str, dict[str, Callable[[Facts], str]]] = {
    "model": {
        "weights": lambda facts: f"{facts['weights']:,}",
        "window": lambda facts: f"{facts['n_ctx']:,}",
    },
    "run": {
        "model": lambda facts: facts["model"] or "-",
        "step": lambda facts: f"{facts['step']:,}",
        "best loss": best_shown,
    },
}
RIGHT = ("weights", "window", "step", "size")


def titled_table(kind: str, found: list[Facts], folder: str) -> str:
    """Returns models or runs as a table, and below it what is wrong with some of them."""
    where = f"{kind}s in {shortened(folder)}:"
    if not found:
        return f"\n{where} none\n"
    rows = [["", kind, *COLUMNS[kind], "size", "changed"]]
    for facts in found:
        own = ["-" if facts["problem"] else shown(facts) for shown in COLUMNS[kind].values()]
        rows.append(["", facts["name"], *own, amount(facts["bytes"]), when(facts["changed"])])
    right = [number for number, title in enumerate(rows[0]) if title in RIGHT]
    wrong = [f"  {each['name']}: {each['problem']}" for each in found if each["problem"]]
    return "\n" + "".join(f"{line}\n" for line in (where, *layout.table(rows, right), *wrong))


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
