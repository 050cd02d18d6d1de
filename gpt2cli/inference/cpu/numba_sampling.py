"""Rows' next tokens, drawn by compiled loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2cli.inference.cpu import sampling_kernels
from gpt2cli.inference.cpu.sampling import Logits, RowSampling


class NativeSampling(RowSampling):
    """How the next tokens of rows are chosen, if Numba is installed."""

    @np.errstate(all="ignore")
    def choose_all(
        self, logits: Logits, uniforms: Sequence[float], histories: Sequence[Sequence[int]]
    ) -> tuple[list[int], list[float]]:
        """Returns each row's next token, and its log-probability; logits are (rows, vocab)."""
        tokens, nats = np.empty(len(logits), np.int64), np.empty(len(logits))
        pairs = zip(logits, histories, strict=True)
        if self.temperature == 0:
            tokens[:] = [self.without_repeats(*pair).argmax() for pair in pairs]
        else:
            filtered = np.empty_like(logits)
            for row, pair in zip(filtered, pairs, strict=True):
                row[:] = self.filtered(*pair)
            sampling_kernels.draw_all(filtered, np.asarray(uniforms, np.float64), tokens)
        sampling_kernels.take_nats(logits, tokens, nats)
        return tokens.tolist(), nats.tolist()
