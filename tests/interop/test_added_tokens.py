"""transformers judges added tokens: in the folders that we read, and in those that we write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.commands.export import export
from gpt2cli.commands.generate import generate
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.records import Text
from gpt2cli.storage import huggingface
from gpt2cli.text.tokenizer import read_tokenizer
from tests import foreign_models
from tests.foreign_models import START, TOKENS, added

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra `interop`"),
]

TEXTS = [
    f"{START}the", f"the  {START}  the<|endoftext|>the", "New York the New  York", "</s>the</s>",
    f" the{START}the cats' NewYork", "é\n\nthe\t</s>",
]  # fmt: skip
PROMPT = [257, 33, 257]
PROGRAM = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
answers = {}
for folder in sys.argv[2:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt, texts = json.loads(sys.argv[1])
    written = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=10)
    tokens = [tokenizer(text).input_ids for text in texts]
    said = [tokenizer.decode(each, skip_special_tokens=True) for each in tokens]
    answers[folder] = {"tokens": tokens, "said": said, "new": written[0, len(prompt):].tolist()}
print("\\n" + json.dumps(answers))
"""
FOLDERS: dict[str, dict[str, Any]] = {
    "tokenizer-json": {
        "tokenizer": foreign_models.tokenizer_json(
            added(259, START, rstrip=True), added(260, "New York", special=False)
        ),
    },
    "two-files": {
        "tokenizer_config": {
            "tokenizer_class": "GPT2Tokenizer", "eos_token": "</s>", "bos_token": START,
            "unk_token": "<|endoftext|>",
            "added_tokens_decoder": {
                "258": added(258, "<|endoftext|>"), "259": added(259, START, lstrip=True),
                "260": added(260, "</s>"),
            },
        },
    },
    "eos-of-the-config": {
        "vocab": TOKENS | {START: 259, "</s>": 260}, "config": {"eos_token_id": 46},
    },
}  # fmt: skip


def test_transformers_finds_the_same_tokens_and_ends_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, files in FOLDERS.items():
        foreign_models.write(tmp_path / name, 261, **files)
        list(export(ExportConfig(destination=f"{name}-out", model_name=name)))
    places = [place for name in FOLDERS for place in (name, f"{name}-out")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([PROMPT, TEXTS]), *places],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Above it transformers may print what it is about.
    answers = json.loads(done.stdout.splitlines()[-1])
    for name in FOLDERS:
        # The export is to transformers what the folder was, special or not.
        assert answers[f"{name}-out"] == answers[name]
        for place in (name, f"{name}-out"):
            tokenizer = read_tokenizer(*huggingface.vocabulary_files(Path(place)), 261)
            found = [tokenizer.encode(text, special=True) for text in TEXTS]
            assert found == answers[name]["tokens"], place
        prompt = tokenizer.decode(PROMPT)
        assert tokenizer.encode(prompt, special=True) == PROMPT
        config = GenerateConfig(
            model_name=name, prefix=(prompt,), temperature=0.0, length=10, format="jsonl",
            device="cpu",
        )  # fmt: skip
        (written,) = [json.loads(str(r)) for r in generate(config) if isinstance(r, Text)]
        assert written["tokens"] == answers[name]["new"]
