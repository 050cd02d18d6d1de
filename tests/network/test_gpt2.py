"""The network against the NumPy oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.hparams import HParams
from tests import models, oracle

pytestmark = pytest.mark.usefixtures("tensorflow")

ODD = HParams(n_vocab=301, n_ctx=600, n_embd=40, n_head=5, n_layer=2)


def compiled_logits(weights: dict[str, Any], hparams: HParams, tokens: Any) -> Any:
    import tensorflow as tf

    from gpt2cli.network import gpt2

    def run(tokens: Any) -> Any:
        x = gpt2.embed(weights, tokens)
        return gpt2.logits(weights, gpt2.hidden_states(weights, hparams, x))

    return tf.function(run, jit_compile=True)(tf.constant(tokens, tf.int32)).numpy()


@pytest.mark.parametrize("hparams", [models.SMALL, ODD], ids=["small", "odd"])
def test_logits_equal_the_oracles(hparams: HParams) -> None:
    weights = models.random_arrays(hparams)
    tokens = np.random.default_rng(1).integers(0, hparams.n_vocab, (2, hparams.n_ctx))
    found = compiled_logits(weights, hparams, tokens)
    for row, expected in zip(found, tokens, strict=True):
        judged = oracle.logits(weights, hparams.n_head, expected)
        # Each position is judged: a mask that is off by one would show at a block's border.
        np.testing.assert_allclose(row, judged, atol=2e-4)


def test_a_position_sees_nothing_of_what_follows() -> None:
    weights = models.random_arrays(ODD)
    tokens = np.random.default_rng(1).integers(0, ODD.n_vocab, (1, ODD.n_ctx))
    changed = tokens.copy()
    changed[0, 300:] += 1
    changed %= ODD.n_vocab
    before, after = (compiled_logits(weights, ODD, t)[0] for t in (tokens, changed))
    np.testing.assert_array_equal(before[:300], after[:300])
    assert np.abs(before[300:] - after[300:]).max() > 0.1


@pytest.mark.slow
def test_logits_of_a_124m_checkpoint_equal_the_oracles_cached_and_uncached(
    tmp_path: Path,
) -> None:
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine
    from gpt2cli.network import gpt2
    from gpt2cli.storage import bundle, checkpoint

    hparams = models.GPT2_124M
    folder = models.write_model(tmp_path / "124M", hparams, deviation=0.05)
    bundle.check_weights(folder / "model.ckpt", hparams)
    arrays = dict(checkpoint.load(folder / "model.ckpt", hparams.shapes()))
    weights = gpt2.to_variables(arrays.items())
    tokens = models.real_tokenizer().encode("In the beginning God created the heaven")
    judged = oracle.logits(arrays, hparams.n_head, tokens)
    uncached = compiled_logits(weights, hparams, [tokens])[0]
    np.testing.assert_allclose(uncached, judged, atol=2e-4)

    engine = TensorFlowEngine(weights, hparams)
    engine.make_room(1, 1, len(tokens))
    hidden = [engine.prefill([tokens[:1]]), *(engine.step([token]) for token in tokens[1:])]
    cached = np.concatenate([engine.logits(state) for state in hidden])
    np.testing.assert_allclose(cached, judged, atol=2e-4)


def test_random_weights_have_the_shapes_and_deviations_of_gpt2() -> None:
    from gpt2cli.network import gpt2

    hparams = HParams(n_vocab=2000, n_ctx=256, n_embd=128, n_head=4, n_layer=8)
    made = {name: np.asarray(a) for name, a in gpt2.initial_weights(hparams, seed=1)}
    assert {name: a.shape for name, a in made.items()} == hparams.shapes()
    assert made["model/wte"].std() == pytest.approx(0.02, rel=0.02)
    assert made["model/wpe"].std() == pytest.approx(0.01, rel=0.02)
    assert made["model/h3/mlp/c_proj/w"].std() == pytest.approx(0.02 / 4, rel=0.02)
    assert np.all(made["model/ln_f/g"] == 1)
    assert np.all(made["model/h0/attn/c_attn/b"] == 0)
    again = dict(gpt2.initial_weights(hparams, seed=2))
    assert not np.allclose(made["model/wte"], again["model/wte"])


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    import tensorflow as tf

    from gpt2cli.network import gpt2

    dropped = gpt2.Dropout(0.25, tf.constant([3, 0]))(tf.ones([400, 400])).numpy()
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean() == pytest.approx(1, abs=0.01)
    elsewhere = gpt2.Dropout(0.25, tf.constant([3, 0])).at(2)(tf.ones([400, 400])).numpy()
    assert not np.array_equal(dropped, elsewhere)
