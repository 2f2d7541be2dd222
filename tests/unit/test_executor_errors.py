"""What an executor's futures fail with: the error itself, whatever else it has to be."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from jobd import payload
from jobd.client.calls import one_call
from jobd.executor.errors import BadCall, not_sent, unreadable
from jobd.model.errors import PayloadUnreadable, UsageError


class OddError(Exception):
    """Wants more than it hands on."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


def unreadable_by(error: BaseException) -> BaseException:
    """Return what becomes of an error of unpickling."""
    failed = PayloadUnreadable("a value cannot be unpickled here")
    failed.__cause__ = error
    return unreadable(failed)


@pytest.mark.parametrize(
    "error",
    [
        pickle.UnpicklingError("bad"),
        AttributeError("no", name="name", obj=None),
        FileNotFoundError(2, "not there", "file"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "why"),
        ModuleNotFoundError("no module", name="gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_unpickling_is_itself_and_a_broken_pool(error: Exception) -> None:
    """All that it says is there; where it travels on, it is what it was."""
    found = unreadable_by(error)
    assert isinstance(found, BrokenProcessPool)
    assert isinstance(found, type(error))
    assert (str(found), found.args) == (str(error), error.args)
    assert getattr(found, "filename", None) == getattr(error, "filename", None)
    assert type(found).__name__ == type(error).__name__
    assert found.__cause__ is not None
    back = payload.unpickle(pickle.dumps(found))
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_an_error_that_cannot_be_made_anew_is_only_itself() -> None:
    """There is no other way to have it."""
    error = OddError(1, 2)
    assert unreadable_by(error) is error


def test_what_exits_when_it_is_unpickled_is_a_broken_pool() -> None:
    """No program is to end by it."""
    assert type(unreadable_by(SystemExit(0))) is BrokenProcessPool


def test_a_file_that_is_damaged_is_what_it_is() -> None:
    """Nothing was unpickled."""
    error = PayloadUnreadable("the file is damaged")
    assert unreadable(error) is error


def refusal(*call: Any) -> BaseException:
    """Return what the future of a call fails with that cannot be submitted."""
    with pytest.raises(UsageError) as caught:
        one_call(call[0], call[1:], {}, None, None)
    return not_sent(caught.value)


def test_what_cannot_travel_is_told_by_python_with_our_word_beside_it() -> None:
    """The note says which argument, and where in it."""
    error = refusal(len, {"deep": threading.Lock()})
    assert type(error) is TypeError
    assert error.__traceback__ is None
    assert "argument 1['deep']" in error.__notes__[0]
    lock = threading.Lock()
    error = refusal(lambda: lock)
    assert type(error) is TypeError


def test_a_call_that_does_not_fit_is_a_type_error_with_a_hint() -> None:
    """It can be caught as either."""
    error = refusal(lambda one: one)
    assert isinstance(error, BadCall)
    assert isinstance(error, TypeError)
    back = payload.unpickle(pickle.dumps(error))
    assert (type(back), str(back)) == (BadCall, str(error))
