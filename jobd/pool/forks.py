"""A child that a job has forked, seen from within: how it ends, and what it must not inherit.

Such a child comes back from the job's function as its parent does.  It is no worker: it
ends right there, with an exit code of its own, as a script that returns, raises or calls
``sys.exit`` does.  What is registered with ``atexit`` is its parent's, and not run.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

from jobd.pool.failure import describe


class Forks:
    """Tells the process that has made it from its forked children."""

    def __init__(self, leave: Callable[[], None]) -> None:
        """In each child that Python knows to be one ``leave`` is called at once."""
        self.is_child = False
        """This is a child, as far as was seen."""
        self._pid = os.getpid()
        self._leave = leave
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        if not self.is_child:
            self.is_child = True
            self._leave()

    def look(self) -> bool:
        """Ask the kernel whether this is a child: C code may fork without a word; it costs a system call."""
        if os.getpid() != self._pid:
            self._forked()
        return self.is_child

    def end_child(self, error: BaseException | None = None) -> None:
        """If this is a child, end it here: its function has returned, or raised this."""
        if self.is_child:
            end(error)

    async def guard(self, awaitable: Awaitable[Any]) -> Any:
        """Await something; a child ends before it comes to the event loop, which is its parent's too."""
        try:
            value = await awaitable
        except BaseException as error:
            self.end_child(error)
            raise
        self.end_child()
        return value


def end(error: BaseException | None) -> NoReturn:
    """End this process as Python ends a script that has raised this, or returned (None)."""
    code = 1
    try:
        _flush()
        code = _exit_code(error)
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    except BaseException:  # noqa: BLE001, S110  # whatever it is, the child has to end
        pass
    finally:
        _flush()
        if isinstance(error, KeyboardInterrupt):
            die(signal.SIGINT)
        os._exit(code)


def die(number: int) -> None:
    """End by a signal, as by default."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _exit_code(error: BaseException | None) -> int:
    """Return the exit code, and print what is to be said about it."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    print(describe(error).traceback, end="", file=sys.stderr)
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except BaseException:  # noqa: BLE001, S110  # closed, or the user's own
            pass


def leave_signals(ours: Mapping[int, object]) -> None:
    """In a child: have these signals do what they do by default, where this handler of ours is in place.

    By default SIGINT raises KeyboardInterrupt, as everywhere in Python.
    """
    for number, handler in ours.items():
        if signal.getsignal(number) == handler:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
