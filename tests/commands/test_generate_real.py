"""OpenAI's real weights, fetched: `pytest -m network`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Run

# What the real 124M goes on with, token by token the likeliest.
PROMPT = "The rain in Spain falls mainly in the plain"
TOKENS = [
    *(464, 6290, 287, 8602, 8953, 8384, 287, 262, 8631),
    *(286, 262, 50206, 12010, 11, 475, 340, 318, 635, 287, 262),
]


@pytest.mark.network
@pytest.mark.slow
def test_the_real_model_goes_on_as_it_is_known_to(cli: Run, tmp_path: Path) -> None:
    arguments = ["--prefix", PROMPT, "--temperature", 0, "--length", 11, "--format", "jsonl"]
    done = cli("generate", "--model-name", "124M", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens"] == TOKENS[9:]
