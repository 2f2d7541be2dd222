"""Selectors: the words of a command line that say which jobs are meant."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobd.model.errors import UsageError
from jobd.model.messages import encode
from jobd.model.selector import Selection, Selector, parse_selector, select
from jobd.model.states import NAMES, State

NUMBERS = st.integers(1, 10**18 - 1)
RANGES = st.tuples(NUMBERS, NUMBERS)
STATES = st.lists(st.sampled_from(list(State)), max_size=3, unique=True)
NEARLY = st.text(string.digits + "-,: laste²\u0661", max_size=12)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["42"], Selector([(42, 42)])),
        (["40-45"], Selector([(40, 45)])),
        (["40-45,50"], Selector([(40, 45), (50, 50)])),
        (["1", "2", "3-4"], Selector([(1, 1), (2, 2), (3, 4)])),
        ([" 1 , 2 "], Selector([(1, 1), (2, 2)])),
        (["1,,2,"], Selector([(1, 1), (2, 2)])),
        (["7-7"], Selector([(7, 7)])),
        (["007"], Selector([(7, 7)])),
        (["last"], Selector(last=1)),
        (["last:3"], Selector(last=3)),
        (["last:3", "last", "last:2"], Selector(last=3)),
        (["all"], Selector(all=True)),
        (["5", "last"], Selector([(5, 5)], last=1)),
    ],
)
def test_words_become_a_selector(texts: list[str], expected: Selector) -> None:
    """Ids, ranges with both ends, the newest ones, all; separated by commas or as several words."""
    assert parse_selector(texts, []) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("x", "0", "-1", "1-", "-", "--", "1-2-3", "1.5", "last:", "last:0", "last:x", "last3"),
        *("ALL", "all:1", "1;2", "1 2", "+1", "1_000", "²", "\u0661", "9" * 19, "1-0", "@job:1"),
    ],
)
def test_what_is_no_selector_is_refused_and_quoted(text: str) -> None:
    """The message shows the word, the hint shows what would do."""
    with pytest.raises(UsageError) as caught:
        parse_selector(["1", text], [])
    assert repr(text) in caught.value.message
    assert "40-45" in caught.value.hint
    assert caught.value.code == 2


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    """A slip of the finger must select neither nothing nor far too much."""
    with pytest.raises(UsageError, match="'45-4' ends before it begins") as caught:
        parse_selector(["45-4"], [])
    assert "4-45" in caught.value.hint


@pytest.mark.parametrize("texts", [[], [""], [" , "]])
def test_no_word_selects_nothing(texts: list[str]) -> None:
    """To cancel nothing by mistake is better than to cancel all."""
    with pytest.raises(UsageError, match="no job is selected"):
        parse_selector(texts, [])


def test_a_state_alone_means_all_jobs_in_it() -> None:
    """``-s failed`` needs no ``all``."""
    assert parse_selector([], ["failed"]) == Selector(all=True, states=[State.FAILED])


@pytest.mark.parametrize(
    "texts", [["failed,crashed"], ["failed", "crashed"], [" failed , crashed", "failed"]]
)
def test_several_states_are_one_word_or_several(texts: list[str]) -> None:
    """Each counts once."""
    assert parse_selector([], texts).states == [State.FAILED, State.CRASHED]


@pytest.mark.parametrize("text", ["failed,dead", "failed,", "", "failed;crashed"])
def test_one_state_that_is_none_is_refused(text: str) -> None:
    """The others are fine, and yet that was meant otherwise."""
    with pytest.raises(UsageError, match="is not a state"):
        parse_selector([], [text])


def test_a_state_narrows_what_is_selected() -> None:
    """Both must hold."""
    expected = Selector([(1, 9)], states=[State.FAILED, State.CRASHED])
    assert parse_selector(["1-9"], ["failed", "crashed"]) == expected


def test_an_unknown_state_is_refused_with_those_there_are() -> None:
    """The hint lists every state."""
    with pytest.raises(UsageError, match="'broken' is not a state") as caught:
        parse_selector(["1"], ["broken"])
    assert all(name in caught.value.hint for name in NAMES.values())


@given(st.lists(RANGES, min_size=1, max_size=5), STATES)
def test_a_written_selector_reads_as_it_was_meant(
    ranges: list[tuple[int, int]], states: list[State]
) -> None:
    """Whatever the ids and ranges are, in whatever order they come."""
    ordered = [(min(pair), max(pair)) for pair in ranges]
    words = [f"{low}-{high}" if low != high else f"{low}" for low, high in ordered]
    selector = parse_selector([",".join(words)], [NAMES[state] for state in states])
    assert selector == Selector(ordered, states=states)


@given(st.lists(NEARLY, max_size=4))
@example(["1-2", "last:\u0663"])
@example(["9-1"])
def test_any_text_is_a_selector_or_a_usage_error(texts: list[str]) -> None:
    """Never anything else, and never a number that the protocol cannot carry."""
    try:
        selector = parse_selector(texts, [])
    except UsageError as error:
        assert error.message
    else:
        assert selector.ranges or selector.last or selector.all
        assert all(0 < low <= high for low, high in selector.ranges)
        assert encode([selector])


class _Handle:
    id = 7


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (42, Selector([(42, 42)])),
        (_Handle(), Selector([(7, 7)])),
        ([1, _Handle()], Selector([(1, 1), (7, 7)])),
        (range(3, 5), Selector([(3, 3), (4, 4)])),
        ("40-45,50", Selector([(40, 45), (50, 50)])),
        ("last:3", Selector([], 3)),
        (Selector([(1, 2)]), Selector([(1, 2)])),
    ],
)
def test_python_says_jobs_as_people_do(said: Selection, meant: Selector) -> None:
    """By id, by what stands for a job, several of them, or in the words of the command line."""
    assert select(said) == meant


@pytest.mark.parametrize("said", [0, -1, True, 1.5, None, [], ["x"], [None], "x", ""])
def test_what_is_no_job_is_refused(said: Any) -> None:
    """One sentence, before anything is sent."""
    with pytest.raises(UsageError) as caught:
        select(said)
    assert caught.value.hint
