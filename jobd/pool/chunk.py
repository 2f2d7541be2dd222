"""Several calls as one job, and calls of what only a pickle can name; runs in the worker."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any

from jobd.pool.share import BY_LIBRARY, limited


def call_each(function: bytes, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Call a pickled function with each of the tuples of arguments; return the results."""
    called = pickle.loads(function)  # noqa: S301  # a worker runs what it is sent
    return [called(*args) for args in calls]


def call(function: Callable[[], Any], threads: int = 0) -> Any:
    """Call an object that is more than a function, and came as an argument.

    Libraries may use so many threads each meanwhile; 0: as many as in any job.
    """
    with limited(threads, BY_LIBRARY.values()):
        return function()


def call_pickled(data: bytes) -> Any:
    """Make a call, all of which is in a pickle."""
    function, args, kwargs = pickle.loads(data)  # noqa: S301  # a worker runs what it is sent
    return function(*args, **kwargs)
