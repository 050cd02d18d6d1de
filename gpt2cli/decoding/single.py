"""One text at a time on a CPU, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpt2cli.decoding.row_filters import RowSampling
from gpt2cli.decoding.rows import Chosen, Row, newer_half
from gpt2cli.network.single import SingleModel


class SingleDecoder:
    """Continues one prompt token by token, as loop.Decoder does many."""

    def __init__(self, model: SingleModel, n_ctx: int, sampling: RowSampling) -> None:
        """Takes the model, its window, and how tokens are chosen."""
        self._model, self._n_ctx, self._sampling = model, n_ctx, sampling

    def tokens(
        self, prompts: Sequence[Row], draws: Sequence[Iterator[float]], length: int
    ) -> Iterator[Chosen]:
        """Yields the next token of the only row, `length` times.

        A row that has filled the window goes on from its newer half, which is computed anew.

        Args:
            prompts: one row's tokens, from 1 to n_ctx of them.
            draws: that row's random numbers.
            length: tokens to yield.
        """
        (prompt,), (uniforms,) = prompts, draws
        history, row = list(prompt), list(prompt)
        for number in range(length):
            if number == 0 or len(row) > self._n_ctx:
                row = newer_half(row, self._n_ctx)
                logits = self._model.prefill(row, length - number)
            else:
                logits = self._model.step(row[-1])
            token, log_probability = self._sampling.choose(logits, next(uniforms), history)
            row.append(token)
            history.append(token)
            yield Chosen([token], [log_probability])

    def remarks(self) -> list[str]:
        """Returns no lines: nothing can go otherwise than asked."""
        return []
