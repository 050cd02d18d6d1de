"""Guesses: what is looked up in a text, how many are worth a pass, and what is learned of them."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2cli.inference.drafts import IDLE_PASSES, LEAST_SAME, MOST_DRAFTED, Drafter, TextIndex
from gpt2cli.text.corpus_index import DEPTH, CorpusIndex, ordered_positions

VOCAB = 300


# Costs of passes: all take the same time; each that of its tokens; and between the two.
FREE, BOUND, USUAL = (1.0, 1.0), (1.0, 4.0, 8.0), (1.0, 1.6, 2.4)


def corpus_of(tokens: list[int]) -> CorpusIndex:
    array = np.array(tokens, np.uint16)
    return CorpusIndex(array, np.concatenate([*ordered_positions(array)]))


def drafter_of(text: list[int], corpus: list[int], costs: tuple[float, ...] = FREE) -> Drafter:
    drafter = Drafter(corpus_of(corpus), VOCAB, costs)
    drafter.begin([text])
    return drafter


def tokens_of(drafter: Drafter, room: int | None = MOST_DRAFTED) -> list[int]:
    (draft,) = drafter.draft([room])
    return [guess.token for guess in draft]


@pytest.mark.parametrize("seed", range(30))
def test_a_text_finds_where_its_longest_end_occurs_before(seed: int) -> None:
    noise = np.random.default_rng(seed)
    text = noise.integers(0, noise.choice([1, 2, 4, 9]), 40).tolist()
    index = TextIndex(text[:10])
    for end in range(10, 40):
        rows, same = index.followers(3)
        ends = {
            place: next(
                size
                for size in range(DEPTH, -1, -1)
                if size <= place and text[place - size : place] == text[end - size : end]
            )
            for place in range(LEAST_SAME, end)
        }
        longest = max(size if size >= LEAST_SAME else 0 for size in ends.values())
        assert same == longest
        if same:
            wanted = [text[:end][at : at + 3] for at, size in ends.items() if size == longest]
            assert all(row in wanted for row in rows)
            assert rows[-1] == wanted[-1]
        index.add(text[end])


def test_what_the_corpus_says_is_drafted_up_to_the_room_that_there_is() -> None:
    corpus = list(range(100, 140))
    drafter = drafter_of([5, *corpus[10:20]], corpus)
    assert tokens_of(drafter, 3) == corpus[20:23]
    assert tokens_of(drafter, 0) == []
    assert tokens_of(drafter, None) == []


def test_of_many_places_the_most_frequent_token_is_drafted() -> None:
    same = [11, 12, 13, 14, 15, 16, 17, 18]
    few, many = [*same, 50, 51], [*same, 60, 61]
    drafter = drafter_of(same, few * 4 + many * 9)
    assert tokens_of(drafter, 2) == [60, 61]


def test_tokens_that_the_model_has_not_are_never_drafted() -> None:
    corpus = [*range(100, 112), VOCAB, 7, 8]
    drafter = drafter_of(corpus[2:11], corpus)
    assert tokens_of(drafter) == [111]


def test_nothing_is_drafted_if_a_pass_takes_the_time_of_its_tokens() -> None:
    corpus = list(range(100, 140))
    assert tokens_of(drafter_of(corpus[10:20], corpus, BOUND)) == []


def test_what_is_never_right_is_no_longer_drafted_but_tried_again_at_times() -> None:
    corpus, wrong = list(range(100, 140)), 99
    drafter = drafter_of(corpus[10:20], corpus, USUAL)
    passes = []
    for _ in range(4 * IDLE_PASSES):
        (draft,) = drafter.draft([MOST_DRAFTED])
        passes.append(len(draft))
        drafter.learn([(draft, [wrong] if draft else [])])
        # The text is always at the same place.
        drafter.begin([corpus[10:20]])
    assert passes[0] > 0
    assert sum(map(bool, passes[:IDLE_PASSES])) < IDLE_PASSES // 4
    assert any(passes[-IDLE_PASSES:])
    assert sum(map(bool, passes)) < len(passes) // 8


def test_what_is_always_right_is_drafted_further() -> None:
    corpus = list(range(100, 280))
    drafter = drafter_of(corpus[:10], corpus, USUAL)
    sizes, place = [], 10
    while place < 150:
        (draft,) = drafter.draft([MOST_DRAFTED])
        sizes.append(len(draft))
        end = place + len(draft) + 1
        drafter.learn([(draft, corpus[place:end])])
        place = end
    assert max(sizes[-3:]) >= 2 * sizes[0] > 0


def test_texts_side_by_side_share_what_a_pass_can_take() -> None:
    corpus = list(range(100, 140))
    drafter = Drafter(corpus_of(corpus), VOCAB, (1.0, 1.0, 1.0, 100.0))
    drafter.begin([corpus[:10], [1, 2, 3], corpus[5:15]])
    drafts = drafter.draft([MOST_DRAFTED, MOST_DRAFTED, MOST_DRAFTED])
    assert [len(draft) for draft in drafts][1] == 0
    assert 3 + sum(map(len, drafts)) <= 8
    assert drafts[0]
    assert drafts[2]
