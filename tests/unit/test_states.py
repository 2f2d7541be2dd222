"""The life of a job: one table, and every pair of a state and an event looked up in it."""

from __future__ import annotations

import pytest

from jobd.model.states import (
    BY_NAME,
    ENDED,
    EXIT_CODES,
    NAMES,
    TABLE,
    Event,
    IllegalTransition,
    State,
    transition,
)

LEGAL = {
    (State.HELD, Event.LET_GO): State.BLOCKED,
    (State.HELD, Event.CANCEL): State.CANCELLED,
    (State.HELD, Event.EXPIRE): State.EXPIRED,
    (State.SCHEDULED, Event.HOLD): State.HELD,
    (State.BLOCKED, Event.HOLD): State.HELD,
    (State.QUEUED, Event.HOLD): State.HELD,
    (State.SCHEDULED, Event.DUE): State.QUEUED,
    (State.SCHEDULED, Event.CANCEL): State.CANCELLED,
    (State.SCHEDULED, Event.EXPIRE): State.EXPIRED,
    (State.BLOCKED, Event.EXPIRE): State.EXPIRED,
    (State.QUEUED, Event.EXPIRE): State.EXPIRED,
    (State.QUEUED, Event.POSTPONE): State.SCHEDULED,
    (State.RUNNING, Event.POSTPONE): State.SCHEDULED,
    (State.EXPIRED, Event.RETRY): State.QUEUED,
    (State.EXPIRED, Event.REVIVE): State.BLOCKED,
    (State.QUEUED, Event.ASSIGN): State.RUNNING,
    (State.QUEUED, Event.PUT): State.SUCCEEDED,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.QUEUED, Event.CRASH): State.CRASHED,
    (State.RUNNING, Event.PUT_BACK): State.QUEUED,
    (State.RUNNING, Event.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.CRASH): State.CRASHED,
    (State.RUNNING, Event.TIME_OUT): State.TIMED_OUT,
    (State.RUNNING, Event.CANCEL): State.CANCELLED,
    (State.FAILED, Event.RETRY): State.QUEUED,
    (State.CRASHED, Event.RETRY): State.QUEUED,
    (State.TIMED_OUT, Event.RETRY): State.QUEUED,
    (State.CANCELLED, Event.RETRY): State.QUEUED,
    (State.BLOCKED, Event.RELEASE): State.QUEUED,
    (State.BLOCKED, Event.CANCEL): State.CANCELLED,
    (State.BLOCKED, Event.ABORT): State.ABORTED,
    (State.ABORTED, Event.REVIVE): State.BLOCKED,
    (State.CANCELLED, Event.REVIVE): State.BLOCKED,
    # Arrays, and items of theirs.
    (State.HELD, Event.COMPLETE): State.SUCCEEDED,
    (State.HELD, Event.FALL_SHORT): State.FAILED,
    (State.QUEUED, Event.COMPLETE): State.SUCCEEDED,
    (State.QUEUED, Event.FALL_SHORT): State.FAILED,
    (State.QUEUED, Event.ABORT): State.ABORTED,
    (State.SCHEDULED, Event.ABORT): State.ABORTED,
    (State.ABORTED, Event.RETRY): State.QUEUED,
}


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_what_may_happen_to_a_job_is_in_the_table_and_nothing_else(
    state: State, event: Event
) -> None:
    """Each pair either leads to the one state that the rules name, or is refused."""
    after = LEGAL.get((state, event))
    if after is None:
        with pytest.raises(IllegalTransition, match=f"{state.name} cannot {event.name}"):
            transition(state, event)
    else:
        assert transition(state, event) is after


def test_every_state_has_a_line_in_the_table() -> None:
    """Even those without a way out."""
    assert TABLE.keys() == set(State)


def test_an_end_is_left_only_by_a_retry() -> None:
    """And a success not at all: its result may have been consumed."""
    ends = {state for state in State if state >= ENDED}
    assert {event for state in ends for event in TABLE[state]} == {Event.RETRY, Event.REVIVE}
    assert TABLE[State.SUCCEEDED] == {}


def test_every_live_state_can_be_cancelled_and_leads_to_an_end() -> None:
    """No job is stuck in a state that nobody can take it out of."""
    for state in State:
        if state < ENDED:
            assert Event.CANCEL in TABLE[state]
            assert any(after >= ENDED for after in TABLE[state].values())


def test_the_numbers_that_are_stored_never_change() -> None:
    """A database of an older jobd must mean the same."""
    assert {state.name: state.value for state in State} == {
        "HELD": 0,
        "SCHEDULED": 1,
        "BLOCKED": 2,
        "QUEUED": 3,
        "RUNNING": 4,
        "SUCCEEDED": 10,
        "FAILED": 11,
        "CRASHED": 12,
        "TIMED_OUT": 13,
        "CANCELLED": 14,
        "ABORTED": 15,
        "EXPIRED": 16,
    }
    assert (Event.PUT_BACK, Event.CANCEL) == (2, 6)  # kept with a job that is being stopped


def test_every_state_has_a_name_and_an_exit_code() -> None:
    """The name leads back to the state; only a success exits with 0."""
    assert {BY_NAME[name] for name in NAMES.values()} == set(State)
    assert EXIT_CODES.keys() == set(State)
    assert [state for state in State if EXIT_CODES[state] == 0] == [State.SUCCEEDED]
    assert {EXIT_CODES[state] for state in State if state < ENDED} == {3}
