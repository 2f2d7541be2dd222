"""Objects of ``multiprocessing`` that travel to the workers of an executor's own daemon.

The standard library hands locks, queues, events and shared memory to a pool's workers as these are
started by it, and refuses them elsewhere.  The workers here are children of the daemon.  So what
cannot be named is asked for by a worker that unpickles it, from a thread of the process that has
it, which the two keys of ``multiprocessing`` show to each other to be kin:

- a file descriptor (a pipe's end, shared memory, a queue's pipe) is sent once for each;
- a semaphore without a name, as the start method ``fork`` makes them, stays where it is: each
  operation on it is a question (``jobd.pool.shared``).  One with a name is opened by its name.

Managers' proxies need no more than the key (``jobd.pool.kinship``).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from itertools import count
from multiprocessing import AuthenticationError, context, reduction, synchronize
from multiprocessing.connection import Connection, Listener
from typing import Any

from jobd import by_value
from jobd.pool.shared import SharedFd, prove, rebuild

SLICE_S = 0.5
"""So often one who waits for a semaphore is looked at: whether it is still there to be given it."""


class Sharing:
    """What this process hands out, as long as the executor lives."""

    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._thread: threading.Thread
        self._closed = threading.Event()
        self._things: dict[int, Any] = {}
        """By their numbers: file descriptors, which are copies of ours, and semaphores."""
        self._number = count(1).__next__
        self._reducers: dict[type, Callable[[Any], Any]] = {}

    def dumps(self, value: object) -> bytes:
        """Pickle a value, whatever of ``multiprocessing`` is in it."""
        extra = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # noqa: SLF001  # what it registers
        kinds = (
            synchronize.Lock,
            synchronize.RLock,
            synchronize.Semaphore,
            synchronize.BoundedSemaphore,
        )
        reducers = {**extra, **dict.fromkeys(kinds, self._reduce)}
        context.set_spawning_popen(self)  # type: ignore[arg-type]  # what they ask of it, this has
        try:
            return by_value.dumps(value, None, reducers)
        finally:
            context.set_spawning_popen(None)

    def duplicate_for_child(self, fd: int) -> int:
        """Return a number for a file descriptor; asked by ``multiprocessing.reduction``."""
        return self._offer(os.dup(fd))

    def DupFd(self, number: int) -> SharedFd:  # noqa: N802  # as above
        """Return what stands for it in a pickle."""
        return SharedFd(self._address(), number)

    def close(self) -> None:
        """Hand out nothing more."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._closed.set()
        with socket.socket(socket.AF_UNIX) as last:  # closing it would not wake up who accepts
            last.connect(listener.address)
        self._thread.join()
        listener.close()
        for thing in self._things.values():
            if isinstance(thing, int):
                os.close(thing)
        self._things.clear()

    def _reduce(self, lock: Any) -> Any:
        if lock._semlock.name is not None:  # noqa: SLF001  # what its pickle is made of
            return lock.__reduce_ex__(4)
        inner = lock._semlock  # noqa: SLF001  # as above
        what = (self._address(), self._offer(inner), inner.kind, inner.maxvalue)
        return rebuild, (type(lock), *what)

    def _offer(self, thing: Any) -> int:
        number = self._number()
        self._things[number] = thing
        return number

    def _address(self) -> str:
        if self._listener is None:
            self._listener = Listener(None, "AF_UNIX", backlog=128)
            self._thread = threading.Thread(
                target=self._accept, args=(self._listener,), name="jobd-sharing", daemon=True
            )
            self._thread.start()
        return str(self._listener.address)

    def _accept(self, listener: Listener) -> None:
        """Let everybody in, each in a thread of its own: there it has to show the key, and may wait."""
        while True:
            try:
                channel: Any = listener.accept()
            except OSError:  # it has gone already
                continue
            if self._closed.is_set():
                channel.close()
                return
            thread = threading.Thread(
                target=_serve, args=(channel, self._things), name="jobd-sharing-for", daemon=True
            )
            thread.start()


def _serve(channel: Connection, things: dict[int, Any]) -> None:
    """Answer one worker, until it hangs up."""
    try:
        with channel:
            prove(channel, first=True)
            number, pid = channel.recv()
            thing = things[number]
            if isinstance(thing, int):
                reduction.send_handle(channel, thing, pid)
                return
            while True:
                name, args = channel.recv()
                if name == "acquire":
                    _acquire(channel, thing, *args)
                else:
                    channel.send(_answer(getattr(thing, name), args))
    except (EOFError, OSError, KeyError, AuthenticationError):
        pass  # it has gone, or asks for what is no more, or is a stranger


def _acquire(channel: Connection, semaphore: Any, left_s: float | None) -> None:
    """Take the semaphore for a worker that is still there."""
    while True:
        slice_s = SLICE_S if left_s is None else min(left_s, SLICE_S)
        taken = semaphore.acquire(slice_s > 0, slice_s)
        if taken:
            try:
                channel.send((True, None))
            except OSError:
                semaphore.release()
                raise
            return
        if left_s is not None:
            left_s -= slice_s
            if left_s <= 0:
                channel.send((False, None))
                return
        if channel.poll(0):
            channel.recv()  # it says nothing while it waits: so this is its end
            raise EOFError


def _answer(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return function(*args), None
    except Exception as error:  # noqa: BLE001  # who has asked is to hear it
        return None, error
