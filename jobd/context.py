"""Inside a job: which one it is, how far it is, and that it waits for others.

The worker sets ``host`` once; anywhere else there is none, and everything here is
harmless.  A job that waits *lends* its slot: the client tells the host, which
asks the daemon, so that with a single worker jobs may wait for jobs that wait for
jobs.  So it is with the processes that a job has started: they knock at their worker's
door (``kin``).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from typing import Protocol

from jobd.kin import CurrentJob, Kin, Told, inherited
from jobd.model.errors import Deadlock, JobdError
from jobd.model.job import Progress

ANSWER_S = 30.0
"""How long a wait goes without the daemon's word before it begins all the same: it may be restarting."""

TEXT_CHARACTERS = 500


class TimeLimitExceeded(Exception):
    """Raised in a job, in its main thread, when its ``soft_timeout`` is over; one that catches it goes on."""

    __module__ = "jobd"


class Host(Protocol):
    """The worker, as far as its job may know it; any thread of the job may call."""

    socket: str
    """Where its daemon listens to clients."""

    def current(self) -> CurrentJob | None:
        """Return the job that runs."""

    def progress(self, progress: Progress) -> None:
        """Let people know, some time soon; the latest is what counts."""

    def wait_begins(self, numbers: Sequence[int], told: Told) -> object | None:
        """Lend the job's slot while it waits for these jobs; returns what ``wait_ends`` takes.

        ``told`` is called once, by any thread: with None, or with why that may not be.
        """

    def wait_ends(self, token: object) -> None:
        """The job goes on."""


host: Host | Kin | None = inherited()


def current_job() -> CurrentJob | None:
    """Return the job that this code runs in, in any of its threads and processes; None outside of one.

    >>> import jobd
    >>> jobd.current_job() is None
    True
    """
    return host.current() if host is not None else None


def progress(done: float, total: float | None = None, text: str = "") -> None:
    """Tell how far the job is: ``jobd show``, ``jobd ls`` and those who wait for it see it.

    It costs about a microsecond: call it as often as is convenient.  People are shown
    the latest, up to 20 times a second.  Outside of a job, and in its child processes, it does nothing.

    Args:
        done: how much is done, in any unit.
        total: how much there is to do, in the same unit; None: nobody knows.
        text: what is being done.

    Raises:
        ValueError: ``done`` or ``total`` is no number, or not finite.
    """
    if host is None or isinstance(host, Kin):
        return
    try:
        done, total = float(done), None if total is None else float(total)
    except (TypeError, ValueError):
        raise ValueError(f"progress of {done!r} of {total!r}: both must be numbers") from None
    if not (math.isfinite(done) and (total is None or math.isfinite(total))):
        raise ValueError(f"progress of {done} of {total}: both must be finite")
    if text:
        text = str(text)[:TEXT_CHARACTERS]
        if not text.isascii():  # a lone surrogate could not travel
            text = text.encode("utf-8", "replace").decode()
    host.progress(Progress(done, total, text))


def lend(numbers: Sequence[int], socket: str, timeout_s: float | None) -> object | None:
    """Begin a wait as ``begin_wait`` does, and block until the daemon has allowed it.

    It has not to answer for ever: after ``timeout_s`` or ``ANSWER_S`` the wait begins all the same.

    Raises:
        Deadlock: the job waits for itself, at once or by way of others.
        TooManyWaiting: so many jobs wait already.
    """
    answered = threading.Event()
    refusals: list[JobdError] = []

    def told(error: JobdError | None) -> None:
        if error is not None:
            refusals.append(error)
        answered.set()

    token = begin_wait(numbers, socket, told)
    try:
        answered.wait(ANSWER_S if timeout_s is None else min(ANSWER_S, timeout_s))
    except BaseException:
        end_wait(token)
        raise
    if refusals:
        end_wait(token)
        raise refusals[0]
    return token


def begin_wait(numbers: Sequence[int], socket: str, told: Told) -> object | None:
    """Begin a wait of this job for others, and return what ``end_wait`` takes; never blocks.

    Args:
        numbers: the jobs that it waits for, as far as they are known.
        socket: their daemon's.
        told: called once, by any thread: with None, or with why the wait may not be.

    Raises:
        Deadlock: the job waits for itself.
    """
    if isinstance(host, Kin):
        return host.wait_begins(numbers, socket, told)
    job = current_job()
    if host is None or job is None:
        told(None)
        return None
    if os.path.realpath(socket) != os.path.realpath(host.socket):
        numbers = ()  # of another daemon, whose jobs have other numbers
    if job.id in numbers:
        raise Deadlock(
            f"job {job.id} waits for its own result",
            "a job ends when its function returns: nothing in it can wait for that",
        )
    return host.wait_begins(numbers, told)


def end_wait(token: object | None) -> None:
    """End a wait that ``begin_wait`` or ``lend`` began."""
    if host is not None and token is not None:
        host.wait_ends(token)
