"""What a future fails with, as far as it is not simply what the job's function raised.

This loads ``concurrent.futures.process``, and with it ``multiprocessing``: programs that
catch its ``BrokenProcessPool`` are to catch ours.  ``import jobd`` does not load this.
"""

from __future__ import annotations

import functools
import traceback
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from typing import Any

from jobd import payload
from jobd.model.errors import (
    BadFunction,
    JobCrashed,
    JobdError,
    JobFailed,
    PayloadUnreadable,
    ResultNotSerialisable,
    Stopping,
    UsageError,
)

RemoteTraceback = _RemoteTraceback
"""The standard library's own: tools know it, and it prints as they expect."""


class WorkerDied(JobCrashed, BrokenProcessPool):
    """The worker died while it ran this job; the others are not concerned."""

    __module__ = "jobd"


class PoolBroken(JobdError, BrokenProcessPool):
    """The executor's own daemon is gone, or its initializer has failed: no job can run any more."""

    __module__ = "jobd"

    code = 69
    error = "pool_broken"


class BadCall(BadFunction, TypeError):
    """The function does not take these arguments, or there is none: Python calls that a TypeError."""

    __module__ = "jobd"


def as_python_has_it(error: Exception) -> Exception:
    """Return the refusal of a submit, as what a call that could not be made would raise."""
    if type(error) is BadFunction:
        return BadCall(error.message, error.hint)
    if type(error) is Stopping:  # it may not come back, and if it is our own it does not
        return PoolBroken(f"the executor is broken: {error.message}", error.hint)
    return error


def remote(text: str) -> RemoteTraceback:
    """Return a cause that shows where in another process, or thread, an exception was raised."""
    tb: Any = f'\n"""\n{text}"""'  # a text, whatever typeshed says
    return RemoteTraceback(tb)


def died_of(error: JobCrashed) -> WorkerDied:
    """Return what a future fails with whose worker has died."""
    return WorkerDied(error.message, error.hint, id=error.id, traceback=error.traceback)


def raised_by(error: JobFailed) -> BaseException:
    """Return what a job's function raised, or what befell its arguments or its result, as itself."""
    raised = payload.unpickle_exception(error.pickled)
    if isinstance(raised, PayloadUnreadable):
        raised = unreadable(raised)
    elif isinstance(raised, ResultNotSerialisable) and raised.original:
        raised = payload.unpickle_exception(raised.original) or raised
    if raised is None:
        raised = error
    raised.__cause__ = remote(error.traceback)
    return raised


def unreadable(error: PayloadUnreadable) -> BaseException:
    """Return what unpickling has raised, as itself, and as a broken pool too.

    The standard library's pool is broken by it, so that is what programs look for; a user who
    has to mend it wants the error itself.
    """
    original = error.__cause__ or payload.unpickle_exception(error.original)
    if isinstance(original, SystemExit):
        return BrokenProcessPool(error.message)
    if not isinstance(original, Exception):
        return error
    trace = "".join(traceback.format_exception(original))
    found = _as_broken(original)
    found.__cause__ = remote(trace)
    return found


def not_sent(error: UsageError) -> BaseException:
    """Return why a call cannot travel as the standard library's future would tell it.

    It keeps none of the call's arguments alive.
    """
    cause = error.__cause__
    if isinstance(cause, payload.Unencodable):
        cause = cause.__cause__
    if cause is None:
        # The function itself is to blame: the standard library's worker would find it out by the call.
        is_about_it = type(error) in (UsageError, BadFunction)
        return BadCall(error.message, error.hint) if is_about_it else error
    trace = "".join(traceback.format_exception(cause))
    cause.__context__ = None
    cause.__cause__ = remote(trace)
    cause.add_note(error.message)
    return cause.with_traceback(None)


def _as_broken(error: Exception) -> Exception:
    """Return the same exception, of a class that is its own and BrokenProcessPool too, if there can be one."""
    try:
        reduced: Any = error.__reduce_ex__(4)
        make, args, *state = reduced
        kind: Any = type(error)
        if make is not kind:
            return error
        made: Any = _also_broken(kind)(*args)
        if state and state[0]:
            made.__setstate__(state[0])
    except Exception:  # noqa: BLE001  # whatever the user's class does
        return error
    return made  # type: ignore[no-any-return]  # of the class that was made


@functools.cache
def _also_broken(kind: Any) -> Any:
    def as_it_was(self: Exception) -> Any:
        return (kind, *kind.__reduce__(self)[1:])

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind, BrokenProcessPool), {**names, "__reduce__": as_it_was})
