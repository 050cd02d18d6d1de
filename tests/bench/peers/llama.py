"""llama.cpp through xllamacpp, measured: tokens a second as it tells them itself, as JSON."""

from __future__ import annotations

import argparse
import json
import time

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["generate"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    settings = parser.parse_args()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings.model
    parameters.cpuparams.n_threads = settings.threads
    server = xllamacpp.Server(parameters)
    rates = []
    for _ in range(settings.steps):
        told = server.handle_completions(
            {"prompt": "Once", "max_tokens": settings.length, "ignore_eos": True}
        )
        told = json.loads(told) if isinstance(told, str) else told
        rates.append(told["timings"]["predicted_per_second"])
    print(json.dumps({"rates": rates, "done": time.time()}))


if __name__ == "__main__":
    main()
