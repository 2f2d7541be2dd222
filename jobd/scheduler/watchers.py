"""Who is to be told of the ends of jobs that are not in memory.

Jobs in memory carry their watchers themselves.  For the backlog in the store
there are ranges of ids, because clients watch what they have submitted and ids
follow on each other: a million watched jobs of one client are one range.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator


class Watchers:
    """Ranges of job ids, for each peer."""

    def __init__(self) -> None:
        self._ranges: dict[bytes, list[list[int]]] = {}

    def add(self, peer: bytes, first: int, last: int) -> None:
        """Watch the jobs ``first`` to ``last`` for this peer."""
        ranges = self._ranges.setdefault(peer, [])
        if ranges and first == ranges[-1][1] + 1:
            ranges[-1][1] = last
        else:
            ranges.insert(bisect_right(ranges, [first]), [first, last])

    def forget(self, peer: bytes) -> None:
        """Drop all that this peer watches."""
        self._ranges.pop(peer, None)

    def clear(self) -> None:
        """Drop everything."""
        self._ranges.clear()

    def within(self, low: int, high: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield (peer, first, last) for every watched part of ``low`` to ``high``."""
        for peer, ranges in self._ranges.items():
            for first, last in ranges:
                if first <= high and last >= low:
                    yield peer, max(first, low), min(last, high)

    def drop_below(self, low: int) -> None:
        """Forget what lies below the backlog: those jobs are in memory or over."""
        for peer in list(self._ranges):
            kept = [r for r in self._ranges[peer] if r[1] >= low]
            if kept:
                self._ranges[peer] = kept
            else:
                del self._ranges[peer]
