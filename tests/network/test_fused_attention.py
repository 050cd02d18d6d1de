"""What is handed to cuDNN, as far as a machine without a GPU can judge it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gpt2cli.hparams import HParams
from tests import models
from tests.gpu import worker

pytestmark = pytest.mark.usefixtures("tensorflow")

# (batch, time, heads, head) of every model, of a last micro-batch, and of a short window.
SHAPES = [(8, 1024, 12, 64), (1, 1024, 16, 64), (4, 512, 20, 64), (1, 1023, 25, 64), (2, 7, 2, 8)]


def hlo(function: Any, *arguments: Any) -> str:
    """Returns the program that XLA would compile, before it does."""
    import tensorflow as tf

    program = tf.function(function, jit_compile=True, autograph=False)
    return str(program.experimental_get_compiler_ir(*arguments)(stage="hlo"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_the_programs_are_well_formed_and_hold_no_product(
    shape: tuple[int, int, int, int], kind: str
) -> None:
    import tensorflow as tf

    from gpt2cli.network import cudnn, fused_attention

    batch, time, heads, head = shape
    width = heads * head
    product = tf.zeros([batch, time, 3 * width], tf.as_dtype(kind))
    wide = tf.zeros([batch, time, width], tf.as_dtype(kind))
    bias, statistics = tf.zeros([3 * width]), tf.zeros([batch, heads, time])
    forward = hlo(lambda *given: fused_attention._forward(heads, *given), product, bias)
    backward = hlo(
        lambda *given: fused_attention._backward(heads, *given),
        *(wide, product, bias, wide, statistics),
    )
    element = {"bfloat16": "bf16", "float16": "f16"}[kind]
    for program, target, results in (
        (forward, cudnn.FORWARD, 1),
        (backward, cudnn.BACKWARD, 3),
    ):
        calls = re.findall(r".*custom-call\(.*", program)
        assert len(calls) == 1
        assert f'custom_call_target="{target}"' in calls[0]
        # Results lie in memory as (batch, time, heads, head) does: turning them back is free.
        laid = f"{element}[{batch},{heads},{time},{head}]{{3,1,2,0}}"
        assert calls[0].split(" custom-call(")[0].count(laid) == results
        given = calls[0].split("operand_layout_constraints={")[1]
        assert f"{element}[{batch},{time},{heads},{head}]{{3,2,1,0}}" in given
        assert " dot(" not in program
    for module in (
        cudnn.forward(shape, tf.as_dtype(kind)),
        cudnn.backward(shape, tf.as_dtype(kind)),
    ):
        (quoted,) = re.findall(r'backend_config = ("(?:[^"\\]|\\.)*")', module)
        settings = json.loads(json.loads(quoted))["cudnn_fmha_backend_config"]
        assert settings["fmha_scale"] == head**-0.5
        assert settings["mask_type"] == "CAUSAL"


def test_what_cudnn_cannot_do_is_refused_with_the_reason() -> None:
    import tensorflow as tf

    from gpt2cli.network.fused_attention import unsupported_reason

    assert unsupported_reason(tf.bfloat16, 64, (8, 0)) == ""
    assert unsupported_reason(tf.float16, 256, (9, 0)) == ""
    assert unsupported_reason(tf.float32, 64, (9, 0)) == "it has no float32"
    assert "needs compute capability 8.0, this card has 7.5" in unsupported_reason(
        tf.float16, 64, (7, 5)
    )
    assert "up to 128 wide, the model's 256" in unsupported_reason(tf.float16, 256, (8, 6))
    assert "multiples of 8" in unsupported_reason(tf.float16, 20, (9, 0))


def test_a_trial_where_there_is_no_such_kernel_says_so() -> None:
    import tensorflow as tf

    from gpt2cli.network import fused_attention

    assert "fmhaSoftmax" in fused_attention.check_kernels((1, 16, 2, 8), tf.bfloat16)


def test_plain_attention_which_judges_the_trial_is_attention_as_numpy_has_it() -> None:
    import numpy as np
    import tensorflow as tf

    from gpt2cli.network import attention, fused_attention

    noise = np.random.default_rng(0)
    product, bias, upstream = (noise.standard_normal(s) for s in ((2, 300, 48), 48, (2, 300, 16)))
    exact = worker.exact_attention(product, bias, upstream, 2)
    given = tf.constant(product, tf.float32), tf.constant(bias, tf.float32)
    for attend in (fused_attention._reference, attention.causal):
        wide = tf.constant(upstream, tf.float32)
        found = fused_attention._with_gradients(attend, 2, given, wide)
        for one, other in zip(found, exact, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def compiled_parts(hparams: HParams, mode: str, **options: Any) -> dict[str, list[str]]:
    """Returns the operations of each program that a step of training hands to XLA, by its name."""
    import tensorflow as tf

    from gpt2cli.network import gpt2
    from gpt2cli.network.compiling import CompileMode
    from gpt2cli.training.backend import Backend, TrainingOptions
    from gpt2cli.training.step import Trainer
    from gpt2cli.training.step_graph import Scalars

    backend = Backend(mode=CompileMode[mode], gpu=True, fused=True)
    weights = gpt2.to_variables(models.random_arrays(hparams).items())
    trainer = Trainer(
        weights, hparams, TrainingOptions(precision="bfloat16", backend=backend, **options)
    )
    tokens = tf.zeros([2, hparams.n_ctx + 1], tf.int32)
    numbers = tf.constant(1e-4), tf.constant(1.0), tf.constant([3, 0]), tf.constant(32.0)
    scalars = Scalars(*numbers)
    traced = trainer._compiled.get_concrete_function(tokens, scalars, first=True, last=True)
    library = traced.graph.as_graph_def().library.function
    return {
        function.signature.name: [node.op for node in function.node_def]
        for function in library
        if function.attr["_XlaMustCompile"].b
    }


def shape(n_layer: int) -> HParams:
    return HParams(n_vocab=260, n_ctx=16, n_embd=16, n_head=2, n_layer=n_layer)


@pytest.mark.parametrize("mode", ["BLOCKS", "PARTIAL"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"clip_norm": 1.0}, id="usual"),
        pytest.param(
            {"clip_norm": 1.0, "recompute": True}, id="memory-saving", marks=pytest.mark.slow
        ),
        pytest.param(
            {"optimizer": "adafactor", "dropout": 0.1}, id="adafactor", marks=pytest.mark.slow
        ),
    ],
)
def test_on_a_gpu_xla_gets_no_more_programs_for_more_layers(
    mode: str, options: dict[str, Any]
) -> None:
    few, many = (compiled_parts(shape(n), mode, **options) for n in (2, 24))
    assert len(few) == len(many) < 25
    assert sum("XlaCallModule" in operations for operations in many.values()) == 2
    if mode == "PARTIAL":
        for operations in many.values():
            assert not [op for op in operations if "MatMul" in op or "Einsum" in op]


@pytest.mark.parametrize(("recompute", "again"), [(False, 1), (True, 4)])
def test_blocks_computed_again_take_products_and_attention_as_they_were_kept(
    recompute: bool, again: int
) -> None:
    parts = compiled_parts(shape(2), "BLOCKS", clip_norm=1.0, recompute=recompute)
    forward, backward = sorted(
        (operations for operations in parts.values() if "XlaCallModule" in operations), key=len
    )
    assert forward.count("MatMul") == 4
    # The last one serves no gradient: XLA leaves it out.
    assert backward.count("MatMul") == 8 + again
    assert forward.count("XlaCallModule") == 1
    assert backward.count("XlaCallModule") == 1 + recompute
