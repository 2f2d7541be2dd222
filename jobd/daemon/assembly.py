"""The one place that knows every part of a daemon: each is handed what it needs, and no more.

What desks have to say to each other goes through the scheduler, or through a function that
is handed in here.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from jobd.config.settings import Settings
from jobd.daemon.array_verbs import ArrayVerbs
from jobd.daemon.arrays import ArrayDesk
from jobd.daemon.backlog import Backlog
from jobd.daemon.checks import Checks
from jobd.daemon.committer import Committer
from jobd.daemon.control import ControlDesk
from jobd.daemon.dependencies import Dependencies
from jobd.daemon.door import MORE_FILES, Door
from jobd.daemon.environments import Environments
from jobd.daemon.heap import Heap
from jobd.daemon.keys import Keys
from jobd.daemon.lifecycle import Lifecycle
from jobd.daemon.listing import Listing
from jobd.daemon.logs import LogDesk
from jobd.daemon.loop import Chore, Loop, wall_us
from jobd.daemon.notify import Notify
from jobd.daemon.outbox import Clients, Outbox
from jobd.daemon.outgoing import Outgoing
from jobd.daemon.owner import Owner
from jobd.daemon.payloads import Payloads
from jobd.daemon.policies import Policies
from jobd.daemon.predecessors import Predecessors
from jobd.daemon.progress import ProgressBoard
from jobd.daemon.questions import QuestionDesk
from jobd.daemon.queues import QueueDesk
from jobd.daemon.readers import Readers
from jobd.daemon.reception import ReceptionDesk
from jobd.daemon.remote import BothRouters, ByWire, Remote
from jobd.daemon.requests import Requests
from jobd.daemon.retention import Retention
from jobd.daemon.signals import Signals
from jobd.daemon.streams import StreamDesk
from jobd.daemon.submits import SubmitDesk
from jobd.daemon.takes import TakeDesk
from jobd.daemon.turns import Steps
from jobd.daemon.view import View
from jobd.daemon.watches import Watches
from jobd.daemon.workers import WorkerDesk
from jobd.daemon.writer import Writer
from jobd.model.errors import JobdError
from jobd.model.messages import Apply, Submit
from jobd.pool.supervisor import Pool
from jobd.scheduler import Scheduler
from jobd.store import Store
from jobd.wire.pool_router import PoolRouter
from jobd.wire.router import Router

log = logging.getLogger("jobd")

Verdict = Callable[[bytes, Submit | Apply], None]
Refusal = Callable[[bytes, Submit | Apply, JobdError], None]


@dataclass(frozen=True)
class Parts:
    """What a daemon is made of, each ready for use."""

    settings: Settings
    scheduler: Scheduler
    store: Store
    pool: Pool
    payloads: Payloads
    client_router: Router
    worker_router: PoolRouter
    notify: Notify
    owner: Owner | None = None
    remote: Remote | None = None


class Shared:
    """What several desks are handed: it knows no desk, but for the functions that are handed in."""

    def __init__(self, parts: Parts, accept: Verdict, refuse: Refusal) -> None:
        """Call ``accept`` or ``refuse`` for each submit that has been checked."""
        settings, scheduler, store, pool = parts.settings, parts.scheduler, parts.store, parts.pool
        self.tasks: deque[Steps] = deque()
        self.committer = Committer(store.commit)
        local, remote = parts.client_router, parts.remote
        self.router = local if remote is None else BothRouters(local, remote.router)
        self.clients = Clients(self.router, ByWire(parts.payloads.place))
        self.view = View(scheduler, store, pool)
        self.progress = ProgressBoard(self.view, self.clients)
        self.requests = Requests(self.clients, self.tasks)
        if remote is not None:
            remote.reaches = self.clients.reaches
            self.requests.refuse = remote.refuse
        self.environments = Environments(scheduler.ledger, store)
        self.listing = Listing(scheduler, store, self.view, self.progress)
        self.watches = Watches(
            scheduler, self.view, self.progress, self.clients, self.requests.turns
        )
        self.keys = Keys(scheduler, store, self.view, self.clients, self.watches.watch_all)
        self.dependencies = Dependencies(scheduler, store, self.view, self.keys)
        self.retention = Retention(scheduler, store, parts.payloads, settings.results.keep_s)
        self.policies = Policies(settings, self.environments, scheduler.queues)
        self.backlog = Backlog(scheduler, store)
        # A worker of a dead daemon connects its two sockets one after the other: its orders wait for that.
        workers = Outbox(
            parts.worker_router, lambda peer: peer[:-2].decode("ascii", "replace") in pool.processes
        )
        feeders = self.dependencies.feed, self.environments.feed
        self.outgoing = Outgoing(scheduler, pool, workers, self.clients, feeders)
        self.checks = Checks(
            scheduler.boot,
            settings.jobs.check_timeout_s,
            spawn=lambda uid: pool.spawn(uid, checker=True),
            send=self.outgoing.order,
            kill=lambda uid: pool.kill(uid, 0, 0),
            accept=accept,
            refuse=refuse,
        )
        self.writer = Writer(
            scheduler=scheduler,
            store=store,
            committer=self.committer,
            payloads=parts.payloads,
            pool=pool,
            clients=self.clients,
            outgoing=self.outgoing,
            flush_clients=self.requests.flush,
        )
        self.lifecycle = Lifecycle(
            settings=settings,
            scheduler=scheduler,
            view=self.view,
            pool=pool,
            checks=self.checks,
            notify=parts.notify,
            has_owner=parts.owner is not None,
        )


class Daemon:
    """All of it, joined."""

    def __init__(self, parts: Parts) -> None:
        settings, scheduler, pool = parts.settings, parts.scheduler, parts.pool
        self._parts = parts
        self.scheduler, self.pool = scheduler, pool
        self._shared = shared = Shared(parts, self._accept, self._refuse)
        self.tasks, self.committer, self.checks = shared.tasks, shared.committer, shared.checks
        self.dependencies, self.writer = shared.dependencies, shared.writer
        self.lifecycle = shared.lifecycle
        self.signals = Signals()
        self._readers = Readers(parts.store.ahead, lambda: not shared.committer.busy)
        self._heap = Heap()
        self._door = Door(
            parts.client_router,
            shared.router,
            settings.limits.max_clients,
            scheduler.options.workers,
            scheduler.options.max_lent,
        )
        if parts.remote is not None:
            parts.remote.let_in = self._door.let_in
        self._make_desks()
        self._listen()
        self.loop = Loop(
            scheduler=scheduler,
            pool=pool,
            doors=[self._door, *([parts.remote] if parts.remote else ())],
            requests=shared.requests,
            workers=self._workers,
            outgoing=shared.outgoing,
            writer=shared.writer,
            committer=shared.committer,
            streams=self._streams,
            arrays=self._arrays,
            logs=self._logs,
            backlog=shared.backlog,
            dependencies=shared.dependencies,
            checks=shared.checks,
            lifecycle=shared.lifecycle,
            notify=parts.notify,
            signals=self.signals,
            owner_fd=None if parts.owner is None else parts.owner.fd,
            chores=self._chores(),
            tasks=shared.tasks,
        )

    def _make_desks(self) -> None:
        """Make those that are asked by name from here; ``_listen`` makes the others."""
        parts, shared = self._parts, self._shared
        settings, scheduler, store, pool = parts.settings, parts.scheduler, parts.store, parts.pool
        clients, view = shared.clients, shared.view
        self._submits = SubmitDesk(
            scheduler=scheduler,
            store=store,
            policies=shared.policies,
            environments=shared.environments,
            checks=shared.checks,
            predecessors=Predecessors(
                scheduler,
                store,
                view,
                shared.keys,
                shared.checks.is_pending,
                shared.retention.names,
            ),
            keys=shared.keys,
            clients=clients,
            watch=shared.watches.watch_all,
        )
        self._queues = QueueDesk(settings, scheduler, store, view, clients)
        self._streams = StreamDesk(scheduler, store, clients)
        self._arrays = ArrayDesk(scheduler, store, view, clients, shared.progress)
        self._takes = TakeDesk(scheduler, store, view, parts.payloads, clients)
        max_output = settings.limits.max_output_bytes
        self._logs = LogDesk(scheduler, store, pool, view, clients, max_output)
        self._workers = WorkerDesk(
            scheduler=scheduler,
            pool=pool,
            router=parts.worker_router,
            outgoing=shared.outgoing,
            writer=shared.writer,
            backlog=shared.backlog,
            checks=shared.checks,
            progress=shared.progress,
            has_initializer=parts.owner is not None and bool(parts.owner.initializer),
            max_rss=settings.pool.max_worker_rss,
        )

    def _listen(self) -> None:
        """Tell who answers what, and who hears that a client is gone."""
        parts, shared = self._parts, self._shared
        scheduler, store, view, clients = parts.scheduler, parts.store, shared.view, shared.clients
        desks = (
            self._submits,
            QuestionDesk(
                scheduler=scheduler,
                store=store,
                view=view,
                listing=shared.listing,
                watches=shared.watches,
                environments=shared.environments,
                clients=clients,
                pool_settings=parts.pool.settings,
            ),
            ControlDesk(
                scheduler=scheduler,
                view=view,
                listing=shared.listing,
                dependencies=shared.dependencies,
                arrays=ArrayVerbs(scheduler, store),
                policies=shared.policies,
                clients=clients,
                lifecycle=shared.lifecycle,
            ),
            ReceptionDesk(
                settings=parts.settings,
                scheduler=scheduler,
                pool=parts.pool,
                view=view,
                place=parts.payloads.place,
                clients=clients,
                remote=parts.remote,
                started_at_us=wall_us(),
                trouble=self._trouble,
            ),
            self._queues,
            self._streams,
            self._arrays,
            self._takes,
            self._logs,
        )
        for desk in desks:
            shared.requests.handlers.update(desk.handlers)
        shared.requests.farewells += [
            scheduler.window.forget_peer,
            self._takes.forget,
            shared.progress.forget,
            self._logs.forget,
            self._streams.check,
            self._arrays.forget,
            clients.by_wire.discard,
            lambda _: self._heap.has_ended(),
        ]

    def _chores(self) -> list[Chore]:
        """Return what is looked after because nobody tells us of it: deleted files, silent clients."""
        parts, shared, pool = self._parts, self._shared, self.pool
        return [
            lambda _: parts.notify.flush(),
            lambda _: self._door.look(len(pool.processes)),
            self._look_at_routers,
            lambda _: parts.store.check_identity(),
            self._readers.look,
            shared.requests.forget_silent,
            lambda _: self._logs.punch(),
            lambda _: self._workers.replace_the_large(),
            lambda _: self._heap.look(),
            lambda _: self._streams.probe(),
            lambda _: self._takes.probe(),
            lambda _: self._workers.end_the_stuck(),
            lambda _: pool.sweep(),
            lambda _: shared.outgoing.put_off_no_more(),
            parts.payloads.look,
            shared.retention.look,
        ]

    def _look_at_routers(self, _now_s: float) -> None:
        parts = self._parts
        parts.client_router.look()
        parts.worker_router.look()
        if parts.remote is not None:
            parts.remote.router.look()

    def _trouble(self) -> list[str]:
        """Return sentences about what does not work at the moment."""
        pool = self.pool
        found = [self.writer.trouble, pool.trouble, *pool.warnings, self._parts.payloads.trouble]
        found += [self._readers.trouble, self._door.trouble(time.monotonic())]
        if self._parts.worker_router.is_short:
            found.append(f"no file descriptors are left to connect workers with: {MORE_FILES}")
        found += [self._workers.trouble(), *self._queues.trouble()]
        return [text for text in found if text]

    # The checker is older than the desk that it tells its verdicts.

    def _accept(self, peer: bytes, request: Submit | Apply) -> None:
        self._submits.accept(peer, request)

    def _refuse(self, peer: bytes, request: Submit | Apply, error: JobdError) -> None:
        self._submits.refuse(peer, request, error)

    # -- running --

    def run(self) -> None:
        """Run until stopped.

        Raises:
            StoreFailed: the store cannot be trusted any more; nothing was answered since.
        """
        for sentence in self._queues.trouble():
            log.warning("%s", sentence)
        self.lifecycle.start()
        while not self.loop.turn():
            pass

    def close(self) -> None:
        """Let go of everything; workers that still live are killed."""
        self.committer.close()
        self.pool.close()
        self._parts.payloads.close()
        self.signals.close()
