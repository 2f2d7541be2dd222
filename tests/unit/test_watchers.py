"""Who watches jobs that are not in memory: ranges of ids for each client."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobd.scheduler.watchers import Watchers

SPANS = st.tuples(st.integers(1, 40), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair)))
ADDED = st.lists(st.tuples(st.sampled_from([b"a", b"b"]), SPANS), max_size=12)


def watched(watchers: Watchers, low: int = 1, high: int = 100) -> set[tuple[bytes, int]]:
    """Return each peer with each job that it watches."""
    return {
        (peer, number)
        for peer, first, last in watchers.within(low, high)
        for number in range(first, last + 1)
    }


def test_submits_that_follow_on_each_other_are_one_range() -> None:
    """A million watched jobs of one client must not take a million entries."""
    watchers = Watchers()
    for first in range(1, 1001, 10):
        watchers.add(b"a", first, first + 9)
    assert list(watchers.within(1, 5000)) == [(b"a", 1, 1000)]


def test_only_the_part_that_is_asked_for_is_told() -> None:
    """Both ends of a range are cut to the question."""
    watchers = Watchers()
    watchers.add(b"a", 10, 20)
    assert list(watchers.within(15, 17)) == [(b"a", 15, 17)]
    assert list(watchers.within(1, 9)) == []
    assert list(watchers.within(20, 99)) == [(b"a", 20, 20)]


def test_each_client_has_its_own_ranges() -> None:
    """One that goes takes only its own with it."""
    watchers = Watchers()
    watchers.add(b"a", 1, 3)
    watchers.add(b"b", 2, 4)
    watchers.forget(b"a")
    watchers.forget(b"never seen")
    assert watched(watchers) == {(b"b", 2), (b"b", 3), (b"b", 4)}


def test_nothing_is_kept_of_what_lies_behind() -> None:
    """A client whose ranges are all over takes no memory."""
    watchers = Watchers()
    watchers.add(b"a", 1, 3)
    watchers.add(b"b", 1, 5)
    watchers.drop_below(4)
    assert watchers._ranges.keys() == {b"b"}
    watchers.clear()
    assert not watchers._ranges


@given(ADDED, st.integers(1, 50), st.integers(1, 50))
def test_every_watched_job_is_found_and_no_other(
    added: list[tuple[bytes, tuple[int, int]]], low: int, high: int
) -> None:
    """In whatever order jobs are watched, singly, twice, or in overlapping ranges."""
    watchers = Watchers()
    for peer, (first, last) in added:
        watchers.add(peer, first, last)
    expected = {(peer, n) for peer, (first, last) in added for n in range(first, last + 1)}
    assert watched(watchers, low, high) == {(p, n) for p, n in expected if low <= n <= high}
    watchers.drop_below(low)
    assert {(p, n) for p, n in watched(watchers) if n >= low} == {
        (p, n) for p, n in expected if n >= low
    }
