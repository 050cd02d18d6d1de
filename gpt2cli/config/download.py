"""The settings of `gpt2cli download`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2cli.config.shared import DEFAULT_MODEL, Shared
from gpt2cli.errors import UsageError, shortened
from gpt2cli.options import argument, option

# Longer than any address that a host would answer (characters).
MOST_ADDRESS = 2000


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(Shared):
    """Fetch GPT-2 models, OpenAI's and others from the Hugging Face Hub, checked and resumable.

    Files that are there and intact are not fetched again. GPT2CLI_TIMEOUT_SECONDS (30) says how
    long to wait for a host, GPT2CLI_RETRY_SECONDS (1) before the second try; later waits grow.
    HF_TOKEN is sent to the Hub, which HF_ENDPOINT may name, and to no other host.

    Examples:
        gpt2cli download 355M
        gpt2cli download distilbert/distilgpt2
        gpt2cli download --list
        gpt2cli download 124M --mirror https://models.example.org/gpt-2
    """

    group = "Source"
    models: tuple[str, ...] = argument(
        "124M, 355M, 774M, 1558M; tiny, which comes with gpt2cli; or OWNER/NAME[@REVISION], a "
        "GPT-2 from the Hub in safetensors.",
        default=(DEFAULT_MODEL,),
    )
    mirror: tuple[str, ...] = option(
        (), "Address that has MODEL/FILE, to try before the default hosts (repeatable)."
    )
    verify: bool = option(False, "Hashes the files that are there, and fetches damaged ones again.")
    list: bool = option(
        False, "Lists the models and how much of each is in --model-dir; fetches none."
    )
    format: Literal["text", "jsonl"] = option("text", "Format of the list.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format != "text" and not self.list:
            raise UsageError("--format is that of --list; give both.")
        for url in self.mirror:
            if not is_address(url):
                raise UsageError(
                    "--mirror must be an address that begins with http:// or https://, not "
                    f"'{shortened(url)}'."
                )


def is_address(url: str) -> bool:
    """Returns whether a text is an HTTP address with a host."""
    # Loading it would slow the start of every command.
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return sound and len(url) <= MOST_ADDRESS and url.isprintable() and " " not in url
