"""What TensorFlow's engine makes of hidden states: logits, next tokens, candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import tensorflow as tf

from gpt2cli.arrays import Logits, Tensor, Weights
from gpt2cli.inference import tensorflow_sampling
from gpt2cli.inference.engine import NO_TOKEN, BeamStep, Candidates, Chosen, Hidden, History
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.network import gpt2, xla_clusters
from gpt2cli.network.compiling import Compiler

# Logits and other tensors → what the engine returns of them.
Head = Callable[..., Tensor]


class TensorFlowHeads:
    """The output layer of a model, and what is chosen from its logits, each one program."""

    def __init__(self, weights: Weights, compiler: Compiler) -> None:
        """Takes the model, and what compiles it."""
        self._weights, self.compiler = weights, compiler
        self._heads: dict[tuple[object, ...], Callable[..., Tensor]] = {}
        self._history_slots = 0

    def logits(self, hidden: Hidden) -> Logits:
        """(rows, embed) → (rows, vocab): the scores of the tokens that may follow."""
        return np.asarray(self._head(tf.identity)(hidden))

    def choose(
        self, hidden: Hidden, params: SamplingParams, uniforms: Sequence[float], history: History
    ) -> Chosen:
        """Returns each row's next token: the likeliest, or drawn by a number from 0 up to 1."""
        before = self._before(history)
        shapes = hidden.shape, before.shape
        head = self._head(tensorflow_sampling.choose, params, shapes=shapes)
        tokens, nats = head(hidden, tf.constant(uniforms, tf.float32), before)
        return Chosen(tokens.numpy().tolist(), nats.numpy().tolist())

    def choose_from(
        self, logits: Logits, params: SamplingParams, uniforms: Sequence[float], history: History
    ) -> Chosen:
        """Returns what `choose` does, from logits (rows, vocab)."""
        key = "logits", params
        if key not in self._heads:
            head = xla_clusters.cluster(partial(tensorflow_sampling.choose, params))
            self._heads[key] = self.compiler(head)
        uniform = tf.constant(uniforms, tf.float32)
        tokens, nats = self._heads[key](tf.constant(logits), uniform, self._before(history))
        return Chosen(tokens.numpy().tolist(), nats.numpy().tolist())

    def likeliest(
        self, hidden: Hidden, params: SamplingParams, count: int, history: History
    ) -> Candidates:
        """Returns each row's likeliest tokens of those allowed."""
        head = self._head(tensorflow_sampling.likeliest, params, count)
        return as_candidates(head(hidden, self._before(history)))

    def beam_candidates(self, hidden: Hidden, params: SamplingParams, step: BeamStep) -> Candidates:
        """Returns the best continuations of each prompt's beams."""
        head = self._head(tensorflow_sampling.beam_candidates, params, step.count)
        before = self._before(step.history)
        return as_candidates(head(hidden, step.totals, step.uniforms, before))

    def _head(self, head: Head, *settings: object, shapes: object = None) -> Callable[..., Tensor]:
        """Returns what computes logits and a head of them in one program: (hidden, *tensors).

        With the tensors' shapes it serves only those, faster.
        """
        key = head, *settings, shapes
        if key not in self._heads:

            def graph(hidden: Tensor, *tensors: Tensor) -> Tensor:
                """Computes the logits, and the head of them."""
                compiled = xla_clusters.cluster(partial(head, *settings))
                return compiled(gpt2.logits(self._weights, hidden), *tensors)

            self._heads[key] = self.compiler(graph, steady=shapes is not None)
        return self._heads[key]

    def _before(self, history: History) -> Tensor:
        """Returns a history as int32 (rows, slots); slots grow only, lest programs be many."""
        missing = self._history_slots - history.tokens.shape[1]
        self._history_slots = max(self._history_slots, history.tokens.shape[1])
        if missing <= 0 or not history.tokens.shape[1]:
            return tf.constant(history.tokens)
        padding = [[0, 0], [missing, 0]]
        return tf.constant(np.pad(history.tokens, padding, constant_values=NO_TOKEN))


def as_candidates(found: Sequence[Tensor]) -> Candidates:
    """Returns the tensors that a head has returned as candidates."""
    tokens, scores, log_probabilities = (tensor.numpy() for tensor in found)
    return Candidates(tokens=tokens, scores=scores, log_probabilities=log_probabilities)
