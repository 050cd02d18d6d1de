"""What `gpt2cli download` can be told."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2cli.config.shared import DEFAULT_MODEL, Shared
from gpt2cli.errors import UsageError, shortened
from gpt2cli.options import argument, option

# Longer than any address that a host would answer (characters).
MOST_ADDRESS = 2000


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(Shared):
    """Fetch OpenAI's GPT-2 models, checked and resumable.

    MODEL is 124M (the default), 355M, 774M or 1558M, or tiny, which comes with gpt2cli and needs
    no network. What is there and good is left alone. GPT2CLI_TIMEOUT_SECONDS (30) and
    GPT2CLI_RETRY_SECONDS (1; the waits between tries grow from it) set the patience with a host.
    """

    models: tuple[str, ...] = argument("Models to fetch.", default=(DEFAULT_MODEL,))
    mirror: tuple[str, ...] = option(
        (), "Address to look for MODEL/FILE under, before the default hosts (repeatable)."
    )
    verify: bool = option(False, "Hash again what is there, and fetch what is wrong.")

    def __post_init__(self) -> None:
        """Checks the mirrors' addresses.

        Raises:
            UsageError: one of them is no address of HTTP's.
        """
        super().__post_init__()
        for url in self.mirror:
            if not is_address(url):
                raise UsageError(
                    "--mirror must be an address that begins with http:// or https://, not "
                    f"'{shortened(url)}'."
                )


def is_address(url: str) -> bool:
    """Returns whether a text is an address of HTTP's with a host."""
    # Loading it would slow the start of every command.
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return sound and len(url) <= MOST_ADDRESS and url.isprintable() and " " not in url
