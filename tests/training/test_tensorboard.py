"""A run's events as TensorBoard's own reader finds them, and its loss.png."""

from __future__ import annotations

import json
import re
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.records import Notice, Record, Sample, Saved, StepReport, Validation
from gpt2cli.storage import run_log

pytestmark = pytest.mark.usefixtures("tensorflow")

RECORDS: list[Record] = [
    Notice("begins"),
    Validation(step=0, seconds=0.1, loss=3.5, perplexity=33.1, accuracy=0.25),
    StepReport(step=1, seconds=0.5, loss=3.0, average=3.0, rate=1e-4, norm=0.5, speed=100.0),
    StepReport(step=2, seconds=0.9, loss=2.0, average=2.5, rate=2e-4, norm=0.25, speed=200.0),
    Sample(step=2, number=1, text="Once upon a time — 桜"),
    Validation(step=2, seconds=1.0, loss=2.25, perplexity=9.49, accuracy=0.5),
    Saved(2, "checkpoint/run1/model-2"),
]


def told(folder: Path) -> list[Record]:
    """Writes the records to a run's log and board; returns what comes through."""
    from gpt2cli.training.curves import TensorBoardWriter

    log, board = run_log.Log(folder), TensorBoardWriter(folder)
    found = [r for record in RECORDS for noted in log.note(record) for r in board.note(noted)]
    board.close()
    return found


def events(folder: Path) -> dict[str, dict[int, Any]]:
    """Returns the curves that TensorBoard's reader finds, by name and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {
        name: {e.step: make_ndarray(e.tensor_proto).item() for e in reader.Tensors(name)}
        for name in reader.Tags()["tensors"]
    }


def test_tensorboard_finds_every_curve_and_the_samples(tmp_path: Path) -> None:
    assert told(tmp_path) == RECORDS
    found = events(tmp_path)
    found.pop("custom_scalars__config__")
    assert found.pop("sample 1") == {2: "Once upon a time — 桜".encode()}
    expected: dict[str, dict[int, float]] = {
        "training/loss": {1: 3.0, 2: 2.0},
        "training/average": {1: 3.0, 2: 2.5},
        "training/learning rate": {1: 1e-4, 2: 2e-4},
        "training/gradient norm": {1: 0.5, 2: 0.25},
        "training/tokens per second": {1: 100.0, 2: 200.0},
        "validation/loss": {0: 3.5, 2: 2.25},
        "validation/perplexity": {0: 33.1, 2: 9.49},
        "validation/accuracy": {0: 0.25, 2: 0.5},
    }
    assert set(found) == set(expected)
    for name, curve in expected.items():
        assert found[name] == pytest.approx(curve, rel=1e-6), name


# TensorBoard's own copy of a library warns when it is imported.
@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated:DeprecationWarning")
def test_tensorboard_shows_training_and_validation_loss_in_one_chart(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

    told(tmp_path)
    events_of = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    events_of.Reload()
    provider = MultiplexerDataProvider(events_of, str(tmp_path))
    plugin = CustomScalarsPlugin(TBContext(logdir=str(tmp_path), data_provider=provider))
    (category,) = json.loads(plugin.layout_impl(RequestContext(), ""))["category"]
    (chart,) = category["chart"]
    curves = set(events(tmp_path))
    for pattern, name in zip(chart["multiline"]["tag"], ("loss", "average", "loss"), strict=True):
        (found,) = [curve for curve in curves if re.search(pattern, curve)]
        assert found.endswith("/" + name)
    assert chart["multiline"]["tag"][-1] == "^validation/loss$"


def test_loss_png_is_drawn_at_each_save(tmp_path: Path) -> None:
    told(tmp_path)
    content = (tmp_path / "loss.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (960, 600)


def test_a_save_while_a_picture_is_drawn_is_in_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2cli.training import curves
    from gpt2cli.training.curves import TensorBoardWriter

    drawn, free = [], threading.Event()

    def draw(folder: Path) -> None:
        free.wait(10)
        drawn.append(run_log.history(folder).steps)

    monkeypatch.setattr(curves, "draw", draw)
    log, board = run_log.Log(tmp_path), TensorBoardWriter(tmp_path)
    for step in (1, 2):
        for record in (StepReport(step=step, seconds=0.5, loss=3.0, average=3.0), Saved(step, "x")):
            for noted in log.note(record):
                list(board.note(noted))
    free.set()
    board.close()
    assert len(drawn) == 2
    assert drawn[-1] == [1, 2]


def test_the_picture_shows_what_the_log_says(tmp_path: Path) -> None:
    from gpt2cli.training.curves import figure

    told(tmp_path)
    axes = figure(run_log.history(tmp_path), "run1").axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["each step"] == [[1, 3.0], [2, 2.0]]
    assert lines["training, average"] == [[1, 3.0], [2, 2.5]]
    assert lines["validation, lowest 2.250 at step 2"] == [[0, 3.5], [2, 2.25]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss (nats per token)")


def test_a_first_loss_that_dwarfs_the_rest_does_not_hide_it(tmp_path: Path) -> None:
    from gpt2cli.training.curves import figure

    steps = list(range(1, 101))
    averages = [10.0, 8.0, *([1.2] * 50), *([0.6] * 48)]
    curve = run_log.History(steps=steps, losses=averages, averages=averages)
    curve.val_steps, curve.val_losses = [0, 50, 100], [9.0, 1.0, 0.7]
    axes = figure(curve, "run1").axes[0]
    assert axes.get_yscale() == "log"
    # Where the curve falls from 1.2 to 0.6 takes a fifth of the picture's height, and not a tenth.
    low, high = (axes.transData.transform((50, y))[1] for y in (0.6, 1.2))
    assert (high - low) / axes.bbox.height > 0.2
    assert [text.get_text() for text in axes.texts] == ["0.700", "0.600"]
    axes.figure.savefig(tmp_path / "loss.png")
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert "1" in shown and "5" in shown, shown
    even = run_log.History(steps=steps, losses=[2.0] * 100, averages=[2.0] * 100)
    assert figure(even, "run1").axes[0].get_yscale() == "linear"


def test_steps_that_are_trained_again_replace_what_they_were(tmp_path: Path) -> None:
    lines = [
        *({"event": "step", "step": n, "loss": n, "average": n} for n in (1, 2, 3, 4)),
        {"event": "validation", "step": 4, "loss": 9.0},
        {"event": "notice", "message": "stopped"},
        *({"event": "step", "step": n, "loss": 10 * n, "average": n} for n in (3, 4)),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / run_log.LOG).write_text(text + '{"event": "step", "st')
    found = run_log.history(tmp_path)
    assert (found.steps, found.losses) == ([1, 2, 3, 4], [1, 2, 30, 40])
    assert found.val_steps == []
    assert run_log.history(tmp_path / "none").steps == []


def test_events_that_cannot_be_written_end_with_a_line(tmp_path: Path) -> None:
    from gpt2cli.training.curves import TensorBoardWriter

    (tmp_path / "file").write_text("")
    board = TensorBoardWriter(tmp_path / "file")
    first = list(board.note(RECORDS[2]))
    assert first[0] == RECORDS[2]
    assert "Training goes on" in str(first[1])
    assert list(board.note(RECORDS[3])) == [RECORDS[3]]
    board.close()
