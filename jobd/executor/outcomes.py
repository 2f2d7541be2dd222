"""What became of a job, as a future or an iterator of results tells it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from jobd import payload
from jobd.client import Deferred
from jobd.executor.errors import as_python_has_it, died_of, raised_by, remote, unreadable
from jobd.model.errors import (
    DaemonUnreachable,
    JobCancelled,
    JobCrashed,
    JobdError,
    JobFailed,
    PayloadUnreadable,
    WaitTimeout,
)
from jobd.model.messages import Ended


def failure_of(error: JobdError) -> BaseException:
    """Return what a future fails with whose ``Deferred.result`` raises this."""
    failure: BaseException
    if isinstance(error, JobFailed):
        failure = raised_by(error)
    elif isinstance(error, JobCrashed):
        failure = died_of(error)
    elif isinstance(error, PayloadUnreadable):
        failure = unreadable(error)
    else:
        failure = as_python_has_it(error)
    return bare(failure)


def exit_of(deferred: Deferred[Any]) -> BaseException | None:
    """Return what the function has raised that exited, which here is no success; None: it did not.

    To be asked if ``Deferred.result`` has returned None.
    """
    return exit_in(deferred._ended)  # noqa: SLF001  # ours


def exit_in(ended: Ended | None) -> BaseException | None:
    """Return the same of a job that has ended so."""
    found = payload.exit_of(ended.value) if ended is not None else None
    if found is None:
        return None
    pickled, trace = found
    error = payload.unpickle_exception(pickled) or SystemExit(0)
    error.__cause__ = remote(trace)
    return bare(error)


def value_or_raise(read: Callable[[], Any], exited: Callable[[], BaseException | None]) -> Any:
    """Return what ``read`` does, or raise what the call itself would have raised.

    ``exited`` is asked whether the function has exited, where what it has returned is None.

    Raises:
        CancelledError: the job was cancelled.
        DaemonUnreachable, WaitTimeout: it is not known what became of it.
    """
    failure: BaseException | None
    try:
        value = read()
    except JobCancelled as error:
        raise CancelledError(error.message) from None
    except (DaemonUnreachable, WaitTimeout):
        raise
    except JobdError as error:
        failure = failure_of(error)
    else:
        if value is not None:
            return value
        failure = exited()
        if failure is None:
            return None
    try:
        raise failure
    finally:
        del failure  # its traceback has this frame


def bare(error: BaseException) -> BaseException:
    """Return an exception without the frames through which it came: they hold what nobody wants any more."""
    error.__context__ = None
    return error.with_traceback(None)
