"""What the kernel and the C library keep for a process, and a job can change."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has no stub; its calls are quicker
import ctypes
import faulthandler
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from jobd.pool import linux
from jobd.pool.parts import Part

NUMBERS = tuple(sorted({int(n) for n in signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP}))

_libc = ctypes.PyDLL(None)
_PR_GET_SECCOMP, _PR_GET_NO_NEW_PRIVS = 21, 39


class Environment:
    """``os.environ`` and the C library's environment, which C code reads.

    The C library makes a new string of whatever is set, so the addresses of its strings tell
    whether anything was.
    """

    def __init__(self) -> None:
        self._at = ctypes.c_void_p.in_dll(_libc, "environ")
        self.adopt()

    def adopt(self) -> None:
        """What is now is as it is to be."""
        self._ours = os.environ
        self._data: dict[bytes, bytes] = vars(os.environ)["_data"]
        self._saved = self._data.copy()
        self._c_saved = dict(_pair(entry) for entry in self._entries())
        self._mark()

    def is_same(self) -> bool:
        """Whether nobody has changed it."""
        return (
            os.environ is self._ours
            and self._at.value == self._address  # or what is below may be gone
            and self._view.tobytes() == self._image
        )

    def put_back(self) -> None:
        """Make it what it was."""
        os.environ = self._ours  # noqa: B003  # the very object that it was
        there = dict(_pair(entry) for entry in self._entries())
        for name in there.keys() - self._c_saved.keys():
            os.unsetenv(name)
        for name, value in self._c_saved.items():
            if name and there.get(name) != value:
                os.putenv(name, value)
        if self._data != self._saved:
            self._data.clear()
            self._data.update(self._saved)
        self._mark()

    def _entries(self) -> list[bytes]:
        found: list[bytes] = []
        if self._at.value:
            strings = ctypes.cast(self._at, ctypes.POINTER(ctypes.c_char_p))
            while (entry := strings[len(found)]) is not None:
                found.append(entry)
        return found

    def _mark(self) -> None:
        self._address = self._at.value
        count = len(self._entries()) + 1 if self._address else 0  # with the NULL at its end
        strings = (ctypes.c_void_p * count).from_address(self._address or 0)
        self._view = memoryview(strings).cast("B")
        self._image = self._view.tobytes()


def _pair(entry: bytes) -> tuple[bytes, bytes]:
    name, _, value = entry.partition(b"=")
    return name, value


class Limits:
    """The rlimits, read into one buffer: Python's own way takes longer."""

    _KINDS = (
        resource.RLIMIT_CPU,
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_DATA,
        resource.RLIMIT_STACK,
        resource.RLIMIT_CORE,
        resource.RLIMIT_NPROC,
        resource.RLIMIT_NOFILE,
        resource.RLIMIT_MEMLOCK,
        resource.RLIMIT_AS,
    )

    def __init__(self) -> None:
        pairs = (ctypes.c_uint64 * 2 * len(self._KINDS))()
        self._buffer = pairs
        self._pointers = [ctypes.byref(pair) for pair in pairs]
        # RLIMIT_OFILE is an old name of RLIMIT_NOFILE.
        self._names = {
            getattr(resource, name): name
            for name in dir(resource)
            if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
        }

    def read(self) -> bytes:
        """Return them all, as the kernel writes them."""
        deque(map(_libc.getrlimit, self._KINDS, self._pointers), 0)
        return bytes(self._buffer)

    def write(self, was: bytes) -> None:
        """Set what has changed; a soft limit as high as a lowered hard one allows."""
        for kind, soft, hard in self._changed(was, self.read()):
            try:
                resource.setrlimit(kind, (soft, hard))
            except (OSError, ValueError):
                now_hard = resource.getrlimit(kind)[1]
                wanted = soft if _is_within(soft, now_hard) else now_hard
                resource.setrlimit(kind, (wanted, now_hard))

    def loss(self, was: bytes, now: bytes) -> str:
        """Name the limits that cannot be raised again."""
        names = [self._names.get(kind, str(kind)) for kind, _, _ in self._changed(was, now)]
        return f"it lowered the hard limit of {', '.join(names)}, which cannot be raised again"

    def _changed(self, was: bytes, now: bytes) -> list[tuple[int, int, int]]:
        """Return kind, soft and hard limit of each that is not as it was."""
        found = []
        for step, kind in enumerate(self._KINDS):
            before, after = was[16 * step : 16 * step + 16], now[16 * step : 16 * step + 16]
            if before != after:
                soft, hard = (_as_python(before[at : at + 8]) for at in (0, 8))
                found.append((kind, soft, hard))
        return found


def _as_python(data: bytes) -> int:
    value = int.from_bytes(data, sys.byteorder)
    return resource.RLIM_INFINITY if value == 2**64 - 1 else value


def _is_within(soft: int, hard: int) -> bool:
    return hard == resource.RLIM_INFINITY or (soft != resource.RLIM_INFINITY and soft <= hard)


def _read_mask() -> set[int]:
    mask: set[int] = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return mask


class Handlers:
    """What is done on each signal, as far as Python knows."""

    def __init__(self, ours: Iterable[int], changed: Callable[[], object]) -> None:
        """``ours`` are those that the worker itself waits for; ``changed`` is called when one was put back."""
        self._ours = frozenset(ours)
        self._changed = changed

    def read(self) -> list[Any]:
        """Return them all."""
        return [*map(_signal.getsignal, NUMBERS)]

    def write(self, was: list[Any]) -> None:
        """Put back those that are not as they were."""
        for number, old, now in zip(NUMBERS, was, self.read(), strict=True):
            if old != now and old is not None:
                signal.signal(number, old)
        faulthandler.disable()  # one of its own may have been among them
        self._changed()

    def unblock(self, was: set[int]) -> None:
        """Block what was blocked, and nothing else; what has waited for it meanwhile is dropped."""
        for number in _signal.sigpending() - was - self._ours:
            before = _signal.getsignal(number)
            signal.signal(number, signal.SIG_IGN)  # by which the kernel forgets it
            if before is not None:
                signal.signal(number, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, was)


def _read_privileges() -> tuple[object, ...]:
    return (
        os.getresuid(),
        os.getresgid(),
        _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
        _libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0),
    )


def _write_privileges(was: tuple[Any, ...]) -> None:
    os.setresuid(*was[0])  # first: it may be what allows the other
    os.setresgid(*was[1])


def _number(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _nothing(_was: object) -> None:
    """Do nothing: there is no way back."""


class Directory(Part):
    """The working directory, by its number: its name may be another one by now."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd = self._open()
        super().__init__(
            "its working directory", lambda: _number("."), lambda _: os.fchdir(self._fd)
        )

    def adopt(self) -> None:
        """It is to be as it is now."""
        os.close(self._fd)
        self._fd = self._open()
        super().adopt()

    def _open(self) -> int:
        return os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _read_umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


class Stdin:
    """File descriptor 0, which would be the next file that is opened if it were closed, and ``sys.stdin``."""

    def __init__(self) -> None:
        self._stream: Any = sys.stdin

    def read(self) -> tuple[bool, bool]:
        """Return whether the one is open, and the other is ours and open."""
        try:
            os.lseek(0, 0, os.SEEK_CUR)
        except OSError:
            is_open = False
        else:
            is_open = True
        return is_open, sys.stdin is self._stream and not getattr(self._stream, "closed", False)

    def write(self, was: tuple[bool, bool]) -> None:
        """Make them anew."""
        if was[0] and not self.read()[0]:
            fd = os.open(os.devnull, os.O_RDONLY)
            os.dup2(fd, 0)
            if fd != 0:
                os.close(fd)
        if getattr(self._stream, "closed", False):
            self._stream = open(0, closefd=False)  # noqa: SIM115
        sys.stdin = sys.__stdin__ = self._stream  # type: ignore[misc]  # ours to set


def _tzset(_was: object) -> None:
    time.tzset()


def surroundings() -> list[Part]:
    """Return what a job may be given for its own, as it is given an environment."""
    return [Part("the time zone", lambda: (time.tzname, time.timezone), _tzset), Directory()]


def parts(ours: Iterable[int], handlers_changed: Callable[[], object]) -> list[Part]:
    """Return them in the order in which they can be put back; the environment is not among them."""
    limits, handlers, stdin = Limits(), Handlers(ours, handlers_changed), Stdin()
    found = [
        Part("limits", limits.read, limits.write, loss=limits.loss),
        Part("umask", _read_umask, os.umask),
        Part("the signals that are blocked", _read_mask, handlers.unblock),
        Part("signal handlers", handlers.read, handlers.write),
        Part("the wakeup fd of signals", lambda: _signal.set_wakeup_fd(-1), signal.set_wakeup_fd),
        Part(
            "the processor cores that it may use",
            lambda: os.sched_getaffinity(0),
            lambda was: os.sched_setaffinity(0, was),
        ),
        Part(
            "its niceness",
            lambda: os.getpriority(os.PRIO_PROCESS, 0),
            lambda was: os.setpriority(os.PRIO_PROCESS, 0, was),
            loss=lambda was, now: f"it raised its niceness from {was} to {now}, for good",
        ),
        Part(
            "its scheduling policy",
            lambda: os.sched_getscheduler(0),
            lambda was: os.sched_setscheduler(0, was, os.sched_param(0)),
        ),
        Part("the user that it is, or its privileges", _read_privileges, _write_privileges),
        Part("stdin", stdin.read, stdin.write),
    ]
    if os.geteuid() == 0:
        found.append(Part("its root directory", lambda: _number("/"), _nothing))
    return found


def stop_timers() -> bool:
    """Stop what would ring; return whether something would have."""
    rang = [
        _signal.setitimer(which, 0.0) != (0.0, 0.0)
        for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    ]
    return any(rang)


def always() -> bool:
    """Undo what costs less to undo than to look for; return whether timers were running."""
    rang = stop_timers()
    faulthandler.cancel_dump_traceback_later()
    linux.become_subreaper()
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # which faulthandler.register is used for
        faulthandler.unregister(number)
    return rang
