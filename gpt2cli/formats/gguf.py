"""A GGUF file for llama.cpp and what is built on it: ollama, LM Studio."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2cli import __version__
from gpt2cli.errors import UsageError
from gpt2cli.files import atomic, exports
from gpt2cli.formats.model import Model
from gpt2cli.hparams import HParams

if TYPE_CHECKING:
    import gguf

NORM_EPSILON = 1e-5
# If a write was cut short, a disk with less room than this is full.
FULL_BELOW_BYTES = 1 << 20
# How many neighbours Q8_0 quantises together.
Q8_0_BLOCK = 32
TENSOR_TYPES = {"float32": "F32", "float16": "F16", "q8_0": "Q8_0"}
FILE_TYPES = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
# llama.cpp's names for the parts of a block.
PARTS = {
    "ln_1": "attn_norm",
    "attn/c_attn": "attn_qkv",
    "attn/c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp/c_fc": "ffn_up",
    "mlp/c_proj": "ffn_down",
}
EMBEDDINGS = {"model/wte": "token_embd.weight", "model/wpe": "position_embd.weight"}


def check_precision(hparams: HParams, precision: str) -> None:
    """Raises UsageError if a model's rows cannot be cut into the blocks of a precision."""
    if precision == "q8_0" and hparams.n_embd % Q8_0_BLOCK:
        raise UsageError(
            f"--precision q8_0 needs an n_embd that {Q8_0_BLOCK} divides, not {hparams.n_embd}; "
            "float16 fits every model."
        )


def write_gguf(model: Model, path: Path) -> None:
    """Writes the file, one tensor at a time."""
    import gguf

    shapes = {name: tensor_shape(shape) for name, shape in model.hparams.shapes().items()}
    with contextlib.closing(gguf.GGUFWriter(path, "gpt2")) as writer:
        describe(writer, model)
        add_vocabulary(writer, model)
        for name, shape in shapes.items():
            kind = kind_of(name, shape, model.precision)
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            size = math.prod(shape) // block * block_bytes
            writer.add_tensor_info(tensor_name(name), shape, np.dtype(np.float32), size, kind)
        atomic.before("write", path)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, array in model.weights():
            turned = array[0].T if array.ndim == 3 else array
            kind = kind_of(name, shapes[name], model.precision)
            with numbered_errors(path):
                writer.write_tensor_data(gguf.quantize(np.ascontiguousarray(turned), kind))


@contextlib.contextmanager
def numbered_errors(path: Path) -> Iterator[None]:
    """Within the block an error that NumPy raises without the system's number for it gets one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        full = shutil.disk_usage(path.parent).free < FULL_BELOW_BYTES
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def describe(writer: gguf.GGUFWriter, model: Model) -> None:
    """Adds the architecture."""
    import gguf

    hparams = model.hparams
    # Among the first bytes: by it an export is known.
    writer.add_string(f"{exports.WORD.decode()}.version", __version__)
    writer.add_type("model")
    writer.add_name(model.title)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[model.precision]])
    if model.precision == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(hparams.n_layer)
    writer.add_context_length(hparams.n_ctx)
    writer.add_embedding_length(hparams.n_embd)
    writer.add_feed_forward_length(4 * hparams.n_embd)
    writer.add_head_count(hparams.n_head)
    writer.add_layer_norm_eps(NORM_EPSILON)


def add_vocabulary(writer: gguf.GGUFWriter, model: Model) -> None:
    """Adds tokens and merges; rows of the embedding that no token has get a name of their own."""
    import gguf

    tokens, specials = model.tokens(), model.specials
    unused = range(len(tokens), model.hparams.n_vocab)
    kinds = [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.UNUSED] * len(unused)
    for number, token in specials.added.items():
        kinds[number] = gguf.TokenType["CONTROL" if token.special else "USER_DEFINED"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *(f"[PAD{number}]" for number in unused)])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in model.vocabulary.pairs])
    writer.add_bos_token_id(specials.end)
    # The format has names for three tokens that end a text.
    names = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, number in zip(names, specials.ends, strict=False):
        add(number)
    writer.add_add_bos_token(False)
    if model.chat_template:
        writer.add_chat_template(model.chat_template)


def kind_of(name: str, shape: tuple[int, ...], precision: str) -> gguf.GGMLQuantizationType:
    """Returns the type that a tensor is stored in: vectors and positions stay float32."""
    import gguf

    wide = len(shape) == 1 or name == "model/wpe"
    return gguf.GGMLQuantizationType["F32" if wide else TENSOR_TYPES[precision]]


def tensor_name(name: str) -> str:
    """Returns what a weight is called: `model/h0/ln_1/g` is `blk.0.attn_norm.weight`."""
    if name in EMBEDDINGS:
        return EMBEDDINGS[name]
    path, _, leaf = name.removeprefix("model/").rpartition("/")
    ending = "bias" if leaf == "b" else "weight"
    layer, _, part = path.partition("/")
    return f"blk.{layer[1:]}.{PARTS[part]}.{ending}" if part else f"output_norm.{ending}"


def tensor_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a weight's shape there: a matrix of a convolution is turned to (out, in)."""
    return (shape[2], shape[1]) if len(shape) == 3 else shape
