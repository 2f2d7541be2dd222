"""Which jobs a command means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.model.errors import UsageError
from jobd.model.selector import Selector, parse_selector
from jobd.model.states import State


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["42"], Selector([(42, 42)])),
        (["40-45,50"], Selector([(40, 45), (50, 50)])),
        (["4", "5"], Selector([(4, 4), (5, 5)])),
        (["last"], Selector([], 1)),
        (["last:3"], Selector([], 3)),
        (["all"], Selector([], 0, all=True)),
    ],
)
def test_each_form_is_understood(words: list[str], expected: Selector) -> None:
    """Ids, ranges, lists, the newest ones, and all."""
    assert parse_selector(words, []) == expected


def test_states_alone_mean_all_jobs_in_them() -> None:
    """A filter without ids looks at every job."""
    assert parse_selector([], ["failed"]) == Selector([], 0, all=True, states=[State.FAILED])


@pytest.mark.parametrize(
    "word", ["0", "-3", "x", "1.5", "last:", "last:0", "\u0661", "9" * 30, "1-"]
)
def test_what_is_no_selector_is_refused_with_a_hint(word: str) -> None:
    """One sentence that quotes the word, and what to write instead."""
    with pytest.raises(UsageError) as caught:
        parse_selector([word], [])
    assert caught.value.hint


def test_nothing_and_unknown_states_are_refused() -> None:
    """An empty selection is a mistake, and so is a state that does not exist."""
    with pytest.raises(UsageError, match="no job is selected"):
        parse_selector([], [])
    with pytest.raises(UsageError, match="'done' is not a state"):
        parse_selector(["1"], ["done"])


@given(st.lists(st.text(max_size=20), max_size=4))
def test_any_words_parse_or_are_refused(words: list[str]) -> None:
    """Nothing else than UsageError ever comes out."""
    try:
        selector = parse_selector(words, [])
    except UsageError:
        return
    assert selector.ranges or selector.last or selector.all
