"""Optimisers on gradients that are given, against the papers' formulas in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("tensorflow")

RATE = 1e-2
SHAPES = {"model/wte": (7, 4), "model/h0/mlp/c_fc/w": (1, 4, 5), "model/h0/mlp/c_fc/b": (5,)}


def adafactor(weight: Any, gradient: Any, slots: Any, step: int) -> None:
    decay = 1 - step**-0.8
    square = gradient**2 + 1e-30
    if weight.ndim == 1:
        slots[0][...] = decay * slots[0] + (1 - decay) * square
        estimate = slots[0]
    else:
        # The averages of rows and columns, each kept in a slot of the whole's shape.
        for slot, axis in zip(slots, (-1, -2), strict=True):
            slot[...] = decay * slot + (1 - decay) * square.mean(axis=axis, keepdims=True)
        rows, columns = slots
        estimate = rows * columns / rows.mean(axis=-2, keepdims=True)
    change = gradient / np.sqrt(estimate)
    weight -= RATE * change / max(1.0, np.sqrt((change**2).mean()))


def test_adafactor_equals_the_paper() -> None:
    import tensorflow as tf

    from gpt2cli.network import gpt2
    from gpt2cli.training.optimizers import Adafactor

    generator = np.random.default_rng(0)
    expected = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    weights = gpt2.to_variables((n, a.astype(np.float32)) for n, a in expected.items())
    slots = {name: [np.zeros(shape), np.zeros(shape)] for name, shape in SHAPES.items()}
    optimizer = Adafactor(weights)
    update = tf.function(optimizer.update)
    for step in (1, 2, 3, 4):
        gradients = {name: step * generator.normal(size=shape) for name, shape in SHAPES.items()}
        given = {name: tf.constant(g * 8, tf.float32) for name, g in gradients.items()}
        update(given, tf.constant(0.125), tf.constant(RATE), tf.constant(float(step)))
        for name, gradient in gradients.items():
            adafactor(expected[name], gradient, slots[name], step)
    for name, weight in weights.items():
        np.testing.assert_allclose(weight.numpy(), expected[name], atol=1e-5, err_msg=name)


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix() -> None:
    from gpt2cli.network import gpt2
    from gpt2cli.training.optimizers import Adafactor

    weights = gpt2.to_variables(
        (name, np.zeros(shape, np.float32)) for name, shape in SHAPES.items()
    )
    assert {name: tuple(slot.shape) for name, slot in Adafactor(weights).slots.items()} == {
        "model/wte/rows": (7,),
        "model/wte/columns": (4,),
        "model/h0/mlp/c_fc/w/rows": (1, 4),
        "model/h0/mlp/c_fc/w/columns": (1, 5),
        "model/h0/mlp/c_fc/b/squares": (5,),
    }


@pytest.mark.parametrize("kind", ["adam", "adafactor", "sgd"])
def test_a_blocks_weights_updated_together_are_those_updated_in_turn(kind: str) -> None:
    import tensorflow as tf

    from gpt2cli.network import gpt2
    from gpt2cli.training.optimizers import OPTIMIZERS, by_block

    shapes = SHAPES | {"model/h1/mlp/c_fc/w": (1, 4, 5), "model/h1/mlp/c_fc/b": (5,)}
    assert [len(names) for names in by_block(list(shapes))] == [2, 2, 1]
    noise = np.random.default_rng(0)
    first = {name: noise.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights = [gpt2.to_variables(first.items()) for _ in range(2)]
    optimizers = [
        OPTIMIZERS[kind](of, weight_decay=0.1, together=together)
        for of, together in zip(weights, (False, True), strict=True)
    ]

    @tf.function  # type: ignore[untyped-decorator]
    def update_both(*given: Any) -> Any:
        for optimizer in optimizers:
            with tf.control_dependencies(optimizer.update(*given)):
                done = tf.zeros([])
        return done

    for step in (1.0, 2.0, 3.0):
        given = {
            name: tf.constant(noise.normal(size=shape), tf.float32)
            for name, shape in shapes.items()
        }
        update_both(given, tf.constant(0.5), tf.constant(RATE), tf.constant(step))
    (traced,) = update_both._list_all_concrete_functions()
    library = traced.graph.as_graph_def().library.function
    names = [function.signature.name for function in library if function.attr["_XlaMustCompile"].b]
    # Both blocks share one.
    assert len([name for name in names if "traced" in name]) == 1
    for left, right in (weights, [optimizer.slots for optimizer in optimizers]):
        for name, values in left.items():
            np.testing.assert_allclose(values, right[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for name, values in weights[1].items():
        assert np.abs(values - first[name]).max() > RATE / 100


def test_weight_decay_spares_biases_and_norms() -> None:
    from gpt2cli.training.optimizers import decays

    for name in ("model/wte", "model/wpe", "model/h0/attn/c_attn/w", "model/h11/mlp/c_proj/w"):
        assert decays(name)
    for name in ("model/ln_f/g", "model/ln_f/b", "model/h0/ln_1/g", "model/h0/attn/c_attn/b"):
        assert not decays(name)
