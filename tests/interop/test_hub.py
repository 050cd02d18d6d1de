"""Models by their names on the Hub: huggingface_hub and transformers judge the way, and the models.

The models are such as people have made for other languages: their own vocabularies, special tokens
at the front or behind, an end that is not `<|endoftext|>`, rows of the embedding without a token.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.commands.download import download
from gpt2cli.commands.evaluate import evaluate
from gpt2cli.commands.export import export
from gpt2cli.commands.finetune import finetune
from gpt2cli.commands.generate import generate
from gpt2cli.config.download import DownloadConfig
from gpt2cli.config.evaluate import EvaluateConfig
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.records import Text
from gpt2cli.storage import huggingface
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from tests.hub_server import COMMIT, NAME, Hub
from tests.interop.test_exports import ask, needs
from tests.misbehaving_server import Server

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra `interop`"),
]

LINES = {
    "german": "Der Fuchs läuft über die große Straße. Grüße aus München!\n",
    "russian": "Лиса бежит через большую дорогу. Привет из Москвы!\n",
    "japanese": "狐は大きな道を走る。東京からこんにちは。\n",
}
TEXTS = {
    "german": "Der Fuchs grüßt München.", "russian": "Лиса, привет!", "japanese": "東京の狐\n\n道",
    "ends": "Die Straße</s>Der Fuchs<|endoftext|>Лиса",
    "names": "<s>Der <pad> Fuchs<mask> <|user|>",
}  # fmt: skip
LENGTH = 12
# Makes one repository of each kind with the libraries that people make them with.
MAKER = """
import json, sys
from pathlib import Path
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
lines, folder = json.loads(sys.argv[1]), Path(sys.argv[2])

def trained(language, special):
    made = ByteLevelBPETokenizer()
    made.train_from_iterator([lines[language]] * 20, vocab_size=340, special_tokens=special)
    return made

def save(name, rows, tokenizer, **ends):
    torch.manual_seed(len(name))
    config = GPT2Config(
        vocab_size=rows, n_positions=64, n_embd=64, n_layer=2, n_head=4, initializer_range=0.3,
        **ends,
    )
    GPT2LMHeadModel(config).save_pretrained(folder / name)
    tokenizer(folder / name)

# As RoBERTa's kind has it: five special tokens at the front, and two files.
def two_files(place):
    trained("russian", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]).save_model(str(place))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (place / "special_tokens_map.json").write_text(json.dumps({**names, "mask_token": "<mask>"}))
    (place / "tokenizer_config.json").write_text(
        json.dumps({**names, "tokenizer_class": "GPT2Tokenizer"})
    )
save("russian", 352, two_files, bos_token_id=0, eos_token_id=2, pad_token_id=1)

# tokenizer.json alone, with tokens added behind.
def one_file(place):
    inner = trained("german", ["<|endoftext|>"])
    whole = PreTrainedTokenizerFast(
        tokenizer_object=inner._tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    whole.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"]})
    whole.add_tokens(["München"])
    whole.save_pretrained(place)
save("german", 400, one_file, bos_token_id=0, eos_token_id=0)

# Several tokens that end a text, and a vocabulary that fills the embedding.
def full(place):
    inner = trained("japanese", ["</s>", "<pad>"])
    whole = PreTrainedTokenizerFast(
        tokenizer_object=inner._tokenizer, eos_token="</s>", pad_token="<pad>"
    )
    whole.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    whole.save_pretrained(place)
    (place / "rows").write_text(str(len(whole)))
(folder / "japanese").mkdir()
full(folder / "japanese")
rows = int((folder / "japanese" / "rows").read_text())
save("japanese", rows, lambda place: None, bos_token_id=0, eos_token_id=[0, rows - 1])
(folder / "japanese" / "rows").unlink()
"""
LANGUAGES = ("russian", "german", "japanese")
# How huggingface_hub fetches from the same server.
FETCHER = """
import sys
from huggingface_hub import HfApi, hf_hub_download
name, *files = sys.argv[1:]
found = HfApi().model_info(name, revision="main", files_metadata=True)
assert {s.rfilename for s in found.siblings} >= {*files}
for file in files:
    print(hf_hub_download(name, file))
print(found.sha)
"""
CONVERTER = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
torch.save(model.state_dict(), sys.argv[2])
"""


def run_python(program: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("repositories")
    run_python(MAKER, json.dumps(LINES), str(folder), HF_HUB_OFFLINE="1")
    return {
        language: {path.name: path.read_bytes() for path in (folder / language).iterdir()}
        for language in LANGUAGES
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    large = Server({})
    made = Hub(large)
    with large, made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        for name in ("HF_HUB_CACHE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        yield made


def test_huggingface_hub_takes_the_server_for_the_hub_and_gpt2cli_its_cache(
    hub: Hub, repositories: dict[str, dict[str, bytes]]
) -> None:
    files = repositories["german"]
    hub.publish(files)
    *places, commit = run_python(FETCHER, NAME, *files, HF_HUB_DISABLE_XET="1").splitlines()
    assert commit == COMMIT
    assert {Path(place).name: Path(place).read_bytes() for place in places} == files
    hub.asked.clear()
    # Now a model that is there.
    said = "\n".join(map(str, download(DownloadConfig(models=(NAME,)))))
    assert "transformers' cache" in said and COMMIT in said
    assert written(GenerateConfig(model_name=NAME, prefix=("Der",), **PLAIN))
    assert written(GenerateConfig(model_name=f"{NAME}@{COMMIT}", prefix=("Der",), **PLAIN))
    assert hub.asked == []
    assert not Path("models").exists()


PLAIN: dict[str, Any] = {
    "temperature": 0.0, "length": LENGTH, "format": "jsonl", "device": "cpu", "ignore_eos": True,
    "include_prefix": False,
}  # fmt: skip


def written(config: GenerateConfig) -> list[int]:
    (record,) = [json.loads(str(r)) for r in generate(config) if isinstance(r, Text)]
    tokens: list[int] = record["tokens"]
    return tokens


def tokenizer_in(folder: Path) -> Tokenizer:
    shape = huggingface.hparams(folder)
    return read_tokenizer(*huggingface.vocabulary_files(folder), shape.n_vocab)


def check_export(folder: Path, told: Any) -> None:
    """Checks that a folder's tokens are those that transformers finds."""
    tokenizer = tokenizer_in(folder)
    for name, text in TEXTS.items():
        assert tokenizer.encode(text, special=True) == told["special"][name], (folder, name)


@needs("xllamacpp")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_model_of_another_language_works_in_every_command_and_format(
    language: str,
    hub: Hub,
    repositories: dict[str, dict[str, bytes]],
    tmp_path: Path,
    tensorflow: None,
) -> None:
    name = f"someone/{language}"
    hub.publish(repositories[language], name)
    folder = tmp_path / "models" / f"someone--{language}"
    Path("text.txt").write_text(LINES[language] * 60, encoding="utf-8")
    # What is missing is fetched by the first command.
    evaluated = evaluate(EvaluateConfig(dataset=("text.txt",), model_name=name, xla=False))
    assert "perplexity" in "".join(map(str, evaluated))
    assert (folder / "config.json").exists()
    ends = TEXTS[language]
    prompt = tokenizer_in(folder).encode(ends, special=True)
    questions = {"prompt": prompt, "length": LENGTH, "texts": TEXTS}
    Path("questions.json").write_text(json.dumps(questions), encoding="utf-8")
    told = ask("transformers", folder, tmp_path, "questions")
    check_export(folder, told)
    asked = PLAIN | {"prefix": (ends,)}
    assert written(GenerateConfig(model_name=name, **asked)) == upto(told["greedy"], folder)
    # Fine-tuned, and through every format.
    settings: dict[str, Any] = {
        "sample_every": 0, "val_every": 0, "accumulate_gradients": 1, "xla": False, "seed": 1,
        "learning_rate": 1e-3,
    }  # fmt: skip
    list(finetune(FinetuneConfig(dataset=("text.txt",), model_name=name, until_step=3, **settings)))
    list(finetune(FinetuneConfig(dataset=("text.txt",), model_name=name, until_step=4, **settings)))
    for kind in ("huggingface", "openai", "tar", "gguf", "savedmodel"):
        list(export(ExportConfig(destination=f"out.{kind}", format=kind)))
    tuned = ask("transformers", Path("out.huggingface"), tmp_path, "questions")
    assert tuned["special"] == told["special"]
    mine = written(GenerateConfig(**asked))
    assert mine == upto(tuned["greedy"], folder)
    assert f"base_model: {name}\n" in Path("out.huggingface/README.md").read_text()
    with tarfile.open("out.tar") as archive:
        archive.extractall("unpacked", filter="data")
    for place in (Path("out.openai"), tmp_path / "unpacked" / "checkpoint" / "run1"):
        check_export(place, told)
    llama = ask("llama", Path("out.gguf"), tmp_path, "questions")
    assert upto(llama["greedy"], folder) == mine
    assert llama["special"] == told["special"]
    check_savedmodel(Path("out.savedmodel"), prompt, tuned)


def upto(tokens: list[int], folder: Path) -> list[int]:
    """Returns the tokens up to the first that ends a text for transformers, whatever is asked."""
    ends = tokenizer_in(folder).specials.ends
    cut = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    assert cut > 2
    return tokens[:cut]


def check_savedmodel(folder: Path, prompt: list[int], told: Any) -> None:
    import numpy as np
    import tensorflow as tf

    (place,) = folder.glob("**/saved_model.pb")
    answer = tf.saved_model.load(str(place.parent)).signatures["serving_default"](
        tokens=tf.constant([prompt], tf.int32), lengths=tf.constant([len(prompt)], tf.int32)
    )
    logits = answer["logits"].numpy().reshape(-1, len(told["logits"][-1]))[-1]
    assert np.abs(logits - np.array(told["logits"][-1])).max() < 1e-3


def test_weights_of_pytorch_are_refused_and_the_way_out_works(
    hub: Hub, repositories: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    files = dict(repositories["german"])
    source = tmp_path / "source"
    source.mkdir()
    for name, content in files.items():
        (source / name).write_bytes(content)
    run_python(CONVERTER, str(source), str(tmp_path / "pytorch_model.bin"), HF_HUB_OFFLINE="1")
    del files["model.safetensors"]
    files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    hub.publish(files, NAME)
    with pytest.raises(Exception, match="only pytorch_model") as refusal:
        list(download(DownloadConfig(models=(NAME,))))
    assert not Path("models").exists()
    said = str(refusal.value)
    line = said[said.index("AutoModelForCausalLM") : said.index(", and the same")]
    program = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"{line}\n{line.replace('AutoModelForCausalLM', 'AutoTokenizer')}\n"
    )
    run_python(program, HF_HUB_DISABLE_XET="1")
    place = f"./{said.rpartition('--model-name ./')[2].rstrip('.')}"
    config = GenerateConfig(model_name=place, prefix=(TEXTS["german"],), **PLAIN)
    hub.publish(repositories["german"], "someone/german")
    assert written(config) == written(
        GenerateConfig(model_name="someone/german", prefix=(TEXTS["german"],), **PLAIN)
    )
