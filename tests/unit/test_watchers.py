"""Who watches jobs that are not in memory: ranges of ids for each client."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from jobd.scheduler.watchers import Watched, Watchers

SPANS = st.tuples(st.integers(1, 40), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair)))
ADDED = st.lists(st.tuples(st.sampled_from([b"a", b"b"]), SPANS), max_size=12)


def each(found: list[Watched]) -> set[tuple[bytes, int]]:
    """Return each peer with each job that it watches; none may be told twice."""
    pairs = [(peer, n) for peer, first, last in found for n in range(first, last + 1)]
    assert len(pairs) == len(set(pairs))
    return set(pairs)


def test_submits_that_follow_on_each_other_are_one_range() -> None:
    """A million watched jobs of one client must not take a million entries."""
    watchers = Watchers()
    for first in range(1, 1001, 10):
        watchers.add(b"a", first, first + 9)
    assert len(watchers) == 1
    assert watchers.take(1, 5000) == [(b"a", 1, 1000)]


def test_jobs_that_are_left_to_the_store_newest_first_are_one_range() -> None:
    """As when somebody holds a million of them: a selector goes from the newest to the oldest."""
    watchers = Watchers()
    for number in range(1000, 0, -1):
        watchers.add(b"a", number, number)
    assert len(watchers) == 1


def test_only_the_part_that_is_asked_for_is_taken() -> None:
    """Both ends of a range stay where the question does not cover them."""
    watchers = Watchers()
    watchers.add(b"a", 10, 20)
    assert watchers.take(15, 17) == [(b"a", 15, 17)]
    assert watchers.take(1, 9) == []
    assert watchers.take(20, 99) == [(b"a", 20, 20)]
    assert watchers.take(1, 99) == [(b"a", 10, 14), (b"a", 18, 19)]


def test_each_client_has_its_own_ranges() -> None:
    """One that goes takes only its own with it."""
    watchers = Watchers()
    watchers.add(b"a", 1, 3)
    watchers.add(b"b", 2, 4)
    watchers.forget(b"a")
    watchers.forget(b"never seen")
    assert watchers.take(1, 9) == [(b"b", 2, 4)]


def test_nothing_is_kept_of_a_client_that_watches_nothing_any_more() -> None:
    """A client whose ranges were all taken takes no memory."""
    watchers = Watchers()
    watchers.add(b"a", 1, 3)
    watchers.add(b"b", 1, 5)
    watchers.take(1, 3)
    assert watchers._ranges.keys() == {b"b"}


@given(ADDED, st.integers(1, 50), st.integers(1, 50))
def test_every_watched_job_is_found_once_and_no_other(
    added: list[tuple[bytes, tuple[int, int]]], low: int, high: int
) -> None:
    """In whatever order jobs are watched, singly, twice, or in overlapping ranges."""
    watchers = Watchers()
    for peer, (first, last) in added:
        watchers.add(peer, first, last)
        for ranges in watchers._ranges.values():
            assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))
    expected = {(peer, n) for peer, (first, last) in added for n in range(first, last + 1)}
    asked = {(peer, n) for peer, n in expected if low <= n <= high}
    assert each(watchers.take(low, high)) == asked
    assert each(watchers.take(1, 100)) == expected - asked
