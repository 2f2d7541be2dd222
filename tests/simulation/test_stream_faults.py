"""Each rule of streams, broken once: the histories of the simulation must find it."""

from __future__ import annotations

from typing import Any

import pytest
from simulation import Failed, Simulation

from jobd.daemon.streams import StreamDesk
from jobd.model.job import Job
from jobd.scheduler.batch import Batch
from jobd.scheduler.streams import Stream, Streams

TRIES = 1_000
"""Histories within which a fault has to show."""

produced = Streams.produced
follow = Streams.follow


def _runs_it_again(_: Streams, number: int) -> bool:  # noqa: ARG001  # as it is called
    return False


def _shows_at_once(streams: Streams, uid: str, job: Job, first: int, values: list[bytes]) -> None:
    produced(streams, uid, job, first, values)
    stream = streams.live[job.id]
    stream.stored = stream.made
    streams._wake(stream)


def _takes_it_twice(streams: Streams, uid: str, job: Job, first: int, values: list[bytes]) -> None:
    stream = streams.live.get(job.id)
    produced(streams, uid, job, stream.made + 1 if stream and stream.made >= 0 else first, values)


def _grants_nothing(streams: Streams, stream: Stream) -> None:  # as it is called
    pass


def _deletes_what_is_wanted(_: Streams, stream: Stream, batch: Batch) -> None:
    if stream.made > stream.first:
        stream.first = stream.made
        batch.dropped[stream.job] = stream.made - 1


def _deletes_nothing(_: Streams, stream: Stream, batch: Batch) -> None:  # as it is called
    pass


def _forgets_what_runs(_: Streams, uid: str, job: Job, kept: Any) -> None:  # as it is called
    pass


def _never_tells_the_end(streams: Streams, number: int) -> None:
    streams.live[number].worker = ""


def _keeps_the_last_round(streams: Streams, number: int) -> None:
    streams.live.pop(number, None)


def _believes_in_everybody(_: StreamDesk, peer: bytes) -> None:  # as it is called
    pass


FIRST: dict[object, int] = {
    _shows_at_once: 23,
    _takes_it_twice: 484,
    _forgets_what_runs: 164,
    _believes_in_everybody: 366,
}
"""A history that has shown a fault which few show; the others are gone through if it does no longer."""


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (Streams, "has_items", _runs_it_again),
        (Streams, "produced", _shows_at_once),
        (Streams, "produced", _takes_it_twice),
        (Streams, "_grant", _grants_nothing),
        (Streams, "_trim", _deletes_what_is_wanted),
        (Streams, "_trim", _deletes_nothing),
        (Streams, "resume", _forgets_what_runs),
        (Streams, "ended", _never_tells_the_end),
        (Streams, "restart", _keeps_the_last_round),
        (StreamDesk, "check", _believes_in_everybody),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_fault_of_the_streams_does_not_stay_hidden(
    owner: object, name: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some history meets it, and says what is wrong."""
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(Failed, match=r"seed \d+, step \d+"):
        for seed in (FIRST.get(fault, 0), *range(TRIES)):
            Simulation(seed, streams=0.8).run()
