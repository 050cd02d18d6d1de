"""Which files a corpus consists of: files, folders, globs; and that nothing is left out unsaid."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2cli.errors import BadDataError, MissingInputError, UsageError
from gpt2cli.text import finding, sources


def write(place: Path, *names: str) -> None:
    """Writes a text file of each name below a folder."""
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("text")


def read(place: Path, *patterns: str, own: tuple[str, ...] = ()) -> list[str]:
    """Returns the files below a folder that the patterns name there."""
    found = finding.find([str(place / pattern) for pattern in patterns], own=own)
    return [source.path.relative_to(place).as_posix() for source in found.files]


def skipped(place: Path, own: tuple[str, ...] = ()) -> dict[str, str]:
    """Returns what below a folder is skipped, and why."""
    found = finding.find([str(place)], own=own).skipped
    return {path.relative_to(place).as_posix(): reason for path, reason in found}


def test_folders_are_read_sorted_without_hidden_and_binary_files(tmp_path: Path) -> None:
    for name in ("z/1.txt", "a.md", ".git/config", "m/.hidden", "m/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "x.bin").write_bytes(b"\0\1\2")
    found = finding.find([str(tmp_path)])
    names = [source.path.relative_to(tmp_path).as_posix() for source in found.files]
    assert names == ["a.md", "m/b.txt", "z/1.txt"]
    skipped = {path.relative_to(tmp_path).as_posix() for path, _ in found.skipped}
    assert skipped == {".git", "m/.hidden", "x.bin"}


def test_globs_are_sorted_and_may_be_recursive(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    found = finding.find([f"{tmp_path}/**/*.txt"]).files
    assert [source.path.name for source in found] == ["a.txt", "b.txt", "c.txt"]


def test_a_name_with_glob_letters_is_a_file_first(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("text")
    assert finding.find([f"{tmp_path}/a[1].txt"]).files == (sources.Source(tmp_path / "a[1].txt"),)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"nowhere\.txt"):
        finding.find([f"{tmp_path}/nowhere.txt"])


def test_a_binary_file_that_was_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\0")
    with pytest.raises(BadDataError, match=r"x\.png is binary"):
        finding.find([f"{tmp_path}/x.png"])


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\0\1\2")
    with pytest.raises(BadDataError, match="no text files in there"):
        finding.find([str(tmp_path)])


def test_empty_files_alone_are_refused(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(BadDataError, match=r"a\.txt and 1 more: empty"):
        finding.find([str(tmp_path)])
    (tmp_path / "b.txt").write_text("text")
    assert len(finding.find([str(tmp_path)]).files) == 2


def test_a_zipped_binary_file_is_binary_and_a_zipped_text_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text"))
    (tmp_path / "b.bin.gz").write_bytes(gzip.compress(b"\0\1"))
    found = finding.find([str(tmp_path)])
    assert [source.path.name for source in found.files] == ["a.txt.gz"]
    assert [path.name for path, _ in found.skipped] == ["b.bin.gz"]


def test_utf_16_is_not_taken_for_binary_where_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("text".encode("utf-16"))
    with pytest.raises(BadDataError, match="binary"):
        finding.find([str(path)])
    assert finding.find([str(path)], "utf-16").files == (sources.Source(path),)


def test_stdin_named_twice_is_refused() -> None:
    for names in (["-", "-"], ["-", "/dev/stdin"]):
        with pytest.raises(UsageError, match="stdin is given twice"):
            list(finding.announce_streams(names))


def test_a_link_to_a_folder_is_followed_once_and_a_loop_is_found(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write(corpus, "a.txt", "deep/c.txt")
    write(tmp_path, "elsewhere/b.txt")
    (corpus / "link").symlink_to(tmp_path / "elsewhere")
    (corpus / "same").symlink_to("link")
    (corpus / "deep" / "loop").symlink_to(corpus)
    assert read(corpus, ".") == ["a.txt", "deep/c.txt", "link/b.txt"]
    assert skipped(corpus) == {
        "deep/loop": f"the same folder as {corpus}",
        "same": f"the same folder as {corpus / 'link'}",
    }
    assert read(corpus, "**/*.txt") == ["a.txt", "deep/c.txt", "link/b.txt"]


@pytest.mark.parametrize("target", ["nowhere", "link.txt"])
def test_a_link_that_leads_nowhere_is_refused(target: str, tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    (tmp_path / "link.txt").symlink_to(target)
    for pattern in (".", "link.txt", "*.txt", "**/*.txt"):
        with pytest.raises(MissingInputError, match=r"link\.txt"):
            read(tmp_path, pattern)
    # What is not asked for does no harm.
    assert read(tmp_path, "a.*") == ["a.txt"]


UNPRIVILEGED = "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"
PROGRAM = """
import sys
from gpt2cli.text import finding
try:
    print([str(source) for source in finding.find(sys.argv[1:]).files])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("pattern", ["corpus", "corpus/**/*.txt", "corpus/*/*.txt"])
def test_a_folder_that_cannot_be_read_is_refused(pattern: str, tmp_path: Path) -> None:
    write(tmp_path, "corpus/a.txt", "corpus/more/b.txt")
    (tmp_path / "corpus" / "more").chmod(0)
    done = subprocess.run(
        ["setpriv", *UNPRIVILEGED, sys.executable, "-c", PROGRAM, pattern],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "corpus" / "more").chmod(0o700)
    assert done.stdout.startswith("MissingInputError corpus/more cannot be read: Permission denied")


def test_nothing_in_the_folders_of_models_and_runs_is_corpus(tmp_path: Path) -> None:
    write(tmp_path, "story.txt", "models/tiny/encoder.txt", "checkpoint/run1/samples/s.txt")
    (tmp_path / "link").symlink_to("models/tiny")
    (tmp_path / "file.txt").symlink_to("checkpoint/run1/samples/s.txt")
    own = (f"{tmp_path}/models", f"{tmp_path}/checkpoint")
    assert read(tmp_path, ".", own=own) == ["story.txt"]
    assert read(tmp_path, "*", own=own) == ["story.txt"]
    assert read(tmp_path, "**/*.txt", own=own) == ["story.txt"]
    assert read(tmp_path, "story.txt", "models", "checkpoint", own=own) == ["story.txt"]
    assert skipped(tmp_path, own) == dict.fromkeys(
        ["checkpoint", "file.txt", "link", "models"], "gpt2cli's own"
    )


def test_what_is_named_inside_of_them_is_read(tmp_path: Path) -> None:
    write(tmp_path, "models/tiny/a.txt", "checkpoint/run1/samples/s.txt", "texts/t.txt")
    own = (f"{tmp_path}/models", f"{tmp_path}/checkpoint")
    assert read(tmp_path, "checkpoint/run1/samples", own=own) == ["checkpoint/run1/samples/s.txt"]
    assert read(tmp_path, "models/tiny/a.txt", own=own) == ["models/tiny/a.txt"]
    assert read(tmp_path, "checkpoint/*/samples/*", own=own) == ["checkpoint/run1/samples/s.txt"]
    # Runs may be kept where everything is.
    assert read(tmp_path, "texts", own=(str(tmp_path),)) == ["texts/t.txt"]
    with pytest.raises(BadDataError, match=r"no text files in there .*gpt2cli's own"):
        read(tmp_path, ".", own=(str(tmp_path),))


def test_a_pipe_and_a_socket_in_a_folder_are_skipped_and_named(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    os.mkfifo(tmp_path / "pipe")
    assert read(tmp_path, ".") == ["a.txt"]
    assert skipped(tmp_path) == {"pipe": "neither a file nor a folder"}


def test_a_file_below_a_folder_that_a_glob_matches_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "deep/b.txt")
    for pattern in ("**", "*", "**/*"):
        assert read(tmp_path, pattern) == ["a.txt", "deep/b.txt"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_told_with_or_without_its_mark(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Verse 1: the cat\n".encode(encoding))
    name = encoding[:6]
    with pytest.raises(BadDataError, match=f"text in {name}: give --encoding {name}"):
        finding.find([str(tmp_path / "a.txt")])
    (tmp_path / "b.txt").write_text("text")
    assert f"--encoding {name}" in skipped(tmp_path)["a.txt"]


def test_a_long_name_with_a_globs_letters_is_a_glob(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    with pytest.raises(MissingInputError, match="no glob that matches"):
        read(tmp_path, "a*" * 200)
    assert sources.source_of(str(tmp_path)).path == tmp_path
