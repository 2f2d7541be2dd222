"""What travels by value: marked with the Python that made it, and with its slots."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobd import by_value, payload
from jobd.blobs import Blobs
from jobd.client.core import Core
from jobd.client.deferred import DeferredBase
from jobd.client.drafts import Draft
from jobd.client.functions import named
from jobd.model.blob import Place
from jobd.model.errors import PayloadUnreadable, UsageError
from jobd.model.messages import Apply, Put, Submit, Welcome

HERE = "{}.{}".format(*sys.version_info)
OTHER = f"3.{sys.version_info[1] + 1}"


def add(one: int, two: int) -> int:
    """Be a function that others can import."""
    return one + two


def made_elsewhere(data: bytes) -> bytes:
    """Return a payload as the next Python would have made it."""
    minor = sys.version_info[1]
    assert b"require\nK\x03K%c" % minor in data
    return data.replace(b"require\nK\x03K%c" % minor, b"require\nK\x03K%c" % (minor + 1))


def test_a_pickle_with_code_is_marked_and_works_as_before() -> None:
    """The mark leaves nothing on the stack, and nothing in what is kept in mind."""
    data = by_value.dumps({"add": lambda number: number + 40, "twice": ["x"] * 2})
    assert by_value.made_by([b"", data]) == sys.version_info[:2]
    found = payload.unpickle(data)
    assert (found["add"](2), found["twice"]) == (42, ["x", "x"])


@pytest.mark.parametrize("value", [add, [1, "x"], Path("x"), len])
def test_a_pickle_without_code_has_no_mark(value: object) -> None:
    """Any Python may read it."""
    assert by_value.made_by([by_value.dumps(value)]) is None


@pytest.mark.parametrize("value", [lambda: 1, {"cell": lambda: 2}], ids=["function", "in a value"])
def test_code_of_another_python_is_refused_and_never_run(value: object) -> None:
    """By every reader, wherever it comes from: both versions, and the way out."""
    with pytest.raises(PayloadUnreadable) as caught:
        payload.decode(made_elsewhere(payload.encode(value)))
    assert caught.value.message == (
        f"a function or class that travels by value has code of Python {OTHER}, "
        f"which cannot run on Python {HERE}"
    )
    assert "in a module that both can import" in caught.value.hint


def submit_of(function: Callable[..., object], *args: object) -> Submit:
    """Return a submit of one call."""
    name, pickled = named(function, [(len(args), ())])
    call, _ = payload.encode_call(args, {})
    request = Submit(0, b"", name, [call], [(len(args), ())])
    if pickled:
        request.args, request.by_value = [payload.encode_by_value(pickled, call)], True
    return request


def by_a_lambda() -> Submit:
    """Return a submit of a function by value."""
    return submit_of(lambda: 1)


def in_an_argument() -> Submit:
    """Return one with a function by value, deep in an argument."""
    return submit_of(map, [{"key": (lambda: 1,)}])


def as_a_value() -> Put:
    """Return one of a value."""
    return Put(0, b"", payload.encode((lambda: 1,)))


def in_a_graph() -> Apply:
    """Return one of several jobs."""
    return Apply(0, b"", [submit_of(add, 1, 2), by_a_lambda()])


def core(python: str, place: Place | None = None) -> Core[Any]:
    """Return what a client knows that has connected to a daemon with this Python."""
    made: Core[Any] = Core(DeferredBase)
    made.connected(Welcome(0, 1, "1", 7, "boot", "/", 2, 2**20, 2**20, place, python))
    return made


MAKERS = [by_a_lambda, in_an_argument, as_a_value, in_a_graph]


@pytest.mark.parametrize("make", MAKERS)
def test_a_submit_with_code_for_another_python_is_refused(
    make: Callable[[], Submit | Put | Apply],
) -> None:
    """Before it leaves; both versions are named."""
    with pytest.raises(UsageError) as caught:
        core(OTHER).submit(make())
    assert f"has code of Python {HERE}" in caught.value.message
    assert f"cannot run on Python {OTHER}" in caught.value.message
    assert f"use Python {HERE} for both" in caught.value.hint


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("python", [HERE, ""])
def test_a_submit_with_code_for_the_same_python_is_not(
    make: Callable[[], Submit | Put | Apply], python: str
) -> None:
    """Nor for a daemon that does not say which it has."""
    assert core(python).submit(make()).frame


def test_what_needs_no_code_may_go_to_another_python() -> None:
    """Functions by their names, and plain data."""
    assert core(OTHER).submit(submit_of(add, (1, 2), {3: "x"})).frame


def test_code_in_a_file_is_found(tmp_path: Path) -> None:
    """Where large arguments are."""
    place = Place("", str(tmp_path), "disk", spill=False, sync=False, max_bytes=2**30, row_bytes=64)
    made = core(OTHER, place)
    draft = made.files.draft()
    assert isinstance(draft, Draft)
    call, _ = payload.encode_call(((lambda: 1), b"x" * 100_000), {}, spot=draft.spot(0))
    assert call[:1] == b"F"
    with pytest.raises(UsageError, match="has code of Python"):
        made.submit(Submit(0, draft.key, "m:f", [call], [(2, ())]))
    assert not list(tmp_path.glob("a-*"))  # nobody will read it
    assert isinstance(made.files.blobs, Blobs)
    made.files.close()


# -- slots --------------------------------------------------------------------


def kinds() -> list[Any]:
    """Return classes that nobody can import, with slots of all sorts, each made in a function."""

    @dataclass(slots=True)
    class Point:
        x: int
        y: int = 2

    @dataclass(slots=True, weakref_slot=True)
    class Weak:
        x: int
        y: int = 2

    class Private:
        __slots__ = ("__hidden", "x", "y")

        def __init__(self, x: int, y: int = 2) -> None:
            self.x, self.y, self.__hidden = x, y, "secret"

        def __eq__(self, other: object) -> bool:
            return type(other) is type(self) and self.told() == other.told()

        __hash__ = None  # type: ignore[assignment]

        def told(self) -> tuple[int, int, str]:
            return self.x, self.y, self.__hidden

    class Both(Point):
        z = 3

    for kind in (Point, Weak, Private, Both):
        kind.__module__ = "__main__"
    return [Point, Weak, Private, Both]


@pytest.mark.parametrize("number", range(4))
def test_a_class_with_slots_has_them_elsewhere_too(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There and back: elsewhere the class is made anew, here it is the same."""
    inside = importlib.import_module("cloudpickle.cloudpickle")  # it keeps classes in mind
    kind = kinds()[number]
    value = kind(1)
    there = by_value.dumps(value)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(inside, "_DYNAMIC_CLASS_TRACKER_BY_ID", {})
        elsewhere.setattr(inside, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", {})
        copy = payload.unpickle(there)
        assert type(copy) is not kind
        assert hasattr(copy, "__dict__") == hasattr(value, "__dict__")
        assert (copy.x, copy.y) == (1, 2)
        copy.x = 5
        back = by_value.dumps(SimpleNamespace(it=copy))
    found = payload.unpickle(back).it
    assert type(found) is kind
    assert found == kind(5)
