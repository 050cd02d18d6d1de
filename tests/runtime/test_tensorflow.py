"""How TensorFlow is loaded: with oneDNN's products, without Keras, and without a word."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import pytest

from gpt2cli.runtime import tensorflow
from tests.marks import few

LOADED = """
import sys
from gpt2cli.runtime import tensorflow as tensorflow_start
tensorflow_start.load(verbose={verbose})
import tensorflow as tf
print("keras" in sys.modules)
if {asks}:
    print(tf.keras.layers.Dense.__name__)
"""
ON_X86 = pytest.mark.skipif(
    platform.machine() not in tensorflow.ONEDNN_MACHINES, reason="needs an x86 processor"
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
@pytest.mark.parametrize(("said", "on"), few([({}, True), ({tensorflow.ONEDNN: "0"}, False)], 1))
def test_products_are_onednns_unless_the_user_wants_it_otherwise(
    said: dict[str, str], on: bool
) -> None:
    out, log = loaded(said, verbose=True)
    assert out == "False\n"
    assert ("oneDNN custom operations are on" in log) is on


def test_what_is_loaded_already_stays() -> None:
    before = sys.modules["pytest"]
    with tensorflow.hidden_module("pytest"):
        assert sys.modules["pytest"] is before
    assert sys.modules["pytest"] is before


def test_a_package_is_there_again_after_it_was_absent() -> None:
    sys.modules.pop("colorsys", None)
    with tensorflow.hidden_module("colorsys"), pytest.raises(ModuleNotFoundError):
        import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)


def test_xla_tries_nothing_out_and_the_users_flags_come_last(tmp_path: Path) -> None:
    flags = tensorflow.xla_flags
    own = "--xla_gpu_autotune_level=4"
    assert flags({"XLA_FLAGS": own}, tmp_path, (2, 18)).split() == [
        "--xla_gpu_autotune_level=0",
        "--xla_gpu_enable_triton_gemm=false",
        own,
    ]
    assert "fusion_autotuner=false" in flags({}, tmp_path, (2, 21))
    same = {"TF_DETERMINISTIC_OPS": "1"}
    assert "--xla_gpu_deterministic_ops=true" in flags(same, tmp_path, (2, 21)).split()
    # What does not begin with a dash is the name of a file of flags.
    assert flags({"XLA_FLAGS": "flags.txt"}, tmp_path, (2, 21)) == "flags.txt"
    compiler = tmp_path / "nvidia" / "cuda_nvcc"
    (compiler / "bin").mkdir(parents=True)
    (compiler / "bin" / "ptxas").touch()
    assert f"--xla_gpu_cuda_data_dir={compiler}" in flags({}, tmp_path, (2, 21)).split()


def test_this_xla_knows_the_flags_that_a_machine_with_a_gpu_gets(tmp_path: Path) -> None:
    (tmp_path / "nvidia" / "cuda_nvcc" / "bin").mkdir(parents=True)
    (tmp_path / "nvidia" / "cuda_nvcc" / "bin" / "ptxas").touch()
    version = tuple(map(int, metadata.version("tensorflow").split(".")[:2]))
    same = {"TF_DETERMINISTIC_OPS": "1"}
    # Over a flag that it does not know XLA ends the process.
    script = (
        LOADED.format(verbose=False, asks=False) + "\ntf.function(tf.tanh, jit_compile=True)(1.0)"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        env={"XLA_FLAGS": tensorflow.xla_flags(same, tmp_path, version)},
        check=True,
        timeout=120,
    )
