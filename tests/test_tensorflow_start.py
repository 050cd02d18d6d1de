"""How TensorFlow is loaded: with oneDNN's products, without Keras, and without a word."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from gpt2cli import tensorflow_start

LOADED = """
import sys
from gpt2cli import tensorflow_start
tensorflow_start.load(verbose={verbose})
import tensorflow as tf
print("keras" in sys.modules)
if {asks}:
    print(tf.keras.layers.Dense.__name__)
"""
ON_X86 = pytest.mark.skipif(
    platform.machine() not in tensorflow_start.ONEDNN_MACHINES, reason="needs an x86 processor"
)


def loaded(
    environment: Mapping[str, str] = MappingProxyType({}),
    *,
    verbose: bool = False,
    asks: bool = False,
) -> list[str]:
    """Returns what a process that has loaded TensorFlow prints, stderr behind stdout."""
    told = subprocess.run(
        [sys.executable, "-c", LOADED.format(verbose=verbose, asks=asks)],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [told.stdout, told.stderr]


def test_keras_is_loaded_for_those_alone_who_ask_for_it() -> None:
    assert loaded(asks=True) == ["False\nDense\n", ""]


@ON_X86
@pytest.mark.parametrize(("said", "on"), [({}, True), ({tensorflow_start.ONEDNN: "0"}, False)])
def test_products_are_onednns_unless_the_user_wants_it_otherwise(
    said: dict[str, str], on: bool
) -> None:
    out, log = loaded(said, verbose=True)
    assert out == "False\n"
    assert ("oneDNN custom operations are on" in log) is on


def test_what_is_loaded_already_stays() -> None:
    before = sys.modules["pytest"]
    with tensorflow_start.absent("pytest"):
        assert sys.modules["pytest"] is before
    assert sys.modules["pytest"] is before


def test_a_package_is_there_again_after_it_was_absent() -> None:
    sys.modules.pop("colorsys", None)
    with tensorflow_start.absent("colorsys"), pytest.raises(ModuleNotFoundError):
        import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
