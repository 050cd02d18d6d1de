"""Text to tokens by gpt2cli, tiktoken or gpt-2-simple, measured: a line of JSON.

The memory is that of this process and its children together, each page counted once, at most, above
what this process had before it read the text.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PERIOD_SECONDS = 0.05
MANY = 1 << 60


def own_and_children() -> list[Path]:
    me = Path("/proc/self/task")
    found = [Path("/proc/self")]
    for task in me.iterdir():
        found += [Path("/proc") / number for number in (task / "children").read_text().split()]
    return found


def memory() -> int:
    """Returns what these processes hold (bytes), what they share being counted once."""
    size = 0
    for process in own_and_children():
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        size += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return size


def watch(most: list[int], done: threading.Event) -> None:
    while not done.wait(PERIOD_SECONDS):
        most.append(memory())


def gpt2cli(settings: argparse.Namespace) -> Callable[[], object]:
    from gpt2cli.config.shared import CorpusOptions
    from gpt2cli.runtime import numba
    from gpt2cli.text import finding, tokens
    from gpt2cli.text.sources import ReadingState
    from gpt2cli.text.tokenizer import read_tokenizer

    folder = Path(settings.vocabulary)
    tokenizer = read_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    if settings.threads:
        tokens.MOST_THREADS = settings.threads
    options = CorpusOptions(dataset=())
    # Importing and making tables of the vocabulary do not count, as with the others.
    tokens.WORTH_COMPILING = MANY
    if numba.is_available():
        tokenizer.compile()
        # All loops are there when the first word is encoded.
        tokenizer.encode("Ready")

    def work() -> None:
        with Path("tokens.tmp").open("wb") as file:
            found = finding.find([settings.text])
            file.writelines(tokens.encode_corpus(found.files, options, tokenizer, ReadingState()))

    return work


def vocabulary(folder: Path) -> dict[bytes, int]:
    """Returns the bytes of each token of OpenAI's two files, but the end of text, and its number.

    A letter of theirs stands for a byte: itself where it can be printed, else one from 256 on.
    """
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    values = {chr(byte): byte for byte in printed}
    values |= {chr(256 + place): byte for place, byte in enumerate(others)}
    tokens = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    del tokens["<|endoftext|>"]
    return {bytes(values[letter] for letter in name): rank for name, rank in tokens.items()}


def tiktoken(settings: argparse.Namespace) -> Callable[[], object]:
    import tiktoken as library

    encoding = library.Encoding(
        "local",
        pat_str=(
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
        ),
        mergeable_ranks=vocabulary(Path(settings.vocabulary)),
        special_tokens={"<|endoftext|>": 50256},
    )

    def work() -> None:
        text = Path(settings.text).read_text(encoding="utf-8")
        encoding.encode_ordinary(text)

    return work


def simple(settings: argparse.Namespace) -> Callable[[], object]:
    from gpt_2_simple.src.encoder import get_encoder

    encoder = get_encoder(settings.vocabulary)

    def work() -> None:
        encoder.encode(Path(settings.text).read_text(encoding="utf-8"))

    return work


def main() -> None:
    jobs: dict[str, Callable[[Any], Callable[[], object]]]
    jobs = {"gpt2cli": gpt2cli, "tiktoken": tiktoken, "simple": simple}
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=jobs)
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--threads", type=int, default=0)
    settings = parser.parse_args()
    start = time.perf_counter()
    work = jobs[settings.work](settings)
    ready = time.perf_counter() - start
    most, done = [memory()], threading.Event()
    watcher = threading.Thread(target=watch, args=(most, done))
    watcher.start()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    print(json.dumps({"ready": ready, "seconds": seconds, "memory": max(most) - most[0]}))


if __name__ == "__main__":
    main()
