"""Loss and accuracy against the oracle's."""

from __future__ import annotations

import numpy as np
import pytest

from tests import models, oracle

pytestmark = pytest.mark.usefixtures("tensorflow")


def test_the_score_is_the_mean_over_all_windows_also_of_a_last_batch_that_is_smaller() -> None:
    from gpt2cli.training.evaluation import Evaluator, Score

    arrays = models.random_arrays(models.SMALL)
    shape = (5, models.SMALL.n_ctx + 1)
    windows = np.random.default_rng(0).integers(0, 260, shape).astype(np.int32)
    score = sum(Evaluator(arrays, models.SMALL).batches(windows, 2), Score())
    heads = models.SMALL.n_head
    assert score.loss == pytest.approx(np.mean([oracle.loss(arrays, heads, w) for w in windows]))
    hits = [oracle.logits(arrays, heads, w[:-1]).argmax(axis=1) == w[1:] for w in windows]
    assert score.accuracy == pytest.approx(np.mean(hits))
    assert score.perplexity == pytest.approx(np.exp(score.loss))
