"""What TensorFlow computes from logits: the next tokens, and the candidates of searches."""

from __future__ import annotations

import tensorflow as tf

from gpt2cli.arrays import Tensor
from gpt2cli.inference.sampling import Filters, SamplingParams
from gpt2cli.network import logit_filters
from gpt2cli.network.logit_filters import REMOVED, draw


def choose(
    params: SamplingParams, logits: Tensor, uniforms: Tensor, history: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the next tokens, and their log-probabilities as the model sees them.

    Args:
        params: how they are chosen.
        logits: float32 (rows, vocab).
        uniforms: float32 (rows,), a random number from 0 up to 1 for each row.
        history: int32 (rows, slots), the tokens before, aligned at their ends; NO_TOKEN before
            them.

    Returns:
        int32 (rows,), and float32 (rows,) in nats: of the logits without filters.
    """
    if params.temperature == 0:
        left = FILTERS.allowed(logits, history, params)
        chosen = tf.argmax(left, axis=-1, output_type=tf.int32)
    else:
        chosen = draw(tf.nn.softmax(FILTERS.filtered(logits, history, params)), uniforms)
    return chosen, tf.gather(tf.nn.log_softmax(logits), chosen, batch_dims=1)


def likeliest(
    params: SamplingParams, count: int, logits: Tensor, history: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns each row's likeliest tokens of those allowed; the arguments are as for `choose`.

    They are int32 (rows, count), with their probabilities, and log-probabilities without filters.
    """
    left = tf.nn.softmax(FILTERS.allowed(logits, history, params))
    probabilities, tokens = tf.math.top_k(left, count)
    own = tf.gather(tf.nn.log_softmax(logits), tokens, batch_dims=1)
    return tokens, probabilities, own


def beam_candidates(
    params: SamplingParams,
    count: int,
    logits: Tensor,
    totals: Tensor,
    uniforms: Tensor,
    history: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the best continuations of each prompt's beams; see `BeamStep`.

    Returns:
        int32 (prompts, candidates): beam * vocab + token; float32: the sum of log-probabilities;
        float32: the token's own log-probability.
    """
    prompts = totals.shape[0]
    own = tf.nn.log_softmax(logits)  # (prompts * beams, vocab)
    drawn = uniforms.shape[1] > 0
    look = FILTERS.filtered if drawn else FILTERS.allowed
    sums = look(own, history, params) + tf.reshape(totals, [-1, 1])
    sums = tf.reshape(sums, [prompts, -1])  # (prompts, beams * vocab)
    if drawn:
        places, there = draw_several(tf.nn.softmax(sums), uniforms)  # (prompts, candidates)
        best = tf.where(there, tf.gather(sums, places, batch_dims=1), REMOVED)
        best, order = tf.math.top_k(best, count)
        places = tf.gather(places, order, batch_dims=1)
    else:
        best, places = tf.math.top_k(sums, min(count, sums.shape[1]))
    return places, best, tf.gather(tf.reshape(own, [prompts, -1]), places, batch_dims=1)


def draw_several(probabilities: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Returns columns that are drawn one after the other, none of them twice.

    Of probabilities (batch, columns), by numbers from 0 up to 1 (batch, count): int32 (batch,
    count), and bool (batch, count), whether there was anything left to draw.
    """
    columns = tf.range(probabilities.shape[1])[None, :]
    drawn, there = [], []
    for number in range(uniforms.shape[1]):
        drawn.append(draw(probabilities, uniforms[:, number]))
        there.append(tf.gather(probabilities, drawn[-1], batch_dims=1) > 0)
        probabilities = tf.where(columns == drawn[-1][:, None], 0.0, probabilities)
    return tf.stack(drawn, axis=1), tf.stack(there, axis=1)


FILTERS: Filters[Tensor] = Filters(
    remove=logit_filters.remove,
    penalise=logit_filters.penalise,
    remove_repeats=logit_filters.remove_repeats,
    keep_top_k=logit_filters.keep_top_k,
    keep_top_p=logit_filters.keep_top_p,
    keep_min_p=logit_filters.keep_min_p,
    keep_typical_p=logit_filters.keep_typical_p,
)
