"""The commit point of a run: whole or not at all, old ones removed last, states told apart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.errors import BadDataError, DiskError, TryLaterError
from gpt2cli.files import atomic, paths
from gpt2cli.special_tokens import Added
from gpt2cli.storage import run
from gpt2cli.storage.recovery import check_files
from gpt2cli.storage.state import State, UnfitError, digest, read_record, read_state
from gpt2cli.text.tokenizer import read_tokenizer
from tests import foreign_models

STATE = State(step=5, seed=1, model_name="124M", corpus="abc", windows=9)


def write(weights: Path, optimizer: Path) -> None:
    for prefix in (weights, optimizer):
        paths.index_file(prefix).write_bytes(b"index")
        paths.data_file(prefix).write_bytes(b"data")


def commit(folder: Path, step: int) -> Path:
    return run.commit(folder, dataclasses.replace(STATE, step=step), write)


def test_a_commit_leaves_the_files_of_the_contract(tmp_path: Path) -> None:
    assert commit(tmp_path, 5) == tmp_path / "model-5"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint",
        "counter",
        "model-5.data-00000-of-00001",
        "model-5.index",
        "optimizer-5.data-00000-of-00001",
        "optimizer-5.index",
        "state-5.json",
    ]
    assert paths.newest(tmp_path) == tmp_path / "model-5"
    assert (tmp_path / "counter").read_text() == "5\n"
    assert read_state(tmp_path, 5) == STATE


def test_a_save_that_fails_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    commit(tmp_path, 5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(weights: Path, optimizer: Path) -> None:
        paths.data_file(weights).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match="model-5 is safe"):
        run.commit(tmp_path, dataclasses.replace(STATE, step=6), fail)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before
    assert commit(tmp_path, 6) == tmp_path / "model-6"


def test_room_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="make room"):
        run.commit(tmp_path / "run", STATE, write, size=1 << 60)
    assert list(tmp_path.iterdir()) == []


def test_the_older_checkpoints_are_removed_but_for_those_to_keep(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        commit(tmp_path, step)
    run.rotate(tmp_path, keep=2, spare=frozenset({1}))
    assert paths.checkpoint_steps(tmp_path) == [1, 3, 10]
    assert not list(tmp_path.glob("*-2.*"))


def test_a_run_that_began_anew_loses_the_checkpoints_of_the_old(tmp_path: Path) -> None:
    commit(tmp_path, 900)
    commit(tmp_path, 10)
    run.rotate(tmp_path, keep=2)
    assert paths.checkpoint_steps(tmp_path) == [10]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}'])
def test_a_damaged_state_is_named(content: str, tmp_path: Path) -> None:
    commit(tmp_path, 5)
    (tmp_path / "state-5.json").write_text(content)
    with pytest.raises(BadDataError, match=r"state-5\.json is damaged"):
        read_state(tmp_path, 5)


def resigned(path: Path, **changes: object) -> None:
    """Changes a state file and its own hash with it, as another program would write it."""
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(record | {"sha256": digest(record)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": "7"}, {"seed": -1}, {"seed": True}, {"seed": 2**70}, {"step": None},
        {"model_name": 3}, {"loss_sum": "1"}, {"loss_sum": 10**400}, {"best_loss": []},
        {"windows": 1.5}, {"format": "1"}, {"format": None}, {"files": []}, {"files": None},
        {"files": {"model-5.index": 3}}, {"files": {"model-5.index": {"size": "5"}}},
        {"files": {"../x": {"size": 1, "sha256": ""}}}, {"static": []}, {"lora_rank": {}},
        {"static": {"\0": {"size": 1, "sha256": ""}}},
    ],
)  # fmt: skip
def test_a_field_of_a_state_that_cannot_be_is_named(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    commit(tmp_path, 5)
    resigned(tmp_path / "state-5.json", **changes)
    with pytest.raises(BadDataError, match=r"state-5\.json is damaged") as caught:
        read_state(tmp_path, 5)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["seed", "model_name", "step"])
def test_a_state_that_lacks_a_field_is_refused(name: str, tmp_path: Path) -> None:
    commit(tmp_path, 5)
    path = tmp_path / "state-5.json"
    record = {key: value for key, value in json.loads(path.read_text()).items() if key != name}
    path.write_text(json.dumps(record | {"sha256": digest(record)}))
    with pytest.raises(BadDataError, match=rf"damaged: (it lacks )?{name}"):
        read_state(tmp_path, 5)


def test_a_state_that_nests_too_deep_is_refused(tmp_path: Path) -> None:
    commit(tmp_path, 5)
    (tmp_path / "state-5.json").write_text("[" * 100_000)
    with pytest.raises(BadDataError, match="nests too deep"):
        read_state(tmp_path, 5)


def foreign(place: Path, **files: Any) -> Path:
    return foreign_models.write(place, 260, weights=False, **files)


def test_a_run_keeps_the_added_tokens_and_ends_of_its_model(tmp_path: Path) -> None:
    source = foreign(tmp_path / "m", config={"eos_token_id": 46}, added_tokens={"New York": 259})
    folder = tmp_path / "run"
    folder.mkdir()
    run.prepare(folder, source)
    specials = read_tokenizer(folder / "encoder.json", folder / "vocab.bpe").specials
    assert specials.added == {
        258: Added(text="<|endoftext|>"),
        259: Added(text="New York", normalized=True, special=False),
    }
    # It is trained on documents with <|endoftext|> between them, and ends where they do.
    assert (specials.end, specials.ends) == (258, (46, 258))
    commit(folder, 5)
    record = json.loads((folder / "state-5.json").read_text())
    assert record["static"]["tokenizer_config.json"]["size"] > 0
    # It is a run's own now, and prepared anew stays as it is.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run.prepare(folder, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_start_left_of_another_model_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    run.prepare(folder, foreign(tmp_path / "one", added_tokens={"New York": 259}))
    run.prepare(folder, foreign(tmp_path / "other"))
    assert not (folder / "tokenizer_config.json").exists()
    assert json.loads((folder / "encoder.json").read_bytes()) == foreign_models.TOKENS


def test_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    commit(tmp_path, 5)
    resigned(tmp_path / "state-5.json", format=99)
    with pytest.raises(UnfitError, match="has format 99; this gpt2cli knows up to 1"):
        read_state(tmp_path, 5)


def test_a_changed_number_in_a_state_is_found_by_its_own_hash(tmp_path: Path) -> None:
    commit(tmp_path, 5)
    path = tmp_path / "state-5.json"
    path.write_text(path.read_text().replace('"windows": 9', '"windows": 8'))
    with pytest.raises(BadDataError, match=r"state-5\.json is damaged: its hash"):
        read_state(tmp_path, 5)


def test_a_state_of_another_step_is_damaged(tmp_path: Path) -> None:
    commit(tmp_path, 5)
    (tmp_path / "state-5.json").rename(tmp_path / "state-6.json")
    with pytest.raises(BadDataError, match="it is the state of step 5"):
        read_state(tmp_path, 6)


def test_what_later_versions_add_to_a_state_is_left_alone(tmp_path: Path) -> None:
    commit(tmp_path, 5)
    resigned(tmp_path / "state-5.json", colour="blue")
    assert read_state(tmp_path, 5) == STATE


def test_a_state_from_before_validations_were_noted_is_that_of_a_validated_step(
    tmp_path: Path,
) -> None:
    old = {"held_out": "windows", "best_step": 4, "best_loss": 2.5, "since_best": 1}
    run.commit(tmp_path, dataclasses.replace(STATE, **old), write)  # type: ignore[arg-type]
    path = tmp_path / "state-5.json"
    record = json.loads(path.read_text())
    for name in ("val_step", "val_loss", "end_step", "end_loss"):
        del record[name]
    path.write_text(json.dumps(record | {"sha256": digest(record)}))
    state = read_state(tmp_path, 5)
    # It was validated before it was saved, if it was due: that is not done and counted again.
    assert (state.val_step, state.own_loss, state.lowest) == (5, None, (4, 2.5))
    after = dataclasses.replace(state, step=6).validated(2.4, "windows", due=True)
    assert (after.best_step, after.best_loss, after.since_best) == (6, 2.4, 0)
    worse = dataclasses.replace(state, step=6).validated(2.6, "windows", due=True)
    assert (worse.lowest, worse.since_best) == ((4, 2.5), 2)


def test_what_a_killed_save_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    commit(tmp_path, 5)
    before = sorted(tmp_path.iterdir())
    write(paths.weights(tmp_path, 6), paths.optimizer(tmp_path, 6))
    (tmp_path / paths.SAVING).mkdir()
    (tmp_path / "model-6.index").rename(tmp_path / paths.SAVING / "model-6.index")
    (tmp_path / ".checkpoint.99999.part").write_text("half")
    (tmp_path / "mine.txt").write_text("mine")
    run.clean_up(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "mine.txt"])


def test_a_step_saved_over_itself_is_whole_at_every_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tmp_path, 5)
    seen: list[int] = []

    def look(operation: str, path: Path) -> None:
        newest = paths.newest(tmp_path)
        assert newest is not None
        state = read_state(newest.parent, 5)
        check_files(newest.parent, read_record(newest.parent, 5)["files"])
        seen.append(state.seed)

    monkeypatch.setattr(atomic, "before", look)
    run.commit(tmp_path, dataclasses.replace(STATE, seed=2), write)
    assert set(seen) == {1, 2}
    assert sorted(path.name for path in tmp_path.glob(".*")) == []
    assert paths.checkpoint_steps(tmp_path) == [5]


def test_the_average_is_gpt_2_simples(tmp_path: Path) -> None:
    state, total, weight = STATE, 0.0, 0.0
    for loss in (4.0, 3.0, 3.5):
        state = state.after(loss, windows=2)
        total, weight = total * 0.99 + loss, weight * 0.99 + 1.0
    assert state.average == total / weight
    assert (state.step, state.windows) == (8, 15)


def test_a_run_has_one_owner_who_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint" / "run1"
    with (
        run.owned(folder),
        pytest.raises(TryLaterError, match=r"run1 is in use by process \d+ on .*, started 2"),
        run.owned(folder),
    ):
        pass
    with run.owned(folder):
        pass


def test_a_run_that_fails_before_it_begins_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="early"), run.owned(tmp_path / "checkpoint" / "run1"):
        raise ValueError("early")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "run1").mkdir()
    (tmp_path / "run1" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="early"), run.owned(tmp_path / "run1"):
        raise ValueError("early")
    assert (tmp_path / "run1" / "mine.txt").read_text() == "mine"
