"""A model from the Hugging Face Hub: looked at first, then fetched like OpenAI's."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli.errors import BadDataError, MissingInputError, OutputError, shortened
from gpt2cli.fetching.hub_record import HubRecord, hub_address, read_hub_record
from gpt2cli.fetching.models import Asking, Fetcher, complete, enter
from gpt2cli.files import atomic, temporary
from gpt2cli.files.hub_names import HubName
from gpt2cli.progress import amount
from gpt2cli.records import Progress, Record
from gpt2cli.runtime.signals import Interrupted
from gpt2cli.storage import huggingface
from gpt2cli.storage.base_models import RECORD, cached_snapshot, check_revision
from gpt2cli.text.tokenizer import check_fits, read_tokenizer

if TYPE_CHECKING:
    from gpt2cli.fetching.transfer import Connection


def fetch_hub(
    hub: HubName,
    model_dir: str,
    *,
    mirrors: tuple[str, ...] = (),
    verify: bool = False,
    bars: bool = False,
) -> Iterator[Record]:
    """Makes the folder of a model from the Hub complete; yields what happens.

    What is there and good is left as it is, and then no network is needed; nor is it if
    transformers has fetched the model before.

    Args:
        hub: the model.
        model_dir: the folder that holds the base models.
        mirrors: addresses below which OWNER/NAME/FILE is looked for, before the Hub.
        verify: whether to hash again what is there.
        bars: whether to draw bars on stderr; otherwise a line comes now and then.

    Raises:
        RefusedError: the Hub has no such model, or does not give it.
        MissingInputError: the model lacks a file that is needed.
        BadDataError: it is not a GPT-2, or what comes is not the file, twice; or the folder
            holds another revision.
        TryLaterError: the network is down; what has come is kept.
        OutputError, DiskError: the place cannot be written to.
    """
    folder, connect = hub.folder(model_dir), partial(connect_to_hub, hub)
    record = read_hub_record(folder, hub)
    if record is None:
        check_ours(folder)
        if (cached := cached_snapshot(hub)) is not None:
            yield Progress(f"{hub} is already there, in transformers' cache: {cached}")
            return
        record = yield from begin(hub, folder, connect(), bars)
    check_revision(folder, hub)
    asking = Asking(mirrors=mirrors, bars=bars, connect=connect)
    yield from complete(record.model(hub_address()), folder, asking, verify)


def connect_to_hub(hub: HubName) -> Connection:
    """Returns how the Hub is asked for a model; raises as `hub_connection`."""
    # The libraries for the network take a while to load.
    from gpt2cli.fetching.hub_api import hub_connection

    return hub_connection(hub)


def check_ours(folder: Path) -> None:
    """Raises OutputError if something is in a model's place that gpt2cli did not fetch."""
    with atomic.disk_errors(folder):
        if not folder.exists() or folder.is_dir():
            # What is hidden may be left of a write that was killed.
            there = [path for path in folder.glob("*") if not path.name.startswith(".")]
            if not there:
                return
    raise OutputError(
        f"{shortened(folder)} is there, and gpt2cli did not fetch it (it has no {RECORD}). Nothing "
        "was changed. Move it away, or give another --model-dir."
    )


def begin(
    hub: HubName, folder: Path, connection: Connection, bars: bool
) -> Generator[Record, None, HubRecord]:
    """Looks at a model, and makes its folder, with all but the weights, if it is a GPT-2.

    Raises:
        Gpt2cliError: as fetch_hub; then nothing was written.
    """
    from gpt2cli.fetching.hub_api import ask_hub

    yield Progress(f"asking {shortened(hub_address())} for {hub.full}")
    with temporary.private_folder() as aside, connection.session:
        try:
            record = yield from ask_hub(hub, connection, aside)
            model = record.model(hub_address())
            fetcher = Fetcher(
                model=model,
                folder=aside,
                hosts=[*model.hosts],
                connection=connection,
                bars=bars,
                shown=str(hub),
            )
            for file in record.small:
                yield from fetcher.bring(file)
        except Interrupted as interrupted:
            interrupted.message = f"stopped before anything of {hub} was written; run again"
            raise
        check_is_gpt2(hub, aside, record)
        atomic.need_room(folder, record.size, "Nothing was written.")
        yield Progress(
            f"{hub}: {record.revision} is commit {record.commit[:12]}, {amount(record.size)}"
        )
        return (yield from found_folder(hub, folder, aside, record))


def found_folder(
    hub: HubName, folder: Path, aside: Path, record: HubRecord
) -> Generator[Record, None, HubRecord]:
    """Makes a model's folder, unless another process just did; returns the record in it."""
    with ExitStack() as stack:
        yield from enter(stack, str(hub), folder)
        if (made := read_hub_record(folder, hub)) is not None:
            return made
        record.save(folder)
        for file in record.small:
            # Once config.json is there, the folder is a model.
            if file.name != huggingface.CONFIG:
                with atomic.disk_errors(folder / file.name):
                    content = (aside / file.name).read_bytes()
                    atomic.write_whole(folder / file.name, content)
    return record


def check_is_gpt2(hub: HubName, folder: Path, record: HubRecord) -> None:
    """Checks the files beside the weights.

    Raises:
        MissingInputError: a file that is needed is missing.
        BadDataError: they are not a GPT-2's.
    """
    try:
        hparams = huggingface.hparams(folder)
        tokenizer = read_tokenizer(*huggingface.vocabulary_files(folder), hparams.n_vocab)
        check_fits(tokenizer, hparams)
        index = folder / huggingface.SHARDS
        shards = {path.name for path in huggingface.shard_files(index)} if index.exists() else set()
        if missing := shards - {file.name for file in record.files}:
            raise MissingInputError(f"{shortened(min(missing))} is missing.")
    except (BadDataError, MissingInputError) as error:
        # Where the files are for now says nothing to anybody.
        raise type(error)(
            f"{str(error).replace(str(folder), str(hub))} Nothing was written. gpt2cli works with "
            "GPT-2 as OpenAI made it; for other models there is transformers."
        ) from error
