"""Which file is where, in models/124M and in checkpoint/run1 alike."""

from __future__ import annotations

import re
from pathlib import Path

HPARAMS = "hparams.json"
ENCODER = "encoder.json"
MERGES = "vocab.bpe"
POINTER = "checkpoint"
MOST_POINTER_BYTES = 1_000_000
COUNTER = "counter"
# The weights that adapters are trained beside.
BASE = "base"
STATIC_FILES = (HPARAMS, ENCODER, MERGES)
# What a model has besides if its tokens are not only OpenAI's.
TOKENS = "tokenizer_config.json"
# Where a checkpoint is written before it is moved into the run folder.
SAVING = ".saving"
# Where a checkpoint waits while another of the same step takes its place.
REPLACED = ".replaced"
CHECKPOINT_FILE = re.compile(
    r"(?:(?:model|optimizer)-(\d+)\.(?:index|meta|data-\d{5}-of-\d{5})|state-(\d+)\.json)"
)

# The names that OpenAI's models have had, in small letters.
MODEL_ALIASES = {
    **dict.fromkeys(("124m", "117m", "gpt2", "gpt2-small", "gpt2-117m", "gpt2-124m"), "124M"),
    **dict.fromkeys(("355m", "345m", "gpt2-medium", "gpt2-345m", "gpt2-355m"), "355M"),
    **dict.fromkeys(("774m", "gpt2-large", "gpt2-774m"), "774M"),
    **dict.fromkeys(("1558m", "1.5b", "1542m", "gpt2-xl", "gpt2-1558m", "gpt2-1.5b"), "1558M"),
    "tiny": "tiny",
}
# By one of these a folder is known to hold a model.
MODEL_FILES = (HPARAMS, POINTER, "config.json", "adapter_config.json", "snapshots")
# The longest path that a command in a message is written with (characters).
SHOWN_PATH = 120
# What download can fetch.
FETCHED = tuple(dict.fromkeys(MODEL_ALIASES.values()))


def known_name(name: str) -> str:
    """Returns a model's name here: `gpt2`, `openai/gpt2`, `117M` are 124M; others are kept."""
    plain = name.lower().removeprefix("openai-community/").removeprefix("openai/")
    return MODEL_ALIASES.get(plain.replace("gpt-2", "gpt2"), name)


def placed_name(name: str) -> str:
    """Returns the name of the folder that a model is fetched into."""
    # As they were called first, they may be there from gpt-2-simple.
    return name if name in ("117M", "345M") else known_name(name)


def model_folder(model_dir: str, name: str) -> Path:
    """Returns where a base model is, or is to be; OpenAI's have several names."""
    folder = Path(model_dir) / name
    return folder if folder.exists() else Path(model_dir) / known_name(name)


def base_model(model_dir: str, name: str) -> Path:
    """Returns where the model is that --model-name names, which may be a path too.

    `./mine` is a folder here; `mine` is one in the folder of models, or else one here.
    """
    folder, path = Path(model_dir) / name, Path(name)
    if is_path(name):
        return folder if folder.exists() and not path.is_dir() else path
    # A folder here that has the name of an OpenAI model by chance is not meant.
    foreign = known_name(name) == name and name not in FETCHED
    meant = foreign or any((path / file).exists() for file in MODEL_FILES)
    return (
        path if path.is_dir() and meant and not folder.exists() else model_folder(model_dir, name)
    )


def is_path(name: str) -> bool:
    """Returns whether a model's name is the path of a folder, and not of one on the Hub."""
    return Path(name).name != name and (known_name(name) == name or Path(name).exists())


def names_in(folder: Path) -> str:
    """Returns the names of the folders inside a folder, for a message."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    return f"{folder} holds {', '.join(names)}" if names else f"{folder} is empty"


def index_file(prefix: Path) -> Path:
    """Returns a checkpoint's index: the names, shapes and places of its tensors."""
    return prefix.with_name(prefix.name + ".index")


def data_file(prefix: Path, shard: int = 0, shards: int = 1) -> Path:
    """Returns a file with a checkpoint's numbers."""
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def weights(folder: Path, step: int) -> Path:
    """Returns the prefix of a step's weights."""
    return folder / f"model-{step}"


def optimizer(folder: Path, step: int) -> Path:
    """Returns the prefix of a step's optimiser state."""
    return folder / f"optimizer-{step}"


def base(prefix: Path) -> Path:
    """Returns the prefix of the weights that a run's checkpoint of adapters belongs to."""
    folder = prefix.parent
    return (folder.parent if folder.name in (SAVING, REPLACED) else folder) / BASE


def state(folder: Path, step: int) -> Path:
    """Returns the file with everything else that a step's checkpoint consists of."""
    return folder / f"state-{step}.json"


def step_of(prefix: Path) -> int:
    """Returns the step in a checkpoint's name; 0 if there is none, as in `model.ckpt`."""
    match = re.fullmatch(r"model-(\d+)", prefix.name)
    return int(match[1]) if match else 0


def checkpoint_steps(folder: Path) -> list[int]:
    """Returns the steps of a run whose weights are there, ascending.

    The index of the weights is the last file of a checkpoint to appear, and the first to go.
    """
    return sorted(step_of(path.with_suffix("")) for path in folder.glob("model-*.index"))


def files_by_step(folder: Path) -> dict[int, list[Path]]:
    """Returns all files of checkpoints in a folder by step; the index of the weights comes last."""
    found: dict[int, list[Path]] = {}
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in sorted(names, key=lambda name: name.startswith("model-") and ".index" in name):
        if match := CHECKPOINT_FILE.fullmatch(name):
            found.setdefault(int(match[1] or match[2]), []).append(folder / name)
    return found


def unfinished(folder: Path) -> list[Path]:
    """Returns the files that a save left when it was killed while it moved them into place."""
    saving = folder / SAVING
    waiting = {} if saving.is_symlink() else files_by_step(saving)
    return [
        path
        for step, paths in files_by_step(folder).items()
        if index_file(weights(folder / SAVING, step)) in waiting.get(step, [])
        and index_file(weights(folder, step)) not in paths
        for path in paths
    ]


def has_checkpoints(folder: Path) -> bool:
    """Returns whether a run has been saved at least once, even if nothing whole is left of it."""
    named = newest(folder)
    if (folder / COUNTER).exists() or (named is not None and step_of(named) > 0):
        return True
    return sum(map(len, files_by_step(folder).values())) > len(unfinished(folder))


def newest(folder: Path) -> Path | None:
    """Returns the prefix that a folder's `checkpoint` file names, or None if it names none.

    Of a path in the file only the last part counts: the folder may have been moved. The file names
    the newest checkpoint twice; if the two differ, it is damaged.
    """
    pointer = folder / POINTER
    if not pointer.is_file():
        return None
    with pointer.open("rb") as file:
        content = file.read(MOST_POINTER_BYTES).decode(errors="replace")
    match = re.search(r'^model_checkpoint_path: "([^"\n]+)"', content, re.MULTILINE)
    all_paths = re.findall(r'^all_model_checkpoint_paths: "([^"\n]+)"', content, re.MULTILINE)
    if not match or (all_paths and match[1] not in all_paths):
        return None
    path = Path(match[1])
    replaced = folder / REPLACED
    inside = path.parent.name == REPLACED and not replaced.is_symlink()
    return (replaced if inside else folder) / path.name


def pointer_text(name: str) -> str:
    """Returns the content of a `checkpoint` file that names this checkpoint."""
    return f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
