"""A timer of the kernel's that sends a signal to the main thread, without any help of Python's.

A thread that watches the clock needs the GIL to send a signal, and C code that keeps the GIL,
yet looks at signals (a regular expression, a power of large integers), would never be
interrupted.  ``timer_create`` is what ``setitimer`` is made of, with its own timer: a job's
``signal.alarm`` and ``signal.setitimer`` are not touched.  It is for one thread, so that a
system call which that thread waits in is interrupted; and a process that is forked has none.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

SIGNAL = signal.SIGRTMIN + 5
"""No job has a use for it, most likely; SIGALRM may be a job's own."""

_SIGEV_THREAD_ID = 4


class _Event(ctypes.Structure):
    """``struct sigevent``, which has 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("_rest", ctypes.c_char * 44),
    )


class _Moment(ctypes.Structure):
    """``struct timespec``."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    """``struct itimerspec``."""

    _fields_ = (("interval", _Moment), ("value", _Moment))


class KernelTimer:
    """Signals the thread that has made it, once after each ``start``."""

    def __init__(self) -> None:
        """Make it; raises OSError where the kernel, or the C library, has none to give."""
        try:
            self._library = _library()
        except (OSError, AttributeError) as error:
            raise OSError(f"the C library has no timers: {error}") from None
        self._pid = os.getpid()
        self._id = ctypes.c_void_p()
        event = _Event(None, SIGNAL, _SIGEV_THREAD_ID, threading.get_native_id(), b"")
        reference = ctypes.byref(self._id)
        if self._library.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), reference):
            raise _error()

    def start(self, after_s: float) -> None:
        """Signal after so long, instead of when it was to be before; 0: not at all."""
        if os.getpid() != self._pid:
            return  # in a fork, where this id names no timer, or another's
        nanoseconds = max(0, round(after_s * 1e9))
        setting = _Setting(_Moment(0, 0), _Moment(*divmod(nanoseconds, 1_000_000_000)))
        if self._library.timer_settime(self._id, 0, ctypes.byref(setting), None):
            raise _error()


class ThreadTimer:
    """The same from a thread, where the kernel has no timer to give: it needs the GIL."""

    def __init__(self) -> None:
        self._main = threading.get_ident()
        self._thread: threading.Timer | None = None

    def start(self, after_s: float) -> None:
        """As that of ``KernelTimer``."""
        if self._thread is not None:
            self._thread.cancel()
            self._thread = None
        if after_s > 0:
            self._thread = threading.Timer(after_s, signal.pthread_kill, (self._main, SIGNAL))
            self._thread.daemon = True
            self._thread.start()


Timer = KernelTimer | ThreadTimer


def make_timer() -> Timer:
    """Return a timer for the thread that calls this: the kernel's, if there is one to be had."""
    try:
        return KernelTimer()
    except OSError:
        return ThreadTimer()


def _library() -> ctypes.CDLL:
    """Return the library with the timers: for a long time that was not libc itself."""
    for name in (None, "librt.so.1"):
        library = ctypes.CDLL(name, use_errno=True)
        if hasattr(library, "timer_create"):
            return library
    raise AttributeError("timer_create")


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
