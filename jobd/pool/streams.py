"""A generator at work in a worker: item by item, as far ahead of its consumers as it may be.

The main thread runs the generator and sends each item at once; the control thread hears
how many items may be made (``Grant``) and that nobody wants any more (``CloseStream``).
They meet in a few numbers under the worker's lock, and in an eventfd on which the
main thread waits: a signal may end that wait with an exception at any moment, which no
lock of Python's would survive unharmed.

What was sent is kept until it is durable, because the daemon may die with it.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from jobd.model.errors import JobdError
from jobd.model.orders import Produced
from jobd.pool.inside import Inside

MOST_UNRECORDED_BYTES = 4 * 1024 * 1024
"""With more than this on its way to the disk, a producer waits: the daemon has it all in memory."""

LEND_AFTER_S = 0.05
"""A producer that waits for so long lends its slot: perhaps to the job that is to consume its items."""


class ConsumerGone(BaseException):  # not an error of the job: nobody wants its items any more
    """The stream is closed."""


class Stream:
    """One attempt of a generator function.

    ``encode`` makes bytes of an item, given its number; ``send`` takes a message, numbers it, keeps it with
    ``keep`` and sends it; ``enter`` and ``leave`` tell that user code runs, or may be waited
    for, so that a stop may raise in it.
    """

    def __init__(
        self,
        job: tuple[int, int],
        *,
        encode: Callable[[object, int], bytes],
        send: Callable[[Produced], None],
        enter: Callable[[], None],
        leave: Callable[[], None],
        inside: Inside,
    ) -> None:
        self._inside = inside
        self.job = job
        """Id and attempt."""
        self._encode = encode
        self._send_message = send
        self._enter, self._leave = enter, leave
        self._made = 0
        self._credit = 0
        self._closing = False
        self._kept: deque[Produced] = deque()
        self._kept_bytes = 0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)

    # -- the main thread --

    def run(self, generator: Generator[object, None, object]) -> object:
        """Produce until the generator returns; return what it returns.

        Raises:
            ConsumerGone: it was closed before.
        """
        try:
            self._send([])
            while True:
                self._enter()
                self._wait()
                try:
                    item = next(generator)
                except StopIteration as end:
                    return end.value
                self._leave()
                self._send([self._encode(item, self._made + 1)])
        finally:
            generator.close()

    async def run_async(self, generator: AsyncGenerator[object, None]) -> None:
        """As ``run``; the event loop turns while the stream waits."""
        try:
            self._send([])
            while True:
                self._enter()
                await self._wait_async()
                try:
                    item = await anext(generator)
                except StopAsyncIteration:
                    return
                self._leave()
                self._send([self._encode(item, self._made + 1)])
        finally:
            await generator.aclose()

    def close(self) -> None:
        """Give up the eventfd; the control thread must not know of this stream any more."""
        os.close(self._wake)

    def _send(self, values: list[bytes]) -> None:
        first = self._made + 1
        self._made += len(values)
        self._send_message(Produced(0, *self.job, first, values))

    def _wait(self) -> None:
        """Wait until an item may be made; a wait that takes some time lends the slot."""
        lent: object | None = None
        try:
            while not self._may_go_on():
                if lent is None and not self._poll.poll(LEND_AFTER_S * 1000):
                    lent = self._inside.wait_begins((), _heard)
                else:
                    os.eventfd_read(self._wake)
        finally:
            if lent is not None:
                self._inside.wait_ends(lent)

    async def _wait_async(self) -> None:
        lent: object | None = None
        try:
            while not self._may_go_on():
                if not await self._news(None if lent else LEND_AFTER_S):
                    lent = self._inside.wait_begins((), _heard)
        finally:
            if lent is not None:
                self._inside.wait_ends(lent)

    async def _news(self, timeout_s: float | None) -> bool:
        """Wait until the control thread has heard something; return False if it has not in time."""
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        loop.add_reader(self._wake, self._woken, woken)
        try:
            async with asyncio.timeout(timeout_s):
                await woken
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._wake)
        return True

    def _woken(self, woken: asyncio.Future[Any]) -> None:
        os.eventfd_read(self._wake)
        if not woken.done():
            woken.set_result(None)

    def _may_go_on(self) -> bool:
        if self._closing:
            raise ConsumerGone
        return self._made < self._credit and self._kept_bytes < MOST_UNRECORDED_BYTES

    # -- under the worker's lock --

    def keep(self, message: Produced) -> None:
        """Keep what is being sent."""
        self._kept.append(message)
        self._kept_bytes += _size(message)

    def unrecorded(self) -> list[Produced]:
        """Return what was sent and may not be durable, in order."""
        return list(self._kept)

    # -- the control thread, under the worker's lock --

    def granted(self, credit: int, recorded: int) -> None:
        """So many items may be made in all, and those up to ``recorded`` are durable."""
        self._credit = max(self._credit, credit)
        while self._kept and self._kept[0].first + len(self._kept[0].values) - 1 <= recorded:
            self._kept_bytes -= _size(self._kept.popleft())
        os.eventfd_write(self._wake, 1)

    def closed(self) -> None:
        """Nobody wants any more."""
        self._closing = True
        os.eventfd_write(self._wake, 1)


def _heard(_: JobdError | None) -> None:
    """Take note of whether the slot is lent: a producer waits either way."""


def _size(message: Produced) -> int:
    return sum(map(len, message.values))
