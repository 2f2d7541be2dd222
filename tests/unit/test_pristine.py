"""When a worker looks at everything, and when a quick look is enough."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from jobd.pool import library_state, process_state
from jobd.pool import pristine as module
from jobd.pool.parts import Part
from jobd.pool.pristine import TRUSTED, Pristine

NEVER = -1.0
"""As the time at which a job has ended: before the next whole look is due."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a state of one part, ``box``, how often it was ``looks``, and whether it can be put back."""
    made: Any = SimpleNamespace(box=[1], looks=0, is_stuck=False)

    def read() -> int:
        made.looks += 1
        return int(made.box[0])

    def write(was: int) -> None:
        if not made.is_stuck:
            made.box[0] = was

    monkeypatch.setattr(process_state, "parts", lambda *_: [Part("the box", read, write)])
    monkeypatch.setattr(process_state, "always", lambda: False)
    monkeypatch.setattr(library_state, "parts", list)
    monkeypatch.setattr(library_state, "LATE", {})
    monkeypatch.setattr(module, "LOOK_S", 3600.0)
    made.state = Pristine((), lambda: None)
    made.looks = 0
    return made


def trust(made: Any, function: str) -> None:
    """Find a function clean as often as it takes."""
    made.state.adopt()  # pytest has filters of warnings, and a variable, of each phase of a test
    made.looks = 0
    for count in range(TRUSTED):
        assert made.state.after(function, NEVER, NEVER) == []
        assert made.looks == count + 1
    made.looks = 0


def test_a_function_is_looked_at_each_time_until_it_is_trusted(made: Any) -> None:
    """And another one is another matter."""
    trust(made, "m:f")
    made.state.after("m:f", NEVER, NEVER)
    assert made.looks == 0
    made.state.after("m:g", NEVER, NEVER)
    assert made.looks == 1


def test_a_function_that_has_left_something_is_not_trusted_for_long(made: Any) -> None:
    """It has to be found clean anew."""
    trust(made, "m:f")
    made.box[0] = 2
    assert made.state.after("m:f", NEVER, NEVER, sure=True) == []
    assert made.box == [1]
    made.looks = 0
    trust(made, "m:f")


def test_what_the_quick_look_finds_is_put_back_at_once(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be the function ever so trusted."""
    trust(made, "m:f")
    monkeypatch.setattr(sys, "path", [*sys.path, "/nowhere"])
    made.state.after("m:f", NEVER, NEVER)
    assert made.looks == 1


def test_a_whole_look_is_due_after_a_while(made: Any) -> None:
    """Whatever has run."""
    trust(made, "m:f")
    made.box[0] = 2
    now = time.perf_counter() + 2 * 3600
    made.state.after("m:f", now, now)
    assert made.box == [1]


def test_before_a_wait_or_a_long_job_what_is_left_is_put_back(made: Any) -> None:
    """Once."""
    trust(made, "m:f")
    assert made.state.patience_s() is None
    made.box[0] = 2
    made.state.after("m:f", NEVER, NEVER)
    assert made.box == [2]
    assert made.state.patience_s() > 0
    assert made.state.look_ahead() == []
    assert made.box == [1]
    assert made.state.patience_s() is None
    made.looks = 0
    made.state.look_ahead()
    assert made.looks == 0


def test_what_cannot_be_put_back_is_told(made: Any) -> None:
    """By all that look."""
    made.is_stuck, made.box[0] = True, 2
    told = ["it changed the box, which cannot be put back"]
    assert made.state.after("m:f", NEVER, NEVER) == told
    made.state.is_fresh = False
    assert made.state.look_ahead() == told


def test_what_is_adopted_is_how_it_is_to_be(made: Any) -> None:
    """As a module has set it."""
    made.box[0] = 2
    made.state.adopt()
    assert made.state.after("m:f", NEVER, NEVER) == []
    assert made.box == [2]


def test_a_handler_that_raises_while_things_are_put_back_is_no_harm(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's own timer may ring until it is stopped."""
    rings = [KeyboardInterrupt, ValueError, TimeoutError]

    def always() -> bool:
        if rings:
            raise rings.pop()
        return True

    monkeypatch.setattr(process_state, "always", always)
    made.box[0] = 2
    assert made.state.after("m:f", NEVER, NEVER) == []
    assert made.box == [1]


def test_a_module_of_ours_that_is_another_one_now_is_told(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what it does."""
    monkeypatch.setitem(sys.modules, "jobd.context", sys)
    assert made.state.after("m:f", NEVER, NEVER) == ["it changed sys.modules['jobd.context']"]
