"""Guesses: what is looked up in a text, how many are worth a pass, and what is learned of them."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2cli.inference import decode
from gpt2cli.inference.cpu import sampling
from gpt2cli.inference.cpu.ops import AMX_COSTS, PASS_COSTS
from gpt2cli.inference.drafts import MOST_DRAFTED, Drafter, TextIndex, drawn
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.text.corpus_index import CorpusIndex, ordered_positions

VOCAB = 300
GREEDY = SamplingParams(temperature=0)


# Costs of passes: all take the same time; each that of its tokens; and between the two.
FREE, BOUND, USUAL = (1.0, 1.0), (1.0, 4.0, 8.0), (1.0, 1.6, 2.4)


def corpus_of(tokens: list[int]) -> CorpusIndex:
    array = np.array(tokens, np.uint16)
    return CorpusIndex(array, np.concatenate([*ordered_positions(array)]))


def drafter_of(text: list[int], corpus: list[int], costs: tuple[float, ...] = FREE) -> Drafter:
    drafter = Drafter(corpus_of(corpus), VOCAB, costs)
    drafter.begin([text], GREEDY)
    return drafter


def tokens_of(drafter: Drafter, room: int | None = MOST_DRAFTED) -> list[int]:
    (draft,) = drafter.draft([None if room is None else room * [0.5]])
    return draft


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
                for size in range(end, -1, -1)
                if size <= place and text[place - size : place] == text[end - size : end]
            )
            for place in range(1, end)
        }
        longest = max(ends.values())
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


def passes(drafter: Drafter, corpus: list[int], *, right: bool, count: int) -> list[int]:
    """Returns how many tokens are drafted in each pass at one place of a corpus."""
    sizes = []
    for _ in range(count):
        drafter.begin([corpus[10:20]], GREEDY)
        (draft,) = drafter.draft([[0.5] * MOST_DRAFTED])
        sizes.append(len(draft))
        drafter.learn([corpus[20 : 21 + len(draft)] if right else [99]])
    return sizes


def test_what_is_never_right_is_no_longer_drafted_until_it_would_have_been_right() -> None:
    corpus = list(range(100, 140))
    drafter = drafter_of(corpus[10:20], corpus, USUAL)
    wrong = passes(drafter, corpus, right=False, count=40)
    assert wrong[0] > 0
    assert not any(wrong[10:])
    right = passes(drafter, corpus, right=True, count=80)
    assert right[0] == 0
    assert right[-1] > wrong[0]


def test_where_no_guess_is_worth_it_fewer_and_fewer_are_looked_up() -> None:
    corpus = list(range(100, 140))
    drafter = drafter_of(corpus[10:20], corpus, USUAL)
    looked_up = 0
    for token in np.random.default_rng(0).choice(corpus, 100):
        drafter.draft([[0.5] * MOST_DRAFTED])
        looked_up += bool(drafter._guesses[0])
        drafter.learn([[int(token)]])
    assert 20 < looked_up < 50


def test_what_is_always_right_is_drafted_further() -> None:
    corpus = list(range(100, 280))
    drafter = drafter_of(corpus[:10], corpus, USUAL)
    sizes, place = [], 10
    while place < 150:
        (draft,) = drafter.draft([[0.5] * MOST_DRAFTED])
        sizes.append(len(draft))
        end = place + len(draft) + 1
        drafter.learn([corpus[place:end]])
        place = end
    assert max(sizes[-3:]) >= 2 * sizes[0] > 0


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("costs", [USUAL, AMX_COSTS, *PASS_COSTS.values()])
def test_guesses_end_where_no_more_of_them_would_be_drafted(
    costs: tuple[float, ...], rows: int
) -> None:
    noise = np.random.default_rng(0)
    corpus = [int(token) for token in noise.integers(0, 4, 2000).cumsum() % 40]
    early, whole = (Drafter(corpus_of(corpus), VOCAB, costs) for _ in range(2))
    whole._slopes = [0.0]
    early.begin([corpus[at : at + 6] for at in range(rows)], SamplingParams(temperature=0.7))
    whole.begin([[] for _ in range(rows)], SamplingParams(temperature=0.7))
    whole.texts, whole._weights, whole._rates = early.texts, early._weights, early._rates
    sizes: set[int] = set()
    fewer = 0
    for place in range(6, 300, 3):
        numbers = noise.random((rows, MOST_DRAFTED)).tolist()
        drafts = early.draft(numbers)
        assert drafts == whole.draft(numbers)
        fewer += sum(map(len, early._guesses)) < sum(map(len, whole._guesses))
        sizes.update(map(len, drafts))
        early.learn([corpus[place + at : place + at + 3] for at in range(rows)])
    assert len(sizes) > 1
    assert fewer > 10


def test_places_count_by_how_often_such_places_were_right() -> None:
    """The text repeats itself and the corpus says otherwise: after some passes the text wins."""
    text, corpus = [1, 2, 3, 4, 5, 6] * 3, [1, 2, 3, 4, 5, 99, 3, 98] * 9
    drafter = drafter_of(text, corpus)
    for token in text * 4:
        drafter.draft([[0.5]])
        drafter.learn([[token]])
    drafter.draft([[0.5]])
    drafter.learn([[1, 2, 3, 4, 5]])
    assert tokens_of(drafter, 1) == [6]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.4])
def test_the_random_number_of_a_token_draws_its_guess(temperature: float) -> None:
    """A model that gives tokens what the places say, sharpened as is expected of it."""
    counts = {7: 3, 20: 5, 31: 1, 250: 4}
    scores = np.full(VOCAB, -np.inf, np.float32)
    scores[list(counts)] = 1.4 * np.log(list(counts.values()))
    probabilities = sampling.softmax(scores / np.float32(temperature))
    found = set()
    for uniform, _ in zip(decode.random_stream(1, 0, 0), range(200), strict=False):
        token = drawn({t: float(c) for t, c in counts.items()}, uniform, temperature)
        assert token == sampling.draw(probabilities, uniform)
        found.add(token)
    assert found >= {7, 20, 250}


def test_without_a_temperature_the_guess_with_most_places_is_taken() -> None:
    assert {drawn({7: 0.3, 20: 0.5, 250: 0.4}, n / 20, 0.0) for n in range(20)} == {20}


def test_texts_side_by_side_share_what_a_pass_can_take() -> None:
    corpus = list(range(100, 140))
    drafter = Drafter(corpus_of(corpus), VOCAB, (1.0, 1.0, 1.0, 1.0, 1.0, 100.0))
    drafter.begin([corpus[:10], [1, 2, 3], corpus[5:15]], GREEDY)
    drafts = drafter.draft([[0.5] * MOST_DRAFTED] * 3)
    assert [len(draft) for draft in drafts][1] == 0
    assert 3 + sum(map(len, drafts)) <= 8
    assert drafts[0]
    assert drafts[2]
