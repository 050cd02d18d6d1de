"""The index of a corpus finds what a search from end to end finds, and is kept beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2cli.errors import BadDataError, MissingInputError, OutputError
from gpt2cli.text import corpus_index, token_files
from gpt2cli.text.batches import Tokens
from gpt2cli.text.corpus_index import DEPTH, MOST_PLACES, CorpusIndex, load_index

SEEDS = range(40)
# What the index of 100 MB of text may take, in bytes and seconds.
MOST_MEMORY, MOST_SECONDS = 600_000_000, 60
ENGLISH_TOKENS = 25_000_000


def random_tokens(seed: int) -> Tokens:
    """Returns a short corpus of few tokens, so that many ends of texts occur often."""
    noise = np.random.default_rng(seed)
    kinds = noise.choice([1, 2, 5, 300])
    return noise.integers(0, kinds, noise.integers(1, 400)).astype(np.uint16)


def built(tokens: Tokens) -> CorpusIndex:
    parts = [*corpus_index.ordered_positions(tokens), np.zeros(0, np.uint32)]
    return CorpusIndex(tokens, np.concatenate(parts))


def searched(tokens: Tokens, text: list[int], count: int) -> tuple[list[list[int]], int]:
    """Returns what the index should find, by trying each position: the reference implementation."""
    whole = tokens.tolist()
    for same in range(min(DEPTH, len(text)), 0, -1):
        places = range(DEPTH, len(whole))
        found = [at for at in places if whole[at - same : at] == text[-same:]]
        if found:
            return [whole[at : at + count] for at in found], same
    return [], 0


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorts so few positions at once that a short corpus takes many groups."""
    monkeypatch.setattr(corpus_index, "SORTED_AT_ONCE", 64)
    monkeypatch.setattr(corpus_index, "SAMPLED", 64)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_finds_what_a_search_of_all_positions_finds(seed: int) -> None:
    tokens, noise = random_tokens(seed), np.random.default_rng(seed + 1000)
    index = built(tokens)
    for _ in range(50):
        start, size = noise.integers(0, len(tokens)), noise.integers(1, 12)
        text = tokens[start : start + size].tolist()
        if noise.random() < 0.5:
            text[noise.integers(0, len(text))] = int(noise.integers(0, 300))
        rows, same = index.followers(text, 5)
        wanted, longest = searched(tokens, text, 5)
        assert same == longest
        if len(wanted) <= MOST_PLACES:
            assert sorted(rows) == sorted(wanted)
        else:
            assert MOST_PLACES // 2 <= len(rows) <= MOST_PLACES
            assert all(row in wanted for row in rows)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.usefixtures("small_groups")
def test_positions_sorted_in_groups_are_in_the_order_of_what_is_before_them(seed: int) -> None:
    tokens = random_tokens(seed)
    whole = tokens.tolist()
    found = np.concatenate([*corpus_index.ordered_positions(tokens), np.zeros(0, np.uint32)])
    expected = sorted(range(DEPTH, len(whole)), key=lambda at: (whole[at - DEPTH : at][::-1], at))
    if len(set(whole)) > 1:
        assert found.tolist() == expected
    else:
        # Of a text of one token, only as many as are sorted at once.
        assert found.tolist() == expected[: 2 * corpus_index.SORTED_AT_ONCE]


def written_tokens(folder: Path, seed: int = 0) -> Path:
    path = folder / f"tokens-{seed}.u16"
    tokens = np.random.default_rng(seed).integers(0, 50, 5_000).astype(np.uint16)
    path.write_bytes(tokens.tobytes())
    token_files.append_digest(path)
    return path


def test_an_index_is_built_once(tmp_path: Path) -> None:
    tokens = written_tokens(tmp_path)
    first = load_index(tokens)
    (path,) = tmp_path.glob("*.index")
    before = path.stat().st_ino
    text = token_files.open_tokens(tokens)[100:108].tolist()
    assert load_index(tokens).followers(text, 3) == first.followers(text, 3)
    assert path.stat().st_ino == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["tokens-0.index", "tokens-0.u16"]


@pytest.mark.parametrize("damage", ["a byte", "its end", "all", "of another text", "a folder"])
def test_an_index_that_is_damaged_is_built_anew(damage: str, tmp_path: Path) -> None:
    tokens = written_tokens(tmp_path)
    load_index(tokens)
    path = tokens.with_suffix(".index")
    whole = path.read_bytes()
    if damage == "a byte":
        path.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    elif damage == "its end":
        path.write_bytes(whole[:-100])
    elif damage == "all":
        path.write_bytes(b"")
    elif damage == "of another text":
        (tmp_path / "other").mkdir()
        load_index(written_tokens(tmp_path / "other", 1))
        path.write_bytes((tmp_path / "other" / "tokens-1.index").read_bytes())
    else:
        path.unlink()
        path.mkdir()
        with pytest.raises(OutputError):
            load_index(tokens)
        return
    load_index(tokens)
    assert path.read_bytes() == whole


def test_a_token_file_that_is_gone_or_damaged_is_said(tmp_path: Path) -> None:
    tokens = written_tokens(tmp_path)
    with pytest.raises(MissingInputError, match=r"other\.u16 is missing"):
        load_index(tmp_path / "other.u16")
    content = tokens.read_bytes()
    tokens.write_bytes(content[:10] + b"??" + content[12:])
    with pytest.raises(BadDataError, match="is damaged"):
        load_index(tokens)
    tokens.write_bytes(b"")
    with pytest.raises(BadDataError, match="is damaged"):
        load_index(tokens)


def test_a_state_names_a_token_file_in_the_run_and_no_other(tmp_path: Path) -> None:
    expected = tmp_path / "tokens-0a1b.u16"
    for name in ("0a1b", "0a1b-9000"):
        assert corpus_index.token_file(tmp_path, name) == expected
    masked = tmp_path / "tokens-0a1b.masked.u16"
    assert corpus_index.token_file(tmp_path, "0a1b.masked-9000") == masked
    for name in ("", ".masked", "../0a1b.masked", "-7", "../../etc/0a1b", "/0a1b", "0a.1b"):
        assert corpus_index.token_file(tmp_path, name) is None


def test_an_index_of_anything_gives_guesses_and_never_fails() -> None:
    noise = np.random.default_rng(0)
    tokens = random_tokens(3)
    for _ in range(200):
        positions = noise.integers(0, 1 << 32, noise.integers(0, 50)).astype(np.uint32)
        positions[::2] %= len(tokens) + 1
        rows, same = CorpusIndex(tokens, positions).followers(tokens[5:9].tolist(), 4)
        assert 0 <= same <= 4
        assert all(len(row) <= 4 for row in rows)


def test_an_empty_corpus_and_a_tiny_one_have_no_followers(tmp_path: Path) -> None:
    for size in (0, 1, DEPTH):
        path = tmp_path / f"tokens-{size}.u16"
        path.write_bytes(np.zeros(size, np.uint16).tobytes())
        token_files.append_digest(path)
        assert load_index(path).followers([0, 0], 3) == ([], 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="its peak of memory is Linux's to say")
def test_the_index_of_a_hundred_megabytes_takes_little_time_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "tokens-large.u16"
    noise = np.random.default_rng(0)
    # The words of English: a rank's frequency falls with it.
    drawn = np.minimum(noise.zipf(1.3, ENGLISH_TOKENS), 50_000)
    path.write_bytes(drawn.astype(np.uint16).tobytes())
    token_files.append_digest(path)
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from gpt2cli.text import corpus_index\n"
        "before = time.process_time()\n"
        "index = corpus_index.load_index(Path(sys.argv[1]))\n"
        "status = Path('/proc/self/status').read_text()\n"
        "peak = status.partition('VmHWM:')[2].split()[0]\n"
        "print(time.process_time() - before, peak)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, memory = map(float, done.stdout.split())
    assert seconds < MOST_SECONDS
    assert memory * 1024 < MOST_MEMORY
