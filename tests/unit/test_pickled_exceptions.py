"""An exception travels as itself where it can, and where it cannot, nothing breaks."""

from __future__ import annotations

import threading

import pytest

from jobd.payload import EXCEPTION_BYTES, pickle_exception, unpickle_exception


class NeedsTwoError(Exception):
    """Pickles well, and cannot be made again: its class wants more than it hands on."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


class HostileError(Exception):
    """Leaves by the back door when it is pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        raise SystemExit(3)


class Liar(Exception):
    """Comes back as something that cannot be raised."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("7",)


def test_an_exception_comes_back_as_its_own_class_with_arguments_and_notes() -> None:
    """So it can be caught as what it was."""
    error = KeyError("a", 1)
    error.add_note("while reading")
    error.extra = 5  # type: ignore[attr-defined]  # as users do
    back = unpickle_exception(pickle_exception(error))
    assert type(back) is KeyError
    assert (back.args, back.__notes__, back.extra) == (("a", 1), ["while reading"], 5)  # type: ignore[attr-defined]  # as above


@pytest.mark.parametrize(
    "error",
    [ValueError(threading.Lock()), HostileError(), ValueError("x" * EXCEPTION_BYTES)],
    ids=["holds a lock", "raises", "too large"],
)
def test_an_exception_that_cannot_travel_is_nothing(error: Exception) -> None:
    """Its text travels anyway; the job's end is recorded whatever the class does."""
    assert pickle_exception(error) == b""
    assert unpickle_exception(b"") is None


@pytest.mark.parametrize("error", [NeedsTwoError(1, 2), Liar()])
def test_an_exception_that_cannot_be_made_again_is_nothing(error: Exception) -> None:
    """In the standard library's pool the first of these breaks the whole pool."""
    data = pickle_exception(error)
    assert data
    assert unpickle_exception(data) is None
    assert unpickle_exception(data[:-3]) is None
