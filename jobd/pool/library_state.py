"""What the interpreter and the standard library keep for a whole process, and a job can change.

What a module of the user's or of a third party keeps in its variables is not here: nobody
else knows what is right there.
"""

from __future__ import annotations

import asyncio
import builtins
import ctypes
import decimal
import gc
import locale
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import partial
from typing import Any, Protocol

from jobd.pool.logging_state import Logging
from jobd.pool.parts import Part, Reseeded, attributes, listed, mapping

_CONTEXT_VAR = "decimal_context"


def parts() -> list[Part]:
    """Return what is loaded in every worker."""
    return [*_of_sys(), *_of_threads_and_memory(), *_of_libraries()]


def _of_sys() -> list[Part]:
    found = [
        listed("sys.path", sys, "path"),
        _Finders("sys.meta_path", "meta_path"),
        _Finders("sys.path_hooks", "path_hooks"),
        attributes(
            "what sys holds",
            sys,
            "excepthook",
            "displayhook",
            "unraisablehook",
            "breakpointhook",
            "dont_write_bytecode",
            "pycache_prefix",
            "modules",
        ),
        Part("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
        Part("the switch interval", sys.getswitchinterval, sys.setswitchinterval),
        Part("the flags of dlopen", sys.getdlopenflags, sys.setdlopenflags),
        Part("the limit of digits", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
        Part(
            "the hooks of asynchronous generators",
            sys.get_asyncgen_hooks,
            lambda was: sys.set_asyncgen_hooks(*was),
        ),
        Part(
            "the depth to which origins of coroutines are tracked",
            sys.get_coroutine_origin_tracking_depth,
            sys.set_coroutine_origin_tracking_depth,
        ),
        Part("sys.tracebacklimit", lambda: vars(sys).get("tracebacklimit"), _limit_tracebacks),
        mapping("the built-in functions", vars(builtins)),
    ]
    if sys.version_info >= (3, 12):
        found.append(Part("the tools that monitor", _read_tools, _free_tools))
    return found


class _Finders(Part):
    """Who is asked for a module: those stay that a module has added which was imported meanwhile."""

    __slots__ = ("_modules",)

    def __init__(self, name: str, attribute: str) -> None:
        part = listed(name, sys, attribute)
        super().__init__(name, part.read, part.write)
        self._modules = set(sys.modules)

    def put_back(self) -> str:
        """Put back what differs otherwise."""
        modules = set(sys.modules)
        fresh = modules - self._modules
        self._modules = modules
        was = self.was[1]
        kept = [f for f in self.read()[1] if f in was or _home(f) in fresh]
        self.was = True, [*kept, *(f for f in was if f not in kept)]
        return super().put_back()


def _home(finder: object) -> str:
    found = getattr(finder, "__module__", None)
    return found if isinstance(found, str) else type(finder).__module__


def _limit_tracebacks(was: int | None) -> None:
    if was is None:
        del sys.tracebacklimit
    else:
        sys.tracebacklimit = was


def _read_tools() -> list[str | None]:
    get_tool: Callable[[int], str | None] = sys.monitoring.get_tool  # type: ignore[attr-defined]  # 3.12
    return [get_tool(number) for number in range(6)]


def _free_tools(was: list[str | None]) -> None:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined]  # 3.12
    for number, (before, now) in enumerate(zip(was, _read_tools(), strict=True)):
        if before is None and now is not None:
            monitoring.set_events(number, 0)
            monitoring.free_tool_id(number)


def _of_threads_and_memory() -> list[Part]:
    return [
        Part("the trace function", sys.gettrace, sys.settrace),
        Part("the profile function", sys.getprofile, sys.setprofile),
        Part("the trace function of threads", threading.gettrace, _settrace),
        Part("the profile function of threads", threading.getprofile, _setprofile),
        Part("the stack size of threads", threading.stack_size, threading.stack_size),
        attributes("what threading holds", threading, "excepthook"),
        Part(
            "whether garbage is collected", gc.isenabled, lambda on: (gc.disable, gc.enable)[on]()
        ),
        Part("when garbage is collected", gc.get_threshold, lambda was: gc.set_threshold(*was)),
        Part("how garbage is reported", gc.get_debug, gc.set_debug),
        listed("gc.callbacks", gc, "callbacks"),
    ]


def _settrace(was: Any) -> None:
    threading.settrace(was)


def _setprofile(was: Any) -> None:
    threading.setprofile(was)


def _of_libraries() -> list[Part]:
    log = Logging()
    return [
        Part("logging", log.read, log.write),
        _warning_filters(),
        attributes(
            "what warnings holds", warnings, "showwarning", "formatwarning", "defaultaction"
        ),
        Part("the time limit of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
        Part("the locale", lambda: locale.setlocale(locale.LC_ALL), _set_locale),
        decimal_part(decimal.DefaultContext),
        Part("the running event loop", asyncio._get_running_loop, asyncio._set_running_loop),
    ]


def _warning_filters() -> Part:
    part = listed("warnings.filters", warnings, "filters")
    put = part.write

    def write(was: Any) -> None:
        put(was)
        warnings.simplefilter("default")  # by which the modules forget what they have decided
        put(was)

    part.write = write
    return part


def _set_locale(was: str) -> None:
    locale.setlocale(locale.LC_ALL, was)


def decimal_part(context: decimal.Context) -> Part:
    """Return the part that a context of decimal numbers is: an object that jobs share."""

    def read() -> tuple[Any, ...]:
        settings: tuple[Any, ...] = context.__reduce__()[1]
        return settings

    def write(was: tuple[Any, ...]) -> None:
        context.prec, context.rounding, context.Emin, context.Emax = was[:4]
        context.capitals, context.clamp = was[4:6]
        context.flags = {signal: signal in was[6] for signal in context.flags}
        context.traps = {signal: signal in was[7] for signal in context.traps}

    return Part("the decimal context", read, write)


def decimals_of(context: Context) -> list[decimal.Context]:
    """Return the decimal context that a context has, if it has one: its copies share it."""
    return [value for var, value in context.items() if var.name == _CONTEXT_VAR]


# -- what is there only once it is imported --


class Late(Protocol):
    """Makes parts of a module that a job has imported, ``by_job`` while it ran: it may have changed it, too."""

    def __call__(self, module: Any, *, by_job: bool) -> list[Part]:
        """Return them."""


def _fresh(part: Part, *, was: object, by_job: bool) -> list[Part]:
    if by_job:
        part.was = was
    return [part]


def _csv(module: Any, *, by_job: bool) -> list[Part]:
    limit = module.field_size_limit
    return _fresh(Part("the limit of fields in csv", limit, limit), was=131072, by_job=by_job)


def _urllib(module: Any, *, by_job: bool) -> list[Part]:
    part = attributes("the opener of urllib", module, "_opener")
    return _fresh(part, was=(None,), by_job=by_job)


def _multiprocessing(module: Any, *, by_job: bool) -> list[Part]:
    part = attributes("the start method", module._default_context, "_actual_context")
    return _fresh(part, was=(None,), by_job=by_job)


def _tracemalloc(module: Any, *, by_job: bool) -> list[Part]:
    part = Part("tracemalloc", module.is_tracing, lambda was: None if was else module.stop())
    return _fresh(part, was=False, by_job=by_job)


def _tempfile(module: Any, *, by_job: bool) -> list[Part]:
    if by_job:
        module.tempdir = None
        try:
            module.gettempdir()  # which it keeps there
        except OSError:
            pass  # there is none; whoever wants one is told
    return [attributes("tempfile.tempdir", module, "tempdir")]


def _random(module: Any, *, by_job: bool) -> list[Part]:
    """The state of a random number generator is as good as any other, unless somebody has chosen it."""
    shared = module._inst
    at = id(shared) + object.__basicsize__
    state: tuple[int, ...] = shared.getstate()[1]
    # An index, and 624 words, as getstate has them; that takes a hundred times as long.
    is_there = ctypes.string_at(at, 8) == struct.pack("iI", state[-1], state[0])
    peek = partial(ctypes.string_at, at, 12) if is_there else lambda: hash(shared.getstate())
    return _reseeded(Reseeded("the state of random", peek, lambda _: module.seed()), by_job=by_job)


def _numpy_random(module: Any, *, by_job: bool) -> list[Part]:
    """As with the standard library's: the state of ``numpy.random.seed`` and its kin."""

    def read() -> Any:
        kind, key, position, *rest = module._rand.get_state()
        return kind, int(key[0]), position, *rest

    return _reseeded(
        Reseeded("the state of numpy.random", read, lambda _: module.seed()), by_job=by_job
    )


def _reseeded(part: Reseeded, *, by_job: bool) -> list[Part]:
    if by_job:
        part.put_back()
    return [part]


LATE: Mapping[str, Late] = {
    "random": _random,
    "numpy.random.mtrand": _numpy_random,
    "csv": _csv,
    "urllib.request": _urllib,
    "multiprocessing.context": _multiprocessing,
    "tracemalloc": _tracemalloc,
    "tempfile": _tempfile,
}
