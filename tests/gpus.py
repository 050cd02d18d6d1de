"""GPUs that nvidia-smi might list."""

from __future__ import annotations

import dataclasses
from typing import Any

from gpt2cli.runtime.hardware import Gpu

H100 = Gpu(
    uuid="GPU-5f1c",
    name="NVIDIA H100 80GB HBM3",
    driver="580.65.06",
    total=85.5e9,
    free=84.9e9,
    capability=(9, 0),
)


def card(**facts: Any) -> Gpu:
    """Returns an H100, but for some facts."""
    return dataclasses.replace(H100, **facts)
