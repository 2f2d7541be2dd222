"""``jobd.Executor``: the standard library's way to have functions called, with jobd behind it.

A submit is a job, and a thread that the daemon tells of its end completes the future.
That thread, one client and, where the executor has one to itself, the daemon are the
``Engine``, which an executor shares with its views (``options``).  They end once the
executor has been shut down or dropped, and the last of its jobs has ended.

Where the standard library documents a behaviour of ``ProcessPoolExecutor``, this has it.
What is told apart here:

- a worker that dies fails the future of the job that it ran, and no other;
- ``cancel`` and ``running`` are answered by the daemon: a job is running once a worker
  has it, and somebody else may cancel it too;
- ``map`` takes only so much ahead of an iterator whose length nobody knows.
"""

from jobd.executor.errors import BadCall, PoolBroken, RemoteTraceback, WorkerDied
from jobd.executor.facade import Executor
from jobd.executor.future import JobFuture

__all__ = ["BadCall", "Executor", "JobFuture", "PoolBroken", "RemoteTraceback", "WorkerDied"]
