"""What a run computes on; GPUs are stood in for, as there is none to try."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import Gpt2cliError, UsageError
from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("tensorflow")


class Gpus:
    """TensorFlow's view of two GPUs; notes what is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
        import tensorflow as tf

        self.grows: list[str] = []
        self.limits: dict[str, int] = {}
        self.threads = 0
        self._details = {"device_name": "Card 9000", "compute_capability": capability}
        names = ["GPU:0", "GPU:1"]
        for place, name, answer in (
            (tf.config, "list_physical_devices", lambda _kind: names),
            (tf.config, "get_visible_devices", lambda _kind: names),
            (tf.config, "set_logical_device_configuration", self._limit),
            (tf.config.threading, "get_inter_op_parallelism_threads", lambda: self.threads),
            (tf.config.threading, "set_inter_op_parallelism_threads", self._hand_out),
            (tf.config.experimental, "set_memory_growth", self._grow),
            (tf.config.experimental, "get_device_details", lambda _gpu: self._details),
        ):
            monkeypatch.setattr(place, name, answer)

    def _grow(self, gpu: str, wanted: bool) -> None:
        assert wanted
        self.grows.append(gpu)

    def _hand_out(self, threads: int) -> None:
        self.threads = threads

    def _limit(self, gpu: str, configurations: list[Any]) -> None:
        (configuration,) = configurations
        self.limits[gpu] = configuration.memory_limit


def test_every_gpu_takes_memory_as_it_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2cli.runtime import devices

    gpus = Gpus(monkeypatch, (8, 6))
    assert devices.configure() == "Card 9000"
    assert (gpus.grows, gpus.limits) == (["GPU:0", "GPU:1"], {})
    assert devices.resolve_precision("auto") == "bfloat16"
    assert devices.resolve_precision("float32") == "float32"


def test_a_thread_hands_each_gpu_its_work_unless_it_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpt2cli.runtime import devices

    gpus = Gpus(monkeypatch, (8, 6))
    devices.configure()
    assert gpus.threads == 2
    gpus.threads = 5
    devices.configure()
    assert gpus.threads == 5


def test_a_limit_holds_for_every_gpu_in_place_of_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2cli.runtime import devices

    gpus = Gpus(monkeypatch, (7, 5))
    config = FinetuneConfig(dataset=("text.txt",), gpu_memory_limit="1.5GB")
    assert devices.configure("gpu", config.gpu_bytes) == "Card 9000"
    assert (gpus.grows, gpus.limits) == ([], {"GPU:0": 1536, "GPU:1": 1536})


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [
        ((9, 0), "bfloat16"),
        ((8, 0), "bfloat16"),
        ((7, 5), "float16"),
        ((7, 0), "float16"),
        ((6, 1), "float32"),
    ],
)
def test_the_precision_follows_from_the_card_and_says_so(
    capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2cli.runtime import devices

    Gpus(monkeypatch, capability)
    major, minor = capability
    assert devices.resolve_precision("auto") == chosen
    told = devices.describe_precision("auto")
    assert told == f"{chosen} (its compute capability is {major}.{minor})"
    assert devices.describe_precision("float32") == "float32"


def test_float32_is_exact_on_a_gpu_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from gpt2cli.runtime import devices

    Gpus(monkeypatch, (8, 0))
    is_rounded = tf.config.experimental.tensor_float_32_execution_enabled
    devices.configure("auto", None, "float32")
    assert not is_rounded()
    devices.configure()
    assert is_rounded()


@pytest.mark.parametrize(
    ("size", "expected"), [("8GB", 2**33), ("6000 mb", 6000 * 2**20), ("2g", 2**31)]
)
def test_sizes_are_read(size: str, expected: int) -> None:
    assert FinetuneConfig(dataset=("a",), gpu_memory_limit=size).gpu_bytes == expected


@pytest.mark.parametrize("size", ["8", "0GB", "8TB", "much", "-1GB", ""])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"as 8GB or 6000MB, not {size!r}.")):
        FinetuneConfig(dataset=("a",), gpu_memory_limit=size)


@pytest.mark.parametrize(
    ("driver", "cuda", "told"),
    [
        (False, True, "This machine has no NVIDIA driver; give --device cpu, or install one."),
        (True, False, "built without CUDA; run `INSTALL gpu`."),
        (True, True, "missing or of another version: run `INSTALL gpu`. NVRM 9"),
    ],
)
def test_a_gpu_that_is_not_seen_is_explained(
    driver: bool, cuda: bool, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from gpt2cli.runtime import devices, hardware

    if driver:
        (tmp_path / "version").write_text("NVRM 9\nGCC\n")
    monkeypatch.setattr(devices, "install_command", "INSTALL {}".format)
    for module in (devices, hardware):
        monkeypatch.setattr(module, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _kind: [])
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: cuda)
    with pytest.raises(Gpt2cliError) as refusal:
        devices.configure("gpu")
    assert str(refusal.value).startswith("--device gpu: TensorFlow sees no GPU. ")
    assert str(refusal.value).endswith(told)
    assert devices.configure("cpu").startswith("CPU (")
    assert (told in devices.configure("auto")) is driver


@pytest.mark.parametrize(
    ("hidden", "place", "told"),
    [
        ("", "", "CUDA_VISIBLE_DEVICES hides every GPU; unset it, or give --device cpu."),
        ("-1", "WSL_GPUS", "CUDA_VISIBLE_DEVICES hides every GPU; unset it, or give --device"),
        ("0", "WSL_GPUS", "Windows shows its GPU to this Linux: it needs NVIDIA's driver for"),
        ("0", "AMD_GPUS", "There is an AMD GPU, which needs AMD's own TensorFlow"),
    ],
)
def test_gpus_that_are_hidden_or_of_others_are_explained(
    hidden: str, place: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2cli.runtime import devices

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    (tmp_path / place).touch()
    for name in ("NVIDIA_DRIVER", "WSL_GPUS", "AMD_GPUS"):
        # A driver is there, where nothing else is.
        monkeypatch.setattr(devices, name, tmp_path / name)
    if not place:
        (tmp_path / "NVIDIA_DRIVER").touch()
    assert devices.missing_gpu_reason().startswith(told)


def test_generate_needs_the_gpu_it_was_told_to_use(cli: Run) -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    done = cli("generate", "--model-name", "tiny", "--device", "gpu", "--length", 2)
    assert done.returncode == 1
    assert "gpt2cli: --device gpu: TensorFlow sees no GPU. " in done.stderr
    assert "Traceback" not in done.stderr
