"""Every command of the tables that map tutorials to commands works, table by table, in order.

One layer of `tiny`, with a window of 1,024 tokens, stands for OpenAI's models.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gpt2cli.hparams import HParams
from gpt2cli.storage import checkpoint
from gpt2cli.text.tokenizer import read_tokenizer
from tests.docs import pages
from tests.docs.shell import TINY, shell

# How a row begins that has no command.
WITHOUT = ("Nothing to do: ", "Not offered", "Python only")
FEWEST_ROWS = 80
WINDOW = 1024
REPLACED = {
    # Numbers that are made smaller here: of samples, and of a step that the run has.
    r"--nsamples \d{3,}": "--nsamples 10",
    r"--checkpoint \d+": "--checkpoint 3",
    # A server that goes on for ever: this looks at the same folder.
    "^tensorboard": "tensorboard --inspect",
    # An address that nobody has.
    "https://example.org": "file://$PWD/drive",
    # The warm process has its own threads.
    "^taskset -c 0 gpt2cli": "taskset -c 0 python -m gpt2cli",
}
SENTENCE = "ROMEO: The cat sat on the mat, and the other cat sat there.\n"
CODE = '{"path": "a.py", "content": "import pandas as pd\\npd.DataFrame()"}\n'
# What the commands find where they run.
FILES = {
    "drive/shakespeare.txt": SENTENCE * 80,
    "second.txt": SENTENCE.replace("cat", "dog") * 80,
    "texts/a.txt": SENTENCE * 80,
    "more/b.txt": SENTENCE,
    "human.txt": SENTENCE,
    "tweets.csv": "text\n" + '"The cat sat on the mat, and saw the dog."\n' * 80,
    "shortjokes.csv": "ID,Joke\n" + '7,"What did the cat say? ""Miaow."""\n' * 80,
    "prompts.txt": "I look forward to\nAlice and Bob\n",
    "prompt.py": "# create some data\nx = np.random.randn(100)\n",
    "code.jsonl": CODE * 80,
    "valid.jsonl": CODE * 20,
    "reddit.jsonl": '{"document": "I like the cat.", "title": "A cat"}\n' * 80,
    "eli5.jsonl": '{"answers": {"text": ["The cat sat.", "It sat on a mat."]}}\n' * 80,
    "poet.tang.0.json": '[{"paragraphs": ["昨夜雨疏风骤", "浓睡不消残酒"]}]',
}


def write_files(place: Path) -> None:
    """Writes what the commands find where they run."""
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    tokens = [read_tokenizer(TINY / "encoder.json", TINY / "vocab.bpe").encode(SENTENCE)] * 80
    np.savez_compressed(place / "text_encoded.npz", *map(np.array, tokens))


def tables() -> dict[str, list[tuple[str, str]]]:
    """Returns the rows of each table, by its heading: what is shown, and what to do."""
    _, *sections = pages.page("recipes").split("\n## ")
    found = {}
    for section in sections:
        rows = re.findall(r"^\| (.*?) \| (.*) \|$", section, re.MULTILINE)
        found[section.partition("\n")[0]] = [(shown, to_do) for shown, to_do in rows[1:]]
    return found


def command(to_do: str) -> str | None:
    """Returns the command that begins a cell, as it is typed."""
    found = re.match(r"`([^`]+)`", to_do)
    return found[1].replace(r"\|", "|") if found else None


def test_each_row_has_a_command_or_says_why_not() -> None:
    rows = [row for table in tables().values() for row in table]
    for shown, to_do in rows:
        assert command(to_do) or to_do.startswith(WITHOUT), shown
    assert len(rows) >= FEWEST_ROWS
    assert len({command(to_do) for _, to_do in rows if command(to_do)}) > FEWEST_ROWS


def write_model(folder: Path) -> Path:
    """Writes a model folder: `tiny`, but with more positions and fewer layers."""
    folder.mkdir()
    for name in ("checkpoint", "encoder.json", "vocab.bpe"):
        (folder / name).write_bytes((TINY / name).read_bytes())
    tiny = HParams(**json.loads((TINY / "hparams.json").read_text()))
    hparams = dataclasses.replace(tiny, n_ctx=WINDOW, n_layer=1)
    (folder / "hparams.json").write_text(json.dumps(dataclasses.asdict(hparams)))
    arrays = dict(checkpoint.load(TINY / "model.ckpt", hparams.shapes()))
    arrays["model/wpe"] = np.tile(arrays["model/wpe"], (WINDOW // tiny.n_ctx, 1))
    checkpoint.save(folder / "model.ckpt", arrays)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("heading", tables())
def test_each_command_works_after_those_above_it(heading: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    place = tmp_path / "work"
    lines = [line for _, to_do in tables()[heading] if (line := command(to_do))]
    for program in {"curl", "jq", "taskset"} & set(re.findall(r"\w+", " ".join(lines))):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    write_files(place)
    with shell(tmp_path, model) as do:
        for line in lines:
            for pattern, replacement in REPLACED.items():
                line = re.sub(pattern, replacement, line)
            done = do(place, line)
            assert done.returncode == 0, (line, done.stderr)
            check(line, done)


def check(line: str, done: subprocess.CompletedProcess[str]) -> None:
    """Fails if a command did not say what its kind says."""
    last = re.findall(r"gpt2cli (\w+)", line)[-1:]
    if last == ["finetune"]:
        assert "saved step " in done.stderr, line
    elif last == ["evaluate"]:
        assert "loss=" in done.stderr + done.stdout, line
    elif last == ["generate"] and "|" not in line and not re.search("--(nfiles|destination)", line):
        text = re.search(r'generate ("[^"]+"|[^- ]\S*)', line)
        assert (text[1].strip('"') if text else "\n") in done.stdout, line
