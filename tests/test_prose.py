"""The package's prose, and the list of phrases that it avoids."""

from __future__ import annotations

import pytest

from tests import prose


def test_no_phrase_to_avoid_is_left() -> None:
    found = [one for path in prose.files(prose.default()) for one in prose.found_in(path)]
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize(
    "text",
    [
        "Returns the folder where runs are kept.",
        "Says where the file is, or that there is no file.",
        "path: where its bytes go.",
        "Where the file is, for a message.",
        "The loop continues where it was interrupted.",
        "Leaves other files alone.",
        "There is no GPU, so TensorFlow's CPU kernels run.",
        "There are so many tokens that memory is short.",
        "The length of the file's name.",
        "Rows of an engine's own kind.",
        "Run `what is told` again.",
    ],
)
def test_plain_english_passes(text: str) -> None:
    assert list(prose.phrases(text)) == []


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("Returns the loss, or None where there is none.", "if"),
        ("Where XLA fails, TensorFlow's kernels run.", "if"),
        ("It stops. Where nothing is left, it ends.", "if"),
        ("What `finetune` can be told.", "say who tells whom"),
        ("A file that is\n    no checkpoint.", "say what it is not"),
        ("Stops after so many steps.", "give the number a name"),
        ("The file is read once more.", "again"),
        ("A type of TensorFlow's.", "X's, or of X"),
        ("Prints errors alone.", "only"),
        ("The file lies in the folder.", "is"),
        ("It is shown only where it was asked for.", "if"),
        ("What an error of Typer's says.", "X's, or of X"),
        ("A folder of the user's own.", "X's, or of X"),
    ],
)
def test_phrases_to_avoid_are_found(text: str, advice: str) -> None:
    assert [found for _, _, found in prose.phrases(text)] == [advice]


def test_a_phrase_is_reported_with_its_line() -> None:
    source = '"""First.\n\nSecond, which\nis told.\n"""\n# A comment\n# that lies\n'
    lines = {
        first + text.count("\n", 0, place): phrase
        for first, text in prose.texts_of_python(source)
        for place, phrase, _ in prose.phrases(text)
    }
    assert lines == {4: "is told", 7: "lies"}
