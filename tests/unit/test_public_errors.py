"""Errors have the names that people can import, wherever they are shown."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

import jobd
from jobd.model import errors
from jobd.pool.failure import class_name


def every(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """Yield an error of jobd's, and those under it."""
    if kind.__module__.partition(".")[0] == "jobd":
        yield kind
    for child in kind.__subclasses__():
        yield from every(child)


ERRORS = [
    *dict.fromkeys(every(jobd.JobdError)),
    jobd.PoolBroken,
    jobd.WorkerDied,
    jobd.CommandFailed,
    jobd.NoSuchPart,
    jobd.ResultNotSerialisable,
    jobd.ResultNotStored,
    jobd.ResultTooLarge,
    jobd.TimeLimitExceeded,
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_is_shown_by_its_public_name(kind: type[BaseException]) -> None:
    """Which is where it can be imported from, and where a pickle looks for it."""
    if kind.__module__.startswith("jobd.cli"):
        return  # it ends a command, and never a job
    assert class_name(kind) == f"jobd.{kind.__name__}"
    assert getattr(jobd, kind.__name__) is kind
    assert pickle.loads(pickle.dumps(kind)) is kind  # noqa: S301  # our own


def test_a_pickle_that_names_the_module_still_loads() -> None:
    """As those that were made before."""
    old = b"cjobd.model.errors\nNotFound\n."
    assert pickle.loads(old) is errors.NotFound  # noqa: S301  # our own
