"""What ``map`` submits ahead of whoever takes the results: how far, in which messages, and errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.client.ahead import BULK, FIRST_BULK, LONG, ROOM, Ahead
from jobd.model.errors import UsageError


class Source:
    """Items, of which it is known how many were read."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self.read = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self.read += 1
        return item


class Submits:
    """Takes calls, and hands back their arguments as if those were the results."""

    def __init__(self, refuse: object = None) -> None:
        self.sizes: list[int] = []
        self._refuse = refuse

    def __call__(self, calls: list[tuple[Any]]) -> list[Any]:
        """Submit."""
        found = [item for (item,) in calls]
        if self._refuse in found:
            raise UsageError("an argument cannot travel")
        self.sizes.append(len(found))
        return found


def taken(ahead: Ahead[Any], most: int = 10**9) -> list[Any]:
    """Take what there is, up to so many."""
    found: list[Any] = []
    while ahead.has_more and len(found) < most:
        found.append(ahead.take())
    return found


@given(st.integers(0, 60), st.integers(1, 70))
def test_no_more_are_submitted_than_have_room(length: int, room: int) -> None:
    """At any time; and all come, in order."""
    source, submits = Source(range(length)), Submits()
    ahead = Ahead(source, submits, room)
    assert source.read == min(length, room)
    for number in range(length):
        assert ahead.has_more
        assert ahead.take() == number
        assert source.read - (number + 1) <= room
        assert source.read > number + 1 or number + 1 == length, (
            "nobody waits for what is not there"
        )
    assert not ahead.has_more
    assert sum(submits.sizes) == source.read == length


def test_one_after_the_other() -> None:
    """With room for one the next is submitted when the one before it is taken, before it is waited for."""
    source = Source(count())
    ahead = Ahead(source, Submits(), 1)
    for number in range(5):
        assert source.read == number + 1
        assert ahead.take() == number


def test_what_knows_its_length_is_submitted_as_a_whole() -> None:
    """Nobody need take anything; the first messages are short, so that workers begin."""
    submits = Submits()
    Ahead(range(30_000), submits, None)
    assert sum(submits.sizes) == 30_000
    assert submits.sizes[:3] == [FIRST_BULK, 2 * FIRST_BULK, 4 * FIRST_BULK]
    assert max(submits.sizes) == BULK


@pytest.mark.parametrize("items", [count(), iter(range(LONG + 1)), (n for n in range(10**9))])
def test_of_what_is_endless_or_very_long_so_many_are(items: Iterable[int]) -> None:
    """As many as keep the workers busy; then some at a time, never one by one."""
    submits = Submits()
    ahead = Ahead(items, submits, None)
    assert sum(submits.sizes) == ROOM
    started = len(submits.sizes)
    assert taken(ahead, 3 * ROOM) == list(range(3 * ROOM))
    assert sum(submits.sizes) <= 4 * ROOM
    assert len(submits.sizes) - started <= 30


def test_a_length_that_is_wrong_loses_nothing() -> None:
    """It is a hint."""

    class Wrong(Source):
        def __length_hint__(self) -> int:
            return 3

    assert taken(Ahead(Wrong(range(100)), Submits(), None)) == list(range(100))


def failing(after: int) -> Iterator[int]:
    """Some items, then an error."""
    yield from range(after)
    raise LookupError("no more")


def test_an_error_of_the_iterable_comes_at_once_if_it_is_there_at_once() -> None:
    """As from a list comprehension; what came before it is submitted."""
    submits = Submits()
    with pytest.raises(LookupError, match="no more"):
        Ahead(failing(7), submits, 10)
    assert submits.sizes == [7]


def test_a_later_error_comes_behind_the_results_before_it() -> None:
    """Once: whoever asks again is told that there is no more."""
    ahead = Ahead(failing(25), Submits(), 10)
    assert taken(ahead, 25) == list(range(25))
    assert ahead.has_more
    with pytest.raises(LookupError, match="no more"):
        ahead.take()
    assert not ahead.has_more


def test_a_call_that_is_refused_ends_it_behind_the_results_before_it() -> None:
    """The message that it was in is not sent."""
    source = Source(range(100))
    ahead = Ahead(source, Submits(refuse=23), 4)
    found = []
    with pytest.raises(UsageError, match="cannot travel"):
        while True:
            found.append(ahead.take())
    assert found == list(range(23))
    assert source.read == 24
    with pytest.raises(UsageError, match="cannot travel"):
        Ahead(range(100), Submits(refuse=23), None)


@pytest.mark.parametrize("buffersize", [0, -1, 1.5, "10", True])
def test_a_buffer_without_room_is_refused(buffersize: Any) -> None:
    """And nothing is read."""
    source = Source(range(3))
    with pytest.raises(UsageError, match="is no buffersize"):
        Ahead(source, Submits(), buffersize)
    assert source.read == 0
