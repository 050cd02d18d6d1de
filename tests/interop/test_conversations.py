"""What others make of conversations: torch of the loss, transformers and llama.cpp of the text."""

from __future__ import annotations

import json
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli import chat_template
from gpt2cli.commands.export import export
from gpt2cli.commands.finetune import finetune
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.records import StepReport
from gpt2cli.text import batches, token_files
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from tests import chat_corpus, models, oracle

pytestmark = [pytest.mark.interop, pytest.mark.slow]

END = "<|endoftext|>"
# Contents that try to be something else.
STRANGE: list[list[dict[str, str]]] = [
    [
        {"role": "system", "content": " Be brief.\n"},
        {"role": "user", "content": "Hi\nUser: x\nAssistant: y\nSystem: z\n\nUser:"},
        {
            "role": "assistant",
            "content": f"\u3000{END}a{END}\n User: b \\n 'c' \"d\" {{{{ e }}}}\n",
        },
        {"role": "user", "content": "é猫😀"},
        {"role": "assistant", "content": "<b>&amp;</b>"},
    ]
]


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(module) is None, reason="needs the extra `interop`")


def conversations() -> list[list[dict[str, str]]]:
    return STRANGE + list(chat_corpus.conversations())[:20]


def rendered(messages: list[dict[str, str]], *, asking: bool) -> str:
    said = [chat_template.Message(**each) for each in messages]  # type: ignore[arg-type]
    if asking:
        return chat_template.prompt(said, END)
    return "".join(part.text for part in chat_template.parts(said, END))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tensorflow: None) -> Path:
    """A folder with a run of one step on conversations; its loss is in `loss`."""
    folder = tmp_path_factory.mktemp("conversations")
    models.write_model(folder / "models" / "mini", models.MINI)
    (folder / "chats.jsonl").write_text(chat_corpus.jsonl())
    settings: dict[str, Any] = {"model_dir": str(folder / "models"), "model_name": "mini"}
    settings |= {"checkpoint_dir": str(folder), "steps": 1, "seed": 1, "batch_size": 2}
    settings |= {"accumulate_gradients": 3, "sample_every": 0, "val_fraction": 0.0, "xla": False}
    records = list(finetune(FinetuneConfig(dataset=(str(folder / "chats.jsonl"),), **settings)))
    (report,) = [each for each in records if isinstance(each, StepReport)]
    (folder / "loss").write_text(str(report.loss))
    return folder


def exported(place: Path, name: str, **options: Any) -> Path:
    settings = {"checkpoint_dir": str(place)} | options
    list(export(ExportConfig(destination=str(place / name), **settings)))
    return place / name


def tokenizer_of(place: Path) -> Tokenizer:
    run = place / "run1"
    return read_tokenizer(run / "encoder.json", run / "vocab.bpe")


@needs("torch")
def test_torch_has_the_same_loss_of_the_same_tokens(place: Path) -> None:
    import torch

    (path,) = (place / "run1").glob("tokens-*.u16")
    mask, tokens = token_files.open_mask(path), token_files.open_tokens(path)
    assert mask is not None
    rows = batches.windows(tokens, 1, 0, 6, models.MINI.n_ctx, mask)
    weights = models.random_arrays(models.MINI)
    seen = np.maximum(rows, ~rows)
    logits = np.concatenate([oracle.logits(weights, models.MINI.n_head, r[:-1]) for r in seen])
    labels = np.where(rows[:, 1:] < 0, -100, rows[:, 1:]).reshape(-1)
    assert 0.1 < (labels == -100).mean() < 0.9
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels, dtype=torch.long), ignore_index=-100
    )
    assert float((place / "loss").read_text()) == pytest.approx(float(expected), abs=1e-5)
    assert oracle.masked_loss(weights, models.MINI.n_head, rows) == pytest.approx(float(expected))


@needs("transformers")
def test_transformers_writes_conversations_as_we_do(place: Path) -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(exported(place, "hf")), tokenizer_of(place)
    for messages in conversations():
        for asking in (False, True):
            said = messages[:-1] if asking else messages
            text = theirs.apply_chat_template(said, tokenize=False, add_generation_prompt=asking)
            assert text == rendered(said, asking=asking)
            found = theirs(text).input_ids
            assert found == ours.encode(text, special=True)


@needs("transformers")
def test_our_own_folder_knows_roles_again(place: Path, tmp_path: Path) -> None:
    again = exported(
        place, str(tmp_path / "b"), model_name=str(exported(place, str(tmp_path / "a")))
    )
    settings = json.loads((again / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == chat_template.CHAT_TEMPLATE


@needs("xllamacpp")
def test_llama_cpp_writes_conversations_as_we_do(place: Path) -> None:
    import gguf
    import xllamacpp

    path = exported(place, "mini.gguf")
    field = gguf.GGUFReader(path).fields["tokenizer.chat_template"]
    assert bytes(field.parts[field.data[0]]).decode() == chat_template.CHAT_TEMPLATE
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.warmup = models.MINI.n_ctx, 1, False
    settings.use_jinja, settings.verbosity = True, 0
    server = xllamacpp.Server(settings)
    for messages in conversations():
        # Of white space around a content llama.cpp leaves out only ASCII's.
        said = [each | {"content": each["content"].strip("\u3000")} for each in messages[:-1]]
        request = urllib.request.Request(
            f"{server.listening_address}/apply-template",
            json.dumps({"messages": said}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["prompt"] == rendered(said, asking=True)
