"""Texts that grow on a CPU, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gpt2cli.inference.cpu.engine import TextsModel
from gpt2cli.inference.cpu.ops import Arithmetic
from gpt2cli.inference.cpu.sampling import RowSampling
from gpt2cli.inference.streams import Chosen, Row, newer_half
from gpt2cli.runtime import numba


def means(
    precision: str, choices: Sequence[Any], *, many: bool = True
) -> tuple[Arithmetic, RowSampling]:
    """Returns what computes and what chooses: Numba if it is installed, else only NumPy.

    Args:
        precision: in which weights are held: float32, or with Numba bfloat16, float16 or int8.
        choices: the attributes of Choices.
        many: whether several texts grow at once; for one NumPy chooses as fast, uncompiled.
    """
    if not numba.is_available():
        return Arithmetic(), RowSampling(*choices)
    from gpt2cli.inference.cpu.numba_ops import NativeArithmetic
    from gpt2cli.inference.cpu.numba_sampling import NativeSampling

    sampling = NativeSampling if many else RowSampling
    return NativeArithmetic(precision), sampling(*choices)


class TextsDecoder:
    """Continues prompts token by token, as tensorflow_engine.Decoder does."""

    def __init__(self, model: TextsModel, n_ctx: int, sampling: RowSampling) -> None:
        """Takes the model, its window, and how tokens are chosen."""
        self._model, self._n_ctx, self._sampling = model, n_ctx, sampling

    def tokens(
        self, prompts: Sequence[Row], draws: Sequence[Iterator[float]], length: int
    ) -> Iterator[Chosen]:
        """Yields each row's next token, `length` times.

        A row that has filled the window goes on from its newer half, which is computed anew.

        Args:
            prompts: a row's tokens each, from 1 to n_ctx of them.
            draws: each row's random numbers.
            length: tokens to yield a row.
        """
        histories, rows = [list(prompt) for prompt in prompts], [list(row) for row in prompts]
        self._model.open(len(rows), max(map(len, rows)) + length)
        for text, row in enumerate(rows):
            # What is known of a text that begins in the same way need not be found again.
            source = rows.index(row)
            if source < text:
                self._model.copy(source, text)
            else:
                self._model.begin(text, row[:-1])
        for _ in range(length):
            self._slide(rows)
            scores = self._model.step([row[-1] for row in rows])
            uniforms = [next(row) for row in draws]
            chosen = Chosen(*self._sampling.choose_all(scores, uniforms, histories))
            yield chosen
            for token, row, history in zip(chosen.tokens, rows, histories, strict=True):
                row.append(token)
                history.append(token)

    def _slide(self, rows: list[list[int]]) -> None:
        """Lets the rows that have filled the window begin anew from their newer half."""
        for text, row in enumerate(rows):
            if len(row) > self._n_ctx:
                row[:] = newer_half(row, self._n_ctx)
                self._model.begin(text, row[:-1])

    def pop_warnings(self) -> list[str]:
        """Returns no lines: nothing can go otherwise than asked."""
        return []
