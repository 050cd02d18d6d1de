"""Adapters: new ones change nothing, and trained ones are what merging makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt2cli.hparams import LORA_A, LORA_B, LORA_SCALE
from tests import models, oracle
from tests.marks import few
from tests.training.steps import loss_of

pytestmark = pytest.mark.usefixtures("tensorflow")

HPARAMS = models.MINI


def logits(weights: dict[str, Any], tokens: Any) -> Any:
    from gpt2cli.network import gpt2

    hidden = gpt2.hidden_states(weights, HPARAMS, gpt2.embed(weights, tokens))
    return gpt2.logits(weights, hidden).numpy()


def adapters(seed: int) -> dict[str, Any]:
    noise = np.random.default_rng(seed)
    return {
        name: np.float32(0.5) if name == LORA_SCALE else noise.normal(size=shape).astype(np.float32)
        for name, shape in HPARAMS.lora_shapes(2).items()
    }


def merged(arrays: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    whole = dict(arrays)
    for name in arrays:
        if name + LORA_A in beside:
            whole[name] = arrays[name] + 0.5 * beside[name + LORA_A] @ beside[name + LORA_B]
    return whole


def test_new_adapters_change_nothing_and_follow_from_the_seed() -> None:
    from gpt2cli.network import lora

    arrays = models.random_arrays(HPARAMS)
    tokens = np.arange(10)[None]
    new = dict(lora.new_adapters(HPARAMS, 2, 4.0, seed=3))
    assert {name: tuple(a.shape) for name, a in new.items()} == HPARAMS.lora_shapes(2)
    assert float(new[LORA_SCALE]) == 2
    np.testing.assert_array_equal(logits(arrays | new, tokens), logits(arrays, tokens))
    again = dict(lora.new_adapters(HPARAMS, 2, 4.0, seed=3))
    other = dict(lora.new_adapters(HPARAMS, 2, 4.0, seed=4))
    first = f"model/h0/attn/c_attn/w{LORA_A}"
    np.testing.assert_array_equal(again[first], new[first])
    assert not np.array_equal(other[first], new[first])


def test_adapters_count_as_the_matrices_that_they_are_merged_into() -> None:
    arrays, beside = models.random_arrays(HPARAMS), adapters(1)
    tokens = np.random.default_rng(0).integers(0, HPARAMS.n_vocab, 12)
    expected = oracle.logits(merged(arrays, beside), HPARAMS.n_head, tokens)
    found = logits(arrays | beside, tokens[None])[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - logits(arrays, tokens[None])[0]).max() > 0.1


@pytest.mark.parametrize("recompute", few([False, True], 1))
def test_steps_of_adapters_equal_the_textbook(recompute: bool) -> None:
    from gpt2cli.network import gpt2
    from gpt2cli.training.backend import TrainingOptions
    from gpt2cli.training.step import Trainer

    arrays, beside = models.random_arrays(HPARAMS), adapters(1)
    weights = gpt2.to_variables((arrays | beside).items())
    trainer = Trainer(weights, HPARAMS, TrainingOptions(optimizer="sgd", recompute=recompute))
    tokens = np.random.default_rng(0).integers(0, HPARAMS.n_vocab, 12).astype(np.int32)
    trainer.step(tokens[None, None], rate=0.1, step=1, seed=0)
    for name in arrays:
        np.testing.assert_array_equal(weights[name], arrays[name], err_msg=name)
    exact = {name: array.astype(np.float64) for name, array in (arrays | beside).items()}
    for name in (f"model/h0/mlp/c_fc/w{LORA_A}", f"model/h0/attn/c_proj/w{LORA_B}"):
        place = np.unravel_index(np.argmax(abs(exact[name])), exact[name].shape)
        slope = []
        for change in (1e-5, -1e-5):
            moved = exact[name].copy()
            moved[place] += change
            whole = merged(exact, exact | {name: moved})
            slope.append(oracle.loss(whole, HPARAMS.n_head, tokens))
        expected = exact[name][place] - 0.1 * (slope[0] - slope[1]) / 2e-5
        assert weights[name].numpy()[place] == pytest.approx(expected, abs=1e-5)
    assert weights[LORA_SCALE].numpy() == np.float32(0.5)


def test_narrow_weights_give_nearly_the_same_steps() -> None:
    import tensorflow as tf

    from gpt2cli.network import gpt2
    from gpt2cli.training.backend import TrainingOptions
    from gpt2cli.training.model import held
    from gpt2cli.training.step import Trainer

    arrays, beside = models.random_arrays(HPARAMS, deviation=0.1), adapters(1)
    tokens = np.random.default_rng(0).integers(0, HPARAMS.n_vocab, (1, 1, 12)).astype(np.int32)
    losses = []
    for kind in (tf.float32, tf.bfloat16):
        frozen = held(arrays.items(), kind)
        assert frozen["model/wte"].dtype == kind
        assert frozen["model/ln_f/g"].dtype == tf.float32
        trainer = Trainer(frozen | gpt2.to_variables(beside.items()), HPARAMS, TrainingOptions())
        losses.append([loss_of(trainer, tokens, 1e-2, step, 0) for step in (1, 2, 3)])
    assert losses[0][2] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
