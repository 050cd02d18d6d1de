"""What a shell proposes for the value of an option: the models, runs and checkpoints there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from gpt2cli.config.shared import BEST, DEFAULT_RUN, LATEST
from gpt2cli.files import paths

Proposals = Callable[[typer.Context], Iterable[str]]


def proposals_for(name: str) -> Callable[[typer.Context, str], list[str]] | None:
    """Returns what proposes values of an option by its field's name; None: the shell does."""
    values = PROPOSALS.get(name)
    if values is None:
        return None

    def proposed(ctx: typer.Context, incomplete: str) -> list[str]:
        """Returns the values that begin as the incomplete one; what fails proposes nothing."""
        try:
            found = dict.fromkeys(each for each in values(ctx) if each.startswith(incomplete))
        except OSError:
            return []
        # Others would be taken for several words, or for commands of the terminal.
        return [each for each in found if each.isprintable() and not set(each) & set(" '\"\\`$")]

    return proposed


def folder_given(ctx: typer.Context, name: str, default: str) -> Path:
    """Returns the folder that an option names on the incomplete command line."""
    return Path(ctx.params.get(name) or default)


def runs(ctx: typer.Context) -> list[str]:
    """Returns the names of the runs that there are."""
    return names_of_folders(folder_given(ctx, "checkpoint_dir", "checkpoint"))


def models(ctx: typer.Context) -> list[str]:
    """Returns the names of the models that there are, then of those that can be fetched."""
    return [*names_of_folders(folder_given(ctx, "model_dir", "models")), *paths.FETCHED]


def names_of_folders(folder: Path) -> list[str]:
    """Returns the names of the folders inside a folder that are not hidden."""
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in there if path.is_dir() and not path.name.startswith("."))


def checkpoints(ctx: typer.Context) -> list[str]:
    """Returns the checkpoints of the run that is named, or of the usual one."""
    folder = folder_given(ctx, "checkpoint_dir", "checkpoint")
    run = folder / (ctx.params.get("run_name") or DEFAULT_RUN)
    return [LATEST, BEST, *map(str, reversed(paths.checkpoint_steps(run)))]


# By the field's name.
PROPOSALS: dict[str, Proposals] = {
    "run_name": runs,
    "model_name": models,
    "models": models,
    "names": lambda ctx: [*runs(ctx), *models(ctx)],
    "checkpoint": checkpoints,
    "restore_from": lambda _: [LATEST, "fresh", "scratch"],
}
