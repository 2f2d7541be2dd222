"""jobd.testing.inline: submits run at once in this process, and travel all the same."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Iterator

import private_jobs as jobs
import pytest

import jobd
import jobd.testing
from jobd.model.states import State


@pytest.fixture(autouse=True)
def run_inline() -> Iterator[None]:
    """Run every test of this module inline."""
    with jobd.testing.inline():
        yield


def test_a_job_has_run_in_this_process_when_its_submit_returns() -> None:
    """By name, by value, as a coroutine, and with another job's result."""
    ran: list[int] = []
    with jobd.Client() as client:
        assert client.submit(os.getpid).result() == os.getpid()
        first = client.submit("private_jobs:square", 3)
        second = client.submit(jobs.square, first)
        assert (second.result(), second.id, second.done()) == (81, 3, True)
        assert client.submit(lambda: len(ran)).result() == 0
        assert client.submit(jobs.later, 5).result() == 5
        assert list(client.map(jobs.square, range(4))) == [0, 1, 4, 9]
        squares = client.map(jobs.square, itertools.count(), buffersize=2)
        assert list(itertools.islice(squares, 5)) == [0, 1, 4, 9, 16]
        assert client.attach(first.id).result() == 9
        assert [d.result() for d in client.as_completed([first])] == [9]
        assert client.submit(jobs.square, client.put(4)).result() == 16
        assert not first.cancel()


def test_arguments_and_results_are_copies_and_what_cannot_travel_fails() -> None:
    """A job that changes its argument changes nothing here; a lock goes neither way."""
    given = {"a": [1]}
    with jobd.Client() as client:
        assert client.submit(dict.pop, given, "a").result() == [1]
        assert given == {"a": [1]}
        with pytest.raises(jobd.UsageError, match="cannot travel"):
            client.submit(jobs.square, threading.Lock())
        with pytest.raises(jobd.JobFailed, match="cannot"):
            client.submit(threading.Lock).result()


def test_errors_are_those_of_a_daemon() -> None:
    """A job that raises, one whose input has failed, a call that does not fit, a job that is not there."""
    with jobd.Client() as client:
        bad = client.submit(jobs.fail, "no")
        with pytest.raises(jobd.JobFailed, match="ValueError: no"):
            bad.result()
        with pytest.raises(jobd.JobAborted):
            client.submit(jobs.square, bad).result()
        with pytest.raises(jobd.BadFunction):
            client.submit("private_jobs:square", 1, 2).result()
        with pytest.raises(jobd.NotFound):
            client.result(99)
        with pytest.raises(jobd.UsageError, match="inline"):
            client.status()


def test_a_stream_is_consumed() -> None:
    """Again and again, as all of it is there; its errors come after its items; what has no end is cut."""
    with jobd.Client() as client:
        stream = client.submit(jobs.count, 3)
        assert list(stream) == list(stream) == [0, 1, 2]
        assert stream.result() is None
        assert list(client.submit(jobs.count_async, 2)) == [0, 1]
        bad = iter(client.submit(jobs.count_and_fail, 2))
        assert [next(bad), next(bad)] == [0, 1]
        with pytest.raises(jobd.JobFailed, match="enough"):
            next(bad)
        assert next(iter(client.submit(jobs.count, 10**9))) == 0
        with pytest.raises(jobd.UsageError, match="is no stream"):
            list(client.submit(jobs.square, 2))

    async def main() -> list[object]:
        async with jobd.AsyncClient() as client:
            return [item async for item in client.submit(jobs.count, 3)]

    assert asyncio.run(main()) == [0, 1, 2]


def test_results_are_taken_and_jobs_are_found() -> None:
    """Once; who comes later is told."""
    with jobd.Client() as client:
        first, second = client.submit(jobs.square, 2), client.submit(jobs.fail, "x")
        assert client.take(first.id) == 4
        with pytest.raises(jobd.AlreadyTaken):
            client.take(first.id)
        with pytest.raises(jobd.JobFailed, match="taken"):
            client.submit(jobs.square, first).result()
        with pytest.raises(jobd.JobFailed):
            client.take(second.id)
        assert [(i.id, i.state, i.function) for i in client.find("1-2")] == [
            (2, State.FAILED, "private_jobs:fail"),
            (1, State.SUCCEEDED, "private_jobs:square"),
        ]
        assert [info.id for info in client.find("last")] == [3]
        assert second.state == "failed"
        assert client.cancel([1]) == [(1, "already finished")]


def test_the_other_faces_run_inline_too() -> None:
    """An executor and the client for asyncio."""
    with jobd.Executor() as executor:
        future = executor.submit(jobs.square, 3)
        assert (future.result(20), future.id) == (9, 1)
        assert list(executor.map(jobs.square, range(3))) == [0, 1, 4]
        assert isinstance(executor.submit(jobs.fail, "x").exception(20), ValueError)

    async def main() -> object:
        async with jobd.AsyncClient() as client:
            return await client.submit(jobs.later, 7)

    assert asyncio.run(main()) == 7
