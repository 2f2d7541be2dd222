"""The life of a job: its states, what may happen to it, and the one table of both.

The numbers are stored: never reuse or change one.  Those under ``ENDED`` are
live, the others are ends.  An end has one exit only, which a person takes:
``RETRY``, or ``REVIVE`` for a job that waits for its inputs again, as where the retry
is that of its root.  It opens a new round of the same job and never touches what an
earlier round recorded.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Where a job is in its life."""

    HELD = 0  # a person has set it aside, until a person releases it
    SCHEDULED = 1  # its time has not come: a start that was asked for, or the next attempt
    BLOCKED = 2  # some of its inputs have not ended yet
    QUEUED = 3
    RUNNING = 4
    SUCCEEDED = 10
    FAILED = 11
    CRASHED = 12
    TIMED_OUT = 13  # it took longer than it may
    CANCELLED = 14  # a person did it
    ABORTED = 15  # the system did: an input did not succeed
    EXPIRED = 16  # it had not started when it was of no use any more


ENDED = 10
"""States from this number on are ends."""

WIDTH = 17
"""How long an array by state is."""


class Event(IntEnum):
    """What may happen to a job."""

    ASSIGN = 1  # handed to a worker
    PUT_BACK = 2  # comes back unfinished: taken back, drained, or to run again after a crash
    SUCCEED = 3
    FAIL = 4
    CRASH = 5  # its worker died, and its crash budget is spent
    CANCEL = 6
    RETRY = 7  # a person asks for another round
    RELEASE = 8  # its last input has succeeded
    ABORT = 9  # an input has ended without a result
    REVIVE = 10  # the input that aborted it gets another round
    PUT = 11  # it stands for a value that a client has handed in, and never runs
    TIME_OUT = 12  # an attempt took longer than it may, and was stopped for that
    POSTPONE = 13  # it has to wait for its time
    DUE = 14  # that has come
    EXPIRE = 15
    HOLD = 16  # a person sets it aside
    LET_GO = 17  # and lets it go: it is what its inputs and its time make it
    COMPLETE = 18  # an array: all of its items have succeeded, or that is not asked for
    FALL_SHORT = 19  # an array: all have ended, some without success


TABLE: dict[State, dict[Event, State]] = {
    State.HELD: {
        Event.LET_GO: State.BLOCKED,
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
        Event.COMPLETE: State.SUCCEEDED,  # what ran when it was held was all that was left
        Event.FALL_SHORT: State.FAILED,
    },
    State.SCHEDULED: {
        Event.HOLD: State.HELD,
        Event.DUE: State.QUEUED,
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
        Event.ABORT: State.ABORTED,  # an item, as too many others have failed
    },
    State.BLOCKED: {
        Event.HOLD: State.HELD,
        Event.RELEASE: State.QUEUED,
        Event.CANCEL: State.CANCELLED,
        Event.ABORT: State.ABORTED,
        Event.EXPIRE: State.EXPIRED,
    },
    State.QUEUED: {
        Event.ASSIGN: State.RUNNING,
        Event.HOLD: State.HELD,
        Event.POSTPONE: State.SCHEDULED,
        Event.EXPIRE: State.EXPIRED,
        Event.PUT: State.SUCCEEDED,
        Event.COMPLETE: State.SUCCEEDED,
        Event.FALL_SHORT: State.FAILED,
        Event.ABORT: State.ABORTED,  # as above
        Event.CANCEL: State.CANCELLED,
        Event.CRASH: State.CRASHED,  # found at start: it took the whole machine down, again
    },
    State.RUNNING: {
        Event.PUT_BACK: State.QUEUED,
        Event.POSTPONE: State.SCHEDULED,  # to be tried again, later
        Event.SUCCEED: State.SUCCEEDED,
        Event.FAIL: State.FAILED,
        Event.CRASH: State.CRASHED,
        Event.TIME_OUT: State.TIMED_OUT,
        Event.CANCEL: State.CANCELLED,
    },
    State.SUCCEEDED: {},
    State.FAILED: {Event.RETRY: State.QUEUED},
    State.CRASHED: {Event.RETRY: State.QUEUED},
    State.TIMED_OUT: {Event.RETRY: State.QUEUED},
    State.CANCELLED: {Event.RETRY: State.QUEUED, Event.REVIVE: State.BLOCKED},
    State.ABORTED: {Event.REVIVE: State.BLOCKED, Event.RETRY: State.QUEUED},
    State.EXPIRED: {Event.RETRY: State.QUEUED, Event.REVIVE: State.BLOCKED},
}


class IllegalTransition(Exception):
    """A rule of the scheduler broke the table; always a bug of jobd."""


_HEIGHT = max(Event) + 1
_NEXT: list[list[State | None]] = [[None] * _HEIGHT for _ in range(WIDTH)]
"""The table as arrays: a dictionary would hash an enum, in Python, for every step of every job."""
for _state, _exits in TABLE.items():
    for _event, _after in _exits.items():
        _NEXT[_state][_event] = _after


# The steps that every job takes: Python 3.11 looks a member of an enum up in 70 ns, a name in 10.
QUEUED = State.QUEUED
ASSIGN, SUCCEED = Event.ASSIGN, Event.SUCCEED


def transition(state: State, event: Event) -> State:
    """Return the state that follows; raise IllegalTransition where there is none."""
    after = _NEXT[state][event]
    if after is None:
        raise IllegalTransition(f"a job that is {state.name} cannot {event.name}")
    return after


NAMES: dict[State, str] = {state: state.name.lower() for state in State}
"""The names that people meet."""

BY_NAME: dict[str, State] = {name: state for state, name in NAMES.items()}

EXIT_CODES: dict[State, int] = {
    State.HELD: 3,
    State.SCHEDULED: 3,
    State.BLOCKED: 3,
    State.QUEUED: 3,
    State.RUNNING: 3,
    State.SUCCEEDED: 0,
    State.FAILED: 1,
    State.CANCELLED: 5,
    State.CRASHED: 7,
    State.TIMED_OUT: 6,
    State.ABORTED: 5,
    State.EXPIRED: 5,
}
"""What a command that mirrors a job exits with (the table in docs/cli.md)."""
