"""A model from the Hugging Face Hub: looked at first, then fetched like OpenAI's."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

from gpt2cli.errors import BadDataError, MissingInputError, OutputError, shortened
from gpt2cli.fetching.hub_record import HubRecord, hub_address, read_hub_record
from gpt2cli.fetching.models import Fetcher, FetchOptions, complete, enter
from gpt2cli.files import atomic, temporary
from gpt2cli.files.hub_names import HubName
from gpt2cli.progress import amount
from gpt2cli.records import Progress, Record
from gpt2cli.runtime.signals import Interrupted
from gpt2cli.storage import huggingface
from gpt2cli.storage.base_models import RECORD, cached_snapshot, check_revision
from gpt2cli.text.tokenizer import check_fits, read_tokenizer


def fetch_hub(hub: HubName, folder: Path, options: FetchOptions) -> Iterator[Record]:
    """Makes the folder of a model from the Hub complete, as `fetch_model`; yields what happens.

    Nothing is fetched if transformers has fetched the model before.
    """
    record = read_hub_record(folder, hub)
    if record is None:
        check_ours(folder)
        if (cached := cached_snapshot(hub)) is not None:
            yield Progress(f"{hub} is already there, in transformers' cache: {cached}")
            return
        record = yield from begin(hub, folder, options.bars)
    check_revision(folder, hub)
    yield from complete(record.model(), folder, options)


def check_ours(folder: Path) -> None:
    """Raises OutputError if something is in a model's place that gpt2cli did not fetch."""
    with atomic.disk_errors(folder):
        # What is hidden may be left of a write that was killed.
        if not folder.exists() or (folder.is_dir() and not any(folder.glob("[!.]*"))):
            return
    raise OutputError(
        f"{shortened(folder)} is there, and gpt2cli did not fetch it (it has no {RECORD}). Nothing "
        "was changed. Move it away, or give another --model-dir."
    )


def begin(hub: HubName, folder: Path, bars: bool) -> Generator[Record, None, HubRecord]:
    """Looks at a model, and makes its folder, with all but the weights, if it is a GPT-2."""
    # The libraries for the network take a while to load.
    from gpt2cli.fetching.hub_api import ask_hub, new_connection

    connection = new_connection(hub)
    yield Progress(f"asking {shortened(hub_address())} for {hub.full}")
    with temporary.private_folder() as aside, connection.session:
        try:
            record = yield from ask_hub(hub, connection, aside)
            fetcher = Fetcher(
                model=record.model(), folder=aside, connection=connection, bars=bars, shown=str(hub)
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
    """Raises Gpt2cliError unless the files beside the weights are there and a GPT-2's."""
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
