"""``Executor.map`` where all calls are one array: its results, as they come and after the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from jobd.client import Client, Deferred
from jobd.client.batches import Reader
from jobd.client.deferred import value_of
from jobd.executor.outcomes import exit_in, value_or_raise
from jobd.model.errors import DaemonUnreachable
from jobd.model.messages import Ended


class ArrayResults:
    """What stands for an array where other jobs have a future: once it has ended, all its results are here.

    Whoever takes the results and whoever hears of the end are different threads.
    """

    def __init__(self, client: Client) -> None:
        self.job: Deferred[Any] | None = None
        self._client = client
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._error: BaseException | None = None

    def next(self, timeout_s: float | None) -> Ended | None:
        """Return how the next item has ended, once it has; None: there are no more."""
        with self._lock:
            reader = self._read()
            if not reader.ready:
                if self._error is not None:
                    raise self._error
                self._client._run(reader.fill(encoded=True), timeout_s)  # noqa: SLF001  # ours
            return reader.ready.popleft()[1] if reader.ready else None

    def _read(self) -> Reader:
        if self._reader is None:
            assert self.job is not None
            self._reader = Reader(self._client._core, self.job)  # noqa: SLF001  # as above
        return self._reader

    # -- as JobFuture --

    def done(self) -> bool:
        """Whether there is nothing more to be told of it."""
        return self._error is not None

    def complete(self, _job: Deferred[Any]) -> None:
        """The array has ended: have all its results here, so that they can be had without a daemon."""
        with self._lock:
            self._client._run(self._read().drain())  # noqa: SLF001  # as above

    def set_exception(self, error: BaseException) -> None:
        """Nothing more will come."""
        self._error = error

    def withdraw(self) -> None:
        """What has not started was cancelled; its items say so themselves."""


def results(
    found: ArrayResults,
    cancel: Callable[[list[Deferred[Any]]], object],
    refuse_broken: Callable[[], object],
    timeout: float | None,
) -> Iterator[Any]:
    """Return the results in order; the time counts from now, and what is not wanted is cancelled."""
    deadline = None if timeout is None else time.monotonic() + timeout
    return _results(found, cancel, refuse_broken, deadline)


def _results(
    found: ArrayResults,
    cancel: Callable[[list[Deferred[Any]]], object],
    refuse_broken: Callable[[], object],
    deadline: float | None,
) -> Iterator[Any]:
    is_over = False
    try:
        while not is_over:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                ended = found.next(left)
            except DaemonUnreachable:
                refuse_broken()
                raise
            is_over = ended is None
            if ended is not None:
                # Under no name: it is kept by the caller, or nobody.
                blobs = found._client._core.files.blobs  # noqa: SLF001  # ours
                yield value_or_raise(partial(value_of, ended, blobs), partial(exit_in, ended))
    finally:
        if not is_over and found.job is not None:
            cancel([found.job])
