"""Who is to be told of the ends of jobs that are not in memory.

Jobs in memory carry their watchers themselves.  For those in the store only (the
backlog, what waits for others or for its time) there are ranges of ids, because
clients watch what they have submitted and ids follow on each other: a million
watched jobs of one client are one range.  Whoever brings a job into memory takes its
watchers out of here.
"""

from __future__ import annotations

from bisect import bisect_left

Watched = tuple[bytes, int, int]
"""A peer, and the first and the last of the jobs that it watches."""


class Watchers:
    """Ranges of job ids, for each peer: in order, and none touches the next."""

    def __init__(self) -> None:
        self._ranges: dict[bytes, list[tuple[int, int]]] = {}

    def __len__(self) -> int:
        """How many ranges there are."""
        return sum(map(len, self._ranges.values()))

    def add(self, peer: bytes, first: int, last: int) -> None:
        """Watch the jobs ``first`` to ``last`` for this peer."""
        ranges = self._ranges.setdefault(peer, [])
        if not ranges or first > ranges[-1][1] + 1:
            ranges.append((first, last))
            return
        begins, ends = ranges[-1]
        if first == ends + 1:  # as nearly all do
            ranges[-1] = (begins, last)
            return
        start, end = _span(ranges, first - 1, last + 1)
        if start < end:  # they overlap, or touch: they become one
            first, last = min(first, ranges[start][0]), max(last, ranges[end - 1][1])
        ranges[start:end] = [(first, last)]

    def take(self, low: int, high: int) -> list[Watched]:
        """Take out what is watched of the jobs ``low`` to ``high``."""
        found: list[Watched] = []
        emptied = []
        for peer, ranges in self._ranges.items() if low <= high else ():
            start, end = _span(ranges, low, high)
            if start == end:
                continue
            found += [(peer, max(a, low), min(b, high)) for a, b in ranges[start:end]]
            first, last = ranges[start][0], ranges[end - 1][1]
            before = [(first, low - 1)] if first < low else []
            ranges[start:end] = before + ([(high + 1, last)] if last > high else [])
            if not ranges:
                emptied.append(peer)
        for peer in emptied:
            del self._ranges[peer]
        return found

    def forget(self, peer: bytes) -> None:
        """Drop all that this peer watches."""
        self._ranges.pop(peer, None)


def _span(ranges: list[tuple[int, int]], low: int, high: int) -> tuple[int, int]:
    """Return which of the ranges have something in common with ``low`` to ``high``: from, up to before."""
    start = bisect_left(ranges, (low, 0))
    if start and ranges[start - 1][1] >= low:
        start -= 1
    return start, bisect_left(ranges, (high + 1, 0), start)
