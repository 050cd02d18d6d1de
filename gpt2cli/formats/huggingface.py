"""A folder for Hugging Face's transformers and all that read its format: safetensors and a card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2cli.formats.model import Model, write_files
from gpt2cli.storage import huggingface, safetensors

# What OpenAI's models are called on the Hub.
HUB_NAMES = {
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}
# Settings that say how a model was trained, and nothing of where.
TOLD = (
    *("optimizer", "learning_rate", "schedule", "warmup_steps", "weight_decay", "dropout"),
    *("batch_size", "accumulate_gradients", "window", "precision", "lora_rank"),
    "only_train_transformer_layers",
)


def write_huggingface(model: Model, path: Path) -> None:
    """Writes the folder."""
    files: dict[str, str | bytes] = {
        huggingface.CONFIG: json_text(architecture(model)),
        "generation_config.json": json_text(ends(model)),
        "tokenizer_config.json": json_text(tokenizer_config(model)),
        huggingface.VOCABULARY: tokens(model),
        huggingface.MERGES: model.vocabulary.merges,
        "README.md": card(model),
    }
    write_files(path, files)
    shapes = {
        huggingface.tensor_name(name): huggingface.tensor_shape(shape)
        for name, shape in model.hparams.shapes().items()
    }
    arrays = (array for _, array in model.weights())
    safetensors.write(path / huggingface.WEIGHTS, shapes, model.precision, arrays)


def architecture(model: Model) -> dict[str, Any]:
    """Returns the architecture; llama.cpp's converter needs `n_ctx` and `architectures` too."""
    hparams = model.hparams
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": hparams.n_vocab,
        "n_positions": hparams.n_ctx,
        "n_ctx": hparams.n_ctx,
        "n_embd": hparams.n_embd,
        "n_layer": hparams.n_layer,
        "n_head": hparams.n_head,
        "n_inner": None,
        "activation_function": "gelu_new",
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop", "summary_first_dropout"), 0.1),
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "scale_attn_weights": True,
        "use_cache": True,
        **ends(model),
        "tie_word_embeddings": True,
        "torch_dtype": model.precision,
    }


def ends(model: Model) -> dict[str, Any]:
    """Returns which token begins and ends a text."""
    ends = model.specials.ends
    return {
        "bos_token_id": model.specials.end,
        "eos_token_id": ends[0] if len(ends) == 1 else [*ends],
    }


def tokens(model: Model) -> str | bytes:
    """Returns the content of vocab.json: as encoder.json, but added tokens as in a text."""
    numbered = {token: number for number, token in enumerate(model.tokens())}
    files = model.vocabulary
    return files.encoder if numbered == files.tokens else json_text(numbered, indent=None)


def tokenizer_config(model: Model) -> dict[str, Any]:
    """Returns how the tokenizer is to be made of vocab.json and merges.txt."""
    settings = model.specials.settings()
    del settings["eos_token_id"]
    return {
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": model.hparams.n_ctx,
        **settings,
        **dict.fromkeys(("bos_token", "unk_token"), settings["eos_token"]),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        **({"chat_template": model.chat_template} if model.chat_template else {}),
    }


def json_text(values: dict[str, Any], indent: int | None = 2) -> str:
    """Returns the content of a file of JSON."""
    return json.dumps(values, indent=indent) + "\n"


def card(model: Model) -> str:
    """Returns the model card: what it was trained from and how, and nothing private."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    base = HUB_NAMES.get(model.name, model.name)
    if "/" in base:
        lines += [f"base_model: {base}"]
    lines += ["tags:", "- gpt2", "- gpt2cli", "---", "", f"# {model.title}", ""]
    lines += [f"{model.hparams.count():,} weights in {model.precision}, exported by gpt2cli.", ""]
    return "\n".join([*lines, *training(model), ""])


def training(model: Model) -> Iterator[str]:
    """Yields the card's lines on how the model was trained, if it was."""
    state = model.state
    if state is None:
        return
    yield from ("## Training", "", "| | |", "|---|---|")
    yield f"| base model | {model.name} |"
    yield f"| steps | {state.step:,} |"
    if state.loss_weight:
        yield f"| training loss, moving average (nats per token) | {state.average:.4f} |"
    if state.own_loss is not None:
        yield f"| validation loss (nats per token) | {state.own_loss:.4f} |"
    for name in TOLD:
        value = model.settings.get(name)
        if value not in (None, False):
            yield f"| {name.replace('_', ' ')} | {value} |"
