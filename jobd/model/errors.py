"""Every error that a user may meet, each with its exit code and stable name.

An error is one sentence (what is wrong, which thing) and a hint (what to do
next).  The same three travel from the daemon to a client, to ``--json`` and to
the shell's exit code, so this table is the only place that knows them.
"""

from __future__ import annotations

from collections.abc import Iterator

from jobd.model.item import shown


class JobdError(Exception):
    """Base of all errors of jobd.

    Attributes:
        code: the exit code of a command that ends with this error.
        error: the stable name, as in ``{"error": "not_found"}``.
        message: one sentence: what is wrong, and with which thing.
        hint: what to do next; may be empty.
    """

    code = 1
    error = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[type[JobdError], tuple[str, str]]:
        return (type(self), (self.message, self.hint))


class UsageError(JobdError):
    """The request makes no sense: a bad option, selector, reference or argument."""

    code = 2
    error = "usage"


class BadFunction(UsageError):
    """The function reference cannot be resolved, or does not take these arguments."""

    error = "bad_function"


class PayloadTooLarge(UsageError):
    """Arguments, or a value, have more bytes than the daemon takes."""

    error = "payload_too_large"


class NotReady(JobdError):
    """There is no result yet."""

    code = 3
    error = "not_ready"


class NotFound(JobdError):
    """No such job; also: its result is gone."""

    code = 4
    error = "not_found"


class AlreadyTaken(JobdError):
    """Somebody has consumed the job's result."""

    code = 4
    error = "already_taken"


class ResultExpired(JobdError):
    """The job's result was kept as long as it had to be (``results.keep``)."""

    code = 4
    error = "result_expired"


class PayloadLost(NotFound):
    """The file that holds a large payload is gone."""

    error = "payload_lost"


class PayloadUnreadable(JobdError):
    """A payload cannot be read here: its file is damaged, or what it was made of is not installed.

    Attributes:
        original: what unpickling it has raised, as a pickle; b"" if it could not travel.
    """

    error = "payload_unreadable"
    original = b""

    def __reduce__(self) -> tuple[object, ...]:  # type: ignore[override]  # with its state
        return (type(self), (self.message, self.hint), {"original": self.original})


class DuplicateKey(JobdError):
    """Another job has the key of the one that was submitted.

    Attributes:
        id: its id.
    """

    code = 9
    error = "duplicate_key"

    def __init__(self, message: str, hint: str = "", *, id: int = 0) -> None:
        super().__init__(message, hint)
        self.id = id

    def __reduce__(self) -> tuple[object, ...]:  # type: ignore[override]  # keyword state
        return (type(self), (self.message, self.hint), self.__dict__)


class ProtocolMismatch(JobdError):
    """Client and daemon do not speak the same version of the protocol."""

    code = 69
    error = "protocol_mismatch"


class DaemonUnreachable(JobdError):
    """No daemon answers at the socket."""

    code = 69
    error = "unreachable"


class DiskFull(JobdError):
    """The store could not write; nothing of the request was kept."""

    code = 74
    error = "disk_full"


class PayloadNotStored(JobdError):
    """The file of a large payload cannot be written, for another reason than a lack of room."""

    code = 74
    error = "payload_not_stored"


class StoreBusy(JobdError):
    """Another process has locked the store; nothing of the request was kept."""

    code = 75
    error = "store_busy"


class StoreFailed(JobdError):
    """The store cannot be trusted any more (an I/O error), so the daemon ends."""

    code = 74
    error = "store_failed"


class StoreLost(StoreFailed):
    """Somebody has deleted or replaced the store's files while the daemon had them open."""


class StoreDamaged(StoreFailed):
    """What the store holds makes no sense: another start would not make it better."""

    code = 78
    error = "store_damaged"


class InitializerFailed(JobdError):
    """The initializer of a private daemon's workers failed, so that no job can run there."""

    code = 71
    error = "initializer_failed"


class AlreadyRunning(JobdError):
    """Another daemon holds the state directory."""

    code = 75
    error = "already_running"


class QueueBusy(JobdError):
    """Jobs are in the queue that somebody wants to remove."""

    code = 75
    error = "queue_busy"


class QueueFull(JobdError):
    """The queue holds as many jobs as it may."""

    code = 75
    error = "queue_full"


class TooManyClients(JobdError):
    """So many clients are connected that no further one is served."""

    code = 75
    error = "too_many_clients"


class Deadlock(JobdError):
    """A job would wait for itself, by way of others or at once."""

    error = "deadlock"


class TooManyWaiting(JobdError):
    """So many jobs wait for others that no further one may."""

    code = 75
    error = "too_many_waiting"


class Stopping(JobdError):
    """The daemon is stopping and takes no new work."""

    code = 75
    error = "stopping"


class Denied(JobdError):
    """The operating system refused: permissions."""

    code = 77
    error = "denied"


class NotAllowed(Denied):
    """The daemon's settings list what may be run, and this is not on the list."""

    error = "not_allowed"


class ConfigError(JobdError):
    """A setting, or the state directory, is not usable."""

    code = 78
    error = "bad_configuration"


class WaitTimeout(JobdError, TimeoutError):
    """The client's own deadline ran out; the job goes on."""

    code = 124
    error = "timeout"


class JobError(JobdError):
    """A job ended without a result.

    Attributes:
        id: the job's id.
        type: the qualified name of the exception that ended it, or "".
        traceback: the text of its traceback in the worker, or "".
    """

    code = 1
    error = "job_failed"

    def __init__(
        self, message: str, hint: str = "", *, id: int = 0, type: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message, hint)
        self.id = id
        self.type = type
        self.traceback = traceback

    def __reduce__(self) -> tuple[object, ...]:  # type: ignore[override]  # keyword state
        return (JobdError.__new__, (type(self), self.message, self.hint), self.__dict__)


class JobFailed(JobError):
    """The job's function raised.

    Attributes:
        pickled: the exception itself, as a pickle; b"" if it could not travel.
    """

    pickled = b""


class JobCancelled(JobError):
    """Somebody cancelled the job."""

    code = 5
    error = "job_cancelled"


class JobExpired(JobError):
    """The job had not started when it was of no use any more (``--expires``)."""

    code = 5
    error = "job_expired"


class JobAborted(JobError):
    """A job that this one comes after did not end as it should have.

    Attributes:
        root: the id of the job that was to blame; 0 if that is not known.
    """

    code = 5
    error = "job_aborted"
    root = 0


class JobTimedOut(JobError):
    """The job took longer than it may."""

    code = 6
    error = "job_timed_out"


class JobCrashed(JobError):
    """The worker died while it ran the job."""

    code = 7
    error = "job_crashed"


def no_such_job(number: int) -> NotFound:
    """Return the error that says that nobody has a job with this id."""
    return NotFound(f"there is no job {shown(number)}", "see 'jobd ls'")


# -- what a job fails with because of what it has returned -------------------------


class ResultNotSerialisable(TypeError):
    """The function returned something that neither JSON nor pickle can say.

    Attributes:
        original: what pickling it has raised, as a pickle itself; b"" if it could not travel.
    """

    original = b""


class ResultTooLarge(ValueError):
    """The function returned more than the daemon takes."""


class ResultNotStored(OSError):
    """There is no room for what the function returned, or it cannot be written."""


def _all(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for child in base.__subclasses__():
        yield from _all(child)


for _root in (JobdError, ResultNotSerialisable, ResultTooLarge, ResultNotStored):
    for _public in _all(_root):  # the names that people meet, and that pickles find
        _public.__module__ = "jobd"


def _walk(base: type[JobdError]) -> dict[str, type[JobdError]]:
    """Collect the errors that may travel on the wire, by their stable names."""
    found = {base.error: base}
    for child in base.__subclasses__():
        for name, error in _walk(child).items():
            found.setdefault(name, error)
    return found


BY_NAME: dict[str, type[JobdError]] = _walk(JobdError)
