"""What the benchmark computes from what it measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2cli.text.tokenizer import Tokenizer
from tests.bench import bounds, english, limits, table
from tests.bench.peers import tokens
from tests.bench.processes import Outcome
from tests.bench.works.generation import Generation
from tests.bench.works.training import Training
from tests.models import GPT2_124M, REAL_VOCABULARY

MACHINE = {
    limits.MATRIX: 100.0,
    limits.HEAD_MATRIX: 50.0,
    limits.READ: 20.0,
    limits.READ_WEIGHTS: 10.0,
}


def test_a_step_needs_what_its_products_need() -> None:
    # Each of the 85 million weights of the blocks' matrices is in three products a token.
    assert bounds.dense_flop(GPT2_124M, 1024) == 6 * 1024 * 12 * 12 * 768 * 768
    assert bounds.head_flop(GPT2_124M, 1024) == 6 * 1024 * 768 * 50257
    whole = bounds.dense_flop(GPT2_124M, 1024) + bounds.head_flop(GPT2_124M, 1024)
    assert whole == pytest.approx(0.76e12, rel=0.01)
    assert bounds.attention_flop(GPT2_124M, 1024, 1024) == pytest.approx(0.058e12, rel=0.01)
    seconds = bounds.step_seconds(GPT2_124M, 1024, 1024, MACHINE)
    assert seconds == pytest.approx(5.22 + 0.58 + 4.74, abs=0.02)
    assert Training(1, 1024, 1).limit(MACHINE)["tokens/s"] == pytest.approx(1024 / seconds)
    assert Training(1, 1024, 5).limit(MACHINE)["tokens/s"] == pytest.approx(1024 / seconds)


def test_a_decoded_token_reads_the_weights_once_at_the_better_rate() -> None:
    assert bounds.token_bytes(GPT2_124M) == 4 * (124_439_808 - 1024 * 768)
    speed = Generation(1, 200).limit(MACHINE)["tokens/s"]
    assert speed == pytest.approx(20e9 / bounds.token_bytes(GPT2_124M))
    assert Generation(20, 200).limit(MACHINE) == {}


def test_the_first_step_and_the_first_token_do_not_count_as_speed() -> None:
    outcome = Outcome("", 100.0, 60.0, 3e9)
    values = Training(2, 256, 1).values(outcome, [100.0, 130.0, 132.0, 134.0])
    assert values == {"tokens/s": 256.0, "first step, s": 30.0, "peak, GB": 3.0}
    values = Generation(4, 101).values(outcome, [9.0, 1.0, 1.0], [20.0, 5.0, 5.0])
    assert values == {"first token, s": 1.0, "peak, GB": 3.0, "tokens/s": 100.0}


def test_the_table_has_medians_ranges_ratios_and_the_limit() -> None:
    rounds = {
        "gpt2cli": [{"tokens/s": 100.0, "GB": 2.0}, {"tokens/s": 140.0, "GB": 2.0}],
        "another": [{"tokens/s": 60.0}],
    }
    result = table.Result("train", rounds, {"tokens/s": 160.0})
    assert table.section(result).splitlines() == [
        "| **train** | tokens/s | GB |",
        "| --- | --- | --- |",
        "| gpt2cli | 120 (100-140) | 2 (2-2) |",
        "| another | 60 = 0.50 x | |",
        "| the machine's limit | 160: 75% of it reached | |",
    ]
    assert "another" in table.lines(result)


def test_the_text_has_as_many_characters_and_is_always_the_same(tmp_path: Path) -> None:
    english.write(tmp_path / "one", 1000, "Given.")
    english.write(tmp_path / "two", 1000, "Given.")
    text = (tmp_path / "one").read_text()
    assert len(text) == 1000
    assert text.startswith("Given.")
    assert (tmp_path / "two").read_text() == text


def test_the_vocabulary_for_tiktoken_is_that_of_the_tokenizer(tokenizer: Tokenizer) -> None:
    found = tokens.vocabulary(REAL_VOCABULARY)
    assert len(found) == 50256
    assert all(tokenizer.decode_bytes([rank]) == name for name, rank in found.items())


def test_memory_counts_the_children_too() -> None:
    before = tokens.memory()
    # Far more than this process may give back meanwhile.
    hold = "held = b'x' * 500_000_000; print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert tokens.memory() - before > 400_000_000
        child.kill()


@pytest.mark.skipif(not os.access("/proc/self/smaps_rollup", os.R_OK), reason="no such file")
def test_a_peer_tells_a_line_of_json(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The cat sat on the mat.")
    done = subprocess.run(
        [
            *(sys.executable, tokens.__file__, "gpt2cli", "--threads", "1"),
            *("--vocabulary", str(REAL_VOCABULARY), "--text", "text.txt"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"ready", "seconds", "memory"}
    assert (tmp_path / "tokens.tmp").stat().st_size == 2 * 8
