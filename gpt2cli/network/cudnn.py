"""Programs of one call to cuDNN's fused attention, as StableHLO text.

XLA has custom calls for cuDNN's kernels, and TensorFlow takes programs of such calls as text. The
calls' names and configuration are those that JAX sends to the same XLA
(jax/_src/cudnn/fused_attention_stablehlo.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from gpt2cli.arrays import DType

FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"
# The names of types in XLA's configuration, and in StableHLO.
TYPES = {tf.bfloat16: ("BF16", "bf16"), tf.float16: ("F16", "f16")}
# (batch, heads, time, head) as (batch, time, heads, head), and back.
TURNED = (0, 2, 1, 3)

# (batch, time, heads, head)
Shape = tuple[int, int, int, int]


def forward(shape: Shape, kind: DType) -> str:
    """Returns StableHLO: query, key, value → what they attend to, and the softmax's statistics.

    The shape is (batch, time, heads, head), of all but the statistics, (batch, heads, time); the
    kind is bfloat16 or float16, but statistics are float32.
    """
    batch, time, heads, _ = shape
    # Query by key, and probabilities by value: (axes summed over), (axes side by side).
    sums = {"bmm1": ((3, 3), ((0, 2), (0, 2))), "bmm2": ((3, 1), ((0, 1), (0, 2)))}
    return _module(FORWARD, kind, sums, [shape] * 3, [shape, (batch, heads, time)])


def backward(shape: Shape, kind: DType) -> str:
    """Returns StableHLO: query, key, value, statistics, upstream, result → three gradients.

    Shape and kind are as in `forward`.
    """
    sums = {
        "bmm1_grad_gemm1": ((2, 1), ((0, 1), (0, 2))),
        "bmm1_grad_gemm2": ((3, 1), ((0, 1), (0, 2))),
        "bmm2_grad_gemm1": ((2, 1), ((0, 1), (0, 2))),
        "bmm2_grad_gemm2": ((3, 3), ((0, 2), (0, 2))),
    }
    batch, time, heads, _ = shape
    given = [shape, shape, shape, (batch, heads, time), shape, shape]
    return _module(BACKWARD, kind, sums, given, [shape] * 3)


def _module(
    target: str,
    kind: DType,
    sums: Mapping[str, Any],
    given: Sequence[tuple[int, ...]],
    results: Sequence[tuple[int, ...]],
) -> str:
    """Returns a module of one custom call, whose arguments and results have these shapes.

    cuDNN names the axes of a result (batch, heads, time, head), and can order them in memory as
    (batch, time, heads, head): then turning them back moves nothing.
    """
    arguments = [f"%a{number}" for number in range(len(given))]
    types = [_type(shape, kind) for shape in given]
    # The last result is room to work in, of a size that XLA finds.
    turned = [[s[axis] for axis in TURNED] if _is_wide(s) else s for s in results]
    made = [*(_type(shape, kind) for shape in turned), "tensor<0xui8>"]
    layouts = [_layout((3, 1, 2, 0) if _is_wide(shape) else (2, 1, 0)) for shape in results]
    lines = [
        f"%r:{len(made)} = stablehlo.custom_call @{target}({', '.join(arguments)}) {{"
        f"api_version = 2 : i32, backend_config = {json.dumps(_settings(given[0], kind, sums))}, "
        f"operand_layouts = [{', '.join(_layout(range(len(s) - 1, -1, -1)) for s in given)}], "
        f"result_layouts = [{', '.join([*layouts, _layout((0,))])}]}} : "
        f"({', '.join(types)}) -> ({', '.join(made)})"
    ]
    wide = {number: shape for number, shape in enumerate(results) if _is_wide(shape)}
    lines += [
        f"%t{number} = stablehlo.transpose %r#{number}, dims = {list(TURNED)} : "
        f"({made[number]}) -> {_type(shape, kind)}"
        for number, shape in wide.items()
    ]
    back = [f"%t{number}" if number in wide else f"%r#{number}" for number in range(len(results))]
    returned = ", ".join(_type(shape, kind) for shape in results)
    lines.append(f"return {', '.join(back)} : {returned}")
    named = ", ".join(f"{name}: {of}" for name, of in zip(arguments, types, strict=True))
    body = "\n    ".join(lines)
    return (
        f"module @attention {{\n  func.func public @main({named}) -> ({returned}) {{\n"
        f"    {body}\n  }}\n}}\n"
    )


def _is_wide(shape: Sequence[int]) -> bool:
    """Returns whether a shape is (batch, time, heads, head), and not that of the statistics."""
    return len(shape) == 4


def _type(shape: Sequence[int], kind: DType) -> str:
    element = TYPES[kind][1] if _is_wide(shape) else "f32"
    return f"tensor<{'x'.join(map(str, shape))}x{element}>"


def _layout(axes: Sequence[int]) -> str:
    return f"dense<[{', '.join(map(str, axes))}]> : tensor<{len(axes)}xindex>"


def _settings(shape: Sequence[int], kind: DType, sums: Mapping[str, Any]) -> str:
    """Returns the call's configuration, as XLA reads it (GpuBackendConfig, backend_configs.proto).

    The sums are the axes of the call's inner products, by name.
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
            "lhs_batch_dimensions": list(map(str, left)),
            "rhs_batch_dimensions": list(map(str, right)),
        }
    return json.dumps({"operation_queue_id": "0", "cudnn_fmha_backend_config": settings})
