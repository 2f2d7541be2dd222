"""Each rule of arrays, broken once: the histories of the simulation must find it."""

from __future__ import annotations

from typing import Any

import pytest
import simulation
from simulation import Failed, Simulation

from jobd.daemon import service
from jobd.daemon.arrays import ArrayDesk
from jobd.model.job import Job, Outcome
from jobd.scheduler import Scheduler, Worker, array_control
from jobd.scheduler.array_control import ArrayControl
from jobd.scheduler.arrays import Array, Arrays
from jobd.scheduler.dispatch import Dispatch
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.workforce import Workforce

TRIES = 600
"""Histories within which a fault has to show."""

returned, enter = Arrays.returned, Arrays.enter


def _ends_none(_: ArrayControl, array: Array) -> None:  # as it is called
    pass


def _ends_what_is_left(array: Array) -> bool:
    return array.open < array.spec.items


def _all_is_well(_: Array) -> bool:
    return True


def _has_any_slots(array: Array) -> bool:
    return bool(array.loaded or array.again)


def _loses_the_last(arrays: Arrays, job: Job, outcome: Outcome) -> None:
    outcome.count = max(1, outcome.count - 1)
    returned(arrays, job, outcome)


def _knows_no_item(
    _: Workforce, worker: Worker, running: tuple[int, int]
) -> None:  # as it is called
    pass


def _cuts_nothing(
    _: Workforce, worker: Worker, number: int, attempt: int
) -> None:  # as it is called
    pass


def _keeps_what_was_refused(_: Ledger, array: int) -> None:  # as it is called
    pass


def _recovers_nothing(scheduler: Scheduler, store: Any, lease: Any, *_: Any) -> None:  # noqa: ARG001  # as it is called
    scheduler.workforce.forget_attempt(lease)


def _stops_no_item(_: Dispatch, job: Job) -> None:  # as it is called
    pass


def _stands_in_line_once(arrays: Arrays, array: Array) -> None:
    if not array.is_in_line and array.open == array.spec.items:
        enter(arrays, array)


def _keeps_the_range(_: ArrayControl, range_: Any, parts: Any) -> None:  # as it is called
    pass


def _retries_what_is_retried(_: Ledger, first: int) -> bool:  # noqa: ARG001  # as it is called
    return False


def _answers_nobody(desk: ArrayDesk) -> None:
    desk.scheduler.arrays.news = set()


FIRST: dict[object, int] = {
    _keeps_what_was_refused: 46,
    _retries_what_is_retried: 92,
    _recovers_nothing: 37,
    _stops_no_item: 404,
}
"""A history that has shown a fault which few show; the others are gone through if it does no longer."""


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (ArrayControl, "_end", _ends_none),
        (array_control, "is_over", _ends_what_is_left),
        (array_control, "is_well", _all_is_well),
        (Array, "has_ready", property(_has_any_slots)),
        (Arrays, "returned", _loses_the_last),
        (Arrays, "enter", _stands_in_line_once),
        (Workforce, "_isolate", _knows_no_item),
        (Workforce, "_cut", _cuts_nothing),
        (Ledger, "forget_items", _keeps_what_was_refused),
        (ArrayControl, "split", _keeps_the_range),
        (Ledger, "is_retried", _retries_what_is_retried),
        (service, "_recover_stretch", _recovers_nothing),
        (Dispatch, "_stop_doomed", _stops_no_item),
        (ArrayDesk, "serve", _answers_nobody),
    ],
    ids=lambda value: getattr(getattr(value, "fget", value), "__name__", str(value)),
)
def test_a_fault_of_the_arrays_does_not_stay_hidden(
    owner: object, name: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some history meets it, and says what is wrong."""
    monkeypatch.setattr(owner, name, fault)
    monkeypatch.setattr(simulation, "ARRAYS", 1.0)
    with pytest.raises(Failed, match=r"seed \d+, step \d+"):
        for seed in (FIRST.get(fault, 0), *range(TRIES)):
            Simulation(seed).run()
