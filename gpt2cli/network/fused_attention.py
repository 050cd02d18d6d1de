"""Causal attention by cuDNN's fused kernels: no (time, time) scores are ever held.

XLA has custom calls for them, and TensorFlow takes a program of such calls as StableHLO text. The
calls' names and configuration are those that JAX sends to the same XLA
(jax/_src/cudnn/fused_attention_stablehlo.py); the kernels are cuDNN's scaled dot product attention
(Dao 2023). They need compute capability 8.0, bfloat16 or float16, and heads of a multiple of 8.

Here tensors are (batch, time, heads, head), as they stand in c_attn's product.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from gpt2cli.network import attention, compiling, pieces

FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"
LEAST_CAPABILITY = (8, 0)
# From Hopper on heads may be longer.
HOPPER, LONGEST_HEAD, LONGEST_HEAD_ON_HOPPER = (9, 0), 128, 256
# The names of types in XLA's configuration, and in StableHLO.
TYPES = {tf.bfloat16: ("BF16", "bf16"), tf.float16: ("F16", "f16")}
# The version of the calling convention that modules are written in (XlaCallModule).
CONVENTION = 9
# (batch, heads, time, head) as (batch, time, heads, head), and back.
TURNED = (0, 2, 1, 3)
# How far cuDNN's results may be from those in float32 before they are taken for wrong ones.
MOST_ERROR = 0.02

Shape = tuple[int, int, int, int]


def refusal(kind: Any, head: int, capability: tuple[int, int]) -> str:
    """Returns why cuDNN has no kernel for a type and a head's width on a card; empty: it has."""
    if kind not in TYPES:
        return f"it has no {kind.name}"
    if capability < LEAST_CAPABILITY:
        return f"it needs compute capability 8.0, this card has {capability[0]}.{capability[1]}"
    longest = LONGEST_HEAD_ON_HOPPER if capability >= HOPPER else LONGEST_HEAD
    if head % 8 or head > longest:
        return f"its heads are multiples of 8 up to {longest} wide, the model's {head}"
    return ""


def causal(product: Any, bias: Any, n_head: int) -> Any:
    """Returns what `attention.causal` does, by cuDNN; differentiable.

    Args:
        product: bfloat16 or float16 (batch, time, 3 * embed), c_attn's product.
        bias: float32 (3 * embed,), its bias.
        n_head: attention heads.

    Returns:
        (batch, time, embed).
    """
    forward, backward = _programs(n_head)

    def attended(product: Any, bias: Any) -> tuple[Any, Callable[[Any], Any]]:
        found, statistics = forward(product, bias)
        return found, lambda upstream: backward(upstream, product, bias, found, statistics)

    return tf.custom_gradient(attended)(product, tf.convert_to_tensor(bias))


@functools.cache
def _programs(n_head: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    forward = functools.partial(_forward, n_head)
    return pieces.compiled(forward), pieces.compiled(functools.partial(_backward, n_head))


def _forward(n_head: int, product: Any, bias: Any) -> tuple[Any, Any]:
    """Returns (batch, time, embed), and the softmax's statistics, float32 (batch, heads, time)."""
    heads = _heads(product, bias, n_head)
    shape = tuple(heads[0].shape)
    batch, time, _, _ = shape
    found, statistics = _call(
        heads,
        forward_module(shape, product.dtype),
        [(shape, product.dtype), ((batch, n_head, time), tf.float32)],
    )
    return tf.reshape(found, [batch, time, -1]), statistics


def _backward(
    n_head: int, upstream: Any, product: Any, bias: Any, found: Any, statistics: Any
) -> tuple[Any, Any]:
    """Returns the gradients of the product, (batch, time, 3 * embed), and of its bias."""
    heads = _heads(product, bias, n_head)
    shape = tuple(heads[0].shape)
    given = [*heads, statistics, tf.reshape(upstream, shape), tf.reshape(found, shape)]
    gradients = _call(given, backward_module(shape, product.dtype), [(shape, product.dtype)] * 3)
    batch, time, _, _ = shape
    whole = tf.concat([tf.reshape(gradient, [batch, time, -1]) for gradient in gradients], axis=-1)
    return whole, tf.reduce_sum(tf.cast(whole, tf.float32), axis=[0, 1])


def _heads(product: Any, bias: Any, n_head: int) -> list[Any]:
    """(batch, time, 3 * embed) → query, key and value, each (batch, time, heads, head)."""
    batch, time, width = product.shape
    wide = tf.cast(tf.cast(product, tf.float32) + bias, product.dtype)
    shape = [batch, time, n_head, width // 3 // n_head]
    return [tf.reshape(part, shape) for part in tf.split(wide, 3, axis=-1)]


def _call(tensors: Sequence[Any], module: str, results: Sequence[tuple[Any, Any]]) -> Any:
    return xla.call_module(
        list(tensors),
        version=CONVENTION,
        module=module,
        Tout=[kind for _, kind in results],
        Sout=[list(shape) for shape, _ in results],
        platforms=["CUDA"],
        # So that a machine without a GPU can look at the program, if not run it.
        disabled_checks=[xla.call_module_disable_check_platform()],
    )


def forward_module(shape: Shape, kind: Any) -> str:
    """Returns StableHLO: query, key, value → what they attend to, and the softmax's statistics.

    Args:
        shape: (batch, time, heads, head), of all but the statistics, (batch, heads, time).
        kind: bfloat16 or float16; the statistics are float32.
    """
    # Query by key, and probabilities by value: (axes summed over), (axes side by side).
    sums = {"bmm1": ((3, 3), ((0, 2), (0, 2))), "bmm2": ((3, 1), ((0, 1), (0, 2)))}
    return _module(FORWARD, kind, sums, [shape] * 3, [shape, _statistics(shape)])


def backward_module(shape: Shape, kind: Any) -> str:
    """Returns StableHLO: query, key, value, statistics, upstream, result → three gradients.

    Args:
        shape: as for `forward_module`.
        kind: as for `forward_module`.
    """
    sums = {
        "bmm1_grad_gemm1": ((2, 1), ((0, 1), (0, 2))),
        "bmm1_grad_gemm2": ((3, 1), ((0, 1), (0, 2))),
        "bmm2_grad_gemm1": ((2, 1), ((0, 1), (0, 2))),
        "bmm2_grad_gemm2": ((3, 3), ((0, 2), (0, 2))),
    }
    given = [shape, shape, shape, _statistics(shape), shape, shape]
    return _module(BACKWARD, kind, sums, given, [shape] * 3)


def _statistics(shape: Shape) -> tuple[int, ...]:
    batch, time, heads, _ = shape
    return batch, heads, time


def _module(
    target: str,
    kind: Any,
    sums: Mapping[str, Any],
    given: Sequence[tuple[int, ...]],
    results: Sequence[tuple[int, ...]],
) -> str:
    """Returns a module of one custom call, whose arguments and results have these shapes.

    cuDNN names the axes of a result (batch, heads, time, head), and can lay them in memory as
    (batch, time, heads, head): then turning them back moves nothing.
    """

    def typed(shape: tuple[int, ...]) -> str:
        element = TYPES[kind][1] if len(shape) == 4 else "f32"
        return f"tensor<{'x'.join(map(str, shape))}x{element}>"

    def laid(axes: Sequence[int]) -> str:
        return f"dense<[{', '.join(map(str, axes))}]> : tensor<{len(axes)}xindex>"

    def named(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(shape[axis] for axis in TURNED) if len(shape) == 4 else shape

    arguments = [f"%a{n}" for n in range(len(given))]
    signature = ", ".join(f"{a}: {typed(s)}" for a, s in zip(arguments, given, strict=True))
    # The last result is room to work in, of a size that XLA finds.
    made = [*(typed(named(shape)) for shape in results), "tensor<0xui8>"]
    layouts = [laid((3, 1, 2, 0) if len(s) == 4 else (2, 1, 0)) for s in results] + [laid((0,))]
    lines = [
        f"%r:{len(made)} = stablehlo.custom_call @{target}({', '.join(arguments)}) {{"
        f"api_version = 2 : i32, backend_config = {json.dumps(_settings(given[0], kind, sums))}, "
        f"operand_layouts = [{', '.join(laid(range(len(s) - 1, -1, -1)) for s in given)}], "
        f"result_layouts = [{', '.join(layouts)}]}} : "
        f"({', '.join(map(typed, given))}) -> ({', '.join(made)})"
    ]
    for number, shape in enumerate(results):
        if len(shape) == 4:
            lines.append(
                f"%t{number} = stablehlo.transpose %r#{number}, dims = {list(TURNED)} : "
                f"({made[number]}) -> {typed(shape)}"
            )
    back = [f"%t{n}" if len(s) == 4 else f"%r#{n}" for n, s in enumerate(results)]
    types = ", ".join(map(typed, results))
    lines.append(f"return {', '.join(back)} : {types}")
    body = "\n    ".join(lines)
    return (
        f"module @attention {{\n  func.func public @main({signature}) -> ({types}) {{\n"
        f"    {body}\n  }}\n}}\n"
    )


def _settings(shape: Sequence[int], kind: Any, sums: Mapping[str, Any]) -> str:
    """Returns the call's configuration, as XLA reads it (GpuBackendConfig, backend_configs.proto).

    Args:
        shape: (batch, time, heads, head).
        kind: bfloat16 or float16.
        sums: the axes of the call's inner products, by name.
    """
    batch, time, heads, head = shape
    settings: dict[str, Any] = {
        "algorithm": {
            "algo_id": "0",
            "math_type": "TENSOR_OP_MATH",
            "tuning_knobs": {"17": "1", "24": "0"},
            "is_cudnn_frontend": True,
            "workspace_size": "0",
        },
        "fmha_scale": head**-0.5,
        "intermediate_tensor_shape": {
            "element_type": TYPES[kind][0],
            "dimensions": [str(n) for n in (batch, heads, time, time)],
            "layout": {"minor_to_major": ["3", "2", "1", "0"]},
            "is_dynamic_dimension": [False] * 4,
        },
        "is_flash_attention": True,
        "mask_type": "CAUSAL",
        "dropout_rate": 0.0,
        "seed": 42,
        "sliding_window_length": 0,
        "max_seg_per_batch": 1,
        "is_paged_attention": False,
    }
    for name, (summed, (left, right)) in sums.items():
        settings[f"{name}_dot_dimension_numbers"] = {
            "lhs_contracting_dimensions": [str(summed[0])],
            "rhs_contracting_dimensions": [str(summed[1])],
            "lhs_batch_dimensions": [str(axis) for axis in left],
            "rhs_batch_dimensions": [str(axis) for axis in right],
        }
    return json.dumps({"operation_queue_id": "0", "cudnn_fmha_backend_config": settings})


def trial(shape: Shape, kind: Any) -> str:
    """Computes once forward and back, by cuDNN and by plain products; returns what is wrong.

    The programs are those that training will use, so that nothing is compiled twice.

    Args:
        shape: (batch, time, heads, head), as they will be trained on.
        kind: bfloat16 or float16.

    Returns:
        Why cuDNN cannot be used here; empty: it can.
    """
    batch, time, heads, head = shape
    noise = np.random.default_rng(0)
    width = 3 * heads * head
    product, upstream = (
        tf.cast(noise.standard_normal((batch, time, n)), kind) for n in (width, width // 3)
    )
    bias = tf.constant(noise.standard_normal(width), tf.float32)

    def by_cudnn(*tensors: Any) -> list[Any]:
        with pieces.apart(apart=True, gpu=True):
            return _with_gradients(causal, heads, tensors[:2], tensors[2])

    try:
        found = tf.function(by_cudnn, autograph=False)(product, bias, upstream)
    except tf.errors.OpError as error:
        return compiling.reason(error)
    wide = tf.cast(product, tf.float32), bias
    exact = _with_gradients(_plain, heads, wide, tf.cast(upstream, tf.float32))
    for one, other in zip(found, exact, strict=True):
        far = tf.norm(tf.cast(one, tf.float32) - other) / tf.norm(other)
        if not far < MOST_ERROR:
            return f"its results are wrong by {float(far):.1%}"
    return ""


def _with_gradients(
    attend: Callable[..., Any], heads: int, given: tuple[Any, ...], upstream: Any
) -> list[Any]:
    with tf.GradientTape() as tape:
        tape.watch(given)
        found = attend(*given, heads)
    return [found, *tape.gradient(found, given, upstream)]


def _plain(product: Any, bias: Any, heads: int) -> Any:
    """Returns what `causal` does, by products of whole matrices and a mask."""
    query, key, value = attention.heads_of(product + bias, heads)
    seen = tf.linalg.band_part(tf.ones(2 * [product.shape[1]], tf.bool), -1, 0)  # (time, time)
    return attention.merge_heads(attention.attend(query, key, value, seen))
