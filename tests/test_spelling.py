"""How command lines are spelt by gpt-2-simple's users, and by those of other programs."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from gpt2cli import spelling
from gpt2cli.application import COMMANDS, application
from gpt2cli.errors import UsageError
from gpt2cli.options import options
from tests.conftest import Run

# gpt-2-simple 0.8.1, gpt_2.py, cmd(): every option, with a value, by the commands that read it.
BOTH = "--run_name r --checkpoint_dir c --multi_gpu False"
FINETUNE = (
    "--dataset d.txt --model_name 124M --model_dir m --steps -1 --restore_from latest "
    "--sample_every 9 --save_every 9 --print_every 9 --optimizer adam --overwrite True"
)
GENERATE = (
    "--nfiles 1 --nsamples 1 --folder gen --length 9 --temperature 0.7 --top_k 0 --top_p 0.0 "
    "--batch_size 1 --prefix p --truncate t --include_prefix False --sample_delim ="
)


def settings_of(arguments: list[str]) -> Any:
    """Returns the config that a command line makes."""
    found: list[Any] = []

    def keep(_name: str, settings: Any) -> int:
        found.append(settings)
        return 0

    application(keep)(spelling.with_mode(arguments), standalone_mode=False)
    return found[0]


def test_every_option_of_gpt_2_simples_command_line_is_taken() -> None:
    made = settings_of(["finetune", *FINETUNE.split(), *BOTH.split()])
    assert (made.dataset, made.overwrite, made.multi_gpu) == (("d.txt",), True, False)
    assert (made.model_name, made.steps, made.run_name) == ("124M", -1, "r")
    made = settings_of(["--mode", "generate", *GENERATE.split(), *BOTH.split()])
    assert (made.include_prefix, made.prefix, made.stops) == (False, ("p",), ("t",))


def test_no_option_of_gpt_2_simples_is_forgotten_here() -> None:
    try:
        file = next(
            each for each in metadata.files("gpt-2-simple") or () if each.name == "gpt_2.py"
        )
    except metadata.PackageNotFoundError:
        pytest.skip("gpt-2-simple is not installed")
    source = Path(str(file.locate())).read_text(encoding="utf-8")
    theirs = set(re.findall(r"'(--[a-z_]+)'", source[source.index("def cmd():") :]))
    ours = set(f"--mode {FINETUNE} {GENERATE} {BOTH}".split())
    assert theirs <= ours


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--overwrite True a", (("a",), True)),
        ("--overwrite true a", (("a",), True)),
        ("--overwrite=TRUE a", (("a",), True)),
        ("--overwrite False a", (("a",), False)),
        ("--overwrite=false a", (("a",), False)),
        ("--overwrite --no-overwrite a", (("a",), False)),
        ("--no_overwrite a", (("a",), False)),
        ("--overwrite a", (("a",), True)),
        ("a --overwrite", (("a",), True)),
        ("--dataset a --dataset=b c", (("c", "a", "b"), False)),
        ("--dataset - --overwrite True", (("-",), True)),
        ("--dataset=-x", (("-x",), False)),
        ("--run-name --overwrite True", (("True",), False)),
        ("a -- --overwrite True", (("a", "--overwrite", "True"), False)),
    ],
)
def test_booleans_and_named_places_are_taken(
    words: str, expected: tuple[tuple[str, ...], bool]
) -> None:
    made = settings_of(["finetune", *words.split()])
    assert (made.dataset, made.overwrite) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_every_boolean_takes_all_four_forms(command: str) -> None:
    place = {"finetune": ["x"], "evaluate": ["x"], "export": ["x"]}.get(command, [])
    # Some contradict others where they are true.
    extra = ["--num-beams", "2", "--format", "text"] if command == "generate" else []
    for field, _, kind in options(COMMANDS[command]):
        if kind is not bool or field.name == "stream":
            continue
        name = field.name.replace("_", "-")
        forms = [[f"--{name}", "True"], [f"--{name}=true"], [f"--{name}"]]
        for words in forms:
            made = settings_of([command, *place, *extra, *words])
            assert getattr(made, field.name) is True
        for words in ([f"--{name}", "False"], [f"--{name}=FALSE"], [f"--no-{name}"]):
            made = settings_of([command, *place, *extra, *words])
            assert getattr(made, field.name) is False


@pytest.mark.parametrize(
    ("command", "name", "expected"),
    [
        ("finetune", "--lr", "--learning-rate"),
        ("finetune", "--learning_rat", "--learning-rate"),
        ("finetune", "--lr-schedule", "--schedule"),
        ("finetune", "--epoch", "--epochs"),
        ("finetune", "--run", "--run-name"),
        ("finetune", "--model", "--model-name"),
        ("finetune", "--max_steps", "--steps"),
        ("finetune", "--gradient_accumulation_steps", "--accumulate-gradients"),
        ("finetune", "--train-file", "DATASET"),
        ("finetune", "--block_size", "--window"),
        ("generate", "--temp", "--temperature"),
        ("generate", "-t", "--temperature"),
        ("generate", "--prompt", "--prefix"),
        ("generate", "--max-new-tokens", "--length"),
        ("generate", "--modl", "--model-name"),
        ("generate", "--num_return_sequences", "--nsamples"),
        ("generate", "--repeat-penalty", "--repetition-penalty"),
        ("export", "--outfile", "DESTINATION"),
        ("evaluate", "--model", "--model-name"),
        ("download", "--model", "MODELS"),
    ],
)
def test_what_is_meant_is_proposed(command: str, name: str, expected: str) -> None:
    said = spelling.meant(name, command, COMMANDS)
    assert said.startswith(f" Did you mean {expected}")


def test_an_option_of_another_command_is_said_to_be_one() -> None:
    assert spelling.meant("--steps", "generate", COMMANDS) == " It is an option of finetune."
    assert spelling.meant("--qqqqqq", "generate", COMMANDS) == ""


@pytest.mark.parametrize(
    ("name", "expected"), [("train", "finetune"), ("finetun", "finetune"), ("sample", "generate")]
)
def test_a_command_is_proposed(name: str, expected: str) -> None:
    assert spelling.meant_command(name, COMMANDS) == f" Did you mean {expected}?"


def test_every_synonym_stands_for_an_option_that_there_is() -> None:
    own = {
        field.name.replace("_", "-")
        for config in COMMANDS.values()
        for field, _, _ in options(config)
    }
    assert set(spelling.SYNONYMS) <= own


@pytest.mark.parametrize("words", ["--overwrite=maybe x", "--dataset"])
def test_what_is_no_value_is_refused(words: str) -> None:
    with pytest.raises(UsageError):
        settings_of(["finetune", *words.split()])


def test_a_wrong_value_of_a_variable_is_told_as_the_variables(cli: Run) -> None:
    for value, said in (("three", "'three' is not a valid int"), ("0", "must be -1 or at least 1")):
        done = cli("finetune", "x", env=os.environ | {"GPT2CLI_FINETUNE_STEPS": value})
        assert done.returncode == 2
        assert "GPT2CLI_FINETUNE_STEPS" in done.stderr
        assert said in done.stderr


def test_a_misspelt_variable_is_told_with_a_proposal() -> None:
    variables = {
        "GPT2CLI_FINETUNE_STPES": "GPT2CLI_FINETUNE_STEPS",
        "GPT2CLI_STEPS": "GPT2CLI_FINETUNE_STEPS",
        "GPT2CLI_OFLINE": "GPT2CLI_OFFLINE",
        "GPT2CLI_GENERATE_TEMPERATUR": "GPT2CLI_GENERATE_TEMPERATURE",
    }
    for name, meant in variables.items():
        (line,) = spelling.strange_variables({name: "1"}, COMMANDS)
        assert name in line
        assert line.endswith(f"Did you mean {meant}?")
    (line,) = spelling.strange_variables({"GPT2CLI_EXPORT_QQQQ": "1"}, COMMANDS)
    assert "does nothing" in line
    others = ("GPT2CLI_CPU_DEVICES", "GPT2CLI_PINS", "GPT2CLI_OFFLINE", "GPT2CLI_FINETUNE_STEPS")
    assert not [*spelling.strange_variables(dict.fromkeys(others, "1"), COMMANDS)]


def test_a_misspelt_variable_is_warned_of_once_and_not_when_quiet(cli: Run) -> None:
    environment = os.environ | {"GPT2CLI_DOWNLOAD_VERFY": "1"}
    done = cli("download", "tiny", env=environment)
    assert done.stderr.count("GPT2CLI_DOWNLOAD_VERFY") == 1
    assert cli("download", "tiny", "-q", env=environment).stderr == ""
