"""chat as it is used: on a pipe, on a terminal, with and without roles."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt2cli.chat_template import CHAT_TEMPLATE, STOPS
from gpt2cli.commands.finetune import finetune
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import OutputError
from gpt2cli.storage import source
from gpt2cli.text import corpus_index
from tests import chat_corpus
from tests.conftest import Run
from tests.marks import few

PAIRS = "".join(
    json.dumps({"prompt": f"Is {n} a number?", "completion": f"Yes, {n} is."}) + "\n"
    for n in range(60)
)


@pytest.fixture
def place(tmp_path: Path, mini_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with `models/small`, which has a window of 32 tokens."""
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tuned(place: Path) -> Path:
    """The same, with a run that was tuned on conversations for a step."""
    (place / "pairs.jsonl").write_text(PAIRS)
    settings = {"model_name": "small", "steps": 1, "sample_every": 0, "xla": False, "seed": 1}
    list(finetune(FinetuneConfig(dataset=("pairs.jsonl",), **settings)))  # type: ignore[arg-type]
    return place


def test_the_corpus_of_conversations_is_looked_up_too(tuned: Path, cli: Run) -> None:
    run = tuned / "checkpoint" / "run1"
    (tokens,) = run.glob("tokens-*.u16")
    done = cli("generate", "--prefix", "User: Is 7", "--length", 20, "--device", "cpu", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    assert tokens.with_suffix(".index").stat().st_size > len(corpus_index.MAGIC)


def test_a_pipe_is_answered_line_by_line(place: Path, cli: Run) -> None:
    options = ("--model-name", "small", "--length", 8, "--seed", 1, "--temperature", 0.1)
    done = cli("chat", *options, input="the\n\n the other\n/undo\n the other\n")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    first = cli("generate", *options, "--prefix", "the", "--no-include-prefix")
    answers = done.stdout.encode()
    assert answers.startswith(first.stdout.encode())
    assert done.stderr.count("cut at --length 8") == 3
    assert done.stderr.count("The last turn is forgotten.") == 1
    # The same turn after the same turns has the same answer.
    rest = done.stdout[len(first.stdout) :]
    assert rest == rest[: len(rest) // 2] * 2


def test_commands_are_obeyed_and_wrong_ones_change_nothing(place: Path, cli: Run) -> None:
    (place / "there.txt").write_text("mine")
    lines = "/help\n/bogus\n/seed x\n/seed 99999999999\n/save a.txt\n/undo\nthe\n"
    lines += "/save there.txt\n/save none/a.txt\n/save a.txt\n/save\n/reset\n/seed 7\n//the\n"
    done = cli("chat", "--model-name", "small", "--length", 3, "--seed", 1, input=lines)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "gpt2cli: 6 lines of stdin failed, the first with: There is no command /bogus."
    )
    assert (place / "there.txt").read_text() == "mine"
    assert (place / "a.txt").read_text(errors="replace").startswith("the")
    for told in (
        "/save FILE  write",
        "There is no command /bogus. /help lists them.",
        "/seed needs a number up to 4294967295",
        "/save needs a turn",
        "There is no turn to forget.",
        "there.txt exists and stays as it is.",
        "none",
        "1 turn in a.txt",
        "All turns are forgotten.",
        "seed 7",
    ):
        assert told in done.stderr, told


def test_a_file_that_cannot_be_saved_loses_no_turn(place: Path, cli: Run) -> None:
    lines = f"the\n/save {'x' * 300}\n/save a\0b\n/save models/small/vocab.bpe/a\n/save a.txt\n"
    done = cli("chat", "--model-name", "small", "--length", 3, "--seed", 1, input=lines)
    assert done.returncode == OutputError.exit_code, done.stderr
    for told in ("File name too long", "No file can be called a\\x00b", "vocab.bpe", "1 turn in a"):
        assert told in done.stderr, told
    assert (place / "a.txt").read_text(errors="replace").startswith("the")


@pytest.mark.parametrize(
    ("wrong", "code"), few([("/bogus", 2), ("/save there.txt", 73), ("/seed 7", 0)], 1)
)
def test_a_pipe_goes_on_after_a_wrong_line_and_ends_with_its_code(
    wrong: str, code: int, place: Path, cli: Run
) -> None:
    (place / "there.txt").write_text("mine")
    options = ("--model-name", "small", "--length", 3, "--seed", 7)
    done = cli("chat", *options, input=f"the\n{wrong}\n the other\n")
    assert done.returncode == code, done.stderr
    assert done.stdout == cli("chat", *options, input="the\n the other\n").stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("gpt2cli: A line of stdin failed, the first with: ") == (code != 0)


def test_what_does_not_fit_the_window_is_dropped_and_said(place: Path, cli: Run) -> None:
    lines = "the other\n" * 3 + "the" * 40 + "\n"
    done = cli("chat", "--model-name", "small", "--length", 8, "--seed", 1, input=lines)
    assert done.returncode == 0, done.stderr
    assert "had no room in the window of 32 tokens." in done.stderr
    assert "tokens are cut from the left: the text is too long." in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\ncaf\xe9\n", "stdin, line 2: byte 4 of it is not UTF-8"),
        (b"a" * (1 << 21), "line 1: over 1,048,576"),
    ],
)
def test_a_line_that_is_not_text_is_named(content: bytes, message: str, place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpt2cli", "chat", "--model-name", "small", "--length", "2"],
        input=content,
        capture_output=True,
    )
    assert done.returncode == 65
    assert message in done.stderr.decode()


def test_roles_are_known_after_conversations_only(tuned: Path, cli: Run) -> None:
    state = json.loads((tuned / "checkpoint/run1/state-1.json").read_text())
    assert state["chat_template"] == CHAT_TEMPLATE
    done = cli("chat", "--length", 4, "--system", "Hi.", input="the\n/save a.jsonl\n")
    assert done.returncode == 0, done.stderr
    assert "The assistant answers each line." in done.stderr
    roles = [each["role"] for each in json.loads((tuned / "a.jsonl").read_text())["messages"]]
    assert roles == ["system", "user", "assistant"]
    named = ("--model-name", "checkpoint/run1")
    again = cli("chat", *named, "--length", 2, "--system", "Hi.", input="the\n")
    assert "The assistant answers each line." in again.stderr
    assert source.from_path(tuned / "checkpoint/run1/model-1").chat_template == CHAT_TEMPLATE
    refused = cli("chat", "--model-name", "small", "--system", "Hi.", input="the\n")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--system needs a run that was tuned on conversations" in refused.stderr


def test_a_template_that_nobody_knows_is_refused(tuned: Path, cli: Run) -> None:
    path = tuned / "checkpoint/run1/state-1.json"
    record = json.loads(path.read_text()) | {"chat_template": "{{ cycler.__init__ }}" * 100}
    del record["sha256"]
    path.write_text(json.dumps(record))
    for command in (("chat",), ("export", "out"), ("generate", "--length", 2)):
        done = cli(*command, input="the\n")
        assert done.returncode == 65, done.stderr
        assert "chat template that this gpt2cli does not know" in done.stderr
    assert not (tuned / "out").exists()


def test_batches_of_conversations_are_answered(tuned: Path, cli: Run) -> None:
    asked = [{"messages": [{"role": "user", "content": text}]} for text in ("the", "other" * 30)]
    (tuned / "asked.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    options = ("--messages", "asked.jsonl", "--length", 6, "--format", "jsonl", "--seed", 1)
    done = cli("generate", *options)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["prompt"] == "User: the\nAssistant:"
    assert not first["text"].startswith(("User", " "))
    assert "prefix 2: " in done.stderr
    assert second["prompt"].startswith("User: otherother")
    piped = cli(
        "generate", *options[2:], "--messages", "-", input=(tuned / "asked.jsonl").read_text()
    )
    assert [json.loads(line)["text"] for line in piped.stdout.splitlines()] == [
        first["text"],
        second["text"],
    ]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ('{"messages": [{"role": "user"}]}', 65, "asked.jsonl, line 1, message 1: it lacks a role"),
        ('{"prompt": "a", "completion": "b"}', 65, "line 1: the last of its 2 messages is the ass"),
        ('{"prompt": "a"}', 65, "line 1: not a conversation"),
        ("", 65, "asked.jsonl: no conversations in there"),
    ],
)
def test_what_cannot_be_answered_is_named(
    line: str, code: int, message: str, tuned: Path, cli: Run
) -> None:
    (tuned / "asked.jsonl").write_text(line)
    done = cli("generate", "--messages", "asked.jsonl")
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_the_longest_message_leaves_room_for_an_answer(tuned: Path, cli: Run) -> None:
    asked = {"messages": [{"role": "user", "content": "other " * 40}]}
    (tuned / "asked.jsonl").write_text(json.dumps(asked))
    done = cli("generate", "--messages", "asked.jsonl", "--format", "jsonl", "--seed", 1)
    answer = json.loads(done.stdout)
    assert answer["finish_reason"] == "length"
    # Half the window, which slides.
    assert len(answer["tokens"]) == 16


def test_prompts_and_conversations_contradict_each_other(place: Path, cli: Run) -> None:
    for given, name in ((("--prefix", "a"), "--prefix"), (("a",), "TEXT")):
        done = cli("generate", "--messages", "a.jsonl", *given)
        assert done.returncode == 2
        assert f"{name} and --messages contradict each other" in done.stderr
    missing = cli("generate", "--messages", "a.jsonl", "--model-name", "small")
    assert missing.returncode == 66
    (place / "a.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}')
    refused = cli("generate", "--messages", "a.jsonl", "--model-name", "small")
    assert refused.returncode == 65
    assert "small was not tuned on conversations" in refused.stderr


class Typist:
    """Somebody at a terminal with `gpt2cli chat` on it."""

    def __init__(self, *arguments: str) -> None:
        self.seen = b""
        self._process, self._screen = pty.fork()
        if not self._process:
            os.execv(sys.executable, [sys.executable, "-m", "gpt2cli", "chat", *arguments])

    def waits_for(self, text: bytes) -> None:
        """Reads until a text has come, which is forgotten with all before it."""
        end = time.monotonic() + 100
        while text not in self.seen:
            assert time.monotonic() < end, (text, self.seen)
            if select.select([self._screen], [], [], 1)[0]:
                try:
                    self.seen += os.read(self._screen, 1 << 16)
                except OSError:
                    raise AssertionError((text, self.seen[-2000:])) from None
        self.seen = self.seen.partition(text)[2]

    def types(self, text: bytes) -> None:
        os.write(self._screen, text)

    def ended(self) -> int:
        """Returns the exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])


def test_on_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_ends(place: Path) -> None:
    typist = Typist("--model-name", "small", "--length", "1000000", "--temperature", "0")
    typist.waits_for(b"Ctrl-D ends.")
    typist.waits_for(b"> ")
    typist.types(b"the other\n")
    time.sleep(2)
    typist.types(b"\x03")
    typist.waits_for(b"stopped; /undo forgets this turn")
    typist.waits_for(b"> ")
    typist.types(b"/undo\n")
    typist.waits_for(b"The last turn is forgotten.")
    typist.waits_for(b"> ")
    typist.types(b"\x04")
    assert typist.ended() == 0


def test_ctrl_c_at_the_prompt_ends_it(place: Path) -> None:
    typist = Typist("--model-name", "small")
    typist.waits_for(b"> ")
    typist.types(b"\x03")
    assert typist.ended() == 128 + signal.SIGINT


@pytest.mark.slow
def test_tiny_answers_in_the_right_form_after_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text(chat_corpus.jsonl())
    tuned = cli(
        *("finetune", "chats.jsonl", "--model-name", "tiny", "--steps", 150, "--batch-size", 4),
        *("--accumulate-gradients", 1, "--window", 128, "--learning-rate", 1e-3, "--seed", 1),
        *("--sample-every", 0, "--device", "cpu"),
    )
    assert tuned.returncode == 0, tuned.stderr
    asked = [question for question, _ in chat_corpus.questions()[::9]]
    lines = "".join(f"{question}\n/reset\n" for question in asked)
    done = cli("chat", "--temperature", 0, "--length", 60, input=lines)
    assert done.returncode == 0, done.stderr
    # Every answer ended by itself: none was cut, and none is empty.
    assert "cut at" not in done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == len(asked)
    assert not any(stop.strip() in done.stdout for stop in STOPS)
    assert "endoftext" not in done.stdout
    known = dict(chat_corpus.questions())
    right = [known[question] == answer for question, answer in zip(asked, answers, strict=True)]
    # What is said of a command is learned by heart; sums are hard for so small a model.
    commands = [good for good, question in zip(right, asked, strict=True) if "plus" not in question]
    assert commands
    assert sum(commands) >= 0.8 * len(commands)
