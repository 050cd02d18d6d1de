"""transformers, llama.cpp and gpt-2-simple read what we export, and compute the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt2cli
from gpt2cli.commands.export import export
from gpt2cli.commands.generate import generate
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.hparams import HParams, read_hparams
from gpt2cli.storage import checkpoint
from gpt2cli.text.tokenizer import Tokenizer
from tests import models, oracle
from tests.docs import pages
from tests.interop.simple import gpt_2_simple
from tests.text.test_tokenizer import TEXTS

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HPARAMS = HParams(n_vocab=50257, n_ctx=1024, n_embd=64, n_head=4, n_layer=2)
PROMPT = [24732, 290, 1110, 262]
PROMPTS = {"small": PROMPT, "tiny": [50, 60, 70]}
LENGTH, FEW = 100, 40
TINY = Path(gpt2cli.__file__).parent / "data" / "tiny"
PROGRAM = Path(__file__).with_name("outside.py")

FROM_MODEL = """
import gpt_2_simple as gpt2
assert gpt2.is_gpt2_downloaded(model_name="exported")
session = gpt2.start_tf_sess()
gpt2.load_gpt2(session, model_name="exported")
(text,) = gpt2.generate(
    session, model_name="exported", prefix="Night and day the", length=30, top_k=1,
    temperature=1.0, return_as_list=True,
)
print("<<" + text + ">>")
session = gpt2.reset_session(session)
gpt2.finetune(
    session, "text.txt", model_name="exported", steps=1, run_name="simple", print_every=1,
    accumulate_gradients=1, sample_every=100,
)
"""


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(module) is None, reason="needs the extra `interop`")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tensorflow: None) -> Path:
    """A folder with `models/small`, and the questions that are asked outside."""
    folder = tmp_path_factory.mktemp("interop")
    models.write_model(folder / "models" / "small", HPARAMS, deviation=0.3)
    for name, prompt in PROMPTS.items():
        texts = TEXTS if name == "small" else {}
        questions = {"prompt": prompt, "length": LENGTH if texts else FEW, "texts": texts}
        (folder / f"{name}.json").write_text(json.dumps(questions), encoding="utf-8")
    (folder / "text.txt").write_text("Night and day the mill turned.\n" * 200)
    return folder


@pytest.fixture(scope="module")
def greedy() -> list[int]:
    weights = models.random_arrays(HPARAMS, deviation=0.3)
    return oracle.greedy(weights, HPARAMS.n_head, PROMPT, LENGTH)


def exported(place: Path, name: str, **options: Any) -> Path:
    options = {"model_name": str(place / "models" / "small")} | options
    list(export(ExportConfig(destination=str(place / name), **options)))
    return place / name


def ask(program: str, what: Path, place: Path, questions: str = "small") -> Any:
    """Returns what a program outside says of an export."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), program, str(what), f"{questions}.json"],
        cwd=place,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout)
    assert answers.pop("loaded") == []
    return answers


def check_tokens(answers: Any, tokenizer: Tokenizer) -> None:
    for name, text in TEXTS.items():
        assert answers["plain"][name] == tokenizer.encode(text), name
        assert answers["special"][name] == tokenizer.encode(text, special=True), name


@needs("transformers")
def test_transformers_computes_the_same(
    place: Path, tokenizer: Tokenizer, greedy: list[int]
) -> None:
    answers = ask("transformers", exported(place, "hugging-face"), place)
    weights = models.random_arrays(HPARAMS, deviation=0.3)
    expected = oracle.logits(weights, HPARAMS.n_head, PROMPT)
    assert np.abs(np.array(answers["logits"]) - expected).max() < 1e-4
    assert answers["greedy"] == greedy
    assert answers["dtype"] == "torch.float32"
    check_tokens(answers, tokenizer)


@needs("xllamacpp")
def test_llama_cpp_computes_the_same(place: Path, tokenizer: Tokenizer, greedy: list[int]) -> None:
    answers = ask("llama", exported(place, "model.gguf"), place)
    assert answers["greedy"] == greedy
    check_tokens(answers, tokenizer)


@pytest.fixture(scope="module")
def tiny_greedy() -> list[int]:
    hparams = read_hparams(TINY / "hparams.json")
    weights = dict(checkpoint.load(TINY / "model.ckpt", hparams.shapes()))
    return oracle.greedy(weights, hparams.n_head, PROMPTS["tiny"], FEW)


@needs("xllamacpp")
@pytest.mark.parametrize("precision", ["float16", "q8_0"])
def test_llama_cpp_writes_the_same_from_smaller_files(
    precision: str, place: Path, tiny_greedy: list[int]
) -> None:
    # A trained model's choices are clear enough for rounded weights.
    path = exported(place, f"{precision}.gguf", model_name=str(TINY), precision=precision)
    assert ask("llama", path, place, "tiny")["greedy"] == tiny_greedy


@needs("transformers")
def test_what_transformers_saves_comes_in(place: Path) -> None:
    there = exported(place, "to-be-saved")
    program = (
        "import sys\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "for kind in (AutoModelForCausalLM, AutoTokenizer):\n"
        "    kind.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])\n"
    )
    saved = place / "saved"
    subprocess.run([sys.executable, "-c", program, str(there), str(saved)], check=True)
    options: dict[str, Any] = {"prefix": ("Night",), "temperature": 0.0, "length": 30, "xla": False}
    ours, theirs = (
        list(generate(GenerateConfig(model_name=str(folder), **options)))[-1]
        for folder in (place / "models" / "small", saved)
    )
    assert theirs == ours
    assert len(str(ours)) > 60


def guide_programs() -> list[str]:
    """Returns the programs in the guide to exports."""
    return [program for _, program in pages.blocks(pages.page("export"), "python")]


@needs("transformers")
@needs("xllamacpp")
@needs("gpt_2_simple")
@pytest.mark.parametrize("program", guide_programs(), ids=lambda program: program.split()[1])
def test_the_programs_of_the_guide_open_every_format(program: str, place: Path) -> None:
    destinations = {"transformers": "mine", "xllamacpp": "mine.gguf"}
    destinations |= {"gpt_2_simple": "models/mine", "tensorflow": "served/mine"}
    module = program.split()[1].strip(";")
    kind = {"models": "openai", "served": "savedmodel"}.get(destinations[module].split("/")[0])
    exported(place, destinations[module], **({"format": kind} if kind else {}))
    assert len(gpt_2_simple(program, place)) > 60


@needs("gpt_2_simple")
def test_gpt_2_simple_starts_from_our_model_folder(
    place: Path, tokenizer: Tokenizer, greedy: list[int]
) -> None:
    exported(place, "models/exported", format="openai")
    printed = gpt_2_simple(FROM_MODEL, place)
    found = printed[printed.index("<<") + 2 : printed.rindex(">>")]
    expected = tokenizer.decode([*PROMPT, *greedy])
    assert len(found) > 80
    assert expected.startswith(found)
    assert (place / "checkpoint" / "simple" / "model-1.index").exists()
