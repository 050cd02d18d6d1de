"""What a run tells to those who look at curves: TensorBoard's events, and loss.png."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.summary_pb2 import SummaryMetadata

from gpt2cli.errors import DiskError, OutputError, shortened
from gpt2cli.files import atomic
from gpt2cli.records import Alert, Progress, Record, Sample, Saved, StepReport, Validation
from gpt2cli.storage import run_log

PICTURE = "loss.png"
# A curve of more points than this shows no more.
MOST_POINTS = 2000
# A loss that is this many times the usual one makes the rest of a curve a flat line.
DWARFS = 4.0
INCHES, DOTS_PER_INCH = (8, 5), 120
# The names of a record's curves, and what they show of it.
CURVES: dict[type[Record], dict[str, str]] = {
    StepReport: {
        "training/loss": "loss",
        "training/average": "average",
        "training/learning rate": "rate",
        "training/gradient norm": "norm",
        "training/tokens per second": "speed",
    },
    Validation: {f"validation/{field}": field for field in ("loss", "perplexity", "accuracy")},
}


def described(plugin: str, kind: int) -> Any:
    """Returns what makes TensorBoard show a tensor by one of its plugins."""
    data = SummaryMetadata.PluginData(plugin_name=plugin)
    return SummaryMetadata(plugin_data=data, data_class=kind)


# DataClass in tensorflow/core/framework/summary.proto: a number, a tensor.
SCALAR, TEXT = described("scalars", 1), described("text", 2)
# Where TensorBoard's plugin looks for charts of several curves.
LAYOUT_TAG, LAYOUT = "custom_scalars__config__", described("custom_scalars", 2)


def layout() -> bytes:
    """Returns one chart of training and validation loss, for the page Custom Scalars."""
    from tensorboard.plugins.custom_scalar import layout_pb2

    tags = ["^training/loss$", "^training/average$", "^validation/loss$"]
    curves = layout_pb2.MultilineChartContent(tag=tags)
    chart = layout_pb2.Chart(title="training and validation", multiline=curves)
    category = layout_pb2.Category(title="loss (nats per token)", chart=[chart])
    content: bytes = layout_pb2.Layout(category=[category]).SerializeToString()
    return content


class TensorBoardWriter:
    """A run's events and its loss.png; training goes on if they cannot be written."""

    def __init__(self, folder: Path) -> None:
        """Takes the run folder; an events file is made in it with the first record."""
        self._folder = folder
        self._writer: Any = None
        self._plots = importlib.util.find_spec("matplotlib") is not None
        self._drawing: threading.Thread | None = None
        self._outdated = self._failed = False

    def note(self, record: Record) -> Iterator[Record]:
        """Writes what a record says; yields it, and a line the first time that writing fails."""
        yield record
        if self._failed:
            return
        try:
            self._write(record)
        except (tf.errors.OpError, OSError) as error:
            self._failed = True
            yield Alert(f"TensorBoard's events end here: {shortened(error)} Training goes on.")

    def close(self) -> None:
        """Finishes the events and the picture; what cannot be written is left out."""
        if self._writer is not None:
            with contextlib.suppress(tf.errors.OpError, OSError):
                self._writer.close()
        if self._drawing is not None:
            self._drawing.join()
        if self._outdated:
            draw(self._folder)

    def _write(self, record: Record) -> None:
        if isinstance(record, StepReport | Validation):
            with self._events():
                for name, field in CURVES[type(record)].items():
                    tf.summary.write(name, getattr(record, field), record.step, SCALAR)
        elif isinstance(record, Sample):
            with self._events():
                tf.summary.write(f"sample {record.number}", record.text, record.step, TEXT)
        elif isinstance(record, Saved):
            if self._writer is not None:
                self._writer.flush()
            self._draw()

    def _events(self) -> Any:
        if self._writer is None:
            # TensorFlow follows links: the file's name is none that somebody can have linked.
            suffix = f".{os.urandom(8).hex()}.v2"
            self._writer = tf.summary.create_file_writer(str(self._folder), filename_suffix=suffix)
            with self._writer.as_default():
                tf.summary.write(LAYOUT_TAG, layout(), 0, LAYOUT)
        return self._writer.as_default()

    def _draw(self) -> None:
        """Draws loss.png beside the training, unless the one before is still being drawn."""
        if not self._plots:
            return
        self._outdated = self._drawing is not None and self._drawing.is_alive()
        if not self._outdated:
            self._drawing = threading.Thread(target=draw, args=(self._folder,))
            self._drawing.start()


def noted(records: Iterator[Record], folder: Path) -> Iterator[Record]:
    """Yields records; writes them into a run folder, to its log and as events."""
    log, curves = run_log.Log(folder), TensorBoardWriter(folder)
    with contextlib.closing(curves):
        for record in records:
            if isinstance(record, Progress):
                yield record
                continue
            for told in log.note(record):
                yield from curves.note(told)


def draw(folder: Path) -> None:
    """Draws a run's loss.png from its log; a picture that cannot be written is left out."""
    with (
        contextlib.suppress(OutputError, DiskError),
        atomic.disk_errors(folder),
        atomic.whole_file(folder / PICTURE) as aside,
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
    shown = slice(None, None, max(1, len(history.steps) // MOST_POINTS))
    steps, losses, averages = history.steps[shown], history.losses[shown], history.averages[shown]
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label="each step")
    axes.plot(steps, averages, color="tab:blue", linewidth=1.8, label="training, average")
    if history.val_steps:
        best, step = min(zip(history.val_losses, history.val_steps, strict=True))
        curve = history.val_steps, history.val_losses, "o-"
        label = f"validation, lowest {best:.3f} at step {step}"
        axes.plot(*curve, color="tab:orange", linewidth=1.8, markersize=4, label=label)
        axes.plot(step, best, color="tab:orange", marker="o", markersize=10, fillstyle="none")
        write_beside(axes, history.val_steps[-1], history.val_losses[-1], "tab:orange")
    if history.steps:
        write_beside(axes, history.steps[-1], history.averages[-1], "tab:blue")
    heights = [*history.averages, *history.val_losses]
    if heights and min(heights) > 0 and max(heights) > DWARFS * median(heights):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    return picture


def write_beside(axes: Any, step: int, loss: float, color: str) -> None:
    """Writes a loss beside its point."""
    place = {"xytext": (5, 3), "textcoords": "offset points"}
    axes.annotate(f"{loss:.3f}", (step, loss), color=color, fontsize=9, **place)
