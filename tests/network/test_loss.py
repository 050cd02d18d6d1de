"""The loss without the full logits against TensorFlow's own with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("tensorflow")


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("rows", [1, 511, 513, 1300])
def test_loss_and_gradients_equal_those_of_the_full_logits(rows: int, gpu: bool) -> None:
    import tensorflow as tf

    from gpt2cli.network import loss, xla_clusters

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

    # A GPU's clusters run on a CPU as well.
    with xla_clusters.clustering(enabled=gpu, gpu=gpu):
        judge = tf.function(lambda: judged(loss.next_token_loss), autograph=False)()
    for found, expected in zip(judge, judged(plain), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gpu", [False, True])
def test_scores_tell_each_rows_loss_and_whether_it_was_right(gpu: bool) -> None:
    import tensorflow as tf

    from gpt2cli.network import loss, xla_clusters

    hidden = tf.constant([[5.0, 0.0], [0.0, 5.0], [0.0, 0.0]])
    with xla_clusters.clustering(enabled=gpu, gpu=gpu):
        losses, right = loss.token_losses(hidden, tf.eye(2), tf.constant([0, 0, 1]))
    expected = [np.log1p(np.exp(-5)), np.log1p(np.exp(5)), np.log(2)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert right.numpy().tolist()[:2] == [True, False]


def test_on_a_gpu_rows_of_logits_are_aligned() -> None:
    import tensorflow as tf

    from gpt2cli.network import loss, xla_clusters

    with xla_clusters.clustering(enabled=True, gpu=True):
        assert loss.aligned_rows(tf.ones([50257, 2]), tf.bfloat16).shape == (50304, 2)
        assert loss.aligned_rows(tf.ones([128, 2]), tf.bfloat16).shape == (128, 2)
    assert loss.aligned_rows(tf.ones([97, 2]), tf.float32).shape == (97, 2)


def test_the_blocks_of_rows_cover_every_row_once() -> None:
    from gpt2cli.network.loss import MOST_BLOCKS, row_blocks

    for rows in (1, 512, 513, 8192, 8193, 65536):
        blocks = row_blocks(rows)
        assert [row for start, end in blocks for row in range(start, end)] == list(range(rows))
        assert len(blocks) <= MOST_BLOCKS
