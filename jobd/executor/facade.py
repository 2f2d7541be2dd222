"""What users have: the executor itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Executor as AnyExecutor
from operator import length_hint
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from jobd import payload
from jobd.client import Client
from jobd.client.ahead import LONG
from jobd.client.calls import array_call, many_calls, one_call, with_options
from jobd.client.drafts import Draft
from jobd.executor import arrays, mapping
from jobd.executor.engine import Engine
from jobd.executor.errors import not_sent
from jobd.executor.future import JobFuture
from jobd.executor.own import Own, own_daemon
from jobd.executor.sharing import Sharing
from jobd.model.errors import UsageError
from jobd.model.job import ArraySpec
from jobd.model.options import Said
from jobd.pool.chunk import call_each, call_pickled

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from jobd.client.options import Options

P = ParamSpec("P")
T = TypeVar("T")


class Executor(AnyExecutor):
    """Calls functions in the workers of a daemon.

    ``Executor()`` uses the daemon that runs, whose jobs are durable.  With any other argument but
    ``socket`` and ``timeout_s`` it starts one for itself, which ends with it and leaves nothing behind.

    Args:
        max_workers: how many jobs its own daemon runs at once; None: one for each core, if it
            has one.
        mp_context: taken as the standard library takes it.  Workers are always forked from a process that
            has loaded nothing of this program, and has one thread: as ``forkserver`` has it.
        initializer: called first in each worker of its own daemon.  If that fails, the pool is
            broken: all its futures fail, and submits too, with a ``BrokenExecutor``.
        initargs: the initializer's arguments.
        max_tasks_per_child: after so many jobs a worker of its own daemon is replaced; None: never.
        socket: the daemon to use; None: as the settings say (``JOBD_SOCKET`` …).
        state_dir: where its own daemon keeps jobs, durably: what has not ended with the
            executor goes on with the next one that names the same directory.
        timeout_s: how long the running daemon may take to answer, or to come back.

    Attributes:
        client: what else can be done with the jobs.

    Raises:
        DaemonUnreachable: no daemon runs.
        ValueError, TypeError: the arguments make no sense.
    """

    def __init__(  # noqa: PLR0913  # the standard library's, and where the daemon is
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        socket: str | None = None,
        state_dir: str | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        own = Own(max_workers, mp_context, initializer, initargs, max_tasks_per_child, state_dir)
        own.check()
        private = sharing = None
        if own.is_wanted:
            if socket is not None:
                raise ValueError("either the daemon at a socket, or one of its own: not both")
            sharing = Sharing()
            private = own_daemon(own, sharing)
            socket = private.socket
        client = Client(socket, timeout_s=timeout_s, reconnects=private is None)
        self.client = client
        self._engine = engine = Engine(client, private, sharing)
        self._options: Said | None = None
        self._max_workers = client.welcome.workers
        """By this name Dask and others ask any executor how much it can do at once."""
        weakref.finalize(self, engine.shutdown, wait=False).atexit = False
        self._root: Executor = self

    def options(self, **options: Unpack[Options]) -> Executor:
        """Return a view of this executor whose jobs have these options.

        Args:
            options: as ``jobd.Client.options`` takes them, but for a ``key``: a future is of its own job.

        Raises:
            UsageError: there is no such option, or it is of another type.
        """
        if "key" in options:
            raise UsageError("a future has a job of its own, and no key", "use jobd.Client")
        view = object.__new__(Executor)
        view.__dict__ |= self.__dict__ | {"_options": with_options(self._options, options)}
        return view

    @overload
    def submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobFuture[T]: ...
    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[T]: ...
    def submit(self, fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[Any]:
        """Have ``fn(*args, **kwargs)`` called in a worker.

        Raises:
            RuntimeError: the executor has been shut down.
            PoolBroken: its own daemon is gone.
            DiskFull, PayloadNotStored: there is no room for a large argument.
        """
        try:
            request = one_call(fn, args, kwargs, self._options, self._draft())
        except UsageError as error:
            failed = not_sent(error)
            shared = (
                self._engine.shared((fn, args, kwargs)) if type(failed) is RuntimeError else b""
            )
            if not shared:
                return self._engine.failed(failed)
            request = one_call(call_pickled, (shared,), {}, self._options, self._draft())
        return self._engine.submit(request)

    def map(  # the standard library's
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call ``fn`` with the items of each iterable in turn; return the results in that order.

        All jobs are submitted before this returns, if any of the iterables knows how many items it
        has (and they are no more than a million); of others, and so of endless ones, only
        ``buffersize`` are, and the next ones as results are asked for.

        Args:
            fn: takes as many arguments as there are iterables.
            iterables: the longer ones are cut to the shortest.
            timeout: seconds from now after which the iterator raises ``TimeoutError``; None: never.
            chunksize: how many calls make one job.
            buffersize: how many jobs may be submitted whose results nobody has asked for; None: all
                of those that can be counted, else 10,000.

        Raises:
            RuntimeError: the executor has been shut down.
            PoolBroken: its own daemon is gone.
            DiskFull, PayloadNotStored: there is no room for a large argument.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        mapping.check_buffer(buffersize)
        if chunksize == 1:
            calls: Iterable[mapping.Call] = mapping.Calls(iterables)
            if buffersize is None and 0 < length_hint(calls, -1) <= LONG:
                calls = list(calls)
                found = self._array(fn, calls)
                if found is not None:
                    engine = self._engine
                    return arrays.results(found, engine.cancel, engine.refuse_broken, timeout)
            places = self._places(fn, calls, buffersize)
            return mapping.results(places, self._engine.refuse_broken, timeout)
        sent: object
        try:
            sent = payload.pickled(fn)
        except payload.Unencodable:
            sent = fn  # so that each job tells why it cannot travel
        places = self._places(call_each, mapping.Calls(iterables, chunksize, sent), buffersize)
        return mapping.flat(mapping.results(places, self._engine.refuse_broken, timeout))

    def _array(
        self, fn: Callable[..., Any], calls: list[mapping.Call]
    ) -> arrays.ArrayResults | None:
        """Submit all calls as one array; None: some have to be jobs of their own, or cannot travel."""
        try:
            request = array_call(fn, calls, self._options, self._draft(), ArraySpec(0))
        except UsageError:
            return None  # who submits them one by one tells which
        if request.array is None:
            return None
        found = arrays.ArrayResults(self.client)
        self._engine.submit_array(request, found)
        return found

    def _places(
        self, fn: Callable[..., Any], calls: Iterable[mapping.Call], buffersize: int | None
    ) -> mapping.Places:
        def submit(bulk: list[mapping.Call]) -> list[mapping.Place]:
            return self._submit_bulk(fn, bulk)

        return mapping.Places(submit, self._engine.cancel, calls, buffersize)

    def _submit_bulk(self, fn: Callable[..., Any], bulk: list[mapping.Call]) -> list[mapping.Place]:
        """Submit calls at once, or one by one if some cannot travel: only these have no job."""
        try:
            request = many_calls(fn, bulk, self._options, self._draft())
        except UsageError as error:
            if len(bulk) > 1:
                return [place for call in bulk for place in self._submit_bulk(fn, [call])]
            self._engine.refuse_new()
            return [mapping.NotSent(not_sent(error))]
        return [*self._engine.submit_many(request)]

    def terminate_workers(self) -> None:
        """Shut down, and have what runs end now: its futures fail, or are cancelled on a shared daemon."""
        self._engine.end_now(kill=False)

    def kill_workers(self) -> None:
        """As ``terminate_workers``, but nothing that runs can do anything about it."""
        self._engine.end_now(kill=True)

    def _draft(self) -> Draft | None:
        return self.client._draft()  # noqa: SLF001  # it is the client with another face

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # the standard library's
        """Take no more submits, and end once all jobs have ended.

        Args:
            wait: return only then.
            cancel_futures: cancel the jobs that no worker has yet.
        """
        self._engine.shutdown(wait=wait, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        return f"<jobd.Executor of {self.client!r}>"
