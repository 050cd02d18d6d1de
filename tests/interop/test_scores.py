"""transformers gives each token the probability and the rank that we print."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import gpt2cli
from gpt2cli.commands.export import export
from gpt2cli.config.export import ExportConfig
from tests.conftest import Run

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra `interop`"),
]

TINY = Path(gpt2cli.__file__).parent / "data" / "tiny"
TEXT = "It is a truth universally acknowledged, that a cat sat on the mat.\n"


def expected(folder: Path) -> list[dict[str, Any]]:
    """Returns what transformers makes of the text, which begins behind an end-of-text token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([[tokenizer.eos_token_id, *ids]])).logits[0, :-1]
    nats = torch.log_softmax(logits.double(), dim=-1)
    return [
        {"id": token, "nats": float(row[token]), "rank": 1 + int((row > row[token]).sum())}
        for token, row in zip(ids, nats, strict=True)
    ]


def test_each_token_has_the_probability_and_rank_of_transformers(tmp_path: Path, cli: Run) -> None:
    list(export(ExportConfig(destination=str(tmp_path / "hf"), model_name=str(TINY))))
    judge = expected(tmp_path / "hf")
    (tmp_path / "text.txt").write_text(TEXT)
    tokens = ("tokens", "--file", "text.txt", "--probabilities", "--format", "jsonl")
    for command in (tokens, ("evaluate", "text.txt", "--per-token")):
        done = cli(*command, "--model-name", str(TINY), "--device", "cpu", "-q")
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["id"] for each in found] == [each["id"] for each in judge]
        assert [each["rank"] for each in found] == [each["rank"] for each in judge]
        nats = [each["log_probability"] for each in found]
        assert nats == pytest.approx([each["nats"] for each in judge], abs=1e-4)
