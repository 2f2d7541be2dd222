"""jobd runs Python functions in the background.

>>> import jobd
>>> with jobd.Client() as client:
...     client.submit("math:factorial", 20).result()
2432902008176640000

Importing ``jobd`` costs nothing: the client, and ZeroMQ with it, is loaded
when one of the names below is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd._version import __version__

if TYPE_CHECKING:
    from jobd.again import Cancel, Retry, snooze
    from jobd.client.aio import AsyncClient
    from jobd.client.aio_api import AsyncDeferred
    from jobd.client.sync import Client
    from jobd.client.sync_api import Deferred
    from jobd.context import TimeLimitExceeded, current_job, progress
    from jobd.executor import BadCall, Executor, JobFuture, PoolBroken, WorkerDied
    from jobd.kin import CurrentJob
    from jobd.model.errors import (
        AlreadyRunning,
        AlreadyTaken,
        BadFunction,
        ConfigError,
        DaemonUnreachable,
        Deadlock,
        Denied,
        DiskFull,
        DuplicateKey,
        InitializerFailed,
        JobAborted,
        JobCancelled,
        JobCrashed,
        JobdError,
        JobError,
        JobExpired,
        JobFailed,
        JobTimedOut,
        NotAllowed,
        NotFound,
        NotReady,
        PayloadLost,
        PayloadNotStored,
        PayloadTooLarge,
        PayloadUnreadable,
        ProtocolMismatch,
        QueueBusy,
        QueueFull,
        ResultExpired,
        ResultNotSerialisable,
        ResultNotStored,
        ResultTooLarge,
        Stopping,
        StoreBusy,
        StoreDamaged,
        StoreFailed,
        StoreLost,
        TooManyClients,
        TooManyWaiting,
        UsageError,
        WaitTimeout,
    )
    from jobd.model.path import NoSuchPart
    from jobd.shell import CommandFailed

__all__ = [
    "AlreadyRunning",
    "AlreadyTaken",
    "AsyncClient",
    "AsyncDeferred",
    "BadCall",
    "BadFunction",
    "Cancel",
    "Client",
    "CommandFailed",
    "ConfigError",
    "CurrentJob",
    "DaemonUnreachable",
    "Deadlock",
    "Deferred",
    "Denied",
    "DiskFull",
    "DuplicateKey",
    "Executor",
    "InitializerFailed",
    "JobAborted",
    "JobCancelled",
    "JobCrashed",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobFuture",
    "JobTimedOut",
    "JobdError",
    "NoSuchPart",
    "NotAllowed",
    "NotFound",
    "NotReady",
    "PayloadLost",
    "PayloadNotStored",
    "PayloadTooLarge",
    "PayloadUnreadable",
    "PoolBroken",
    "ProtocolMismatch",
    "QueueBusy",
    "QueueFull",
    "ResultExpired",
    "ResultNotSerialisable",
    "ResultNotStored",
    "ResultTooLarge",
    "Retry",
    "Stopping",
    "StoreBusy",
    "StoreDamaged",
    "StoreFailed",
    "StoreLost",
    "TimeLimitExceeded",
    "TooManyClients",
    "TooManyWaiting",
    "UsageError",
    "WaitTimeout",
    "WorkerDied",
    "__version__",
    "current_job",
    "progress",
    "snooze",
]

_HOMES = {
    "Cancel": "jobd.again",
    "Retry": "jobd.again",
    "snooze": "jobd.again",
    "AsyncClient": "jobd.client.aio",
    "AsyncDeferred": "jobd.client.aio_api",
    "Client": "jobd.client.sync",
    "Deferred": "jobd.client.sync_api",
    "CommandFailed": "jobd.shell",
    "NoSuchPart": "jobd.model.path",
    "CurrentJob": "jobd.kin",
    "TimeLimitExceeded": "jobd.context",
    "current_job": "jobd.context",
    "progress": "jobd.context",
    "BadCall": "jobd.executor",
    "Executor": "jobd.executor",
    "JobFuture": "jobd.executor",
    "PoolBroken": "jobd.executor",
    "WorkerDied": "jobd.executor",
}
"""Where the names come from that are not errors."""


# Not for type checkers: they would take it to mean that every name exists.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used, and keep it.

        Raises:
            AttributeError: ``name`` is not one of ``__all__``.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Here, not above: the import would load ZeroMQ for whoever wants only an error.
        from importlib import import_module  # noqa: PLC0415  # used by no other path

        home = import_module(_HOMES.get(name, "jobd.model.errors"))
        value = globals()[name] = getattr(home, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
