"""Models from elsewhere through every command: what is theirs is kept, and damage is named."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.evaluate import evaluate
from gpt2cli.commands.export import export
from gpt2cli.commands.finetune import finetune
from gpt2cli.commands.generate import generate
from gpt2cli.config.evaluate import EvaluateConfig
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError
from gpt2cli.files import paths
from gpt2cli.records import Record, Text
from gpt2cli.storage import huggingface
from gpt2cli.text import token_files
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from tests import foreign_models
from tests.foreign_models import START, TOKENS, added
from tests.sources import source_of

TEXT = f"{START}the other the</s>the <|endoftext|>"
ROWS = 261


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model whose end is `</s>` and that has an added token."""
    foreign_models.write(
        tmp_path / "m", ROWS,
        config={"eos_token_id": 260},
        tokenizer=foreign_models.tokenizer_json(
            added(259, START, rstrip=True), added(260, "</s>"), added(261, "[PAD]")
        ),
    )  # fmt: skip
    (tmp_path / "text.txt").write_text(TEXT * 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(**more: Any) -> FinetuneConfig:
    plain: dict[str, Any] = {
        "dataset": ("text.txt",), "model_name": "m", "sample_every": 0, "val_every": 0,
        "accumulate_gradients": 1, "xla": False, "until_step": 1,
    }  # fmt: skip
    return FinetuneConfig(**plain | more)


def tokenizer_in(folder: Path) -> Tokenizer:
    shape = huggingface.hparams(folder)
    return read_tokenizer(*huggingface.vocabulary_files(folder), shape.n_vocab)


def test_a_run_and_its_exports_keep_tokens_and_ends(place: Path, tensorflow: None) -> None:
    wanted = tokenizer_in(place / "m")
    list(finetune(settings()))
    run = place / "checkpoint" / "run1"
    (made,) = run.glob("tokens-*.u16")
    documents = wanted.encode(TEXT * 20, special=True)
    assert token_files.open_tokens(made).tolist() == [*documents, 260]
    shutil.rmtree(place / "m")
    for kind in ("huggingface", "openai", "tar"):
        out = Path("out.tar" if kind == "tar" else f"out-{kind}")
        list(export(ExportConfig(destination=str(out), format=kind)))
        if kind == "tar":
            with tarfile.open(out) as archive:
                archive.extractall(place / "unpacked", filter="data")
            out = place / "unpacked" / "checkpoint" / "run1"
        found = tokenizer_in(out)
        assert found.specials == wanted.specials, kind
        assert found.encode(TEXT, special=True) == wanted.encode(TEXT, special=True)
    ends = json.loads(Path("out-huggingface/generation_config.json").read_text())
    assert ends["eos_token_id"] == 260
    # Another vocabulary is another model.
    other = foreign_models.write(place / "other", ROWS)
    (other / "tokenizer_config.json").write_text(
        (run / "tokenizer_config.json").read_text().replace(START, "<|start|>")
    )
    with pytest.raises(BadDataError, match=r"encoder\.json differ"):
        source_of(settings(restore_from="fresh", overwrite=True, model_name="other"))


def test_a_prompt_is_of_added_tokens_and_a_sample_ends_at_the_models_end(place: Path) -> None:
    named = foreign_models.arrays(ROWS)
    # Whatever comes before, the end is the likeliest.
    named["transformer.ln_f.weight"][:] = 0
    named["transformer.ln_f.bias"][:] = np.eye(8)[0]
    named["transformer.wte.weight"][260] = 100 * np.eye(8)[0]
    foreign_models.write_weights(place / "m" / "model.safetensors", named)
    config = GenerateConfig(
        model_name="m", prefix=(f"{START}the",), temperature=0.0, length=8, format="jsonl",
        device="cpu",
    )  # fmt: skip
    (record,) = [json.loads(str(r)) for r in generate(config) if isinstance(r, Text)]
    assert record["finish_reason"] == "end_of_text"
    assert record["tokens"][-1] == 260
    assert "</s>" not in record["text"]


COMMANDS: dict[str, Callable[[], Iterator[Record]]] = {
    "generate": lambda: generate(GenerateConfig(model_name="m", length=2, device="cpu")),
    "evaluate": lambda: evaluate(EvaluateConfig(dataset=("text.txt",), model_name="m")),
    "export": lambda: export(ExportConfig(destination="out", model_name="m")),
    "finetune": lambda: finetune(settings()),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_weights_that_are_no_numbers(
    command: str, place: Path, tensorflow: None
) -> None:
    named = foreign_models.arrays(ROWS)
    named["transformer.h.0.attn.c_proj.bias"][1] = np.nan
    foreign_models.write_weights(place / "m" / "model.safetensors", named)
    with pytest.raises(BadDataError, match=r"safetensors: the weight h\.0\.attn\.c_proj\.bias"):
        list(COMMANDS[command]())
    assert not (place / "out").exists()
    assert not paths.checkpoint_steps(place / "checkpoint" / "run1")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_tokenizer_of_another_kind(command: str, place: Path) -> None:
    whole = foreign_models.tokenizer_json(normalizer={"type": "NFKC"})
    (place / "m" / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(BadDataError, match="normalizer is NFKC"):
        list(COMMANDS[command]())
    assert len(TOKENS) == 259
