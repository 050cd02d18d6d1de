"""export as it is used: where it reads, what it refuses, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli import progress
from gpt2cli.commands import export as command
from gpt2cli.commands.export import export
from gpt2cli.commands.finetune import finetune
from gpt2cli.config.export import PRECISIONS, ExportConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import BadDataError, DiskError, MissingInputError, OutputError, UsageError
from gpt2cli.files import exports, paths
from gpt2cli.records import Exported, Notice
from gpt2cli.storage import bundle_writer, checkpoint
from tests import models
from tests.conftest import Run
from tests.faults.test_places import mounted
from tests.terminals import screen

# Names whose endings say the format.
NAMES = {"tar": "out.tar", "gguf": "out.gguf"}
needs_gguf = pytest.mark.skipif(find_spec("gguf") is None, reason="needs the extra `export`")


@pytest.fixture
def place(tmp_path: Path, mini_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with `models/small`."""
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(destination: str, **options: Any) -> list[Any]:
    settings: dict[str, Any] = {"model_name": "small", "destination": destination}
    return list(export(ExportConfig(**settings | options)))


def train(steps: int, **more: Any) -> None:
    Path("text.txt").write_text("The cat sat on the mat, and the other cat sat there.\n" * 30)
    options: dict[str, Any] = {"model_name": "small", "seed": 1, "xla": False, "save_every": 1}
    options |= {"sample_every": 0, "val_every": 0, "accumulate_gradients": 1}
    list(finetune(FinetuneConfig(dataset=("text.txt",), steps=steps, **options | more)))


def weights(prefix: Path) -> dict[str, Any]:
    return dict(checkpoint.load(prefix, models.MINI.shapes()))


def test_what_was_written_is_told(place: Path) -> None:
    records = run("out", format="openai")
    assert records[0] == Notice("from models/small/model.ckpt")
    files = [path for path in Path("out").iterdir() if path.name != exports.MARK]
    size = sum(path.stat().st_size for path in files)
    assert records[1:] == [Exported(path="out", kind="openai", precision="float32", size=size)]
    assert str(records[1]) == "exported out: openai, float32, 0.1 MB"


def test_any_checkpoint_of_a_run_is_exported(place: Path) -> None:
    train(2)
    for chosen, step in (("latest", 2), ("1", 1)):
        run(f"of-{step}", model_name=None, checkpoint=chosen, format="openai")
        found = weights(Path(f"of-{step}") / "model.ckpt")
        for name, array in weights(Path(f"checkpoint/run1/model-{step}")).items():
            assert found[name].tobytes() == array.tobytes(), name
    card = (run("card", model_name=None), Path("card/README.md").read_text())[1]
    assert "# GPT-2 small, fine-tuned for 2 steps\n" in card
    assert str(place) not in card
    assert "text.txt" not in card


def test_a_run_that_rotates_is_followed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(1)
    load = command.write_aside
    found: list[Path] = []

    def rotated(*arguments: Any) -> None:
        if not found:
            train(2)
        found.append(arguments[-2])
        load(*arguments)

    monkeypatch.setattr(command, "write_aside", rotated)
    records = run("out", model_name=None, format="openai")
    assert Notice("again, from checkpoint/run1/model-3") in records
    assert [prefix.name for prefix in found] == ["model-1", "model-3"]
    written, wanted = weights(Path("out/model.ckpt")), weights(Path("checkpoint/run1/model-3"))
    assert all(written[name].tobytes() == wanted[name].tobytes() for name in wanted)


def test_a_damaged_checkpoint_is_stepped_over_and_it_is_said(place: Path) -> None:
    train(2)
    path = paths.data_file(Path("checkpoint/run1/model-2"))
    path.write_bytes(bytes(path.stat().st_size))
    records = run("out", model_name=None)
    assert "stepped over" in str(records[0])
    assert records[1] == Notice("from checkpoint/run1/model-1")


def test_adapters_are_exported_merged(place: Path) -> None:
    train(2, lora_rank=2, learning_rate=0.1)
    run("out", model_name=None, format="openai")
    base = weights(Path("models/small/model.ckpt"))
    shapes = models.MINI.lora_shapes(2)
    adapters = dict(checkpoint.load(Path("checkpoint/run1/model-2"), shapes))
    for name, array in weights(Path("out/model.ckpt")).items():
        expected = base[name]
        if name + "/lora_a" in adapters:
            product = adapters[name + "/lora_a"] @ adapters[name + "/lora_b"]
            expected = expected + adapters["model/lora/scale"] * product
            assert np.abs(expected - base[name]).max() > 1e-3
        np.testing.assert_allclose(array, expected, rtol=1e-6)


def test_adapters_travel_with_the_weights_beside_them(place: Path) -> None:
    train(2, lora_rank=2)
    run("out.tar", model_name=None)
    shutil.move("checkpoint", "before")
    subprocess.run(["tar", "xf", "out.tar"], check=True)
    there = Path("checkpoint/run1")
    assert weights(there / "model-2").keys() == models.MINI.shapes().keys()
    train(1, lora_rank=2)
    assert paths.newest(there) == there / "model-3"


def test_adapters_are_trained_beside_a_hugging_face_model(place: Path) -> None:
    run("there")
    train(1, model_name="there", lora_rank=2)
    shutil.rmtree("there")
    base = weights(Path("models/small/model.ckpt"))
    beside = weights(Path("checkpoint/run1/base"))
    assert all(beside[name].tobytes() == base[name].tobytes() for name in base)
    train(1, model_name=None)
    assert paths.newest(Path("checkpoint/run1")) == Path("checkpoint/run1/model-2")
    run("there")
    with pytest.raises(BadDataError, match="adapters to other weights"):
        train(1, model_name=None, restore_from="there", overwrite=True)


def test_a_run_that_gpt_2_simple_wrote_is_exported(place: Path) -> None:
    train(3)
    folder = Path("checkpoint/run1")
    for path in [*folder.glob("optimizer-*"), *folder.glob("state-*"), folder / "config.json"]:
        path.unlink()
    run("out", model_name=None)
    assert "# GPT-2 run1, fine-tuned for 3 steps\n" in Path("out/README.md").read_text()
    run("out.tar", model_name=None)
    with tarfile.open("out.tar") as archive:
        names = [name.removeprefix("checkpoint/run1/") for name in archive.getnames()]
    assert names == [
        *("hparams.json", "encoder.json", "vocab.bpe", "model-3.data-00000-of-00001"),
        *("model-3.index", "checkpoint", "counter", "log.jsonl"),
    ]


def test_a_signal_leaves_nothing_behind(place: Path) -> None:
    # Large enough to be caught in the act.
    wide = dataclasses.replace(models.MINI, n_embd=2048)
    folder = models.write_description(place / "models" / "wide", wide)
    zeros = ((name, np.zeros(shape, np.float32)) for name, shape in wide.shapes().items())
    bundle_writer.write(folder / "model.ckpt", zeros)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2cli", "export", "new/out", "--model-name", "wide"],
        stderr=subprocess.PIPE,
    )
    while not list(place.glob("new/.out.*.part/model.safetensors")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 143, printed
    assert sorted(path.name for path in place.iterdir()) == ["models"]


@pytest.mark.parametrize("name", ["x", pytest.param("x.gguf", marks=needs_gguf), "x.tar", "x.tgz"])
def test_how_far_it_is_is_told_by_a_bar_or_by_lines(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with screen() as shown:
        run(name)
    (line,) = [line for line in shown.seen if line]
    assert line.startswith(f"writing {name}: ") and "|██████████|" in line
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.0)
    run(name, overwrite=True)
    assert f"writing {name}" in capfd.readouterr().err
    run(name, overwrite=True, quiet=True)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("x", {}, "huggingface"),
        ("x.gguf", {}, "gguf"),
        ("x.tar", {}, "tar"),
        ("x.tar.gz", {}, "tar"),
        ("x.tgz", {}, "tar"),
        ("x", {"format": "openai"}, "openai"),
    ],
)
def test_the_name_tells_the_format(name: str, options: dict[str, Any], kind: str) -> None:
    assert ExportConfig(destination=name, **options).kind == kind


def test_a_precision_must_fit_the_format() -> None:
    for kind, known in PRECISIONS.items():
        for precision in ("float32", "float16", "q8_0"):
            settings: Any = {"format": kind, "precision": precision}
            if precision in known:
                ExportConfig(destination=NAMES.get(kind, "out"), **settings)
                continue
            with pytest.raises(UsageError, match=f"{precision} does not fit --format {kind}"):
                ExportConfig(destination="x.tar", **settings)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match=r"must end in \.tar or \.tar\.gz, not 'x'"):
        ExportConfig(destination="x", format="tar")
    with pytest.raises(UsageError, match="DESTINATION"):
        ExportConfig(destination=" ")


def test_a_missing_library_is_told_with_the_command_that_brings_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install .*\[export\]'"):
        run("x.gguf")
    run("x")


@pytest.mark.parametrize(
    "kind", ["huggingface", "openai", "tar", pytest.param("gguf", marks=needs_gguf)]
)
def test_what_is_there_is_replaced_only_where_it_is_said(kind: str, place: Path) -> None:
    name = NAMES.get(kind, "out")
    (place / name).mkdir()
    (place / name / "mine").write_text("precious")
    with pytest.raises(OutputError, match="exists; --overwrite replaces it"):
        run(name, format=kind)
    with pytest.raises(OutputError, match="/mine is not of a gpt2cli export"):
        run(name, format=kind, overwrite=True)
    assert (place / name / "mine").read_text() == "precious"
    (place / name / "mine").unlink()
    for _ in range(3):
        run(name, format=kind, overwrite=True)
    assert sorted(path.name for path in place.iterdir()) == ["models", name]


def test_what_is_exported_or_worked_in_is_not_replaced(place: Path) -> None:
    for path in (".", "models", "models/small", str(place.parent)):
        with pytest.raises(OutputError, match="is not replaced"):
            run(path, overwrite=True)
    assert weights(place / "models/small/model.ckpt")


def test_what_is_not_there_is_named(place: Path) -> None:
    with pytest.raises(MissingInputError, match=r"models/large; models holds small"):
        run("out", model_name="large")
    with pytest.raises(MissingInputError, match="checkpoint/other"):
        run("out", model_name=None, run_name="other")
    train(1)
    with pytest.raises(MissingInputError, match="no checkpoint of step 7; there are: 1"):
        run("out", model_name=None, checkpoint="7")
    assert not Path("out").exists()


def test_a_run_without_a_good_checkpoint_is_refused(place: Path) -> None:
    train(1)
    for path in Path("checkpoint/run1").glob("model-1.*"):
        path.write_bytes(b"x")
    for name in ("out", "out.tar"):
        with pytest.raises(BadDataError, match="No checkpoint of checkpoint/run1 is whole"):
            run(name, model_name=None)


def test_a_run_whose_optimizer_is_damaged_is_not_packed(place: Path) -> None:
    train(1)
    path = paths.data_file(Path("checkpoint/run1/optimizer-1"))
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BadDataError, match="optimizer-1"):
        run("out.tar", model_name=None)
    run("out", model_name=None)


def test_a_hugging_face_folder_is_not_packed(place: Path) -> None:
    run("there")
    with pytest.raises(UsageError, match="--format openai makes a model folder of it"):
        run("out.tar", model_name="there")


def test_a_vocabulary_that_is_too_large_is_refused(place: Path) -> None:
    tokens, _ = models.byte_vocabulary(260)
    more = {"aa": 260, "bb": 261}
    (place / "models/small/encoder.json").write_text(json.dumps(tokens | more))
    with pytest.raises(BadDataError, match=r"has 262 tokens, and the model knows 260"):
        run("out")


def test_an_export_that_fails_leaves_the_old_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("out")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    for error in (BadDataError("x"), KeyboardInterrupt()):
        monkeypatch.setattr(command, "write_aside", lambda *_, error=error: throw(error))
        with pytest.raises(type(error)):
            run("out", overwrite=True)
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    assert sorted(path.name for path in place.iterdir()) == ["models", "out"]


def throw(error: BaseException) -> None:
    raise error


def test_the_command_line_refuses_with_the_contracts_codes(cli: Run, place: Path) -> None:
    base = ["export", "--model-name", "small"]
    (place / "out").mkdir()
    refusals = {
        2: [*base, "new", "--precision", "q8_0"],
        66: ["export", "new", "--run-name", "nothing"],
        73: [*base, "out"],
    }
    for code, arguments in refusals.items():
        done = cli(*arguments)
        assert done.returncode == code, done.stderr
        assert (len(done.stderr.splitlines()), done.stdout) == (1, "")
    (place / "file").write_text("in the way")
    assert cli(*base, "file/new").returncode == 73
    assert sorted(path.name for path in place.iterdir()) == ["file", "models", "out"]


def test_a_read_only_folder_is_refused_with_its_path(cli: Run, place: Path) -> None:
    (place / "there").mkdir()
    with mounted(place / "there", "-t", "tmpfs", "-o", "ro", "tmpfs"):
        done = cli("export", "there/out", "--model-name", "small")
    assert done.returncode == 73, done.stderr
    assert "there" in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    "kind", ["huggingface", "openai", "savedmodel", "tar", pytest.param("gguf", marks=needs_gguf)]
)
def test_a_full_disk_leaves_the_old_export(
    kind: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = NAMES.get(kind, "out")
    (place / "disk").mkdir()
    with mounted(place / "disk", "-t", "tmpfs", "-o", "size=200k", "tmpfs") as disk:
        (disk / name).write_text("old, by gpt2cli")
        free = 40_000
        (disk / "other").write_bytes(bytes(200 * 1024 - 4096 - free))
        with pytest.raises(DiskError, match="make room"):
            run(f"disk/{name}", format=kind, overwrite=True)
        assert (disk / name).read_text() == "old, by gpt2cli"
        assert sorted(path.name for path in disk.iterdir()) == ["other", name]
        # Filled while it writes: the check beforehand can only know what is free then.
        monkeypatch.setattr(command, "room", lambda config, start: 0)
        with pytest.raises(DiskError, match=r"No space left.*make room"):
            run(f"disk/{name}", format=kind, overwrite=True)
        assert (disk / name).read_text() == "old, by gpt2cli"
        assert sorted(path.name for path in disk.iterdir()) == ["other", name]
