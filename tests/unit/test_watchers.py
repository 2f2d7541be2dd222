"""Who is told of the ends of jobs that are not in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobd.scheduler.watchers import Watchers


def test_ids_that_follow_on_each_other_are_one_range() -> None:
    """A million watched submits of one client cost one entry."""
    watchers = Watchers()
    for number in range(1, 1001):
        watchers.add(b"a", number, number)
    assert list(watchers.within(1, 2000)) == [(b"a", 1, 1000)]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(1, 60), st.integers(0, 9))))
def test_what_is_watched_is_found_and_nothing_else(added: list[tuple[bytes, int, int]]) -> None:
    """Whatever the order, overlaps included."""
    watchers = Watchers()
    expected = set()
    for peer, first, more in added:
        watchers.add(peer, first, first + more)
        expected |= {(peer, number) for number in range(first, first + more + 1)}
    found = {(p, n) for p, low, high in watchers.within(20, 40) for n in range(low, high + 1)}
    assert found == {(peer, number) for peer, number in expected if 20 <= number <= 40}


def test_a_peer_that_is_gone_and_jobs_that_were_loaded_are_forgotten() -> None:
    """Nothing is kept that nobody will ask for."""
    watchers = Watchers()
    watchers.add(b"a", 1, 10)
    watchers.add(b"b", 5, 20)
    watchers.forget(b"a")
    assert list(watchers.within(1, 30)) == [(b"b", 5, 20)]
    watchers.drop_below(21)
    assert list(watchers.within(1, 30)) == []
