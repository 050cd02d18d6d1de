"""Where XLA cannot compile, the same is computed without it, and it is said once."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("tensorflow")


def doubled_by_python(x: Any) -> Any:
    import tensorflow as tf

    # XLA cannot call Python.
    return tf.numpy_function(lambda array: array * 2, [x], tf.float32)


def test_it_goes_on_without_xla_and_says_so() -> None:
    import tensorflow as tf

    from gpt2cli.network.compiling import Compiler

    compiler = Compiler(xla=True)
    double, triple = compiler(doubled_by_python), compiler(lambda x: x * 3)
    assert triple(tf.constant([2.0])).numpy().tolist() == [6.0]
    assert compiler.pop_warnings() == []
    assert double(tf.constant([1.0, 2.0])).numpy().tolist() == [2.0, 4.0]
    assert not compiler.xla
    (line,) = compiler.pop_warnings()
    assert line.startswith("XLA cannot compile this (")
    assert line.endswith("); going on without it.")
    assert len(line) < 300
    assert double(tf.constant([3.0])).numpy().tolist() == [6.0]
    assert compiler.pop_warnings() == []


def test_what_fails_without_xla_too_fails() -> None:
    import tensorflow as tf

    from gpt2cli.network.compiling import Compiler

    def refuse(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_less(x, 1.0)]):
            return tf.numpy_function(lambda array: array, [x], tf.float32)

    for xla in (True, False):
        with pytest.raises(tf.errors.InvalidArgumentError):
            Compiler(xla=xla)(refuse)(tf.constant([2.0]))


def test_an_engine_goes_on_without_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2cli.inference import tensorflow_sampling
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine
    from tests import oracle
    from tests.inference.engines import ARRAYS, HEADS, SMALL, grown

    choose = tensorflow_sampling.choose

    def by_python(params: Any, logits: Any, *rest: Any) -> Any:
        return choose(params, doubled_by_python(logits), *rest)

    monkeypatch.setattr(tensorflow_sampling, "choose", by_python)
    engine, prompt = TensorFlowEngine(ARRAYS, SMALL), [7, 100, 3, 42, 250]
    assert grown(engine, [prompt], 6, temperature=0) == [oracle.greedy(ARRAYS, HEADS, prompt, 6)]
    assert len(engine.pop_warnings()) == 1
