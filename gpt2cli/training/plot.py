"""loss.png: training and validation loss over the steps of a run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from statistics import median
from typing import Any

from gpt2cli.errors import DiskError, OutputError
from gpt2cli.files import atomic
from gpt2cli.storage import run_log

NAME = "loss.png"
# A curve of more points than this shows no more.
MOST_POINTS = 2000
# Losses that are this many times the usual one make the rest of a curve a flat line.
DWARFS = 4.0
INCHES, DOTS_PER_INCH = (8, 5), 120


def draw(folder: Path) -> None:
    """Draws a run's loss.png from its log; a picture that cannot be written is left out."""
    with (
        contextlib.suppress(OutputError, DiskError),
        atomic.disk_errors(folder),
        atomic.whole_file(folder / NAME) as aside,
    ):
        figure(run_log.history(folder), folder.name).savefig(aside, format="png", dpi=DOTS_PER_INCH)


def figure(history: run_log.History, title: str) -> Any:
    """Returns the picture of a run's history: a matplotlib figure.

    Losses are in nats per token. The losses of single steps are faint, their average and the
    validation are not; the lowest validation is ringed, and the last values are written beside
    their curves. If the first losses dwarf the others, the axis is logarithmic.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    picture = Figure(INCHES, layout="constrained")
    axes = picture.subplots()
    every = max(1, len(history.steps) // MOST_POINTS)
    steps, losses, averages = (
        values[::every] for values in (history.steps, history.losses, history.averages)
    )
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label="each step")
    axes.plot(steps, averages, color="tab:blue", linewidth=1.8, label="training, average")
    if history.val_steps:
        best, step = min(zip(history.val_losses, history.val_steps, strict=True))
        axes.plot(
            history.val_steps,
            history.val_losses,
            color="tab:orange",
            linewidth=1.8,
            marker="o",
            markersize=4,
            label=f"validation, lowest {best:.3f} at step {step}",
        )
        axes.plot(step, best, color="tab:orange", marker="o", markersize=10, fillstyle="none")
        write_beside(axes, history.val_steps[-1], history.val_losses[-1], "tab:orange")
    if history.steps:
        write_beside(axes, history.steps[-1], history.averages[-1], "tab:blue")
    if is_dwarfed([*history.averages, *history.val_losses]):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    return picture


def is_dwarfed(losses: list[float]) -> bool:
    """Returns whether the highest of some losses hides how the others differ."""
    return bool(losses) and min(losses) > 0 and max(losses) > DWARFS * median(losses)


def write_beside(axes: Any, step: int, loss: float, color: str) -> None:
    """Writes a loss beside its point."""
    place = {"xytext": (5, 3), "textcoords": "offset points"}
    axes.annotate(f"{loss:.3f}", (step, loss), color=color, fontsize=9, **place)
