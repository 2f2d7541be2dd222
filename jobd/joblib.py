"""joblib's parallel loops, and with them scikit-learn's ``n_jobs``, in jobd's workers.

>>> import joblib, jobd.joblib
>>> with joblib.parallel_config(backend="jobd"):
...     joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(5))
[0, 1, 4, 9, 16]

Importing this module registers the backend.  What is passed beside its name goes to
``JobdBackend``: ``parallel_config(backend="jobd", executor=jobd.Executor(4))``.  With
``inner_max_num_threads`` the libraries that a call uses take so many threads (those that are loaded
already are told by threadpoolctl, where that is installed).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from jobd.executor import Executor, JobFuture
from jobd.model.errors import JobdError
from jobd.pool.chunk import call


class JobdBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """What joblib asks; each of its batches of calls is a job.

    Args:
        executor: where the calls are made; None: the daemon that runs.
        nesting_level: how deep this loop is within others; joblib's own.
        more: what joblib gives to any backend.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    uses_threads = False
    supports_sharedmem = False
    default_n_jobs = -1

    def __init__(
        self, *, executor: Executor | None = None, nesting_level: int | None = None, **more: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, **more)
        self._given = executor
        self._executor = executor
        self._futures: weakref.WeakSet[JobFuture[Any]] = weakref.WeakSet()

    def configure(
        self,
        n_jobs: int = 1,
        parallel: object = None,
        **more: Any,  # noqa: ARG002  # joblib's signature: hints for other backends
    ) -> int:
        """Prepare for a loop; return how many calls are to be made at once."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        return count

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls at once ``n_jobs`` means: -1 is as many as there are workers."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        return max(self._connected().client.welcome.workers + 1 + n_jobs, 1)

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None
    ) -> JobFuture[Any]:
        """Have a batch of calls made."""
        future = self._connected().submit(call, func, self.inner_max_num_threads or 0)
        self._futures.add(future)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: JobFuture[Any]) -> Any:
        """Return what the batch returned, or raise what it raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002, ARG002  # joblib's signature
        """Cancel what has not ended, and stop what runs: nobody wants the results."""
        for future in list(self._futures):
            if not future.done() and future.job is not None:
                with contextlib.suppress(JobdError):  # it was refused, or nobody is there to ask
                    future.job.cancel("the parallel loop was aborted")

    def terminate(self) -> None:
        """End what was begun for a loop."""
        self.reset_batch_stats()
        if self._given is None and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def _connected(self) -> Executor:
        if self._executor is None:
            self._executor = Executor()
        return self._executor


register_parallel_backend("jobd", JobdBackend)
