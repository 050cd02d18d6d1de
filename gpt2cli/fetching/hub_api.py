"""What the Hugging Face Hub says of a model: its commit, and its files with their hashes."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.auth import AuthBase

from gpt2cli import json_reader
from gpt2cli.errors import (
    BadDataError,
    Gpt2cliError,
    RefusedError,
    UsageError,
    shortened,
)
from gpt2cli.fetching import responses
from gpt2cli.fetching.hub_record import HubRecord, chosen_files, hub_address
from gpt2cli.fetching.partial_file import PartialFile
from gpt2cli.fetching.retry_policy import retry_policy_from_environment
from gpt2cli.fetching.transfer import Connection, Transfer, Wanted
from gpt2cli.files.hub_names import COMMIT, HubName
from gpt2cli.progress import Received
from gpt2cli.records import Record

# The largest answer to read (bytes); that of a repository of a thousand files has 300 kB.
MOST_BYTES = 10_000_000
TOKEN = re.compile(r"[!-~]{1,500}")


class Bearer(AuthBase):
    """Sends the user's token to one host, and to no other; requests drops it on the way there."""

    def __init__(self, address: str, token: str) -> None:
        self._host, self._token = origin(address), token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Adds the token to a request to the host."""
        if origin(request.url or "") == self._host:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Returns the scheme, host and port of an address."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def hub_connection(hub: HubName) -> Connection:
    """Returns how the Hub is asked for a model, with the token of HF_TOKEN if there is one.

    Raises:
        UsageError: HF_TOKEN or HF_ENDPOINT holds something else.
    """
    address, session = hub_address(), responses.new_session()
    if token := os.environ.get("HF_TOKEN", "").strip():
        if not TOKEN.fullmatch(token):
            raise UsageError("HF_TOKEN holds characters that a token does not have.")
        session.auth = Bearer(address, token)
    explain = partial(explained, hub, address, has_token=bool(token))
    return Connection(session=session, policy=retry_policy_from_environment(), explain=explain)


def explained(
    hub: HubName, address: str, response: requests.Response, *, has_token: bool
) -> Gpt2cliError | None:
    """Returns what the Hub's refusal means; None if it is not one of those that it explains."""
    code, page = response.headers.get("X-Error-Code", ""), shortened(f"{address}/{hub}")
    if response.status_code not in (401, 403, 404) or code == "EntryNotFound":
        return None
    said = f"{shortened(address)} answers {responses.status(response)}. Nothing was changed."
    if code == "GatedRepo":
        return RefusedError(
            f"{hub} is gated: {said} Accept its conditions on {page}, and set HF_TOKEN to a token "
            "of your account."
        )
    if code == "RevisionNotFound":
        return RefusedError(f"{hub} has no revision {hub.wanted}: {said} See {page}.")
    if has_token and "credentials" in response.headers.get("X-Error-Message", ""):
        return RefusedError(f"HF_TOKEN is not accepted: {said} Make another, or unset HF_TOKEN.")
    return RefusedError(
        f"There is no model {hub}, or it is private: {said} Check the spelling on {page}; a "
        "private model needs HF_TOKEN."
    )


def ask_hub(
    hub: HubName, connection: Connection, folder: Path
) -> Generator[Record, None, HubRecord]:
    """Returns what the Hub says of a model; yields what happens on the way.

    Args:
        hub: the model.
        connection: how the Hub is asked.
        folder: where the answer is kept for as long as that takes.

    Raises:
        RefusedError: the Hub has no such model, or does not give it.
        TryLaterError: the network is down.
        MissingInputError: the model lacks a file that is needed.
        BadDataError: the answer is something else.
    """
    revision = quote(hub.wanted, safe="")
    url = f"{hub_address()}/api/models/{hub}/revision/{revision}?blobs=true"
    answer = PartialFile(folder / "answer.json")
    try:
        wanted = Wanted(url=url, most=MOST_BYTES, moves=False)
        for event in Transfer(connection=connection, wanted=wanted, partial=answer).events():
            if not isinstance(event, Received):
                yield event
        content = json_reader.content(answer.path, MOST_BYTES)
    finally:
        answer.discard()
    where = shortened(url)
    try:
        return parsed_answer(hub, json_reader.parse(content, where))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(
            f"{where} lacks or has a wrong {shortened(error)}. Nothing was written."
        ) from error


def parsed_answer(hub: HubName, facts: dict[str, Any]) -> HubRecord:
    """Returns what an answer of the Hub says.

    Raises:
        MissingInputError: a file that is needed is missing.
        ValueError, KeyError, TypeError, AttributeError: it is not such an answer.
    """
    commit = facts["sha"]
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ValueError(f"sha: {shortened(commit)!r}")
    listed: dict[str, dict[str, Any]] = {}
    for entry in facts["siblings"]:
        name = entry["rfilename"]
        if isinstance(name, str):
            listed[name] = entry
    files = {}
    for name in chosen_files(listed, hub):
        entry = listed[name]
        if large := entry.get("lfs"):
            files[name] = {"size": large["size"], "sha256": large["sha256"]}
        else:
            files[name] = {"size": entry["size"], "git_sha1": entry["blobId"]}
    return HubRecord.of(hub, hub.wanted, commit, files)
