"""Parts of a process's state: noticed when they change, and put back, or said to be lost."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from jobd.pool import library_state
from jobd.pool.parts import Part, Reseeded, attributes, listed, mapping
from jobd.pool.process_state import Environment, Limits


def test_what_differs_is_put_back() -> None:
    """And nothing has to be said of it."""
    box = [1]
    part = Part("it", lambda: box[0], lambda was: box.__setitem__(0, was))
    box[0] = 2
    assert part.read() != part.was
    assert part.put_back() == ""
    assert box == [1]


@pytest.mark.parametrize("error", [OSError, ValueError, AttributeError])
def test_what_cannot_be_put_back_is_said(error: type[Exception]) -> None:
    """In words of its own, if it has any."""
    box = [1]

    def write(_was: object) -> None:
        raise error

    plain = Part("the box", lambda: box[0], write)
    wordy = Part("the box", lambda: box[0], write, loss=lambda was, now: f"{was} to {now}")
    box[0] = 2
    assert plain.put_back() == "it changed the box, which cannot be put back"
    assert wordy.put_back() == "1 to 2"


def test_a_list_stays_the_same_object() -> None:
    """Others have it, too."""
    owner = SimpleNamespace(path=["a"])
    ours, part = owner.path, listed("it", owner, "path")
    owner.path.append("b")
    owner.path = ["c"]
    assert part.read() != part.was
    assert part.put_back() == ""
    assert owner.path is ours
    assert ours == ["a"]


def test_attributes_come_back_that_were_removed() -> None:
    """Or replaced."""
    owner: Any = SimpleNamespace(a=1, b=2, c=3)
    part = attributes("it", owner, "a", "b", "c")
    del owner.a
    owner.b = 5
    assert part.put_back() == ""
    assert vars(owner) == {"a": 1, "b": 2, "c": 3}


def test_entries_of_a_dictionary_come_back_and_go() -> None:
    """In place."""
    ours: dict[str, object] = {"a": 1, "b": 2}
    part = mapping("it", ours)
    del ours["a"]
    ours |= {"b": 3, "c": 4}
    assert part.put_back() == ""
    assert ours == {"a": 1, "b": 2}


def test_a_random_state_is_not_put_back_but_made_anew() -> None:
    """Else each job would draw the same numbers."""
    box = [1]
    part = Reseeded("it", lambda: box[0], lambda _: box.__setitem__(0, 99))
    box[0] = 2
    assert part.put_back() == ""
    assert box == [99]
    assert part.read() == part.was


# -- the environment --


@pytest.fixture
def environment() -> Iterator[Environment]:
    """Return one that is put back in the end, by other means."""
    before, ours = dict(os.environ), os.environ
    made = Environment()
    yield made
    os.environ = ours  # noqa: B003  # a test may have replaced it
    os.environ.clear()
    os.environ.update(before)


def in_c(name: str) -> bytes | None:
    """Return what C code reads."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    value: bytes | None = getenv(name.encode())
    return value


def test_each_change_of_the_environment_is_noticed_and_undone(environment: Environment) -> None:
    """Whichever way it comes; and in Python as in C."""
    os.environ["JOBD_TEST_OLD"] = "1"
    environment.adopt()
    before = dict(os.environ)

    def replace() -> None:
        os.environ = {}  # type: ignore[assignment]  # noqa: B003

    changes = [
        lambda: os.environ.__setitem__("JOBD_TEST_OLD", "2"),
        lambda: os.environ.__setitem__("JOBD_TEST_NEW", "2"),
        lambda: os.environ.__delitem__("JOBD_TEST_OLD"),
        lambda: os.putenv("JOBD_TEST_NEW", "3"),
        lambda: os.unsetenv("JOBD_TEST_OLD"),
        lambda: ctypes.CDLL(None).clearenv(),
        os.environ.clear,
        replace,
    ]
    for change in changes:
        assert environment.is_same()
        change()
        assert not environment.is_same()
        environment.put_back()
        assert environment.is_same()
        assert dict(os.environ) == before
        assert (in_c("JOBD_TEST_OLD"), in_c("JOBD_TEST_NEW")) == (b"1", None)


def test_what_is_there_when_it_is_taken_anew_stays(environment: Environment) -> None:
    """As a module sets it."""
    os.environ["JOBD_TEST_NEW"] = "1"
    environment.adopt()
    os.environ["JOBD_TEST_NEW"] = "2"
    environment.put_back()
    assert os.environ["JOBD_TEST_NEW"] == "1"
    assert in_c("JOBD_TEST_NEW") == b"1"


# -- modules that a job imports --


def test_a_finder_of_a_module_that_was_imported_meanwhile_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it, what that module promises could not be imported any more; others go."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    part = library_state._Finders("sys.meta_path", "meta_path")
    before = [*sys.meta_path]
    monkeypatch.setitem(sys.modules, "a_late_one", SimpleNamespace())
    ours: Any = type("Ours", (), {"__module__": "a_late_one"})()
    theirs: Any = type("Theirs", (), {"__module__": __name__})()
    sys.meta_path[:0] = [theirs, ours]
    assert part.read() != part.was
    assert part.put_back() == ""
    assert sys.meta_path == [ours, *before]
    sys.meta_path.remove(ours)
    assert part.put_back() == ""
    assert sys.meta_path == [*before, ours]


def test_a_limit_is_named_as_jobs_call_it() -> None:
    """Some have an old name, too."""
    limits = Limits()
    was = limits.read()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        told = limits.loss(was, limits.read())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "hard limit of RLIMIT_NOFILE, which" in told
