"""GPT-2 once more, in NumPy and double precision: the judge of everything numerical."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def logits(weights: dict[str, Any], n_head: int, tokens: Any) -> Array:
    """Returns the scores of the next token after each token of one text: (time, vocab)."""
    w = {name.removeprefix("model/"): np.asarray(a, np.float64) for name, a in weights.items()}
    tokens = np.asarray(tokens)
    x = w["wte"][tokens] + w["wpe"][: len(tokens)]
    for layer in range(sum(name.endswith("ln_1/g") for name in w)):
        at = f"h{layer}/"
        q, k, v = np.split(linear(layer_norm(x, w, at + "ln_1"), w, at + "attn/c_attn"), 3, axis=1)
        size = q.shape[1] // n_head
        heads = []
        for head in range(n_head):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / np.sqrt(size)
            scores[np.triu_indices(len(tokens), 1)] = -np.inf
            heads.append(softmax(scores) @ v[:, part])
        x = x + linear(np.concatenate(heads, axis=1), w, at + "attn/c_proj")
        up = linear(layer_norm(x, w, at + "ln_2"), w, at + "mlp/c_fc")
        up = up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3))) / 2
        x = x + linear(up, w, at + "mlp/c_proj")
    return np.asarray(layer_norm(x, w, "ln_f") @ w["wte"].T)


def losses(weights: dict[str, Any], n_head: int, tokens: Any) -> Array:
    """Returns the cross-entropy of every token but the first (nats)."""
    shares = softmax(logits(weights, n_head, tokens[:-1]))
    return np.asarray(-np.log(shares[np.arange(len(tokens) - 1), tokens[1:]]))


def loss(weights: dict[str, Any], n_head: int, tokens: Any) -> float:
    """Returns the mean cross-entropy of every token but the first (nats per token)."""
    return float(losses(weights, n_head, tokens).mean())


def masked_loss(weights: dict[str, Any], n_head: int, windows: Any) -> float:
    """Returns the mean cross-entropy of the tokens that count in several windows.

    A token t that does not count is ~t; without any that count the loss is 0.
    """
    rows = np.asarray(windows).reshape(-1, np.shape(windows)[-1])
    seen = np.maximum(rows, ~rows)
    each = np.array([losses(weights, n_head, row) for row in seen])[rows[:, 1:] >= 0]
    return float(each.sum() / max(len(each), 1))


def greedy(weights: dict[str, Any], n_head: int, tokens: list[int], length: int) -> list[int]:
    """Returns the `length` likeliest tokens that follow, each computed from all before."""
    tokens = list(tokens)
    for _ in range(length):
        tokens.append(int(logits(weights, n_head, tokens)[-1].argmax()))
    return tokens[-length:]


def layer_norm(x: Array, w: dict[str, Any], name: str) -> Array:
    mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    return np.asarray((x - mean) / np.sqrt(variance + 1e-5) * w[name + "/g"] + w[name + "/b"])


def linear(x: Array, w: dict[str, Any], name: str) -> Array:
    return np.asarray(x @ w[name + "/w"][0] + w[name + "/b"])


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
