"""How a command line and its variables may be spelt, and what is meant if they are misspelt."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from gpt2cli.errors import UsageError, shortened
from gpt2cli.options import Config, flag, options

# What the variables that give options begin with.
ENVIRONMENT = "GPT2CLI"
# Variables beside those of options.
OTHER_VARIABLES = (
    *("GPT2CLI_OFFLINE", "GPT2CLI_PINS", "GPT2CLI_RETRY_SECONDS", "GPT2CLI_TIMEOUT_SECONDS"),
    "GPT2CLI_CPU_DEVICES",
)
TRUTH = {"true": True, "false": False}
# How like two names of options or commands must be (0 to 1) for one to be proposed for the other.
LIKENESS, COMMAND_LIKENESS = 0.75, 0.6
# What transformers, llama.cpp, nanoGPT and others call our options, by ours; a command has those of
# its own among them.
SYNONYMS = {
    "learning-rate": "lr peak-lr max-lr base-lr",
    "schedule": "lr-schedule lr-scheduler lr-scheduler-type scheduler decay-lr",
    "warmup-steps": "warmup warmup-iters lr-warmup-steps num-warmup-steps",
    "temperature": "t temp",
    "prefix": "prompt text input start p",
    "prefix-file": "prompt-file file f",
    "prompts": "prompts-file prompt-file",
    "length": "max-new-tokens max-tokens n-predict num-tokens max-length n gen-length",
    "window": "max-length block-size context ctx-size n-ctx context-length seq-len max-seq-length",
    "nsamples": "num-samples num-return-sequences n-samples samples",
    "run-name": "run out-dir output-dir experiment",
    "model-name": "model model-name-or-path m pretrained hf-repo ckpt-path",
    "model-dir": "models-dir cache-dir",
    "checkpoint-dir": "checkpoints-dir checkpoints ckpt-dir save-dir",
    "epochs": "epoch num-epochs num-train-epochs n-epochs",
    "steps": "step max-steps max-iters iters iterations num-steps num-train-steps train-steps",
    "accumulate-gradients": "gradient-accumulation-steps grad-accum accumulate-grad-batches",
    "batch-size": "bs b batch train-batch-size per-device-train-batch-size micro-batch-size mbs",
    "clip-norm": "grad-clip max-grad-norm gradient-clip gradient-clip-val clip",
    "weight-decay": "wd",
    "optimizer": "optim optimiser",
    "val-every": "eval-every eval-interval eval-steps eval-freq val-interval",
    "val-batches": "eval-iters eval-batches",
    "val-dataset": "eval-file validation-file val-file val-data validation val",
    "val-fraction": "validation-split val-split validation-split-percentage test-size",
    "patience": "early-stopping-patience early-stopping",
    "save-every": "save-steps save-interval save-freq checkpoint-interval",
    "print-every": "log-interval logging-steps log-every",
    "sample-every": "generate-every sample-steps",
    "max-checkpoints": "save-total-limit max-to-keep keep",
    "restore-from": "resume resume-from-checkpoint init-from restore from",
    "use-memory-saving-gradients": "gradient-checkpointing checkpoint-gradients",
    "precision": "dtype torch-dtype fp16 bf16 half quantize outtype",
    "xla": "compile jit",
    "device": "gpu cuda cpu use-cpu no-cuda accelerator n-gpu-layers ngl",
    "multi-gpu": "gpus num-gpus distributed ddp",
    "dataset": "train-file train-data data input-file corpus text-file d",
    "top-k": "topk",
    "top-p": "topp nucleus",
    "min-p": "minp",
    "typical-p": "typical",
    "repetition-penalty": "repeat-penalty rep-penalty",
    "no-repeat-ngram-size": "ngram no-repeat-ngram",
    "num-beams": "beams beam beam-size",
    "penalty-alpha": "alpha contrastive-alpha",
    "lora-rank": "rank r lora-r",
    "lora-alpha": "alpha",
    "stop": "stop-sequence stop-token stop-string stop-text reverse-prompt eos",
    "seed": "random-seed s",
    "destination-path": "output out o output-file outfile out-dir output-dir",
    "destination": "output out o output-file outfile out-dir output-dir",
    "format": "type to output-format outtype json jsonl",
    "ids": "id token-ids tokens decode",
    "file": "f path input input-file",
    "overwrite": "force yes y",
    "quiet": "silent",
    "verbose": "debug verbosity",
    "text-field": "field text-key text-column json-field",
    "csv-column": "column text-column",
    "mirror": "url host base-url endpoint",
    "verify": "check hash checksum",
    "models": "model model-name m",
}
VERBS = {
    "finetune": "train fine-tune tune fit retrain",
    "generate": "sample infer inference complete predict run text",
    "evaluate": "eval perplexity ppl score test validate",
    "export": "convert save to",
    "download": "pull fetch get",
    "tokens": "tokenize tokenise tokenizer encode decode count",
    "info": "status show list ls models runs ps stats version describe doctor",
}


def plain(arguments: Sequence[str], config: type[Config]) -> list[str]:
    """Returns a command's arguments as Typer reads them.

    `--flag True` becomes `--flag`, `--flag False` `--no-flag`, and `--dataset FILE` FILE.
    UsageError is raised if a value is missing, or neither True nor False.
    """
    known = {flag(field.name): (rule, kind) for field, rule, kind in options(config)}
    words, named, rest = list[str](), list[str](), deque(arguments)
    while rest and (word := rest.popleft()) != "--":
        name, sign, value = word.partition("=")
        name = name.replace("_", "-")
        if name not in known:
            words.append(word)
            continue
        rule, kind = known[name]
        truth = bool in (kind, *get_args(kind))
        if not sign and rest and (not truth or rest[0].lower() in TRUTH):
            sign, value = "=", rest.popleft()
        words += [] if rule.argument else spelt(name, value if sign else None, truth)
        if rule.argument and not sign:
            raise UsageError(f"{name} needs a value.")
        named += [value] if rule.argument else []
    return [*words, *(["--", *named, *rest] if named or rest else [])]


def spelt(name: str, value: str | None, truth: bool) -> list[str]:
    """Returns an option as Typer reads it; `value` is None if none is given."""
    if value is None:
        return [name]
    if not truth:
        return [name, value]
    if value.lower() not in TRUTH:
        raise UsageError(f"{name} takes True or False, not '{shortened(value)}'.")
    return [name if TRUTH[value.lower()] else f"--no-{name[2:]}"]


def with_mode(arguments: Sequence[str]) -> list[str]:
    """Returns a command line with its command in front, if `--mode` names it."""
    first, _, value = (arguments[0] if arguments else "").partition("=")
    if first != "--mode":
        return list(arguments)
    return [value, *arguments[1:]] if value else list(arguments[1:])


def meant(name: str, command: str, commands: Mapping[str, type[Config]]) -> str:
    """Returns a sentence that proposes what an unknown option may stand for; or nothing."""
    word = name.lower().replace("_", "-").lstrip("-").removeprefix("no-")
    own = {field.name.replace("_", "-"): rule for field, rule, _ in options(commands[command])}
    found = [ours for ours, theirs in SYNONYMS.items() if ours in own and word in theirs.split()]
    if len(word) > 2:
        found = found or [ours for ours in own if ours.startswith(word)]
        alike = {theirs: ours for ours in own for theirs in SYNONYMS.get(ours, "").split()}
        alike |= {ours: ours for ours in own}
        near = alike_names(word, alike, 2)
        found = found or [*dict.fromkeys(alike[each] for each in near)]
    if found:
        shown = " or ".join(
            ours.upper() if own[ours].argument else f"--{ours}" for ours in found[:3]
        )
        return f" Did you mean {shown}?"
    others = [each for each, config in commands.items() if word in names(config)]
    return f" It is an option of {' and '.join(others)}." if others else ""


def alike_names(
    name: str, known: Iterable[str], count: int, likeness: float = LIKENESS
) -> list[str]:
    """Returns the known names that are most like a name, the likest first."""
    # Loading it would slow every start.
    import difflib

    return difflib.get_close_matches(name, list(known), n=count, cutoff=likeness)


def wording(error: Any, commands: Mapping[str, type[Config]]) -> str:
    """Returns what Typer's error says, with the variable or the option that is meant."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    command = str(getattr(context, "info_name", ""))
    if hasattr(error, "possibilities"):
        name = str(error.option_name)
        proposal = meant(name, command, commands) if command in commands else ""
        return f"No such option: {shortened(name)}.{proposal}"
    if context and parameter and is_from_environment(context, parameter.name):
        return f"{variable(command, parameter.name)}: {error.message}"
    return str(error.format_message())


def is_from_environment(context: Any, name: str) -> bool:
    """Returns whether the value of an option, by its field's name, comes from a variable."""
    source = context.get_parameter_source(name)
    return bool(source and source.name == "ENVIRONMENT")


def names(config: type[Config]) -> set[str]:
    """Returns the names of a command's options, without their dashes."""
    return {field.name.replace("_", "-") for field, rule, _ in options(config) if not rule.argument}


def meant_command(name: str, commands: Iterable[str]) -> str:
    """Returns a sentence that proposes what an unknown command may stand for; or nothing."""
    word = name.lower().replace("_", "-")
    found = [verb for verb in commands if word in VERBS.get(verb, "").split()]
    found = found or alike_names(word, commands, 1, COMMAND_LIKENESS)
    return f" Did you mean {found[0]}?" if found else ""


def variable(command: str, name: str) -> str:
    """Returns the variable that gives an option of a command."""
    return f"{ENVIRONMENT}_{command}_{name}".upper().replace("-", "_")


def strange_variables(
    environment: Mapping[str, str], commands: Mapping[str, type[Config]]
) -> Iterator[str]:
    """Yields a line for each variable that looks like one of ours, and is none."""
    ours = sorted(name for name in environment if name.startswith(f"{ENVIRONMENT}_"))
    if not ours:
        return
    known = [variable(command, name) for command in commands for name in names(commands[command])]
    known += OTHER_VARIABLES
    begins = tuple(variable(command, "") for command in commands)
    for name in ours:
        if name in known:
            continue
        # One that lacks its command, as GPT2CLI_STEPS, is meant for the first that has the option.
        rest = name.removeprefix(f"{ENVIRONMENT}_")
        lacks = [each for each in (variable(it, rest) for it in commands) if each in known]
        close = lacks or alike_names(name, known, 1)
        if close or name.startswith(begins):
            proposal = f" Did you mean {close[0]}?" if close else ""
            yield f"{shortened(name)} is not a gpt2cli variable and does nothing.{proposal}"


def with_sources(message: str, context: Any) -> str:
    """Returns a message that names the variables from which the options in it come."""
    for each in dict.fromkeys(re.findall(r"--[a-z][a-z-]*", message)):
        if is_from_environment(context, each[2:].replace("-", "_")):
            message += f" {each} comes from {variable(context.info_name, each[2:])}."
    return message
