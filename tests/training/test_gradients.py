"""Loss and gradients of a network, however it is computed, against NumPy in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt2cli.hparams import LORA_A, LORA_B, LORA_SCALE, HParams
from tests import models, oracle

pytestmark = pytest.mark.usefixtures("tensorflow")

# More than one block of queries, the last one shorter; and the window is less than the context.
LONG = HParams(n_vocab=301, n_ctx=400, n_embd=24, n_head=3, n_layer=2)
WINDOW = 300
WAYS = ["PARTIAL", "FULL", "OFF", "BLOCKS"]


def weights_of(rank: int) -> dict[str, Any]:
    noise = np.random.default_rng(5)
    adapters: dict[str, Any] = {
        name: noise.normal(scale=0.2, size=shape).astype(np.float32)
        for name, shape in (LONG.lora_shapes(rank) if rank else {}).items()
    }
    if rank:
        adapters[LORA_SCALE] = np.float32(0.5)
    return models.random_arrays(LONG, deviation=0.15) | adapters


def drawn(batch: int) -> Any:
    shape = (batch, WINDOW + 1)
    return np.random.default_rng(1).integers(0, LONG.n_vocab, shape).astype(np.int32)


def computed(
    way: str, tokens: Any, *, rank: int = 0, recompute: bool = False, **settings: Any
) -> tuple[float, dict[str, Any]]:
    """Returns the loss and the gradients, of adapters alone where there are any."""
    import tensorflow as tf

    from gpt2cli.network import gpt2
    from gpt2cli.network.compiling import CompileMode
    from gpt2cli.training import gradients
    from gpt2cli.training.backend import Backend, TrainingOptions
    from gpt2cli.training.step_graph import trained_names

    weights = gpt2.to_variables(weights_of(rank).items())
    backend = Backend(mode=CompileMode[way])
    options = TrainingOptions(backend=backend, recompute=recompute, **settings)
    again = recompute or way == "BLOCKS"
    kind = gradients.RecomputedBlocks if again else gradients.StoredActivations
    network = kind(weights, LONG, trained_names(weights, False), options)

    def graph(inputs: Any, targets: Any, seed: Any, scale: Any) -> Any:
        taken: dict[str, Any] = {}

        def take(found: dict[str, Any], squares: Any) -> list[Any]:
            if squares is not None:
                exact = sum(tf.nn.l2_loss(gradient) for gradient in found.values())
                tf.debugging.assert_near(squares, exact, rtol=1e-4)
            assert not taken.keys() & found.keys()
            taken.update(found)
            return list(found.values())

        return network(inputs, targets, seed, scale, take), taken

    given = (tf.constant(tokens[:, :-1]), tf.constant(tokens[:, 1:]), tf.constant([3, 0]))
    loss, found = tf.function(graph)(*given, tf.constant(1.0))
    return float(loss), {name: np.asarray(gradient) for name, gradient in found.items()}


def assert_same(found: Any, expected: Any, near: float) -> None:
    assert found[0] == pytest.approx(expected[0], rel=near)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        size = np.abs(gradient).max()
        assert size > 0, name
        np.testing.assert_allclose(found[1][name] / size, gradient / size, atol=near, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_gradient_of_every_weight_is_the_oracles_slope(way: str) -> None:
    tokens = drawn(1)
    loss, found = computed(way, tokens)
    exact = {name: array.astype(np.float64) for name, array in weights_of(0).items()}
    assert loss == pytest.approx(oracle.loss(exact, LONG.n_head, tokens[0]), rel=1e-5)
    noise = np.random.default_rng(2)
    assert found.keys() == exact.keys()
    for name, gradient in found.items():
        direction = noise.normal(size=gradient.shape)
        values = [
            oracle.loss(exact | {name: exact[name] + change * direction}, LONG.n_head, tokens[0])
            for change in (1e-5, -1e-5)
        ]
        slope = (values[0] - values[1]) / 2e-5
        length = float(np.linalg.norm(gradient))
        assert (gradient * direction).sum() == pytest.approx(slope, abs=1e-3 * length), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"dropout": 0.3}, {"rank": 2}, {"recompute": True, "dropout": 0.3}],
    ids=["usual", "dropout", "adapters", "recomputed"],
)
def test_every_way_gives_the_same(settings: dict[str, Any]) -> None:
    tokens = drawn(2)
    pieces, *others = (computed(way, tokens, **settings) for way in WAYS)
    if "rank" in settings:
        assert all(name.endswith((LORA_A, LORA_B)) for name in pieces[1])
    for other in others:
        assert_same(pieces, other, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "near"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_narrow_types_in_pieces_give_nearly_the_same(precision: str, near: float) -> None:

    tokens = drawn(2)
    found = computed("PARTIAL", tokens, precision=precision)
    expected = computed("OFF", tokens)
    assert found[0] == pytest.approx(expected[0], rel=near / 10)
    for name, gradient in expected[1].items():
        distance = np.linalg.norm(found[1][name] - gradient) / np.linalg.norm(gradient)
        assert distance < near, name
        assert found[1][name].dtype == np.float32


@pytest.mark.slow
def test_blocks_are_traced_once_for_all_layers_save_in_one_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpt2cli.network import gpt2

    calls: list[str] = []
    block = gpt2.block

    def counted(*given: Any) -> Any:
        calls.append(way)
        return block(*given)

    monkeypatch.setattr(gpt2, "block", counted)
    for way in WAYS:
        computed(way, drawn(1))
    # XLA would take a call's inputs, among them the weights, for constants; and what is computed
    # again is traced again.
    expected = {"PARTIAL": 1, "FULL": LONG.n_layer, "OFF": 1, "BLOCKS": 2}
    assert {way: calls.count(way) for way in WAYS} == expected
