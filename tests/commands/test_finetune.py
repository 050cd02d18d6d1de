"""finetune as it is used: training, resuming, refusing, stopping."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.finetune import finetune
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import BadDataError, Gpt2cliError, MissingInputError, UsageError
from gpt2cli.files import paths
from gpt2cli.records import Notice, Sample, Saved, StepReport, Stopped, Validation
from gpt2cli.storage import bundle
from gpt2cli.text import batches, token_files
from tests import models, oracle
from tests.conftest import Run

TEXT = "".join(f"{n}. The cat sat on the mat, and the other cat sat there.\n" for n in range(60))


GPT2CLI = [sys.executable, "-u", "-m", "gpt2cli"]


@pytest.fixture
def place(tmp_path: Path, mini_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with `models/small` and a text to train on."""
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(**options: Any) -> list[Any]:
    """Fine-tunes models/small in this process; returns what was yielded."""
    settings: dict[str, Any] = {
        "dataset": ("text.txt",),
        "model_name": "small",
        "seed": 1,
        "accumulate_gradients": 2,
        "learning_rate": 1e-3,
        "sample_every": 0,
        # Compiling takes longer than these few steps.
        "xla": False,
        "val_fraction": None if options.get("val_dataset") else 0.0,
    }
    return list(finetune(FinetuneConfig(**settings | options)))


def losses(records: list[Any]) -> list[tuple[int, float, float]]:
    return [(r.step, r.loss, r.average) for r in records if isinstance(r, StepReport)]


def arrays(run: str, step: int, kind: str = "model") -> dict[str, Any]:
    from gpt2cli.storage import checkpoint

    prefix = Path("checkpoint", run, f"{kind}-{step}")
    return dict(checkpoint.load(prefix, bundle.read_index(prefix)[0]))


def test_training_lowers_the_loss_and_leaves_a_run_folder(place: Path) -> None:
    records = trained(steps=40, save_every=15, sample_every=20, sample_length=10)
    steps = losses(records)
    assert [step for step, _, _ in steps] == list(range(1, 41))
    assert steps[-1][1] < steps[0][1] - 1
    assert [r.step for r in records if isinstance(r, Saved)] == [15, 30, 40]
    assert [r.step for r in records if isinstance(r, Sample)] == [20, 40]
    run = place / "checkpoint" / "run1"
    assert paths.newest(run) == run / "model-40"
    assert paths.checkpoint_steps(run) == [30, 40]
    for name in ("encoder.json", "vocab.bpe", "hparams.json"):
        assert (run / name).read_bytes() == (place / "models" / "small" / name).read_bytes()
    assert (run / "counter").read_text() == "40\n"
    assert json.loads((run / "config.json").read_text())["learning_rate"] == 1e-3
    events = [json.loads(line)["event"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert (events.count("step"), events.count("save"), events.count("sample")) == (40, 3, 2)
    assert (run / "samples" / "samples-40.txt").read_text().startswith("======== SAMPLE 1 ====")
    bundle.check_weights(run / "model-40", models.MINI)


def test_a_damaged_token_file_is_made_again(place: Path) -> None:
    first = trained(steps=1)
    (path,) = (place / "checkpoint" / "run1").glob("tokens-*.u16")
    whole = path.read_bytes()
    for content in (whole[:7] + bytes([whole[7] ^ 1]) + whole[8:], whole[:-40]):
        path.write_bytes(content)
        records = trained(restore_from="fresh", overwrite=True, steps=1)
        assert f"checkpoint/run1/{path.name} is damaged; the text is encoded again." in list(
            map(str, records)
        )
        assert losses(records) == losses(first)
        assert path.read_bytes() == whole
    assert "damaged" not in "".join(map(str, trained(steps=1)))


def test_the_first_loss_is_the_oracles(place: Path) -> None:
    ((_, loss, average),) = losses(trained(steps=1, accumulate_gradients=3, batch_size=2))
    (path,) = (place / "checkpoint" / "run1").glob("tokens-*.u16")
    drawn = batches.windows(token_files.open_tokens(path), 1, 0, 6, models.MINI.n_ctx)
    weights = models.random_arrays(models.MINI)
    expected = np.mean([oracle.loss(weights, models.MINI.n_head, row) for row in drawn])
    assert loss == pytest.approx(expected, abs=1e-5)
    assert average == loss


@pytest.mark.slow
def test_a_run_that_is_continued_equals_one_that_never_stopped(place: Path) -> None:
    options: dict[str, Any] = {"warmup_steps": 3, "dropout": 0.1}
    options |= {"sample_every": 4, "sample_length": 8}
    parts = [
        record
        for last in (5, 6, 12)
        for record in trained(run_name="parts", until_step=last, **options)
    ]
    whole = trained(run_name="whole", until_step=12, **options)
    assert losses(parts) == losses(whole)
    for kind in ("model", "optimizer"):
        found, expected = arrays("parts", 12, kind), arrays("whole", 12, kind)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    samples = [
        (place / "checkpoint" / r / "samples/samples-12.txt").read_text()
        for r in ("parts", "whole")
    ]
    assert samples[0] == samples[1]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(place: Path) -> None:
    first, again = (losses(trained(run_name=name, steps=3)) for name in ("a", "b"))
    assert first == again
    assert losses(trained(run_name="c", steps=3, seed=2)) != first


def test_a_run_needs_no_base_model_once_it_has_begun(place: Path) -> None:
    trained(steps=2)
    shutil.rmtree(place / "models")
    assert [step for step, _, _ in losses(trained(steps=2, model_name=None))] == [3, 4]


def test_until_step_of_a_finished_run_does_nothing(place: Path) -> None:
    trained(until_step=2)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("model-*")}
    records = trained(until_step=2)
    assert [str(r) for r in records] == ["checkpoint/run1 is already at step 2."]
    assert {path: path.stat().st_mtime_ns for path in place.rglob("model-*")} == before


def test_a_changed_corpus_is_said_and_begins_a_new_epoch(place: Path) -> None:
    trained(steps=3)
    (place / "text.txt").write_text(TEXT[::-1])
    records = trained(steps=1)
    assert any("another one than before" in str(r) for r in records if isinstance(r, Notice))
    state = json.loads((place / "checkpoint/run1/state-4.json").read_text())
    assert state["windows"] == 2


def test_validation_comes_before_the_first_step_and_falls(place: Path) -> None:
    (place / "held-out.txt").write_text(TEXT[-500:])
    records = trained(steps=30, val_dataset=("held-out.txt",), val_every=10, learning_rate=3e-3)
    found = [r for r in records if isinstance(r, Validation)]
    assert [r.step for r in found] == [0, 10, 20, 30]
    assert found[-1].loss < found[0].loss - 1
    assert found[-1].accuracy > found[0].accuracy
    assert found[0].perplexity == pytest.approx(np.exp(found[0].loss))
    assert re.fullmatch(
        r"\[30 \| \d+\.\d\d\] val_loss=\d\.\d{4} perplexity=\d+\.\d\d accuracy=0\.\d{3}",
        str(found[-1]),
    )


def test_a_part_of_the_text_is_held_out_unless_it_is_told_not_to(place: Path) -> None:
    records = trained(steps=2, val_fraction=None)
    assert [r.step for r in records if isinstance(r, Validation)] == [0, 2]
    assert any(re.fullmatch(r"corpus: .* tokens, and 1\d\d held out", str(r)) for r in records)
    records = trained(steps=1, val_fraction=0.0)
    assert not [r for r in records if isinstance(r, Validation)]
    # What is trained on is another text now.
    assert any("another one than before" in str(r) for r in records)


def test_a_text_that_fills_no_window_is_trained_on(place: Path) -> None:
    (place / "short.txt").write_text("The cat sat.")
    steps = losses(trained(dataset=("short.txt",), steps=20, learning_rate=1e-2))
    assert steps[-1][1] < steps[0][1] - 1
    weights = models.random_arrays(models.MINI)
    row = token_files.open_tokens(next((place / "checkpoint" / "run1").glob("tokens-*.u16")))
    assert steps[0][1] == pytest.approx(oracle.loss(weights, models.MINI.n_head, row), abs=1e-5)


@pytest.mark.parametrize(
    ("number", "before", "lines"),
    [
        (signal.SIGINT, "", 8_000_000),
        pytest.param(
            signal.SIGTERM,
            "import sys; sys.modules['numba'] = None",
            2_000_000,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["threads", "no numba"],
)
def test_a_signal_while_the_corpus_is_encoded_leaves_nothing(
    number: int, before: str, lines: int, place: Path
) -> None:
    with (place / "large.txt").open("w") as file:
        file.writelines(f"{n} is a number, and so is {n * n}.\n" for n in range(lines))
    program = f"{before}\nfrom gpt2cli.cli import main\nmain()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "finetune", "large.txt", "--model-name", "small"],
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not list(place.glob("checkpoint/run1/.tokens*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert b"Traceback" not in said
    assert not (place / "checkpoint").exists()


@pytest.mark.slow
def test_a_corpus_on_stdin_is_trained_on(cli: Run, place: Path) -> None:
    arguments = ["-", "--model-name", "small", "--steps", 1, "--sample-every", 0, "--seed", 1]
    done = cli("finetune", *arguments, input=TEXT)
    assert done.returncode == 0, done.stderr
    told = re.search(r"\[1 \| .*\] (loss=.*)", done.stderr)
    assert told is not None
    options: dict[str, Any] = {"accumulate_gradients": 5, "learning_rate": 1e-4}
    same = trained(run_name="file", steps=1, val_fraction=None, **options)
    (step,) = [record for record in same if isinstance(record, StepReport)]
    assert str(step).endswith(told[1])


def test_the_best_checkpoint_is_kept_and_training_ends_without_gain(place: Path) -> None:
    (place / "other.txt").write_text("zyxwvutsrqponmlkjihgfedcba 9876543210 " * 20)
    options: dict[str, Any] = {"val_dataset": ("other.txt",), "val_every": 2, "max_checkpoints": 1}
    records = trained(steps=400, patience=4, learning_rate=2e-2, **options)
    found = {r.step: r.loss for r in records if isinstance(r, Validation)}
    best = min(found, key=lambda step: found[step])
    ended = max(found)
    assert 0 < best < ended < 400
    assert ended == best + 8
    ending = "\n".join(map(str, records[-4:]))
    assert f"No gain in 4 validations; the best was step {best}" in ending
    assert json.loads(Path("checkpoint/run1/best.json").read_text()) == {
        "step": best,
        "loss": found[best],
    }
    assert paths.checkpoint_steps(Path("checkpoint/run1")) == [best, ended]
    again = trained(steps=2, **options)
    assert not any(isinstance(r, Saved) and r.step < ended + 2 for r in again)
    assert best in paths.checkpoint_steps(Path("checkpoint/run1"))


def decided(run: str, step: int) -> dict[str, Any]:
    """Returns all that a step's state says, but for the hashes of its files."""
    state = json.loads(Path("checkpoint", run, f"state-{step}.json").read_text())
    return {key: state[key] for key in state.keys() - {"files", "static", "sha256"}}


@pytest.mark.slow
def test_an_optimizer_that_keeps_nothing_is_saved_and_continued(place: Path) -> None:
    options: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1e-2}
    trained(run_name="parts", until_step=2, **options)
    trained(run_name="parts", until_step=4, **options)
    trained(run_name="whole", until_step=4, **options)
    parts, whole = arrays("parts", 4), arrays("whole", 4)
    assert all((parts[name] == whole[name]).all() for name in whole)


@pytest.mark.slow
def test_a_resume_is_no_validation_and_costs_no_patience(place: Path) -> None:
    (place / "held-out.txt").write_text(TEXT[-500:])
    options: dict[str, Any] = {"val_dataset": ("held-out.txt",), "val_every": 4, "patience": 2}
    judged: list[int] = []
    for last in (4, 6, 7, 12):
        records = trained(run_name="parts", until_step=last, **options)
        assert not any("No gain" in str(record) for record in records)
        judged += [record.step for record in records if isinstance(record, Validation)]
    # No step twice: neither the one at which a run was continued nor the last.
    assert judged == [0, 4, 6, 7, 8, 12]
    trained(run_name="whole", until_step=12, **options)
    assert decided("parts", 12) == decided("whole", 12)
    assert decided("whole", 12)["since_best"] == 0


def test_a_run_whose_patience_is_over_trains_no_more(place: Path) -> None:
    (place / "other.txt").write_text("zyxwvutsrqponmlkjihgfedcba 9876543210 " * 20)
    options: dict[str, Any] = {"val_dataset": ("other.txt",), "val_every": 1, "patience": 2}
    ended = losses(trained(steps=400, learning_rate=2e-2, **options))[-1][0]
    records = trained(steps=400, **options)
    assert losses(records) == []
    assert "No gain in 2 validations" in str(records[-1])
    assert paths.newest(place / "checkpoint/run1") == place / f"checkpoint/run1/model-{ended}"


def test_a_run_that_ends_is_judged_and_the_best_step_is_named(place: Path) -> None:
    (place / "held-out.txt").write_text(TEXT[-500:])
    options: dict[str, Any] = {"val_dataset": ("held-out.txt",), "learning_rate": 3e-3}
    for night in (1, 2):
        records = trained(steps=10, **options)
        found = [r for r in records if isinstance(r, Validation)]
        assert [r.step for r in found] == ([0, 10] if night == 1 else [20])
        best = json.loads(Path("checkpoint/run1/best.json").read_text())
        assert best == {"step": 10 * night, "loss": found[-1].loss}
        assert decided("run1", 10 * night)["val_loss"] == found[-1].loss
    (early,) = [
        r for r in trained(steps=-1, max_minutes=0.01, **options) if isinstance(r, Validation)
    ]
    assert early.step > 20
    assert not [r for r in trained(steps=2, val_every=0, **options) if isinstance(r, Validation)]


@pytest.mark.parametrize("last", [5, pytest.param(40, marks=pytest.mark.slow)])
def test_a_signal_in_a_validation_leaves_the_run_as_if_there_had_been_none(
    last: int, place: Path
) -> None:
    (place / "held-out.txt").write_text(TEXT)
    options: dict[str, Any] = {"val_dataset": ("held-out.txt",), "val_every": 5, "sample_every": 5}
    options |= {"sample_length": 4, "patience": 9}
    records = []
    for record in finetune(
        FinetuneConfig(
            dataset=("text.txt",), model_name="small", seed=1, accumulate_gradients=2,
            learning_rate=1e-3, xla=False, run_name="cut", until_step=last, **options,
        )
    ):  # fmt: skip
        records.append(record)
        if isinstance(record, StepReport) and record.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
    assert isinstance(records[-1], Stopped)
    assert "Step 5 is saved" in str(records[-1])
    assert [r.step for r in records if isinstance(r, Validation)] == [0]
    assert decided("cut", 5)["val_step"] == 0
    rest = trained(run_name="cut", until_step=last, **options)
    assert next(r.step for r in rest if isinstance(r, Validation)) == 5
    trained(run_name="whole", until_step=last, **options)
    assert decided("cut", last) == decided("whole", last)
    for name in ("best.json", "samples/samples-5.txt"):
        found, expected = (Path("checkpoint", run, name).read_text() for run in ("cut", "whole"))
        assert found == expected
    assert len(trained(run_name="cut", until_step=last, **options)) == 1


def test_samples_that_a_signal_cut_off_are_made_up_for(place: Path) -> None:
    (place / "held-out.txt").write_text(TEXT)
    options: dict[str, Any] = {"val_dataset": ("held-out.txt",), "val_every": 4, "sample_every": 4}
    options |= {"sample_length": 4, "until_step": 4}
    records = []
    for record in finetune(
        FinetuneConfig(
            dataset=("text.txt",), model_name="small", seed=1, accumulate_gradients=2,
            learning_rate=1e-3, xla=False, run_name="cut", **options,
        )
    ):  # fmt: skip
        records.append(record)
        if isinstance(record, Validation) and record.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
    assert isinstance(records[-1], Stopped)
    assert not Path("checkpoint/cut/samples").exists()
    rest = trained(run_name="cut", **options)
    assert [r.step for r in rest if isinstance(r, (StepReport, Validation, Saved))] == []
    trained(run_name="whole", **options)
    found, expected = (Path("checkpoint", r, "samples/samples-4.txt") for r in ("cut", "whole"))
    assert found.read_text() == expected.read_text()
    assert len(trained(run_name="cut", **options)) == 1


def test_a_new_run_folder_is_not_taken_for_the_model_of_its_name(place: Path) -> None:
    records = trained(model_name="tiny", checkpoint_dir=".", run_name="tiny", steps=1)
    assert any("from models/tiny/model.ckpt: " in str(record) for record in records)
    assert (place / "tiny" / "model-1.index").exists()


def test_epochs_end_when_the_text_was_seen_so_often(place: Path) -> None:
    options: dict[str, Any] = {"val_fraction": 0.0, "batch_size": 3}
    steps = losses(trained(epochs=1.5, **options))
    state = json.loads((place / f"checkpoint/run1/state-{steps[-1][0]}.json").read_text())
    size = len(token_files.open_tokens(next((place / "checkpoint/run1").glob("tokens-*.u16"))))
    wanted = 1.5 * (size // models.MINI.n_ctx)
    assert wanted <= state["windows"] < wanted + 6
    assert losses(trained(epochs=1.5, **options)) == []


def test_minutes_that_are_over_end_training_saved(place: Path) -> None:
    records = trained(steps=-1, max_minutes=0.02, print_every=0)
    assert any("0.02 minutes are over" in str(record) for record in records)
    (saved,) = [record for record in records if isinstance(record, Saved)]
    assert paths.checkpoint_steps(place / "checkpoint/run1") == [saved.step]
    assert str(records[-1]) == "next: gpt2cli generate --run-name run1"


@pytest.mark.slow
def test_another_optimiser_begins_its_averages_anew_and_says_so(place: Path) -> None:
    trained(steps=1)
    records = trained(steps=1, optimizer="adafactor")
    assert any("the optimiser is adafactor now" in str(record) for record in records)
    records = trained(steps=1, optimizer="adafactor")
    assert not any("optimiser" in str(record) for record in records)


def test_overwriting_starts_over_and_removes_the_old_checkpoints(place: Path) -> None:
    trained(steps=9)
    records = trained(steps=2, restore_from="fresh", overwrite=True)
    assert [step for step, _, _ in losses(records)] == [1, 2]
    assert paths.checkpoint_steps(place / "checkpoint" / "run1") == [2]


def test_a_run_of_gpt_2_simples_goes_on_and_says_what_it_lacks(
    place: Path, mini_model: Path
) -> None:
    run = place / "checkpoint" / "run1"
    shutil.copytree(mini_model, run)
    for path in run.glob("model.ckpt*"):
        path.rename(path.with_name(path.name.replace("model.ckpt", "model-77")))
    (run / "checkpoint").write_text('model_checkpoint_path: "model-77"\n')
    (run / "counter").write_text("77\n")
    records = trained(steps=1, model_name=None)
    assert [step for step, _, _ in losses(records)] == [78]
    assert any("no optimiser state" in str(record) for record in records)
    assert paths.index_file(run / "model-77").exists()


def test_a_loss_that_is_no_number_ends_training_unsaved(place: Path) -> None:
    trained(steps=2)
    with pytest.raises(Gpt2cliError, match=r"loss of step \d+ is nan.*Step 2 is safe") as caught:
        trained(steps=30, learning_rate=1e30, clip_norm=0.0)
    assert caught.value.exit_code == 1
    for array in arrays("run1", paths.checkpoint_steps(place / "checkpoint/run1")[-1]).values():
        assert np.all(np.isfinite(array))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"dataset": ("no.txt",)}, MissingInputError, "no.txt"),
        ({"dataset": ("empty.txt",)}, BadDataError, "empty"),
        ({"dataset": ("latin.txt",)}, BadDataError, r"latin\.txt: byte 3"),
        ({"dataset": ("short.npy",)}, BadDataError, "1 tokens found, and at least 2 are needed"),
        ({"val_fraction": 0.0001}, BadDataError, "leaves .* and 0 to validate on"),
        ({"dataset": ("rows.csv",), "csv_column": "text"}, BadDataError, "has 'id', 'body'"),
        ({"dataset": ("lines.jsonl",)}, BadDataError, r"lines\.jsonl, line 2: no JSON"),
        ({"encoding": "klingon"}, UsageError, "unknown encoding: klingon"),
        ({"dataset": ("binary.bin",)}, BadDataError, "binary"),
        ({"model_name": "large"}, MissingInputError, "models/large"),
        ({"window": 33}, UsageError, "--window 33 is more than the model's n_ctx, 32"),
        ({"sample_prefix": "x" * 40}, UsageError, "--sample-prefix has 40 tokens"),
        ({"val_dataset": ("no.txt",)}, MissingInputError, "no.txt"),
        ({"val_dataset": ("short.npy",)}, BadDataError, "1 tokens found"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    options: dict[str, Any], kind: type[Gpt2cliError], message: str, place: Path
) -> None:
    (place / "empty.txt").write_text("")
    (place / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    np.save(place / "short.npy", np.array([259]))
    (place / "rows.csv").write_text("id,body\n1,fine\n")
    (place / "lines.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (place / "binary.bin").write_bytes(b"\0\1")
    with pytest.raises(kind, match=message):
        trained(**options)
    assert not (place / "checkpoint").exists()


def test_exit_codes_and_messages_of_the_command(cli: Run, place: Path) -> None:
    (place / "empty.txt").write_text("")
    for arguments, code in (
        (["no.txt"], 66),
        (["empty.txt"], 65),
        (["text.txt", "--model-name", "large"], 66),
        (["text.txt", "--model-name", "small", "--checkpoint-dir", "text.txt"], 73),
        (["text.txt", "--model-name", "124M", "--offline"], 66),
    ):
        done = cli("finetune", *arguments)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert done.stderr.startswith("gpt2cli: ")
        assert len(done.stderr.splitlines()) <= 2
    assert not (place / "checkpoint").exists()


@pytest.fixture
def command(place: Path) -> Iterator[subprocess.Popen[str]]:
    """An endless training run in a process of its own."""
    arguments = "finetune text.txt --model-name small --steps -1 --val-fraction 0 --no-xla"
    process = subprocess.Popen(
        [*GPT2CLI, *arguments.split(), "--seed=1", "--sample-every=0", "--save-every=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_stops_after_the_step_and_saves_it(
    number: int, code: int, place: Path, command: subprocess.Popen[str]
) -> None:
    assert command.stderr is not None
    for line in command.stderr:
        if line.startswith("[3 |"):
            break
    command.send_signal(number)
    _, rest = command.communicate(timeout=60)
    assert command.returncode == code
    assert "stopping after this step" in rest
    step = paths.checkpoint_steps(place / "checkpoint" / "run1")[-1]
    assert f"Step {step} is saved" in rest
    expected = trained(
        run_name="whole", until_step=step, accumulate_gradients=5, learning_rate=1e-4
    )
    assert losses(expected)[-1][0] == step
    for name, array in arrays("whole", step).items():
        np.testing.assert_array_equal(arrays("run1", step)[name], array, err_msg=name)


@pytest.mark.slow
def test_a_second_process_is_refused_while_one_trains(
    cli: Run, command: subprocess.Popen[str]
) -> None:
    assert command.stderr is not None
    next(line for line in command.stderr if line.startswith("[1 |"))
    done = cli("finetune", "text.txt", "--model-name", "small")
    assert done.returncode == 75
    assert f"process {command.pid}" in done.stderr
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    time.sleep(0.1)
    assert cli("finetune", "text.txt", "--until-step", "1", "--model-name", "small").returncode == 0


@pytest.mark.slow
def test_generated_text_goes_to_stdout_and_all_else_to_stderr(cli: Run, place: Path) -> None:
    arguments = "finetune text.txt --model-name small --steps 2 --sample-every 2 --sample-length 5"
    done = cli(*arguments.split(), "--seed", 1, "--sample-prefix", "The cat")
    assert done.returncode == 0
    assert done.stdout.startswith("======== SAMPLE 1 ========\nThe cat")
    assert re.search(r"^\[1 \| \d+\.\d\d\] loss=\d\.\d\d avg=\d\.\d\d$", done.stderr, re.MULTILINE)
    assert "saved step 2: checkpoint/run1/model-2" in done.stderr
    # A slow machine says that TensorFlow loads; TensorFlow itself says nothing.
    assert "tensorflow" not in re.sub(r"loading TensorFlow.*", "", done.stderr).lower()
    quiet = cli("finetune", "text.txt", "--steps", 1, "-q", "--sample-every", 0)
    assert quiet.stderr == ""
