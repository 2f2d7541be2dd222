"""``Executor.map``: which calls are submitted when, and their results in order."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NoReturn, TypeVar

from jobd.client import Deferred
from jobd.client.ahead import Ahead
from jobd.executor.outcomes import exit_of, value_or_raise
from jobd.model.errors import DaemonUnreachable

T = TypeVar("T")

Call = tuple[Any, ...]


class NotSent:
    """A call that cannot travel, in the place of its job."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def result(self, _timeout: float | None = None) -> NoReturn:
        """Say why."""
        raise self._error


Place = Deferred[Any] | NotSent

Submit = Callable[[list[Call]], list[Place]]


class Calls:
    """The arguments of one call each, in turn from several iterables, as ``zip`` has them.

    Unlike ``zip`` it knows how many there are, if one of the iterables does.

    Args:
        iterables: the longer ones are cut to the shortest.
        size: how many calls are one: then each has the ``first`` argument, and their list.
        first: that argument.
    """

    def __init__(
        self, iterables: Sequence[Iterable[Any]], size: int = 1, first: object = None
    ) -> None:
        known = [operator.length_hint(items, -1) for items in iterables]
        self._length = min((length for length in known if length >= 0), default=-1)
        if not iterables:
            self._length = 0
        self._size = size
        self._first = first
        self._calls = zip(*iterables, strict=False)

    def __iter__(self) -> Iterator[Call]:
        return self._calls if self._size == 1 else self._lists()

    def _lists(self) -> Iterator[Call]:
        while calls := list(islice(self._calls, self._size)):
            yield self._first, calls

    def __length_hint__(self) -> int:
        # Not NotImplemented, which says the same, but is no int.
        if self._length < 0:
            raise TypeError("nobody knows")
        return -(-self._length // self._size)


class Places:
    """What was submitted of a ``map``, and whose result nobody has had."""

    def __init__(
        self,
        submit: Submit,
        cancel: Callable[[list[Deferred[Any]]], object],
        calls: Iterable[Call],
        buffersize: int | None,
    ) -> None:
        self._submit_calls: Submit | None = submit
        self._cancel = cancel
        self._sent: list[Place] = []
        try:
            self.ahead = Ahead(calls, self._submit, buffersize)
        except BaseException:
            self._cancel([place for place in self._sent if isinstance(place, Deferred)])
            raise
        self._sent.clear()
        if self.ahead.is_over:
            self.let_go()

    def let_go(self) -> None:
        """Keep the executor alive no longer: there is no more to submit."""
        self._submit_calls = None

    def cancel_rest(self) -> None:
        """Nobody wants what is left."""
        self.let_go()
        self._cancel([place for place in self.ahead.submitted if isinstance(place, Deferred)])

    def _submit(self, bulk: list[tuple[Any]]) -> list[Place]:
        assert self._submit_calls is not None
        places = self._submit_calls([call for (call,) in bulk])
        if not hasattr(self, "ahead"):
            self._sent += places
        return places


def results(
    places: Places, refuse_broken: Callable[[], object], timeout: float | None
) -> Iterator[Any]:
    """Return the results in order; the time counts from now, and what is not wanted is cancelled."""
    deadline = None if timeout is None else time.monotonic() + timeout
    return _results(places, refuse_broken, deadline)


def _results(
    places: Places, refuse_broken: Callable[[], object], deadline: float | None
) -> Iterator[Any]:
    ahead = places.ahead
    submitted = ahead.submitted
    try:
        while ahead.has_more:
            if not (submitted and ahead.is_over):
                yield _value(ahead.take(), refuse_broken, deadline)
                continue
            places.let_go()
            while submitted:  # by a shorter way, as most are taken when all have been submitted
                # The value in no variable: it is kept by the caller, or nobody.
                yield _value(submitted.popleft(), refuse_broken, deadline)
    finally:
        places.cancel_rest()


def _value(place: Place, refuse_broken: Callable[[], object], deadline: float | None) -> Any:
    def read() -> Any:
        try:
            return place.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except DaemonUnreachable:
            refuse_broken()
            raise

    return value_or_raise(read, partial(exit_of, place))  # type: ignore[arg-type]  # what was not sent, raises


def check_buffer(buffersize: int | None) -> None:
    """Refuse what is no size, in the words of Python 3.14.

    Raises:
        TypeError, ValueError: it is none.
    """
    if buffersize is None:
        return
    if not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def flat(lists: Iterator[list[T]]) -> Iterator[T]:
    """Yield the items of lists, and hold none of them."""
    for found in lists:
        found.reverse()
        while found:
            yield found.pop()
