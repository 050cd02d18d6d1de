"""Makes encoder.json and vocab.bpe of the model `tiny` from text files, in OpenAI's form.

    python tests/tiny/make_vocabulary.py FOLDER TEXT...

Needs the library `tokenizers`, which gpt2cli itself does not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from gpt2cli.special_tokens import END_OF_TEXT
from gpt2cli.vocabulary import byte_symbols

VOCAB = 2048


def main(folder: Path, texts: list[str]) -> None:
    symbols = list(byte_symbols().values())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 1, initial_alphabet=symbols, show_progress=False
    )
    tokenizer.train(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = [*symbols, *("".join(pair) for pair in merges), END_OF_TEXT]
    folder.mkdir(parents=True, exist_ok=True)
    encoder = {token: number for number, token in enumerate(tokens)}
    (folder / "encoder.json").write_text(json.dumps(encoder), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
