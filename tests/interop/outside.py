"""Programs that read our exports without gpt2cli; each prints JSON.

    python tests/interop/outside.py PROGRAM WHAT QUESTIONS

QUESTIONS is a file: {"prompt": tokens, "length": tokens to write, "texts": {name: text}}.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any


def transformers(folder: str, prompt: list[int], length: int, texts: dict[str, str]) -> Any:
    """Returns what transformers makes of a Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = torch.tensor([prompt])
    with torch.no_grad():
        written = model.generate(tokens, do_sample=False, max_new_tokens=length)
        return {
            "logits": model(tokens).logits[0].tolist(),
            "greedy": written[0, len(prompt) :].tolist(),
            "dtype": str(model.dtype),
            "special": {name: tokenizer(text).input_ids for name, text in texts.items()},
            "plain": {
                name: tokenizer(text, split_special_tokens=True).input_ids
                for name, text in texts.items()
            },
        }


def llama(path: str, prompt: list[int], length: int, texts: dict[str, str]) -> Any:
    """Returns what llama.cpp makes of a GGUF file."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.n_ctx = 1024
    settings.n_parallel = 1
    settings.warmup = False
    # Threads that wait for each other on a busy machine do little else.
    for cores in (settings.cpuparams, settings.cpuparams_batch):
        cores.n_threads = 1
        cores.poll = 0
    settings.verbosity = 0
    # The cache is float16 unless told otherwise.
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(settings)

    def post(path: str, content: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{server.listening_address}/{path}",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["tokens"]

    def tokens(text: str, special: bool) -> Any:
        return post("tokenize", {"content": text, "add_special": False, "parse_special": special})

    order = {"prompt": prompt, "temperature": 0, "n_predict": length, "ignore_eos": True}
    return {
        "greedy": post("completion", order | {"return_tokens": True}),
        "special": {name: tokens(text, True) for name, text in texts.items()},
        "plain": {name: tokens(text, False) for name, text in texts.items()},
    }


if __name__ == "__main__":
    program = {"transformers": transformers, "llama": llama}[sys.argv[1]]
    answers = program(sys.argv[2], **json.loads(Path(sys.argv[3]).read_text(encoding="utf-8")))
    answers["loaded"] = [name for name in sys.modules if name.startswith("gpt2cli")]
    json.dump(answers, sys.stdout)
