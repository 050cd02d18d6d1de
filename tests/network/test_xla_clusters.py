"""Pieces compute what their functions do, forward and back, and are compiled only where asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("tensorflow")


def shifted_cube(x: Any, shift: Any, number: Any) -> Any:
    import tensorflow as tf

    return x * x * x + shift * tf.cast(number, x.dtype)


def judged(function: Any, *, enabled: bool) -> Any:
    """Returns the value, its gradients, and the program that was traced."""
    import tensorflow as tf

    from gpt2cli.network import xla_clusters

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run(x: Any, shift: Any, number: Any) -> Any:
        with xla_clusters.clustering(enabled=enabled), tf.GradientTape() as tape:
            tape.watch([x, shift])
            value = 2.0 * function(x, shift, number)
            return value, *tape.gradient(value, [x, shift])

    tensors = tf.constant([1.0, -2.0]), tf.constant([3.0, 5.0]), tf.constant(7)
    program = run.get_concrete_function(*tensors)
    return [array.numpy().tolist() for array in program(*tensors)], program


def compiled_parts(program: Any) -> int:
    """Returns how many functions that a program calls are to be compiled by XLA."""
    functions = program.graph.as_graph_def().library.function
    return sum(function.attr["_XlaMustCompile"].b for function in functions)


EXPECTED = [[44.0, 54.0], [6.0, 24.0], [14.0, 14.0]]


def test_a_piece_gives_the_value_and_the_gradients_of_its_function() -> None:
    from gpt2cli.network import xla_clusters

    cube = xla_clusters.recomputed_cluster(shifted_cube)
    for enabled, parts in ((True, 2), (False, 0)):
        found, program = judged(cube, enabled=enabled)
        assert found == EXPECTED
        assert compiled_parts(program) == parts


def test_what_is_computed_again_gives_the_same_and_its_product_is_done_once() -> None:
    import tensorflow as tf

    from gpt2cli.network import xla_clusters

    def product(x: Any, weights: Any) -> Any:
        return tf.matmul(tf.tanh(x), weights["matrix"])

    def run(x: Any, matrix: Any, enabled: bool) -> Any:
        with xla_clusters.clustering(enabled=enabled), tf.GradientTape() as tape:
            tape.watch([x, matrix])
            value = xla_clusters.recompute(product, x, {"matrix": matrix})
            return value, *tape.gradient(value, [x, matrix])

    noise = np.random.default_rng(0)
    x, matrix = (tf.constant(noise.normal(size=(4, 4)), tf.float32) for _ in range(2))
    tanh = np.tanh(x.numpy())
    of_tanh = np.ones((4, 4)) @ matrix.numpy().T
    expected = tanh @ matrix.numpy(), of_tanh * (1 - tanh**2), tanh.T @ np.ones((4, 4))
    for enabled in (True, False):
        program = tf.function(run, autograph=False).get_concrete_function(x, matrix, enabled)
        for left, right in zip(program(x, matrix), expected, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
        names = [operation.type for operation in program.graph.get_operations()]
        # The product that was computed again is left out where the program runs: its inputs are
        # what the gradient needs.
        assert names.count("Tanh") == 1 + enabled


def test_the_way_follows_from_the_device_and_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from gpt2cli.network.compiling import CompileMode, best_compile_mode

    for gpus, slim in (([], CompileMode.FULL), (["GPU:0"], CompileMode.PARTIAL)):
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda _kind, gpus=gpus: gpus)
        assert best_compile_mode(xla=True, width=768) == CompileMode.PARTIAL
        assert best_compile_mode(xla=True, width=128) == slim
        assert best_compile_mode(xla=False, width=768) == CompileMode.OFF
