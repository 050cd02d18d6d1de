"""The types of arrays and tensors, for annotations; loads neither NumPy nor TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# TensorFlow has no types of its own: this says what is meant, and mypy cannot check it.
Tensor: TypeAlias = Any
# TensorFlow's type of elements, as tf.float32.
DType: TypeAlias = Any
# By the names in OpenAI's checkpoints: tensors, variables or arrays.
Weights: TypeAlias = Mapping[str, Tensor]
# NumPy's, of any type of element.
Array: TypeAlias = "npt.NDArray[Any]"
# A whole number in a loop that Numba compiles: Python's, or an element of an array.
Integer: TypeAlias = "int | np.integer[Any]"
# NumPy's, (…, vocab): the scores of the tokens that may come next.
Logits: TypeAlias = "npt.NDArray[np.float32]"
