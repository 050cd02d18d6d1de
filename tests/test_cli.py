"""The door: every option once, old spellings, the environment, exit codes, broken pipes."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpt2cli import __version__, cli, help_text
from gpt2cli.application import COMMANDS, application, typer_command
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import Gpt2cliError, UsageError, message
from gpt2cli.options import options
from gpt2cli.runtime import hardware
from tests.conftest import Run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_field_of_a_config_is_an_option_with_its_default(name: str) -> None:
    made = {each.name: each for each in typer_command(name, cli.perform).params}
    fields = {field.name: field for field, _, _ in options(COMMANDS[name])}
    assert made.keys() == fields.keys()
    for field, parameter in made.items():
        assert vars(parameter)["help"]
        default = fields[str(field)].default
        if isinstance(default, tuple):
            assert parameter.default == list(default)
        elif default is not dataclasses.MISSING:
            assert parameter.default == default


def made_config(arguments: list[str]) -> Any:
    """Returns the config that a command line makes."""
    found: list[Any] = []

    def keep(_name: str, settings: Any) -> int:
        found.append(settings)
        return 0

    application(keep)(arguments, standalone_mode=False)
    return found[0]


def test_options_reach_the_config() -> None:
    made = made_config(
        ["finetune", "a.txt", "b", "--steps", "7", "--overwrite", "--schedule", "cosine"]
    )
    expected = FinetuneConfig(dataset=("a.txt", "b"), steps=7, overwrite=True, schedule="cosine")
    assert made == expected


def test_gpt_2_simples_spelling_is_understood() -> None:
    made = made_config(["generate", "--top_k", "40", "--run_name", "a_b", "--no_include_prefix"])
    assert (made.top_k, made.run_name, made.include_prefix) == (40, "a_b", False)


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2CLI_FINETUNE_STEPS", "12")
    monkeypatch.setenv("GPT2CLI_FINETUNE_OVERWRITE", "1")
    made = made_config(["finetune", "a.txt"])
    assert (made.steps, made.overwrite) == (12, True)


def test_each_line_of_a_variable_is_a_value_of_a_repeatable_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GPT2CLI_GENERATE_PREFIX", "The king")
    monkeypatch.setenv("GPT2CLI_GENERATE_STOP", "of a \n\nAct II\n")
    made = made_config(["generate"])
    assert (made.prefix, made.stop) == (("The king",), ("of a ", "Act II"))
    made = made_config(["generate", "--prefix", "a\nb", "--prefix", "c d"])
    assert made.prefix == ("a\nb", "c d")
    monkeypatch.setenv("GPT2CLI_FINETUNE_VAL_DATASET", "a b.txt\nc")
    assert made_config(["finetune", "x"]).val_dataset == ("a b.txt", "c")


def test_what_is_no_commands_option_takes_no_variable(cli: Run) -> None:
    names = ("VERSION", "INSTALL_COMPLETION", "SHOW_COMPLETION", "HELP")
    environment = os.environ | {f"GPT2CLI_{name}": "1" for name in names}
    done = cli("download", "tiny", env=environment)
    assert (done.returncode, done.stdout) == (0, "")
    assert "tiny" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune"], "DATASET"),
        (["finetune", "x", "--stepz", "3"], "--stepz"),
        (["finetune", "x", "--steps", "three"], "--steps"),
        (["finetune", "x", "--steps", "0"], "--steps"),
        (["finetune", "x", "--steps", "3", "--until-step", "3"], "--until-step contradict"),
        (["finetune", "x", "--steps", "3", "--epochs", "2"], "--steps and --epochs contradict"),
        (["finetune", "x", "--batch-size", "0"], "--batch-size"),
        (["finetune", "x", "--learning-rate", "inf"], "--learning-rate must be a finite number"),
        (["finetune", "x", "--dropout", "1"], "--dropout"),
        (["finetune", "x", "--schedule", "step"], "--schedule"),
        (["finetune", "x", "--schedule", "linear", "--steps", "-1"], "needs an end"),
        (["generate", "--temperature", "-0.1"], "--temperature"),
        (["generate", "--temperature", "nan"], "--temperature"),
        (["generate", "--top-p", "1.5"], "--top-p"),
        (["generate", "--length", "0"], "--length"),
        (
            ["generate", "--length", "5", "--min-length", "6"],
            "--min-length 6 is more than --length 5",
        ),
        (
            ["generate", "--ignore-eos", "--min-length", "6"],
            "--ignore-eos and --min-length contradict",
        ),
        (["generate", "--run-name", "a", "--model-name", "b"], "contradict"),
        (["generate", "--stop", ""], "--stop"),
        (["generate", "--draft-model", ""], "--draft-model needs a name"),
        (["generate", "--min-p", "1.1"], "--min-p"),
        (["generate", "--typical-p", "0"], "--typical-p must be above 0"),
        (["generate", "--repetition-penalty", "1e-300"], "--repetition-penalty"),
        (["generate", "--repetition-penalty", "101"], "--repetition-penalty"),
        (["generate", "--temperature", "1e-320"], "--temperature must be 0, which takes"),
        (["generate", "--num-beams", "2", "--length-penalty", "5000"], "--length-penalty"),
        (["generate", "--num-beams", "2", "--length-penalty", "-5000"], "--length-penalty"),
        (["generate", "--run-name", ""], "--run-name needs a name"),
        (["generate", "--model-name", ""], "--model-name needs a name"),
        (["finetune", "x", "--run-name", " "], "--run-name needs a name"),
        (["finetune", "x", "--model-name", ""], "--model-name needs a name"),
        (["export", "x", "--checkpoint", "\N{ARABIC-INDIC DIGIT TWO}"], "--checkpoint must be"),
        (["generate", "--no-repeat-ngram-size", "-1"], "--no-repeat-ngram-size"),
        (["generate", "--penalty-alpha", "2", "--top-k", "4"], "--penalty-alpha"),
        (["generate", "--penalty-alpha", "0.6"], "--penalty-alpha needs --top-k"),
        (["generate", "--beam-sample"], "--beam-sample is of beams; give --num-beams"),
        (["generate", "--length-penalty", "2"], "--length-penalty is of beams"),
        (["generate", "--early-stopping"], "--early-stopping is of beams"),
        (["generate", "--num-beams", "3", "--nsamples", "4"], "--nsamples 4 is more than --num-b"),
        (["generate", "--num-beams", "3", "--top-k", "4"], "--top-k and --num-beams contradict"),
        (["generate", "--num-beams", "3", "--temperature", "2"], "--temperature and --num-beams"),
        (["generate", "--num-beams", "3", "--stream"], "--stream and --num-beams contradict"),
        (
            ["generate", "--num-beams", "3", "--beam-sample", "--temperature", "0"],
            "--temperature 0 and --beam-sample contradict",
        ),
        (
            ["generate", "--num-beams", "3", "--penalty-alpha", "0.6", "--top-k", "4"],
            "--penalty-alpha and --num-beams contradict",
        ),
        (
            ["generate", "--penalty-alpha", "0.6", "--top-k", "4", "--top-p", "0.9"],
            "--top-p and --penalty-alpha contradict",
        ),
        (["generate", "--stream", "--destination-path", "x"], "--stream and --destination-path"),
        (["generate", "--stream", "--nfiles", "2"], "--stream and --nfiles contradict"),
        (
            ["generate", "--folder", "x", "--destination-path", "y"],
            "--destination-path and --folder contradict",
        ),
        (["generate", "--sample-delim", "x", "--format", "jsonl"], "--sample-delim and --format"),
        (["generate", "--format", "xml"], "--format"),
        (["generate", "--gpu-memory-limit", "9" * 400 + "GB"], "--gpu-memory-limit must be"),
        (["generate", "--checkpoint", "9" * 5000], "--checkpoint must be"),
        (["export", "m.onnx"], "ends in .onnx, and --format huggingface writes a folder"),
        (["export", "m.zip"], "ends in .zip"),
        (["export", "a/m.SafeTensors"], "ends in .safetensors"),
        (["export", "m.pt", "--format", "openai"], "ends in .pt"),
        (["export", "m.h5", "--format", "gguf"], "ends in .h5, and --format gguf writes another"),
        (["export", "m.bin"], "ends in .bin"),
        (["export", "m.gguf", "--format", "savedmodel"], "ends in .gguf"),
        (["export", "m.tar", "--format", "gguf"], "ends in .tar"),
        (["download", "--mirror", "http://[::bad"], "--mirror must be an address"),
        (["download", "--mirror", "file:///x"], "--mirror must be an address"),
        (["x" * 100_000], "There is no command 'xxx"),
        (["generate", "--checkpoint", "\x1b[31m" * 100_000], "--checkpoint must be"),
        (["generate", "--" + "x" * 100_000], "No such option: --xxx"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpt2cli", *arguments])
    monkeypatch.setattr(cli, "raise_on_signals", lambda: None)
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.splitlines()) <= 2
    assert len(printed.err) <= 500
    assert all(char.isprintable() or char == "\n" for char in printed.err)


def test_python_callers_get_the_same_checks() -> None:
    for settings in ({"top_p": 1.5}, {"temperature": float("nan")}, {"length": 0}):
        with pytest.raises(UsageError):
            GenerateConfig(**settings)
    with pytest.raises(UsageError, match="constant, linear, cosine"):
        FinetuneConfig(dataset=("x",), schedule="step")  # type: ignore[arg-type]


def test_every_error_has_the_exit_code_of_the_contract() -> None:
    codes = {kind.__name__: kind.exit_code for kind in Gpt2cliError.__subclasses__()}
    assert codes == {
        "UsageError": 2,
        "BadDataError": 65,
        "MissingInputError": 66,
        "RefusedError": 69,
        "OutputError": 73,
        "DiskError": 74,
        "TryLaterError": 75,
    }


def test_the_version_is_printed(cli: Run) -> None:
    done = cli("--version")
    assert (done.returncode, done.stdout) == (0, f"gpt2cli {__version__}\n")


@pytest.mark.parametrize(
    ("name", "shape"), [("download", "[MODEL]..."), ("finetune", "DATASET..."), ("export", "DEST")]
)
def test_usage_shows_what_may_be_given_several_times(name: str, shape: str, cli: Run) -> None:
    assert shape in cli(name, "--help").stdout.splitlines()[0]


def test_help_names_every_option_with_its_range(cli: Run) -> None:
    done = cli("finetune", "--help")
    assert done.returncode == 0
    for field, rule, _ in options(FinetuneConfig):
        if not rule.argument:
            assert "--" + field.name.replace("_", "-") in done.stdout
    assert "[default: 1000; at least -1]" in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_groups_the_options_and_ends_with_examples(name: str) -> None:
    rows = [row for _, rows in help_text.sections(COMMANDS[name]) for row in rows]
    # And --help.
    assert len(rows) == len(list(options(COMMANDS[name]))) + 1
    _, examples = help_text.prose(COMMANDS[name])
    assert examples
    for example in examples:
        words = shlex.split(re.split(" [<>] ", example)[0])
        assert isinstance(made_config(words[1:]), COMMANDS[name])


def test_no_command_shows_them_all(cli: Run) -> None:
    done = cli()
    assert (done.returncode, done.stdout) == (2, "")
    for name in COMMANDS:
        assert f"  {name} " in done.stderr


def test_help_is_at_hand_in_twice_the_time_of_importing_typer() -> None:
    def seconds(*arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return time.perf_counter() - start

    pairs = [
        (seconds("-m", "gpt2cli", "finetune", "--help"), seconds("-c", "import typer"))
        for _ in range(9)
    ]
    assert statistics.median(ours / typers for ours, typers in pairs) < 2


def test_a_closed_pipe_ends_the_command_quietly() -> None:
    shell = f"{sys.executable} -m gpt2cli --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("0", "141")
    assert done.stderr == ""


def test_unexpected_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_perform: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "application", fail)
    monkeypatch.setattr(cli, "raise_on_signals", lambda: None)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("gpt2cli")), "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"gpt2cli {__version__}\n"


@pytest.mark.parametrize("arguments", ["generate --help", "--version"])
def test_a_full_stdout_is_told_in_a_line(arguments: str) -> None:
    shell = f"{sys.executable} -m gpt2cli {arguments} > /dev/full"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == 74
    assert done.stderr == "gpt2cli: Cannot write to stdout: No space left on device.\n"


@pytest.mark.parametrize(
    ("number", "code"), [("ENOENT", 66), ("EACCES", 66), ("ELOOP", 66), ("EIO", 74)]
)
def test_a_refusal_of_the_system_is_told_by_the_files_name(
    number: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_perform: object) -> None:
        raise OSError(getattr(errno, number), "the reason", "place/file")

    monkeypatch.setattr(cli, "application", fail)
    monkeypatch.setattr(cli, "raise_on_signals", lambda: None)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == code
    assert "place/file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("generate",), ("evaluate", "nowhere"), ("finetune", "nowhere")]
)
def test_a_gpu_that_cannot_be_is_refused_before_anything_is_read(
    arguments: tuple[str, ...], cli: Run
) -> None:
    if hardware.may_have_gpu():
        pytest.skip("this machine may have one")
    done = cli(*arguments, "--device", "gpu", "-v")
    assert done.returncode == 1
    assert done.stderr.startswith("gpt2cli: --device gpu: TensorFlow sees no GPU. ")
    assert len(done.stderr.splitlines()) == 1


def test_the_ending_of_a_name_tells_the_format() -> None:
    for name, kind in (("m.gguf", "gguf"), ("M.GGUF", "gguf"), ("m.tar", "tar"), ("m", "hugging")):
        assert ExportConfig(destination=name).kind.startswith(kind)


def test_a_mirrors_password_is_never_shown(cli: Run) -> None:
    for url in ("http://me:secret@[x", "ftp://me:secret@host", "http://me:secret@127.0.0.1:9"):
        done = cli(
            *("download", "124M", "--mirror", url),
            env=os.environ | {"GPT2CLI_RETRY_SECONDS": "0", "GPT2CLI_PINS": "/dev/null"},
        )
        assert done.returncode in (2, 65)
        assert "secret" not in done.stderr


def test_a_path_can_be_copied_from_a_refusal() -> None:
    path = "/a folder/" + "long-name " * 30 + "end.txt"
    assert path in message(f"gpt2cli: {path} is not a regular file.")


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    told = message("begins " + "\x1b" * 1_000_000 + " ends\nsecond line")
    assert told.startswith("begins")
    assert told.endswith("ends\nsecond line")
    assert len(told) < 500
