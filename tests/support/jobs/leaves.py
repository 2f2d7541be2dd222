"""Jobs that leave something behind in their worker, and one that tells how it finds it.

It looks by its own means, not by those with which the worker does.
"""

from __future__ import annotations

import _thread
import asyncio
import builtins
import contextvars
import ctypes
import decimal
import faulthandler
import gc
import locale
import logging
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import urllib.request
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MINE: contextvars.ContextVar[int] = contextvars.ContextVar("MINE", default=0)
POOL = ThreadPoolExecutor(2)


class AlarmError(Exception):
    """Raised by a handler that a job has left."""


def pid() -> int:
    """Return the worker."""
    return os.getpid()


def found() -> dict[str, Any]:
    """Return what another job could have changed, and the worker."""
    import csv  # noqa: PLC0415  # not before a job has asked for it
    import multiprocessing  # noqa: PLC0415
    import tempfile  # noqa: PLC0415
    import tracemalloc  # noqa: PLC0415

    return {
        "pid": os.getpid(),
        "timers": [signal.getitimer(which)[0] for which in (0, 1, 2)],
        "handlers": [repr(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "status": _status("SigBlk", "SigIgn", "SigCgt", "Threads"),
        "limits": [resource.getrlimit(kind) for kind in range(16)],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "cwd": str(Path.cwd()),
        "umask": _status("Umask"),
        "environ": sorted(os.environ.items()),
        "C environ": [_getenv(name) for name in ("LEFT", "HOME", "TZ")],
        "zone": time.strftime("%Z", time.localtime(0)),
        "path": sys.path,
        "argv": sys.argv,
        "meta_path": repr(sys.meta_path),
        "hooks": repr((sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook)),
        "traces": repr((sys.gettrace(), sys.getprofile(), threading.gettrace())),
        "filters": repr(warnings.filters),
        "showwarning": repr(warnings.showwarning),
        "decimal": repr(decimal.getcontext()) + repr(decimal.DefaultContext),
        "locale": locale.setlocale(locale.LC_ALL),
        "socket": socket.getdefaulttimeout(),
        "recursion": sys.getrecursionlimit(),
        "digits": sys.get_int_max_str_digits(),
        "switch": sys.getswitchinterval(),
        "gc": (gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks),
        "stack": threading.stack_size(),
        "logging": _logging(),
        "builtins": repr(
            (builtins.print, builtins.open, builtins.input, hasattr(builtins, "mine"))
        ),
        "policy": repr(asyncio.events._event_loop_policy),  # type: ignore[attr-defined]
        "start method": multiprocessing.get_start_method(allow_none=True),
        "tempdir": tempfile.gettempdir(),
        "csv": csv.field_size_limit(),
        "opener": repr(urllib.request._opener),  # type: ignore[attr-defined]
        "tracemalloc": tracemalloc.is_tracing(),
        "mine": MINE.get(),
        "stdin": sys.stdin.read(),
        "faulthandler": faulthandler.is_enabled(),
        "tracebacks": getattr(sys, "tracebacklimit", None),
    }


def _status(*names: str) -> list[str]:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(names)]


def _getenv(name: str) -> str | None:
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    value = getenv(name.encode())
    return None if value is None else value.decode()


def _logging() -> list[Any]:
    root, known = logging.root, logging.getLogger("asyncio")
    mine = logging.getLogger("mine")
    return [
        root.level,
        repr(root.handlers),
        root.filters,
        root.manager.disable,
        logging.raiseExceptions,
        repr(logging.lastResort),
        repr(logging.getLoggerClass()),
        (known.level, known.disabled, known.propagate, repr(known.handlers)),
        (mine.level, mine.disabled, mine.propagate, repr(mine.handlers)),
    ]


def leave(what: str, *args: Any, really: bool = True) -> None:
    """Leave this behind."""
    if really:
        globals()[f"leave_{what}"](*args)


def leave_alarm() -> None:
    """As a time limit of one's own would that is not taken back."""
    signal.alarm(1)


def leave_timers() -> None:
    """Of all three kinds."""
    for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(which, 100)


def leave_raising_alarm(after_s: float, again_s: float = 0.0) -> None:
    """The same, with a handler."""

    def ring(_number: int, _frame: object) -> None:
        raise AlarmError

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, after_s, again_s)


def leave_deadly_alarm(after_s: float) -> None:
    """The same, without one."""
    signal.setitimer(signal.ITIMER_REAL, after_s)


def leave_watchdog(after_s: float) -> None:
    """A stack and the end, unless somebody takes it back."""
    faulthandler.dump_traceback_later(after_s, exit=True)


def leave_faulthandler() -> None:
    """Told otherwise."""
    faulthandler.disable()
    faulthandler.register(signal.SIGUSR1)


def leave_handlers() -> None:
    """Others than there were."""
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.signal(signal.SIGSEGV, lambda *_: None)


def leave_mask() -> None:
    """With something that waits for its end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGUSR1])
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)


def leave_limits() -> None:
    """Soft ones."""
    for kind in (
        resource.RLIMIT_AS,
        resource.RLIMIT_NOFILE,
        resource.RLIMIT_CPU,
        resource.RLIMIT_CORE,
    ):
        used = {resource.RLIMIT_AS: 2**36, resource.RLIMIT_CPU: 10_000}.get(kind, 50)
        resource.setrlimit(kind, (used, resource.getrlimit(kind)[1]))


def leave_hard_limit() -> None:
    """One that only root may raise again."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def leave_affinity() -> None:
    """To one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def leave_directory() -> None:
    """And umask."""
    os.chdir("/")
    os.umask(0o777)


def leave_environ() -> None:
    """With another time zone."""
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    os.environ["HOME"] = "/nowhere"
    del os.environ["PATH"]
    os.putenv("LEFT", "1")


def leave_environ_cleared() -> None:
    """Nothing at all."""
    os.environ.clear()


def leave_environ_replaced() -> None:
    """By a plain dictionary."""
    os.environ = {}  # type: ignore[assignment]  # noqa: B003


def leave_path() -> None:
    """And its kin."""
    sys.path = [*sys.path, "/nowhere"]
    sys.path.insert(0, "/nowhere")
    sys.argv = ["mine"]
    sys.meta_path.insert(0, None)  # type: ignore[arg-type]


def leave_path_appended() -> None:
    """In place."""
    sys.path.append("/nowhere")


def leave_hooks() -> None:
    """Of all kinds."""
    sys.excepthook = sys.displayhook = sys.unraisablehook = threading.excepthook = print
    sys.tracebacklimit = 1
    sys.setprofile(_ignore)
    threading.settrace(_ignore)
    sys.settrace(_ignore)


def _ignore(*_: object) -> None:
    return None


def leave_warnings() -> None:
    """As errors."""
    warnings.simplefilter("error")
    warnings.showwarning = _ignore  # type: ignore[assignment]
    logging.captureWarnings(capture=True)


def leave_numbers() -> None:
    """In how they are computed and shown."""
    decimal.getcontext().prec = 3
    decimal.DefaultContext.prec = 4
    decimal.DefaultContext.traps[decimal.Inexact] = True
    sys.set_int_max_str_digits(1000)
    for name in ("C.UTF-8", "C.utf8", "POSIX"):
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue


def leave_interpreter() -> None:
    """Otherwise."""
    socket.setdefaulttimeout(0.001)
    sys.setrecursionlimit(100)
    sys.setswitchinterval(1.0)
    gc.disable()
    gc.set_threshold(1)
    gc.callbacks.append(_ignore)
    threading.stack_size(2**20)
    MINE.set(1)


def leave_logging() -> None:
    """By a warning alone: it makes a handler, and then ``basicConfig`` does nothing."""
    logging.warning("w")  # noqa: LOG015  # it is what is tested


def leave_logging_disabled() -> None:
    """And set up otherwise."""
    logging.disable(logging.CRITICAL)
    logging.root.setLevel(logging.DEBUG)
    logging.root.addFilter(lambda _: False)
    logging.lastResort = None
    logging.raiseExceptions = False
    logging.getLogger("asyncio").disabled = True
    logging.getLogger("asyncio").addHandler(logging.StreamHandler())
    logging.getLogger("mine").addHandler(logging.StreamHandler())
    logging.getLogger("mine").setLevel(1)


def leave_builtins() -> None:
    """Replaced, and more of them."""
    builtins.print = builtins.open = builtins.input = _ignore  # type: ignore[assignment]
    builtins.mine = 1  # type: ignore[attr-defined]


def leave_rubbish() -> None:
    """Where nobody expects it."""
    logging.root.handlers = None  # type: ignore[assignment]
    del warnings.filters
    del sys.path


def leave_loop() -> None:
    """That nobody has closed."""
    asyncio.set_event_loop(asyncio.new_event_loop())


def leave_libraries() -> None:
    """Of the standard library."""
    import csv  # noqa: PLC0415  # as late as a job does
    import multiprocessing  # noqa: PLC0415
    import tempfile  # noqa: PLC0415
    import tracemalloc  # noqa: PLC0415

    csv.field_size_limit(1)
    multiprocessing.set_start_method("spawn")
    tempfile.tempdir = "/nowhere"
    tracemalloc.start()
    urllib.request.install_opener(urllib.request.build_opener())


def leave_stdin() -> None:
    """Closed, and its descriptor."""
    sys.stdin.close()
    os.close(0)


def leave_thread_that_prints(gate: str) -> None:
    """It prints when it is told to."""

    def speak() -> None:
        print("I am still here")
        while not Path(gate).exists():
            time.sleep(0.001)
        print("I am here too late")

    threading.Thread(target=speak, name="speaker").start()


def leave_bare_thread() -> None:
    """Of which ``threading`` does not know."""
    _thread.start_new_thread(lambda: time.sleep(1000), ())


def leave_thread_in_c() -> None:
    """That runs no Python code."""
    _thread.start_new_thread(time.sleep, (1000,))


def leave_our_module() -> None:
    """Another one in the place of jobd's."""
    sys.modules["jobd.context"] = sys


def leave_root(path: str) -> bool:
    """Another root directory; tell whether that was allowed."""
    try:
        os.chroot(path)
    except PermissionError:
        return False
    return True


def leave_effective_user() -> None:
    """One who may become who it was."""
    if os.geteuid() == 0:
        os.setresuid(0, 65534, 0)


def leave_no_new_privileges() -> None:
    """There is no way back from there."""
    assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0


def use_pool(seconds: float, *, wait: bool = True) -> int:
    """Use threads that outlive the job, and may wait for the next one."""
    future = POOL.submit(time.sleep, seconds)
    if wait:
        future.result()
    return os.getpid()


def log_info() -> None:
    """Set up logging, as the beginning of a program does, and use it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info("heard")  # noqa: LOG015  # the same


def draw(seed: int | None = None) -> float:
    """Draw a number, perhaps after having chosen which."""
    if seed is not None:
        random.seed(seed)
    return random.random()


def draw_with_numpy(seed: int | None = None) -> float:
    """Do the same with the generator that all code of numpy's shares."""
    import numpy as np  # noqa: PLC0415  # as late as a job does

    if seed is not None:
        np.random.seed(seed)  # noqa: NPY002  # it is what is tested
    return float(np.random.random())  # noqa: NPY002  # the same


def import_from_hooked() -> int:
    """Import what only a finder can find that another module has added."""
    import hooked  # type: ignore[import-not-found]  # noqa: PLC0415  # as late as a job does

    return int(hooked.look_for("one_that_is_found").answer)


def take(mib: int) -> int:
    """Use memory."""
    return len(bytearray(mib * 2**20))


def leave_small_address_space() -> None:
    """As a limit of one's own on memory does."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = used * resource.getpagesize() + 16 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def leave_files_open(count: int) -> int:
    """Open files as long as that can be done, and close none; return how many they are."""
    for number in range(count):
        try:
            os.dup(1)
        except OSError:
            return number
    return count


def open_a_file() -> int:
    """Do what nearly all jobs do."""
    with open(os.devnull, "rb") as file:
        return len(file.read())


def leave_memory(mib: int) -> None:
    """Take memory, and keep it."""
    kept.append(bytearray(mib * 2**20))


kept: list[bytearray] = []
