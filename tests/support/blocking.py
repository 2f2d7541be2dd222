"""The client for asyncio behind the face of the one for threads, so that one test is for both."""

from __future__ import annotations

import asyncio
import inspect
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self, cast

from jobd.client import Client
from jobd.client.aio import AsyncClient
from jobd.client.aio_api import AsyncBatch, AsyncDeferred


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, call: Callable[[], Any]) -> Any:
        """Make a call in the loop, await what it gives, and return that for this thread."""

        async def make() -> Any:
            made = call()
            if inspect.isawaitable(made) and not isinstance(made, AsyncDeferred):
                return await made
            return made

        return self.outside(asyncio.run_coroutine_threadsafe(make(), self._loop).result(60))

    def outside(self, value: Any) -> Any:
        """Return what a test is given for a value that belongs to the loop."""
        if isinstance(value, AsyncClient | AsyncDeferred) or hasattr(value, "submit_many"):
            return Blocking(self, value)
        if isinstance(value, AsyncBatch):
            return BlockingBatch(self, value)
        if isinstance(value, AsyncIterator):
            return self._iterate(value)
        if isinstance(value, list):
            return [self.outside(item) for item in value]
        if isinstance(value, dict):
            return {key: self.outside(item) for key, item in value.items()}
        return value

    def _iterate(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield self.run(lambda: anext(items))
            except StopAsyncIteration:
                return

    def close(self) -> None:
        """End the loop and its thread."""

        async def finish() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._loop.shutdown_asyncgens()
            await self._loop.shutdown_default_executor()

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Blocking:
    """An object of the loop, all of whose verbs wait."""

    def __init__(self, loop: Loop, inner: Any) -> None:
        object.__setattr__(self, "_of", (loop, inner))

    def __getattr__(self, name: str) -> Any:
        loop, inner = self._of
        found = loop.run(lambda: getattr(inner, name))
        if not inspect.isroutine(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            given = inside(args), inside(kwargs)
            return loop.run(lambda: found(*given[0], **given[1]))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._of[1], name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blocking) and self._of[1] is other._of[1]

    def __hash__(self) -> int:
        return id(self._of[1])

    def __repr__(self) -> str:
        return repr(self._of[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        loop, inner = self._of
        loop.run(lambda: inner.__aexit__(*error))


class BlockingBatch(Blocking):
    """An array of the loop's client, to be iterated as well."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        loop, inner = self._of
        try:
            return loop.run(lambda: anext(inner))
        except StopAsyncIteration:
            raise StopIteration from None


def inside(value: Any) -> Any:
    """Return what the loop knows a value of a test as."""
    if isinstance(value, Blocking):
        return value._of[1]
    if type(value) in (list, tuple):
        return type(value)(map(inside, value))
    if type(value) is dict:
        return {key: inside(item) for key, item in value.items()}
    if isinstance(value, types.SimpleNamespace):
        return types.SimpleNamespace(**inside(vars(value)))
    return value


def connect(loop: Loop, socket: str, timeout_s: float) -> Client:
    """Open a client of a loop."""
    client = AsyncClient(socket, timeout_s=timeout_s)
    loop.run(client.open)
    return cast("Client", Blocking(loop, client))
