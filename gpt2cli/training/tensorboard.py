"""What a run tells to those who look at curves: TensorBoard's events, and loss.png."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.summary_pb2 import SummaryMetadata

from gpt2cli.errors import shortened
from gpt2cli.records import Alert, Progress, Record, Sample, Saved, StepReport, Validation
from gpt2cli.storage import run_log
from gpt2cli.training import plot


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

    curves = layout_pb2.MultilineChartContent(
        tag=["^training/loss$", "^training/average$", "^validation/loss$"]
    )
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
        self._outdated = False
        self._failed = False

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
            plot.draw(self._folder)

    def _write(self, record: Record) -> None:
        if isinstance(record, (StepReport, Validation)):
            with self._events():
                for name, value in scalars(record):
                    tf.summary.write(name, value, record.step, SCALAR)
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
            self._drawing = threading.Thread(target=plot.draw, args=(self._folder,))
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


def scalars(record: StepReport | Validation) -> list[tuple[str, float]]:
    """Returns the names and values of a record's curves."""
    if isinstance(record, Validation):
        return [
            ("validation/loss", record.loss),
            ("validation/perplexity", record.perplexity),
            ("validation/accuracy", record.accuracy),
        ]
    return [
        ("training/loss", record.loss),
        ("training/average", record.average),
        ("training/learning rate", record.rate),
        ("training/gradient norm", record.norm),
        ("training/tokens per second", record.speed),
    ]
