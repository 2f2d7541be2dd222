"""The client for asyncio.

It has the names of the client for threads; what may wait is awaited.  ``submit`` sends
without waiting, and what it returns can be awaited for the value:

>>> async with jobd.AsyncClient() as client:
...     value = await client.submit("math:factorial", 20)

What the socket does not take at once stays in line and goes out as the daemon reads.
Everything happens in the event loop that the client was opened in.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Generator,
)
from contextlib import nullcontext
from typing import Any, Generic, Self, TypeVar

from jobd import context
from jobd.client.aio_api import AsyncApi, AsyncDeferred
from jobd.client.asking import Steps
from jobd.client.core import PING_S, Core
from jobd.client.link import RECONNECT_S, connect, deadline_of, default_socket, gone, left_of
from jobd.client.waiting import Pending, Waitable
from jobd.model.errors import DaemonUnreachable, JobdError, TooManyClients
from jobd.model.messages import Apply, Put, Submit, Welcome
from jobd.wire.channel import Channel
from jobd.wire.zmtp import Disconnected, ProtocolError

T = TypeVar("T")
R = TypeVar("R")


class _Soon(Generic[R]):
    """What a property that may have to wait returns: nothing is asked until it is awaited."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, None, R]:
        return self._begin().__await__()


class AsyncClient(AsyncApi):
    """A connection to a daemon; ``async with`` opens and closes it.

    Args:
        socket: the daemon's socket, ``tcp://…`` or ``ssh://…``; None: as the settings say (``JOBD_SOCKET`` …).
        timeout_s: how long to wait for an answer, or for a daemon that restarts.
    """

    def __init__(self, socket: str | None = None, *, timeout_s: float = 30.0) -> None:
        self.socket = socket or default_socket()
        self.timeout_s = timeout_s
        self._core: Core[AsyncDeferred[Any]] = Core(AsyncDeferred)
        self._lock = nullcontext()  # all of it happens in one thread
        self._loop: asyncio.AbstractEventLoop
        self._transport: Channel | None = None
        self._waiting: set[asyncio.Future[bool]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._reconnection: asyncio.Task[None] | None = None
        self._error: JobdError | None = DaemonUnreachable(
            "this client is not open", "use 'async with'"
        )

    def _submit(self, request: Submit | Put | Apply) -> list[AsyncDeferred[Any]]:
        self._refuse_closed()
        submission = self._core.submit(request)
        self._send(submission.frame)
        return self._core.promise(self, submission)

    # -- opening and closing --

    async def open(self) -> None:
        """Connect; ``async with`` does it.

        Raises:
            DaemonUnreachable: no daemon answers there.
            TooManyClients: it serves no more of them.
            Denied: the socket is somebody else's.
        """
        self._loop = asyncio.get_running_loop()
        await self._connect(self.timeout_s)
        self._error = None
        self._timer = self._loop.call_later(PING_S, self._ping)

    async def close(self) -> None:
        """Wait until every submit is durable, and disconnect."""
        if self._error is not None:
            return
        try:
            await self.flush(self.timeout_s)
        finally:
            self._hang_up()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: object
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            await self.close()
        else:
            self._hang_up()  # cancelled: what was sent is on its way, nothing more is waited for

    def __repr__(self) -> str:
        return f"<jobd.AsyncClient {self.socket}{' closed' if self._error else ''}>"

    def _hang_up(self, error: JobdError | None = None) -> None:
        """Disconnect for good; whoever waits is told why."""
        self._error = DaemonUnreachable("this client is closed", "make a new one")
        self._disconnect()
        self._core.files.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._reconnection is not None:
            self._reconnection.cancel()
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(error or self._error)

    def _refuse_closed(self) -> None:
        if self._error is not None:
            raise type(self._error)(self._error.message, self._error.hint)

    # -- the connection --

    async def _connect(self, timeout_s: float) -> None:
        """Connect in a thread: a daemon that is busy or stopped must not keep the loop."""
        made = self._loop.run_in_executor(None, connect, self.socket, timeout_s)
        try:
            transport, welcome = await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_drop)
            raise
        self._transport = transport
        self._core.connected(welcome)
        self._loop.add_reader(transport.fileno(), self._on_readable)

    def _disconnect(self) -> None:
        if self._transport is not None:
            self._loop.remove_reader(self._transport.fileno())
            self._loop.remove_writer(self._transport.fileno())
            self._transport.close()
            self._transport = None

    def _on_readable(self) -> None:
        if self._transport is None:
            return
        try:
            frames = self._transport.receive(0)
        except (Disconnected, ProtocolError):
            self._lost()
            return
        for frame in frames:
            for again in self._core.take(frame):
                self._send(again)
        if self._core.owes_ping:
            self._send(self._core.ping())
        self._write_on()

    def _on_writable(self) -> None:
        if self._transport is not None:
            self._transport.flush()
            self._write_on()

    def _send(self, frame: bytes) -> None:
        if self._transport is not None:  # else it goes out with all that is not answered
            self._transport.post(frame)
            self._write_on()

    def _say(self, frame: bytes) -> None:
        """Send a message without an answer; also from a finalizer, which any thread may run."""
        if self._error is None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._send, frame)

    def _write_on(self) -> None:
        """Be called when more can be written, as long as there is more."""
        if self._transport is None:
            return
        if self._transport.unsent:
            self._loop.add_writer(self._transport.fileno(), self._on_writable)
        else:
            self._loop.remove_writer(self._transport.fileno())
        if self._transport.has_read:  # of which its descriptor tells no more
            self._loop.call_soon(self._on_readable)

    def _ping(self) -> None:
        if self._waiting:
            self._send(self._core.ping())
        self._timer = self._loop.call_later(PING_S, self._ping)

    def _lost(self) -> None:
        self._disconnect()
        if self._core.hung_up():
            self._hang_up()
        elif self._reconnection is None:
            self._reconnection = self._loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Connect again, for as long as ``timeout_s``, and repeat what was not answered."""
        deadline = self._loop.time() + self.timeout_s
        try:
            while self._transport is None:
                try:
                    await self._connect(deadline - self._loop.time())
                except (DaemonUnreachable, TooManyClients) as error:
                    if self._loop.time() >= deadline:
                        self._hang_up(gone(self.socket, self.timeout_s, error))
                        return
                    await asyncio.sleep(RECONNECT_S)
            for frame in self._core.repeat():
                self._send(frame)
        except JobdError as error:
            self._hang_up(error)
        finally:
            self._reconnection = None

    # -- waiting --

    async def _run(self, steps: Steps[R], timeout_s: float | None = None) -> R:
        """Carry out a verb, whose waits for jobs may take ``timeout_s`` in all (None: for ever).

        Raises:
            WaitTimeout: something was not done in time.
        """
        deadline = deadline_of(timeout_s)
        lent = None
        try:
            while True:
                step = next(steps)
                if isinstance(step, Pending) and not step.sent:
                    self._refuse_closed()
                    self._core.begin(step)
                    self._send(step.frame)
                if context.host is not None and lent is None:
                    lent = await self._lend(step, left_of(deadline))
                limit = left_of(deadline) if step.patient else self.timeout_s
                if not step.done() and not await self._await(step, limit):
                    raise step.late(timeout_s if step.patient else limit)
        except StopIteration as end:
            value: R = end.value
            return value
        finally:
            context.end_wait(lent)

    def _soon(self, begin: Callable[[], Steps[R]], timeout_s: float | None = None) -> Awaitable[R]:
        return _Soon(lambda: self._run(begin(), timeout_s))

    async def _lend(self, step: Waitable, timeout_s: float | None) -> object | None:
        """Lend the slot of the job that this runs in, if it is about to wait for others."""
        if step.awaited is None or step.done() or timeout_s == 0:
            return None
        answered = asyncio.Event()
        refusals: list[JobdError] = []

        def told(error: JobdError | None) -> None:
            if error is not None:
                refusals.append(error)
            self._loop.call_soon_threadsafe(answered.set)

        lent = context.begin_wait(step.awaited, self.socket, told)
        limit = context.ANSWER_S if timeout_s is None else min(context.ANSWER_S, timeout_s)
        try:
            async with asyncio.timeout(limit):
                await answered.wait()
        except TimeoutError:
            pass  # the daemon may be restarting: the wait begins all the same
        except BaseException:
            context.end_wait(lent)
            raise
        if refusals:
            context.end_wait(lent)
            raise refusals[0]
        return lent

    async def _await(self, step: Waitable, limit_s: float | None) -> bool:
        """Wait until something is done; return False if it is late."""
        self._refuse_closed()
        future: asyncio.Future[bool] = self._loop.create_future()

        def wake(_: object) -> None:
            if not future.done():
                future.set_result(True)

        def give_up() -> None:
            self._on_readable()  # the last look
            if not future.done():
                future.set_result(False)

        timer = None if limit_s is None else self._loop.call_later(limit_s, give_up)
        self._waiting.add(future)
        step.call_when_done(wake)
        try:
            return await future
        finally:
            self._waiting.discard(future)
            step.forget(wake)
            if timer is not None:
                timer.cancel()


def _drop(made: asyncio.Future[tuple[Channel, Welcome]]) -> None:
    """Close a connection that came when nobody wanted it any more."""
    if not made.cancelled() and made.exception() is None:
        made.result()[0].close()
