"""A training step against a computation in NumPy, with numerical gradients as the judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpt2cli.hparams import HParams
from tests import models, oracle
from tests.marks import few
from tests.training.steps import loss_of

pytestmark = pytest.mark.usefixtures("tensorflow")

RATE = 1e-2
TINY = HParams(n_vocab=11, n_ctx=6, n_embd=4, n_head=2, n_layer=1)


def trainer(
    arrays: dict[str, Any], hparams: HParams = TINY, *, mode: str = "FULL", **settings: Any
) -> Any:
    from gpt2cli.network import gpt2
    from gpt2cli.network.compiling import CompileMode
    from gpt2cli.training.backend import Backend, TrainingOptions
    from gpt2cli.training.step import Trainer

    backend = Backend(mode=CompileMode[mode], gpu=mode == "BLOCKS")
    options = TrainingOptions(backend=backend, **settings)
    return Trainer(gpt2.to_variables(arrays.items()), hparams, options)


def drawn(count: int, batch: int, hparams: HParams = TINY, seed: int = 0) -> Any:
    shape = (count, batch, hparams.n_ctx + 1)
    return np.random.default_rng(seed).integers(0, hparams.n_vocab, shape).astype(np.int32)


def numerical_gradient(
    arrays: dict[str, Any], tokens: Any, name: str, loss: Callable[..., float] = oracle.loss
) -> Any:
    """Returns the gradient of the oracle's loss by central differences in double precision."""
    exact = {key: value.astype(np.float64) for key, value in arrays.items()}
    gradient = np.zeros_like(exact[name])
    for place in np.ndindex(gradient.shape):
        losses = []
        for change in (1e-5, -1e-5):
            exact[name][place] += change
            losses.append(loss(exact, TINY.n_head, tokens))
            exact[name][place] -= change
        gradient[place] = (losses[0] - losses[1]) / 2e-5
    return gradient


def adam(weight: Any, gradient: Any, slots: Any, step: int) -> None:
    mean, square = slots
    mean += 0.1 * (gradient - mean)
    square += 0.001 * (gradient**2 - square)
    rate = RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    weight -= rate * mean / (np.sqrt(square) + 1e-8)


def sgd(weight: Any, gradient: Any, _slots: Any, _step: int) -> None:
    weight -= RATE * gradient


RULES = {"adam": adam, "adamw": adam, "sgd": sgd}


@pytest.mark.parametrize("mode", ["FULL", "BLOCKS"])
@pytest.mark.parametrize("optimizer", RULES)
def test_three_steps_equal_the_textbooks(optimizer: str, mode: str) -> None:
    arrays = models.random_arrays(TINY, deviation=0.5)
    decay = 0.1 if optimizer == "adamw" else 0.0
    found = trainer(arrays, optimizer=optimizer, weight_decay=decay, mode=mode)
    expected = {name: array.astype(np.float64) for name, array in arrays.items()}
    slots = {name: [np.zeros_like(a), np.zeros_like(a)] for name, a in expected.items()}
    for step in (1, 2, 3):
        batch = drawn(1, 1, seed=step)
        loss = loss_of(found, batch, RATE, step, 0)
        assert loss == pytest.approx(oracle.loss(expected, TINY.n_head, batch[0, 0]), abs=1e-5)
        gradients = {name: numerical_gradient(expected, batch[0, 0], name) for name in expected}
        for name, gradient in gradients.items():
            if not name.endswith(("/b", "/g")):
                expected[name] *= 1 - RATE * decay
            RULES[optimizer](expected[name], gradient, slots[name], step)
    # Steps are divided by the gradient's size: where a gradient is zero but for rounding, as that
    # of the keys' bias always is, its sign and so the step are chance.
    for name, weight in found.weights.items():
        if not name.endswith("c_attn/b"):
            np.testing.assert_allclose(weight.numpy(), expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.3},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"blocks_only": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_recomputation_gives_the_same_steps(settings: dict[str, Any]) -> None:
    arrays = models.random_arrays(models.MINI)
    usual, saving = (
        trainer(arrays, models.MINI, clip_norm=1.0, recompute=recompute, **settings)
        for recompute in (False, True)
    )
    for step in (1, 2, 3):
        batches = drawn(1, 2, models.MINI, seed=step)[:, :, :20]
        losses = [loss_of(found, batches, 1e-3, step, 7) for found in (usual, saving)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for name, weight in usual.weights.items():
        if not name.endswith("c_attn/b"):
            np.testing.assert_allclose(weight, saving.weights[name], atol=2e-5, err_msg=name)


@pytest.mark.parametrize("recompute", [False, True])
def test_only_the_blocks_are_trained_where_that_is_asked(recompute: bool) -> None:
    arrays = models.random_arrays(TINY)
    found = trainer(arrays, blocks_only=True, recompute=recompute)
    found.step(drawn(1, 1), 1e-2, step=1, seed=0)
    same = {n for n, w in found.weights.items() if np.array_equal(w.numpy(), arrays[n])}
    assert same == {"model/wte", "model/wpe", "model/ln_f/g", "model/ln_f/b"}
    assert not any("wte" in name for name in found.slots)


def test_padding_counts_in_no_loss_and_no_gradient() -> None:
    arrays = models.random_arrays(TINY, deviation=0.5)
    short = drawn(1, 1)[:, :, :4]
    padded = np.concatenate([short, np.full((1, 1, 3), -1, np.int32)], axis=2)
    found = [trainer(arrays), trainer(arrays), trainer(arrays, recompute=True)]
    losses = [
        loss_of(t, b, 1e-2, 1, 0) for t, b in zip(found, (short, padded, padded), strict=True)
    ]
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-6)
    expected = oracle.loss(arrays, TINY.n_head, short[0, 0])
    assert losses[0] == pytest.approx(expected, abs=1e-5)
    for other in found[1:]:
        for name, weight in found[0].weights.items():
            if not name.endswith("c_attn/b"):
                np.testing.assert_allclose(weight, other.weights[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("recompute", [False, True])
def test_tokens_that_are_read_and_not_learned_count_as_context_only(recompute: bool) -> None:
    arrays = models.random_arrays(TINY, deviation=0.5)
    tokens = drawn(1, 1)[0, 0]
    counts = np.array([True, False, False, True, True, False, True])
    found = trainer(arrays, optimizer="sgd", recompute=recompute)
    loss = loss_of(found, np.where(counts, tokens, ~tokens)[None, None], RATE, 1, 0)

    def judged(weights: dict[str, Any], n_head: int, tokens: Any) -> float:
        return float(oracle.losses(weights, n_head, tokens)[counts[1:]].mean())

    assert loss == pytest.approx(judged(arrays, TINY.n_head, tokens), abs=1e-5)
    for name, weight in found.weights.items():
        gradient = numerical_gradient(arrays, tokens, name, judged)
        np.testing.assert_allclose(weight, arrays[name] - RATE * gradient, atol=1e-5, err_msg=name)


MASKS = {
    "uneven": [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 0], [1, 0, 1, 1, 0, 0, 1], [0] * 7],
    "a micro-batch without any": [[0] * 7, [1] + [0] * 6, [1] * 7, [0, 1, 0, 1, 0, 0, 0]],
    "none at all": [[1] + [0] * 6] * 4,
}


OTHER_WAYS = (
    {"recompute": True},
    {"clip_norm": 1e9},
    {"precision": "float16"},
    {"clip_norm": 1e9, "mode": "BLOCKS"},
    {"precision": "float16", "mode": "BLOCKS"},
)
WEIGHED = [
    *(pytest.param({}, counts, id=name) for name, counts in MASKS.items()),
    *(
        pytest.param(way, counts, id=f"{way}-{name}", marks=pytest.mark.slow)
        for way in OTHER_WAYS
        for name, counts in MASKS.items()
    ),
]


@pytest.mark.parametrize(("settings", "counts"), WEIGHED)
def test_every_token_that_counts_weighs_the_same_in_a_step(
    settings: dict[str, Any], counts: list[list[int]]
) -> None:
    arrays = models.random_arrays(TINY, deviation=0.5)
    tokens = drawn(2, 2)
    windows = np.where(np.array(counts).reshape(2, 2, 7) > 0, tokens, ~tokens)
    found = trainer(arrays, optimizer="sgd", accumulate=2, **settings)
    pending = found.step(windows, RATE, step=1, seed=0)
    near = 1e-2 if settings.get("precision") else 1e-5
    assert pending.fetch()[0] == pytest.approx(
        oracle.masked_loss(arrays, TINY.n_head, windows), abs=near
    )
    assert pending.count == (windows[:, :, 1:] >= 0).sum()
    for name, weight in found.weights.items():
        gradient = numerical_gradient(arrays, windows, name, oracle.masked_loss)
        expected = arrays[name] - RATE * gradient
        np.testing.assert_allclose(weight, expected, atol=near, err_msg=name)
        if not pending.count:
            np.testing.assert_array_equal(weight, arrays[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "recompute"), [("bfloat16", False), ("bfloat16", True), ("float16", False)]
)
def test_narrow_types_train_nearly_as_float32_does(precision: str, recompute: bool) -> None:
    arrays = models.random_arrays(models.SMALL, deviation=0.05)
    found = [
        trainer(arrays, models.SMALL, clip_norm=1.0),
        trainer(arrays, models.SMALL, clip_norm=1.0, precision=precision, recompute=recompute),
    ]
    tokens = drawn(1, 2, models.SMALL)
    losses = [[loss_of(t, tokens, 3e-3, step, 0) for step in range(1, 21)] for t in found]
    assert losses[0][-1] < losses[0][0] - 0.5
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert all(weight.dtype == "float32" for weight in found[1].weights.values())


def test_a_gradient_that_overflows_float16_is_left_out_and_the_scale_falls() -> None:
    arrays = models.random_arrays(TINY)
    found = trainer(arrays, precision="float16")
    found.slots["loss_scale"].assign(2.0**40)
    found.step(drawn(1, 1), 1e-2, step=1, seed=0)
    assert found.slots["loss_scale"].numpy() == 2.0**39
    for name, weight in found.weights.items():
        np.testing.assert_array_equal(weight, arrays[name])
    found.slots["loss_scale"].assign(2.0**10)
    found.slots["good_steps"].assign(1999.0)
    found.step(drawn(1, 1), 1e-2, step=2, seed=0)
    assert found.slots["loss_scale"].numpy() == 2.0**11
    assert found.slots["good_steps"].numpy() == 0
    assert not np.array_equal(found.weights["model/wte"], arrays["model/wte"])


@pytest.mark.parametrize("mode", ["FULL", "BLOCKS"])
def test_accumulated_gradients_equal_those_of_one_batch(mode: str) -> None:
    arrays = models.random_arrays(models.MINI)
    tokens = drawn(1, 4, models.MINI)
    whole = trainer(arrays, models.MINI, clip_norm=1.0, mode=mode)
    parts = trainer(arrays, models.MINI, clip_norm=1.0, accumulate=4, mode=mode)
    split = tokens.reshape(4, 1, -1)
    for step in (1, 2, 3):
        losses = [loss_of(t, b, 1e-3, step, 0) for t, b in ((whole, tokens), (parts, split))]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for name, weight in whole.weights.items():
        if not name.endswith("c_attn/b"):
            np.testing.assert_allclose(weight, parts.weights[name], atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("optimizer", "count", "recompute"),
    few([("adamw", 1, True), ("adamw", 2, False), ("adafactor", 3, True)], 1),
)
def test_weights_that_are_updated_at_once_are_those_updated_at_the_end(
    optimizer: str, count: int, recompute: bool
) -> None:
    shape = models.MINI if count == 1 else models.SMALL
    arrays = models.random_arrays(shape)
    settings: dict[str, Any] = {
        "optimizer": optimizer,
        "accumulate": count,
        "recompute": recompute,
    }
    # A norm that no gradient has changes nothing, but all gradients are waited for.
    at_once, at_the_end = (
        trainer(arrays, shape, weight_decay=0.1, clip_norm=norm, **settings) for norm in (0.0, 1e6)
    )
    for step in (1, 2, 3):
        batches = drawn(count, 2, shape, seed=step)[:, :, :20]
        numbers = [
            found.step(batches, 1e-3, step=step, seed=7).fetch() for found in (at_once, at_the_end)
        ]
        assert numbers[0][0] == numbers[1][0]
        assert numbers[0][1] == pytest.approx(numbers[1][1], rel=1e-6)
        assert at_once.intact
    for name, weight in at_once.weights.items():
        np.testing.assert_array_equal(weight, at_the_end.weights[name], err_msg=name)
    assert not np.array_equal(at_once.weights["model/wte"], arrays["model/wte"])


@pytest.mark.parametrize("mode", ["FULL", "BLOCKS"])
def test_gradients_are_shortened_to_the_norm_that_is_allowed(mode: str) -> None:
    arrays = models.random_arrays(TINY, deviation=0.5)
    tokens = drawn(1, 1)
    gradients = [numerical_gradient(arrays, tokens[0, 0], name) for name in arrays]
    length = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    assert length > 0.2
    for limit, factor in ((0.1, 0.1 / length), (100.0, 1.0)):
        found = trainer(arrays, clip_norm=limit, mode=mode)
        found.step(tokens, 1e-3, step=1, seed=0)
        # After one step the average of the gradient is a tenth of it.
        mean = found.slots["model/wte/Adam"].numpy() * 10
        expected = numerical_gradient(arrays, tokens[0, 0], "model/wte") * factor
        np.testing.assert_allclose(mean, expected, atol=1e-6)


def test_a_step_that_is_given_up_changes_nothing() -> None:
    arrays = models.random_arrays(TINY)
    found = trainer(arrays, accumulate=3)
    answers = iter([False, False, True])
    assert found.step(drawn(3, 1), 1e-2, step=1, seed=0, cancelled=lambda: next(answers)) is None
    for name, weight in found.weights.items():
        np.testing.assert_array_equal(weight, arrays[name])
    # What was accumulated before plays no part in the step that comes next.
    fresh = trainer(arrays, accumulate=3)
    batches = drawn(3, 1, seed=5)
    assert loss_of(found, batches, 1e-2, 1, 0) == loss_of(fresh, batches, 1e-2, 1, 0)
    for name, weight in found.weights.items():
        np.testing.assert_array_equal(weight, fresh.weights[name])


def test_dropout_changes_the_loss_by_seed_and_step_alone() -> None:
    arrays = models.random_arrays(models.MINI)
    tokens = drawn(1, 2, models.MINI)
    without, dropping = (trainer(arrays, models.MINI, dropout=rate) for rate in (0, 0.2))
    # A rate of 0 leaves the weights as they are.
    losses = [
        loss_of(dropping, tokens, 0.0, step, seed)
        for step, seed in ((1, 1), (1, 1), (2, 1), (1, 2))
    ]
    losses.append(loss_of(without, tokens, 0.0, 1, 1))
    assert losses[0] == losses[1]
    assert len(set(losses)) == 4
