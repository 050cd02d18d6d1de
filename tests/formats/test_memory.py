"""How much of a model is in memory while it is exported."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2cli import vocabulary
from gpt2cli.formats.model import Model
from tests import models


class Watched(Model):
    """A model that knows which of its weights somebody still holds."""

    def weights(self) -> Iterator[tuple[str, Any]]:
        given: list[weakref.ref[Any]] = []
        for name, array in super().weights():
            given.append(weakref.ref(array))
            assert sum(reference() is not None for reference in given) <= 2, name
            yield name, array


@pytest.mark.parametrize("kind", ["huggingface", "gguf", "openai", "savedmodel"])
def test_one_weight_is_held_beside_the_one_that_is_read(
    kind: str, small_model: Path, tmp_path: Path
) -> None:
    if kind == "gguf":
        pytest.importorskip("gguf", reason="needs the extra `export`")
    files = vocabulary.read_vocabulary(small_model / "encoder.json", small_model / "vocab.bpe")
    prefix = small_model / "model.ckpt"
    model = Watched(
        name="x", folder=small_model, prefix=prefix, hparams=models.SMALL, vocabulary=files
    )
    module = importlib.import_module(f"gpt2cli.formats.{kind}")
    getattr(module, f"write_{kind}")(model, tmp_path / "out")
    assert (tmp_path / "out").exists()
