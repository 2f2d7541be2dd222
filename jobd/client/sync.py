"""The client for threads.

``submit`` sends at once and does not wait: a thousand submits are on their way
before the first is answered.  The answer, that the job is durable, is waited for
by ``Deferred.id``, ``Deferred.result`` and ``Client.flush``, which leaving the
``with`` block does too; a submit that was refused raises there.

Threads may share a client.  One of those that wait reads the socket, for all.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar

from jobd import context
from jobd.client import verbs
from jobd.client.asking import Steps
from jobd.client.core import PING_S, Core
from jobd.client.link import RECONNECT_S, connect, deadline_of, default_socket, gone, left_of
from jobd.client.sync_api import Api, Deferred
from jobd.client.waiting import Arrivals, Pending, Waitable
from jobd.model.errors import DaemonUnreachable, TooManyClients, UsageError
from jobd.model.messages import Apply, Put, Submit
from jobd.wire.zmtp import Disconnected

T = TypeVar("T")
R = TypeVar("R")

READ_EVERY = 64
"""After so many submits a look at what has come, so that the daemon need not drop it."""

SOON_S = 0.0005
"""For so long an answer is looked for without sleeping, if the last one took no longer.

A processor that sleeps wakes up late: the two hand-overs of a lone short job take half of its time.
"""

IS_PARALLEL = len(os.sched_getaffinity(0)) > 1
"""With one processor nobody could answer meanwhile."""


class Client(Api):
    """A connection to a daemon.

    Args:
        socket: the daemon's socket, ``tcp://…`` or ``ssh://…``; None: as the settings say (``JOBD_SOCKET`` …).
        timeout_s: how long to wait for an answer, or for a daemon that restarts.
        reconnects: whether another daemon may come when this one is gone.
        errand: the client will only ``ping``, ``status``, ``reload`` and ``stop``: then a daemon that
            has as many clients as it serves answers all the same.

    Raises:
        DaemonUnreachable: no daemon answers there.
        TooManyClients: it serves no more of them.
        Denied: the socket is somebody else's.
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        timeout_s: float = 30.0,
        reconnects: bool = True,
        errand: bool = False,
    ) -> None:
        self.socket = socket or default_socket()
        self.timeout_s = timeout_s
        self._reconnects = reconnects
        self._errand = errand
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._core: Core[Deferred[Any]] = Core(Deferred)
        self._reading = False
        self._reconnecting = False
        self._is_at_socket = False
        self._unsaid: deque[bytes] = deque()
        """Frames that could not be sent at once, from where they came."""
        self._ping_at = 0.0
        self._comes_soon = False
        """Whether the last wait was so short that sleeping, and waking up, would be most of it."""
        self._closed = False
        self._owner = os.getpid()
        self._connect(timeout_s)
        _clients.add(self)

    def _submit(self, request: Submit | Put | Apply) -> list[Deferred[Any]]:
        core = self._core
        with self._lock:
            self._refuse_closed()
            submission = core.submit(request)
            self._send(submission.frame)
            deferreds = core.promise(self, submission)
            if submission.first and submission.watch:
                # It had to be sent again, and meanwhile another thread has read the answer, and maybe
                # ends that nobody was there for.
                self._send(core.watch_again(deferred.id for deferred in deferreds))
            if not core.submits % READ_EVERY and not (self._reading or self._reconnecting):
                self._read(0.0)
            return deferreds

    # -- for executors --

    def submit_expecting(
        self,
        request: Submit,
        arrivals: Arrivals[Deferred[Any]],
        note: Callable[[list[Deferred[Any]]], object],
    ) -> list[Deferred[Any]]:
        """Submit, and have the deferred results appear among the arrivals as they get done.

        ``note`` is called with them before any of them can.
        """
        with self._lock:
            deferreds = self._submit(request)
            note(deferreds)
            arrivals.expect(deferreds)
        return deferreds

    def arrived(self, arrivals: Arrivals[Deferred[Any]]) -> list[Deferred[Any]]:
        """Wait until something has arrived, and return all that has."""
        self._await(arrivals.done, None)
        with self._lock:
            return arrivals.pop_all()

    def keep(self, deferred: Deferred[Any]) -> None:
        """Have the value of a job that has ended here, so that it can be had without a daemon."""
        ended = deferred._ended  # noqa: SLF001  # ours
        if ended is not None and not ended.inline:  # rarely: without a look each would cost 2 µs
            self._run(verbs.keep(self._core, deferred, ended))

    # -- closing --

    def close(self) -> None:
        """Wait until every submit is durable, and disconnect."""
        if self._closed:
            return
        try:
            self.flush(self.timeout_s)
        finally:
            self._hang_up()

    def abandon(self) -> None:
        """Leave the connection to the process that has forked this one: answers to it are its own."""
        self._lock = threading.RLock()  # somebody may have held it who is not here
        self._condition = threading.Condition(self._lock)
        self._closed = True
        self._transport.close()

    def _hang_up(self) -> None:
        self._closed = True
        self._transport.close()
        self._core.files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:
            self._hang_up()  # Ctrl-C: what was sent is on its way, nothing more is waited for

    def __repr__(self) -> str:
        return f"<jobd.Client {self.socket}{' closed' if self._closed else ''}>"

    # -- the connection --

    def _refuse_closed(self) -> None:
        if self._closed and os.getpid() != self._owner:
            what = f"this client belongs to process {self._owner}, which has forked this one"
            raise UsageError(what, "make a new one after the fork")
        if self._closed:
            raise DaemonUnreachable("this client is closed", "make a new one")

    def _connect(self, timeout_s: float) -> None:
        self._transport, welcome = connect(self.socket, timeout_s, errand=self._errand)
        self._core.connected(welcome)
        self._poll = select.poll()
        self._poll.register(self._transport.fileno(), select.POLLIN)
        self._ping_at = time.monotonic() + PING_S

    def _reconnect(self) -> None:
        """Connect again, for as long as ``timeout_s``, and repeat what was not answered.

        The lock is given up between two attempts: threads that come meanwhile wait for the end.
        """
        if self._core.hung_up():
            self._hang_up()
            return
        if self._reconnecting:
            self._await_reconnection()
            return
        self._reconnecting = True
        try:
            self._find_daemon()
        finally:
            self._reconnecting = False
            self._condition.notify_all()

    def _await_reconnection(self) -> None:
        while self._reconnecting:
            self._condition.wait()
        self._refuse_closed()

    def _find_daemon(self) -> None:
        self._transport.close()
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                self._connect(deadline - time.monotonic())
                self._repeat(self._core.repeat())
            except (DaemonUnreachable, Disconnected, TooManyClients) as error:
                left = deadline - time.monotonic() if self._reconnects else 0.0
                if left <= 0 or self._closed:
                    self._closed = True
                    raise gone(self.socket, self.timeout_s, error) from None
                self._condition.wait(min(left, RECONNECT_S))
            else:
                return

    def _repeat(self, frames: Iterable[bytes]) -> None:
        deadline = time.monotonic() + self.timeout_s
        for frame in frames:
            self._transport.send(frame, deadline)

    def _send(self, frame: bytes) -> None:
        if self._reconnecting:
            self._await_reconnection()  # it has sent all that is not answered, this included
            return
        self._is_at_socket = True
        try:
            self._transport.send(frame, time.monotonic() + self.timeout_s)
            if self._reading and self._transport.has_read:
                # Sending has read what the thread that waits at the socket would not see come:
                # the answer to a ping wakes it.
                self._transport.send(self._core.ping(), time.monotonic() + self.timeout_s)
        except Disconnected:
            self._reconnect()
        except TimeoutError:
            raise DaemonUnreachable(
                f"the daemon at {self.socket} takes no more requests",
                "is it stopped, or very busy?",
            ) from None
        finally:
            self._is_at_socket = False

    def _say(self, frame: bytes) -> None:
        """Send a message without an answer; also from a finalizer, which may run in mid-send."""
        self._unsaid.append(frame)
        if self._lock.acquire(blocking=False):
            try:
                if not (self._is_at_socket or self._reconnecting or self._closed):
                    self._say_all()
            finally:
                self._lock.release()

    def _say_all(self) -> None:
        while self._unsaid:
            try:
                self._transport.send(self._unsaid.popleft(), time.monotonic() + self.timeout_s)
            except (Disconnected, TimeoutError):
                return  # the daemon that heard of what this is about is gone, or stuck

    # -- waiting --

    def _soon(self, begin: Callable[[], Steps[R]], timeout_s: float | None = None) -> R:
        return self._run(begin(), timeout_s)

    def _run(self, steps: Steps[R], timeout_s: float | None = None) -> R:
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
                    self._begin(step)
                if context.host is not None and lent is None:
                    lent = self._lend(step, left_of(deadline))
                limit = left_of(deadline) if step.patient else self.timeout_s
                if not step.done() and not self._await(step.done, limit):
                    raise step.late(timeout_s if step.patient else limit)
        except StopIteration as end:
            value: R = end.value
            return value
        finally:
            context.end_wait(lent)

    def _lend(self, step: Waitable, timeout_s: float | None) -> object | None:
        """Lend the slot of the job that this runs in, if it is about to wait for others."""
        if step.awaited is None or step.done() or timeout_s == 0:
            return None
        return context.lend(step.awaited, self.socket, timeout_s)

    def _begin(self, pending: Pending) -> None:
        with self._lock:
            self._refuse_closed()
            self._core.begin(pending)
            self._send(pending.frame)

    def _await(self, is_over: Callable[[], bool], timeout: float | None) -> bool:
        """Read, or let another thread read for us, until something is so; return False when it is late."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while not is_over():
                left = PING_S if deadline is None else deadline - time.monotonic()
                if left <= 0 and not self._last_look(is_over):
                    return False
                if self._reading or self._reconnecting:
                    self._condition.wait(left)
                else:
                    self._read(min(left, PING_S))
        return True

    def _last_look(self, is_over: Callable[[], bool]) -> bool:
        if not (self._reading or self._reconnecting):
            self._read(0.0)
        return is_over()

    def _read(self, timeout: float) -> None:
        """Read what comes within ``timeout``; the lock is held, but not while waiting."""
        self._refuse_closed()
        self._ping_if_due()
        self._reading = True
        try:
            frames = self._receive(timeout)
        finally:
            self._reading = False
            self._condition.notify_all()
        self._take(frames)

    def _receive(self, timeout: float) -> list[bytes]:
        """Receive; other threads may send meanwhile, so the wait itself touches nothing of the transport."""
        if timeout > 0 and not self._transport.has_read:
            poll = self._poll
            self._lock.release()
            try:
                self._wait_at(poll, timeout)
            finally:
                self._lock.acquire()
        self._is_at_socket = True
        try:
            return self._transport.receive(0)
        except Disconnected:
            self._reconnect()
            return []
        finally:
            self._is_at_socket = False

    def _wait_at(self, poll: select.poll, timeout: float) -> None:
        """Wait until there is something to read; at first without sleeping, if it came soon the last time."""
        began = time.perf_counter()
        if self._comes_soon:
            until = began + min(SOON_S, timeout)
            while time.perf_counter() < until:
                if poll.poll(0):
                    return
                os.sched_yield()
        poll.poll(timeout * 1000)
        self._comes_soon = IS_PARALLEL and time.perf_counter() - began < SOON_S

    def _take(self, frames: list[bytes]) -> None:
        for frame in frames:
            for again in self._core.take(frame):
                self._send(again)

    def _ping_if_due(self) -> None:
        if self._unsaid:
            self._say_all()
        now = time.monotonic()
        if now >= self._ping_at or self._core.owes_ping:
            self._ping_at = now + PING_S
            self._send(self._core.ping())


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _abandon_all() -> None:
    for client in _clients:
        client.abandon()


os.register_at_fork(after_in_child=_abandon_all)
