"""What ends a job from within: the soft time limit, and the stop, as exceptions in its main thread.

A timer of the kernel's (``jobd.pool.timer``) signals the main thread, whose handler raises.  A
coroutine is cancelled instead, unless its own step is what takes so long.  Two races,
both settled by the handler, which runs in the main thread: a signal that comes late meets the
limit of the next job, which is not over yet, or none; one that comes while no code of the
job runs raises nothing.

An exception may be raised where nobody lets it out: in ``__del__``, in a callback of C code, in a
handler of ``logging``, under a decorator that tries again.  So it is raised again, at growing
intervals, until the job has *taken notice*:

- It is being handled: an ``except``, ``finally`` or ``with`` block that it has led to is not
  left yet.  Then the next ring only looks again.
- It was caught by its name: the function that caught it names ``TimeLimitExceeded``.  A job may
  do that, and go on; it is not disturbed again.

What has caught it and goes on without naming it was some machinery.  If that has happened
``HEEDLESS`` times in frames that still run, as of a loop that tries for ever, or ``LOST`` times in
any, as of a handler of ``logging`` that is called for ever, what is raised next is no ``Exception``
(``Overdue``): nothing but ``finally`` sees it.  A stop is such an exception from the beginning, and
nobody can name it.

In an event loop that swallows what is raised in it (uvloop), the second ring cancels the tasks.
They are cancelled once: whether a coroutine is still tidying up cannot be seen from outside.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, NoReturn

from jobd.context import TimeLimitExceeded
from jobd.pool.timer import SIGNAL, Timer, make_timer

AGAIN_S = 0.1
"""After so long it is raised again, the next time after twice that ..."""

LONGEST_S = 1.0
"""... up to this."""

HEEDLESS = 3

LOST = 10

_NAMED = (TimeLimitExceeded, asyncio.CancelledError)
"""What a function may name when it catches a limit on purpose."""

MOST_LINKS = 100
"""Of a chain of exceptions so many are looked at."""


class Stopped(BaseException):  # not an error, and no user's ``except Exception`` may eat it
    """Raised in a job by SIGTERM, so that its ``finally`` blocks run."""


class Overdue(BaseException):
    """The soft limit, for a job that swallows every ``Exception``; never leaves the worker."""


class _Ringing:
    """What there is to know of one job's limit or stop while it rings."""

    def __init__(self, limit_s: float, *, is_stop: bool = False) -> None:
        self.limit_s = limit_s
        self.over_at = time.monotonic() + (0.0 if is_stop else limit_s)
        self.again_s = AGAIN_S
        self.is_stop = is_stop
        """It is the stop that is raised, not the limit any more."""
        self.is_over = False
        """The job has taken notice, or there is nothing more to be done."""
        self.is_heeded = False
        """It has caught the limit by its name."""
        self.raised: BaseException | None = None
        """What was raised last, until it was looked at what has become of it."""
        self.swallowed = 0
        """How often that was caught in a frame that still runs ..."""
        self.lost = 0
        """... and in any."""
        self.asked_to_cancel = self.has_cancelled = False


class Alarm:
    """The soft limit of the job that runs, and its stop."""

    def __init__(self, may_raise: Callable[[], bool]) -> None:
        """``may_raise`` tells whether code of the job runs."""
        self.has_rung = False
        """The limit of this job was over while it ran."""
        self._may_raise = may_raise
        self._timer: Timer | None = None
        self._now: _Ringing | None = None
        self._main: asyncio.Task[Any] | None = None

    # -- for the worker --

    def install(self) -> None:
        """Have the signal handled; a worker does so before its first job, which may look at handlers."""
        signal.signal(SIGNAL, self._on_signal)

    def set(self, limit_s: float) -> None:
        """Watch the job that starts now."""
        if limit_s:
            self._begin(_Ringing(limit_s), limit_s)

    def stop(self) -> NoReturn:
        """Raise ``Stopped`` in the job that runs, and see to it that it ends by that."""
        limit_s = self._now.limit_s if self._now is not None else 0.0
        now = _Ringing(limit_s, is_stop=True)
        self._begin(now, now.again_s)
        _throw(now, Stopped())

    @property
    def is_set(self) -> bool:
        """Whether it has to be cleared when the job is over."""
        return self._now is not None

    def clear(self) -> None:
        """The job is over."""
        self._now = self._main = None
        self.has_rung = False
        if self._timer is not None:
            self._timer.start(0)

    def check(self) -> None:
        """Raise what could not be raised while no code of the job ran, or was not heeded."""
        now = self._now
        if now is not None and not now.is_over and now.over_at <= time.monotonic():
            self._look(now)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> object:
        """Run a coroutine as ``asyncio.run`` does."""
        return asyncio.run(coroutine if self._now is None else self._run(coroutine))

    def ended_by_limit(self, error: BaseException) -> BaseException | None:
        """Return what to tell if it is the limit that ended the job by this exception; None: it is not.

        It may be an error that a library has made of what was raised in it.  What a job raises
        that has caught the limit by its name is that job's own answer.
        """
        now = self._now
        if now is None or not self.has_rung:
            return None
        _leave_us_out(error)
        if isinstance(error, TimeLimitExceeded):
            return error
        if isinstance(error, Overdue | asyncio.CancelledError):
            limit = TimeLimitExceeded(_text(now)).with_traceback(error.__traceback__)
            limit.__cause__ = error if isinstance(error, asyncio.CancelledError) else None
            return limit
        is_heeded = now.is_heeded or any(map(_is_named, (now.raised, *_before(error))))
        return None if is_heeded else error

    def note(self) -> str:
        """Return what is to be said of a job that was not ended by its limit; "": nothing."""
        now = self._now
        if now is None or not self.has_rung:
            return ""
        return f"its soft time limit of {now.limit_s:g} s had passed"

    # -- the main thread --

    async def _run(self, coroutine: Coroutine[Any, Any, Any]) -> object:
        self._main = asyncio.current_task()
        return await coroutine

    def _begin(self, now: _Ringing, after_s: float) -> None:
        self._now = now
        self.install()  # a job may have changed it
        self._timer = self._timer or make_timer()
        self._timer.start(after_s)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        now = self._now
        if now is None or now.is_over or self._timer is None:
            return  # too late
        self._timer.start(now.again_s)
        if self._may_raise():
            self.check()

    def _look(self, now: _Ringing) -> None:
        """See what has become of what was raised last, and raise it, again, if that is nothing."""
        raised, now.raised = now.raised, None
        if raised is not None:
            if _is_handled(raised):
                now.raised = raised
                return
            if _is_named(raised):
                now.is_heeded = now.is_over = True
                return
            now.lost += 1
            now.swallowed += _is_running(_catcher(raised))
            now.again_s = min(LONGEST_S, 2 * now.again_s)
        is_first = raised is None
        del raised  # before another one is raised here: its traceback leads to this frame
        self.has_rung = self.has_rung or not now.is_stop
        if self._goes_through_loop(now, is_first=is_first):
            return
        if now.is_stop:
            _throw(now, Stopped())
        is_hopeless = now.swallowed >= HEEDLESS or now.lost >= LOST
        kind = Overdue if is_hopeless else TimeLimitExceeded
        _throw(now, kind(_text(now)))

    def _goes_through_loop(self, now: _Ringing, *, is_first: bool) -> bool:
        """Have tasks cancelled if an event loop runs and that is the way; return whether it is."""
        loop = asyncio._get_running_loop()  # noqa: SLF001  # what is public raises where there is none
        if loop is None:
            return False
        main = None if now.is_stop else self._main
        current = asyncio.current_task(loop)
        if now.has_cancelled:
            now.is_over = True
            return True
        if now.asked_to_cancel:
            return current is None  # else it cannot come to that: a step takes all the time
        if (main is None and is_first) or (main is not None and current is main):
            return False
        now.asked_to_cancel = True
        loop.call_soon_threadsafe(self._cancel, now, loop)  # wakes it, whatever it waits for
        return True

    def _cancel(self, now: _Ringing, loop: asyncio.AbstractEventLoop) -> None:
        now.has_cancelled = True
        tasks = [self._main] if self._main and not now.is_stop else asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()


def _throw(now: _Ringing, error: BaseException) -> NoReturn:
    now.raised = error
    try:
        raise error
    finally:
        del error  # its traceback leads to this frame


def _leave_us_out(error: BaseException) -> None:
    """Let a traceback end where the job was: not in this module, which has raised it there."""
    entry = error.__traceback__
    while entry is not None:
        following = entry.tb_next
        if following is not None and following.tb_frame.f_code.co_filename == __file__:
            entry.tb_next = None
            return
        entry = following


def _text(now: _Ringing) -> str:
    return f"it took longer than {now.limit_s:g} s"


# -- what has become of an exception ------------------------------------------


def _is_handled(error: BaseException) -> bool:
    """Whether a block that an exception has led to is not left: it, or what came of it, is at hand."""
    current = sys.exception()
    return current is error or (current is not None and any(e is error for e in _links(current)))


def _before(error: BaseException) -> Iterator[BaseException]:
    """Yield the limits, and the cancels, among what led to an exception."""
    return (link for link in _links(error) if isinstance(link, _NAMED))


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that were being handled when an exception was raised, and so on."""
    context = vars(BaseException)["__context__"].__get__  # a subclass may say otherwise
    link: BaseException | None = context(error)
    for _ in range(MOST_LINKS):
        if link is None:
            return
        yield link
        link = context(link)


def _catcher(error: BaseException) -> FrameType | None:
    """Return the frame that an exception got to: which has caught it, or let it out into C code."""
    trace = error.__traceback__
    return trace.tb_frame if trace is not None else None


def _is_running(frame: FrameType | None) -> bool:
    """Whether a frame is one of those that this thread is in."""
    current: FrameType | None = sys._getframe()  # noqa: SLF001  # as public as it gets
    while current is not None:
        if current is frame:
            return True
        current = current.f_back
    return False


def _is_named(error: BaseException | None) -> bool:
    """Whether the function that an exception got to names it: there it was caught on purpose."""
    frame = None if error is None else _catcher(error)
    if frame is None:
        return False
    kinds = [kind for kind in _NAMED if isinstance(error, kind)]
    names = frame.f_code.co_names
    if any(kind.__name__ in (*names, *frame.f_code.co_freevars) for kind in kinds):
        return True
    return any(_holds(frame.f_globals.get(name), kind) for name in names for kind in kinds)


def _holds(value: object, kind: type) -> bool:
    """Whether a global is this class under another name, or a tuple of classes with it."""
    return value is kind or (type(value) is tuple and any(item is kind for item in value))
