"""How often a corpus guesses the next token: `python -m tests.bench.guesses TEXT...`.

The last tenth of a text is read token by token, as if a model had written it. What follows is
looked up in the nine tenths before, and held against what does follow.
"""

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpt2cli.text import corpus_index
from gpt2cli.text.corpus_index import DEPTH
from gpt2cli.text.token_files import append_digest
from tests import models

# Guesses by how many tokens before them are the same, at least; and those of places that agree.
KINDS = {"2": 2, "3": 3, "4-5": 4, "6-8": 6}
AGREED = "several places, all agree"


def main() -> None:
    """Prints a line of a table for each text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+", type=Path)
    names = "all", *KINDS, AGREED
    print("| text | tokens that are guessed |", " | ".join(names), "|")
    for path in parser.parse_args().texts:
        tokens = models.real_tokenizer().encode(path.read_text(encoding="utf-8"))
        border = len(tokens) * 9 // 10
        right: defaultdict[str, list[bool]] = defaultdict(list)
        for kinds, is_right in guesses(tokens[:border], tokens[border - DEPTH :]):
            for kind in kinds:
                right[kind].append(is_right)
        share = len(right["all"]) / (len(tokens) - border)
        shares = " | ".join(f"{np.mean(right[name]):.2f}" for name in names)
        print(f"| {path.name} | {share:.2f} | {shares} |")


def guesses(corpus: list[int], text: list[int]) -> Iterator[tuple[list[str], bool]]:
    """Yields for each token that is guessed the kinds of the guess, and whether it is right."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens-0.u16"
        path.write_bytes(np.asarray(corpus, "<u2").tobytes())
        append_digest(path)
        index = corpus_index.load_index(path)
        for place in range(DEPTH, len(text)):
            rows, same = index.followers(text[place - DEPTH : place], 1)
            votes = Counter(token for row in rows for token in row)
            if same < min(KINDS.values()) or not votes:
                continue
            ((token, most),) = votes.most_common(1)
            kind = [name for name, least in KINDS.items() if same >= least][-1]
            agreed = [AGREED] if len(rows) > 1 and most == len(rows) else []
            yield ["all", kind, *agreed], token == text[place]


if __name__ == "__main__":
    main()
