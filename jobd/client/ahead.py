"""Calls that are submitted ahead of whoever takes their results, up to so many.

An iterable that knows its length is submitted as a whole, unless it is very long.  Any other may be
endless: of that as many calls are submitted as have room, and more whenever results were taken,
some at a time, because a message for each would cost more than the jobs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from operator import length_hint
from typing import Any, Generic, TypeVar

from jobd.model.errors import UsageError

D = TypeVar("D")

ROOM = 10_000
"""How many are submitted and not taken at most, if nothing is said: half a second's worth of the shortest.

Measured with 60,000 no-op jobs: with 1,000 a third is lost, from 5,000 on nothing that could be seen.
"""

LONG = 1_000_000
"""With more items than that an iterable is treated like one that does not know how many it has."""

FIRST_BULK, BULK = 500, 10_000
"""Calls in the first message, and in any: workers begin while the others are encoded."""

SHARE = 8
"""One part in so many of the room has to be free before more is submitted."""


class Ahead(Generic[D]):
    """Submits calls, and hands out their deferred results in order.

    Args:
        items: each is the one argument of a call; they are read no further than there is room.
        submit: sends some calls, and waits for nothing.
        buffersize: the room; None: all, or, if nobody knows how many that are, as much as keeps
            workers busy with the shortest jobs.

    Raises:
        UsageError: there is to be no room.
        Exception: what ``items`` or ``submit`` raises meanwhile.
    """

    def __init__(
        self,
        items: Iterable[Any],
        submit: Callable[[list[tuple[Any]]], list[D]],
        buffersize: int | None,
    ) -> None:
        self._room = _room_for(items) if buffersize is None else _checked(buffersize)
        self._least = max(1, self._room // SHARE)
        self._calls = zip(items, strict=False)
        self._submit = submit
        self._bulk = FIRST_BULK
        self._submitted: deque[D] = deque()
        self._is_over = False
        self._error: Exception | None = None
        self._fill()
        if self._error is not None:
            raise self._error

    @property
    def has_more(self) -> bool:
        """Whether there is another to take, or an error to raise."""
        return bool(self._submitted) or self._error is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be submitted."""
        return self._is_over

    @property
    def submitted(self) -> deque[D]:
        """What nobody has taken yet; to be taken from directly once all ``is_over``."""
        return self._submitted

    def take(self) -> D:
        """Return the next; it is kept here no longer.

        Raises:
            Exception: what came of the calls after the last that were submitted; once.
        """
        if not self._submitted:
            error, self._error = self._error, None
            assert error is not None
            raise error
        taken = self._submitted.popleft()
        if not self._is_over and self._room - len(self._submitted) >= self._least:
            self._fill()  # before anybody waits for this one
        return taken

    def _fill(self) -> None:
        """Submit what there is room for; what goes wrong is told once all that was submitted is taken."""
        try:
            while not self._is_over and (room := self._room - len(self._submitted)) > 0:
                self._submitted += self._next_bulk(min(room, self._bulk))
                self._bulk = min(2 * self._bulk, BULK)
        except Exception as error:  # noqa: BLE001  # it is raised, later
            self._error, self._is_over = error, True

    def _next_bulk(self, size: int) -> list[D]:
        bulk: list[tuple[Any]] = []
        try:
            bulk.extend(islice(self._calls, size))  # what came before an error is in it
        except Exception as error:  # noqa: BLE001  # as above
            self._error = error
        self._is_over = len(bulk) < size
        return self._submit(bulk) if bulk else []


def _room_for(items: Iterable[Any]) -> int:
    length = length_hint(items, -1)
    return length + 1 if 0 <= length <= LONG else ROOM


def _checked(buffersize: object) -> int:
    if not isinstance(buffersize, int) or isinstance(buffersize, bool) or buffersize < 1:
        raise UsageError(f"{buffersize!r} is no buffersize", "give a whole number, 1 or more")
    return buffersize
