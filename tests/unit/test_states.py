"""The one table of a job's life."""

from __future__ import annotations

import itertools

import pytest

from jobd.model.states import (
    ENDED,
    EXIT_CODES,
    NAMES,
    TABLE,
    Event,
    IllegalTransition,
    State,
    transition,
)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_follows_the_table_or_is_refused(state: State, event: Event) -> None:
    """What the table has is what happens; everything else is an error that names both."""
    after = TABLE[state].get(event)
    if after is None:
        with pytest.raises(IllegalTransition, match=f"{state.name}.*{event.name}"):
            transition(state, event)
    else:
        assert transition(state, event) is after


def test_an_end_has_no_exit_but_a_persons_retry() -> None:
    """A recorded end never changes by itself, and a success never at all."""
    for state in State:
        if state >= ENDED:
            assert set(TABLE[state]) <= {Event.RETRY}
    assert not TABLE[State.SUCCEEDED]


def test_every_state_has_its_table_its_name_and_its_exit_code() -> None:
    """A state that is added is added everywhere."""
    assert set(TABLE) == set(NAMES) == set(EXIT_CODES) == set(State)
