"""Text to tokens."""

from __future__ import annotations

import dataclasses

from tests.bench.processes import MODEL, Bench, Run, Values, Work


@dataclasses.dataclass(frozen=True)
class Encoding(Work):
    """English to tokens, once a process; to import and to read the vocabulary is told apart.

    Attributes:
        corpus: whether it is a large file, as `finetune` would encode it, and not a text at hand
    """

    corpus: bool = False

    def __str__(self) -> str:
        return "encode a corpus" if self.corpus else "encode a text"

    def script(self, bench: Bench, program: str, kind: str, threads: int = 0) -> Values:
        """Encodes by a script; it tells its speed and its memory above the import."""
        text = bench.corpus if self.corpus else bench.english
        outcome = bench.peer(
            *("tokens.py", program, kind),
            *("--vocabulary", f"models/{MODEL}", "--text", text, "--threads", threads),
        )
        told = outcome.told()
        values = {"MB/s": text.stat().st_size / told["seconds"] / 1e6, "ready, s": told["ready"]}
        return values | {"memory above the import, MB": told["memory"] / 1e6}

    def programs(self) -> dict[str, Run]:
        """Returns who can encode, by name; a gpt-2-simple takes minutes for a corpus."""
        if self.corpus:
            return {
                "gpt2cli": lambda bench: self.script(bench, "gpt2cli", "gpt2cli"),
                "tiktoken": lambda bench: self.script(bench, "tiktoken", "tiktoken"),
            }
        return {
            "gpt2cli, two threads": lambda b: self.script(b, "gpt2cli", "gpt2cli", 2),
            "gpt2cli, one thread": lambda b: self.script(b, "gpt2cli", "gpt2cli", 1),
            "tiktoken": lambda bench: self.script(bench, "tiktoken", "tiktoken"),
            "gpt-2-simple": lambda bench: self.script(bench, "gpt-2-simple", "simple"),
        }
