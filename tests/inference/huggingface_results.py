"""Writes huggingface_results.json: what Hugging Face's `generate` makes of our random weights.

    python -m tests.inference.huggingface_results

in an environment of its own, with transformers==4.49.0 (the last minor version before
contrastive search began to leave its core) and torch==2.13.0. The tests read the file alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from tests import models

PATH = Path(__file__).with_suffix(".json")
PROMPTS = [[7, 100, 3, 42, 250], [9, 8, 7, 9, 8, 7, 12, 30, 5]]
LENGTH = 20
# Tokens that these weights choose now and then, so that beams end at different times.
ENDS = (None, 139, 24, 129, 231)
BEAMS: list[dict[str, Any]] = [
    {"num_beams": 3, "num_return_sequences": 3},
    {"num_beams": 5, "num_return_sequences": 2, "early_stopping": True},
    {"num_beams": 4, "num_return_sequences": 4, "length_penalty": -1.0},
    {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 2.0},
    {"num_beams": 4, "num_return_sequences": 2, "no_repeat_ngram_size": 2},
    {"num_beams": 2, "num_return_sequences": 1, "repetition_penalty": 1.4},
]
GREEDY: list[dict[str, Any]] = [
    {},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
]
# Of each search, where a token that ends texts may not come early.
LATE = (139, 129)
ENDED: list[dict[str, Any]] = [
    {"min_new_tokens": 9},
    {"min_new_tokens": 14, "no_repeat_ngram_size": 2},
    {"min_new_tokens": 11, "penalty_alpha": 0.3, "top_k": 8},
    {"min_new_tokens": 12, "num_beams": 3, "num_return_sequences": 3},
]
CONTRASTIVE: list[dict[str, Any]] = [
    {"penalty_alpha": 0.6, "top_k": 4},
    {"penalty_alpha": 0.3, "top_k": 8},
    {"penalty_alpha": 0.9, "top_k": 2},
    {"penalty_alpha": 0.5, "top_k": 5, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
]


def model() -> Any:
    shape = models.SMALL
    config = transformers.GPT2Config(
        vocab_size=shape.n_vocab,
        n_positions=shape.n_ctx,
        n_embd=shape.n_embd,
        n_head=shape.n_head,
        n_layer=shape.n_layer,
        bos_token_id=None,
        eos_token_id=None,
    )
    made = transformers.GPT2LMHeadModel(config).eval()
    state = {}
    for name, array in models.random_arrays(shape, deviation=0.5).items():
        parts = name.removeprefix("model/").split("/")
        if parts[0] in ("wte", "wpe"):
            key = f"{parts[0]}.weight"
        else:
            ending = {"g": "weight", "b": "bias", "w": "weight"}[parts[-1]]
            layer = ["h", parts[0][1:]] if parts[0] != "ln_f" else ["ln_f"]
            key = ".".join([*layer, *parts[1:-1], ending])
        state[f"transformer.{key}"] = torch.from_numpy(array).reshape(
            made.state_dict()[f"transformer.{key}"].shape
        )
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("lm_head" in name or name.endswith(".attn.bias") for name in missing)
    return made


def result(made: Any, prompt: list[int], end: int | None, settings: dict[str, Any]) -> Any:
    """Returns the new tokens of each sequence, and the scores of beams."""
    found = made.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=LENGTH,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=259,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    rows = found.sequences[:, len(prompt) :].tolist()
    scores = getattr(found, "sequences_scores", None)
    return {
        "settings": settings,
        "end": end,
        "prompt": prompt,
        # What stands behind the end is padding.
        "tokens": [row[: row.index(end) + 1] if end in row else row for row in rows],
        "scores": None if scores is None else [round(score, 5) for score in scores.tolist()],
    }


def main() -> None:
    made = model()
    cases: dict[str, Any] = {
        "greedy": [(prompt, None, s) for prompt in PROMPTS for s in GREEDY],
        "beams": [(prompt, end, s) for prompt in PROMPTS for end in ENDS for s in BEAMS],
        "contrastive": [(prompt, None, s) for prompt in PROMPTS for s in CONTRASTIVE],
    }
    for settings in ENDED:
        kind = "beams" if "num_beams" in settings else "greedy"
        kind = "contrastive" if "penalty_alpha" in settings else kind
        cases[kind] += [(prompt, end, settings) for prompt in PROMPTS for end in LATE]
    results: dict[str, Any] = {
        kind: [result(made, *case) for case in several] for kind, several in cases.items()
    }
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    PATH.write_text(json.dumps({"made_with": versions, **results}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
