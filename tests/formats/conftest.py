"""The small model, exported: what the tests of every format look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2cli.commands.export import export
from gpt2cli.config.export import ExportConfig

Export = Callable[..., Path]


@pytest.fixture
def exported(small_model: Path, tmp_path: Path) -> Export:
    """Exports a model folder in this process; returns where it lies."""

    def run(name: str, model: Path = small_model, **options: object) -> Path:
        options = {"model_name": str(model), "destination": str(tmp_path / name)} | options
        list(export(ExportConfig(**options)))  # type: ignore[arg-type]
        return tmp_path / name

    return run
