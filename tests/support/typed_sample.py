"""A user's module, as mypy --strict sees it: what the client's signatures promise.

It is checked, never run.  A line that must be an error says which one: an ignore that
is not needed is an error itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

import jobd


def load(path: str) -> list[int]:
    """Return numbers."""
    return [len(path)]


async def fetch(url: str) -> bytes:
    """Return what is there."""
    return url.encode()


def threads(client: jobd.Client) -> None:
    """Use the client for threads."""
    deferred = client.submit(load, "sales.csv")
    assert_type(deferred, jobd.Deferred[list[int]])
    assert_type(deferred.result(timeout=3), list[int])
    assert_type(deferred.id, int)
    assert_type(deferred.state, str)
    assert_type(deferred.done(), bool)
    assert_type(deferred.cancel("not needed"), bool)
    assert_type(deferred.exception(), jobd.JobError | None)
    assert_type(client.submit(fetch, "http://localhost").result(), bytes)
    assert_type(client.submit("mytasks:load", 1, key=2), jobd.Deferred[Any])
    assert_type(client.submit(fetch, deferred).result(), bytes)
    assert_type(client.options(queue="etl", name="x").submit(load, "a"), jobd.Deferred[list[int]])
    assert_type([d.result() for d in client.as_completed([deferred])], list[list[int]])
    assert_type(client.submit_many(load, [("a",), ("b",)]), list[jobd.Deferred[list[int]]])
    assert_type(list(client.map(load, ["a", "b"])), list[list[int]])
    assert_type(client.attach(3), jobd.Deferred[Any])
    assert_type(client.set_queue("etl", slots=2, rate="10/s").paused, bool)
    assert_type([info.waiting for info in client.queues("etl")], list[int])
    length: Callable[[str], int] = len
    assert_type(client.submit(length, "abc").result(), int)
    deferred.result().upper()  # type: ignore[attr-defined]  # it is a list
    deferred.done.bit_length()  # type: ignore[attr-defined]  # it is a method
    client.options(quue="etl")  # type: ignore[call-arg]  # there is no such option
    client.submit(3)  # type: ignore[call-overload]  # not a function


async def asynchronous() -> None:
    """Use the client for asyncio."""
    async with jobd.AsyncClient() as client:
        deferred = client.submit(load, "sales.csv")
        assert_type(deferred, jobd.AsyncDeferred[list[int]])
        assert_type(await deferred, list[int])
        assert_type(await deferred.result(timeout=3), list[int])
        assert_type(await deferred.id, int)
        assert_type(await client.submit(fetch, "http://localhost"), bytes)
        async for done in client.as_completed([deferred]):
            assert_type(done, jobd.AsyncDeferred[list[int]])
        assert_type([n async for n in client.map(load, ["a"])], list[list[int]])
        deferred.id + 1  # type: ignore[operator]  # it has to be awaited
