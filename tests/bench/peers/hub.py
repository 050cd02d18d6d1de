"""KerasHub's GPT-2, on the backend that KERAS_BACKEND names: one job a process, a line of JSON."""

from __future__ import annotations

import argparse
import json
import time

import keras
import keras_hub
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["train"])
    for name, default in (("batch", 1), ("window", 1024), ("accumulate", 1), ("steps", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args()
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=50257,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        intermediate_dim=3072,
        dropout=0.0,
        max_sequence_length=1024,
    )
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    steps = settings.accumulate if settings.accumulate > 1 else None
    model.compile(
        optimizer=keras.optimizers.Adam(
            1e-4, global_clipnorm=1.0, gradient_accumulation_steps=steps
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile="auto",
    )
    noise = np.random.default_rng(0)
    shape = (settings.batch, settings.window)
    marks = [time.time()]
    for _ in range(settings.steps):
        for _ in range(settings.accumulate):
            tokens = noise.integers(0, 50257, shape)
            inputs = {"token_ids": tokens, "padding_mask": np.ones(shape, bool)}
            model.train_on_batch(inputs, noise.integers(0, 50257, shape))
        marks.append(time.time())
    print(json.dumps({"marks": marks}))


if __name__ == "__main__":
    main()
