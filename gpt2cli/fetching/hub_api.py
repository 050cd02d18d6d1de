"""What the Hugging Face Hub says of a model: its commit, and its files with their hashes."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url

from gpt2cli import json_reader, reading
from gpt2cli.errors import Gpt2cliError, RefusedError, UsageError, shortened
from gpt2cli.fetching import responses
from gpt2cli.fetching.hub_record import HubRecord, chosen_files, hub_address
from gpt2cli.fetching.manifest import need, sound_facts
from gpt2cli.fetching.partial_file import PartialFile
from gpt2cli.fetching.transfer import Connection, Transfer, retry_policy_from_environment
from gpt2cli.files.hub_names import COMMIT, HubName
from gpt2cli.progress import Received
from gpt2cli.records import Record

# The largest answer to read (bytes); that of a repository of a thousand files has 300 kB.
MOST_BYTES = 10_000_000
TOKEN = re.compile(r"[!-~]{1,500}")


def new_connection(hub: HubName | None) -> Connection:
    """Returns how hosts are asked, for a model from the Hub with the token of HF_TOKEN."""
    session, policy = responses.new_session(), retry_policy_from_environment()
    if hub is None:
        return Connection(session=session, policy=policy)
    address, token = hub_address(), os.environ.get("HF_TOKEN", "").strip()
    if token and not TOKEN.fullmatch(token):
        raise UsageError("HF_TOKEN holds characters that a token does not have.")

    def authorized(request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Adds the token to a request to the Hub; requests drops it on the way to another host."""
        if responses.origin(request.url or "") == responses.origin(address):
            request.headers["Authorization"] = f"Bearer {token}"
        elif any(password := get_auth_from_url(request.url or "")):
            HTTPBasicAuth(*password)(request)
        return request

    if token:
        session.auth = authorized
    explain = partial(explained, hub, address, has_token=bool(token))
    return Connection(session=session, policy=policy, explain=explain)


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
    """Returns what the Hub says of a model, which comes into a folder; yields what happens."""
    revision = quote(hub.wanted, safe="")
    url = f"{hub_address()}/api/models/{hub}/revision/{revision}?blobs=true"
    with closing(PartialFile(folder / "answer.json")) as answer:
        transfer = Transfer(
            connection=connection, partial=answer, url=url, most=MOST_BYTES, moves=False
        )
        yield from (event for event in transfer.events() if not isinstance(event, Received))
        content = reading.content(answer.path, MOST_BYTES)
    where = shortened(url)
    with sound_facts(where, "Nothing was written."):
        return parsed_answer(hub, json_reader.parse(content, where))


def parsed_answer(hub: HubName, facts: dict[str, Any]) -> HubRecord:
    """Returns what an answer of the Hub says; raises as `HubRecord.of` and `chosen_files`."""
    commit = facts["sha"]
    need(isinstance(commit, str) and bool(COMMIT.fullmatch(commit)), "sha", commit)
    named = ((entry["rfilename"], entry) for entry in facts["siblings"])
    listed: dict[str, dict[str, Any]] = {k: entry for k, entry in named if isinstance(k, str)}
    files = {}
    for name in chosen_files(listed, hub):
        entry = listed[name]
        if large := entry.get("lfs"):
            files[name] = {"size": large["size"], "sha256": large["sha256"]}
        else:
            files[name] = {"size": entry["size"], "git_sha1": entry["blobId"]}
    return HubRecord.of(hub, hub.wanted, commit, files)
