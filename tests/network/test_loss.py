"""The loss without the full logits against TensorFlow's own with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("tensorflow")


@pytest.mark.parametrize("rows", [1, 511, 513, 1300])
def test_loss_and_gradients_equal_those_of_the_full_logits(rows: int) -> None:
    import tensorflow as tf

    from gpt2cli.network import loss

    generator = np.random.default_rng(rows)
    hidden = tf.constant(generator.normal(size=(rows, 16)), tf.float32)
    wte = tf.constant(generator.normal(size=(97, 16)), tf.float32)
    targets = tf.constant(generator.integers(0, 97, rows), tf.int32)

    def plain(hidden: Any, wte: Any, targets: Any) -> Any:
        logits = tf.matmul(hidden, wte, transpose_b=True)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))

    def judged(function: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch([hidden, wte])
            value = 3 * function(hidden, wte, targets)
        return [value, *tape.gradient(value, [hidden, wte])]

    for found, expected in zip(judged(loss.next_token_loss), judged(plain), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_scores_tell_each_rows_loss_and_whether_it_was_right() -> None:
    import tensorflow as tf

    from gpt2cli.network import loss

    hidden = tf.constant([[5.0, 0.0], [0.0, 5.0], [0.0, 0.0]])
    losses, right = loss.token_losses(hidden, tf.eye(2), tf.constant([0, 0, 1]))
    expected = [np.log1p(np.exp(-5)), np.log1p(np.exp(5)), np.log(2)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert right.numpy().tolist()[:2] == [True, False]


def test_the_blocks_of_rows_cover_every_row_once() -> None:
    from gpt2cli.network.loss import MOST_BLOCKS, row_blocks

    for rows in (1, 512, 513, 8192, 8193, 65536):
        blocks = row_blocks(rows)
        assert [row for start, end in blocks for row in range(start, end)] == list(range(rows))
        assert len(blocks) <= MOST_BLOCKS
