"""What clients ask about jobs: how they are, what came of them, what they come after."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from jobd.daemon import listing, output
from jobd.daemon.environments import Environments
from jobd.daemon.listing import Listing, below, missing, size_of
from jobd.daemon.neighbours import MOST as MOST_NEIGHBOURS
from jobd.daemon.neighbours import Neighbours
from jobd.daemon.outbox import Clients
from jobd.daemon.turns import Handlers, Steps
from jobd.daemon.view import View
from jobd.daemon.watches import Watches
from jobd.model.errors import no_such_job
from jobd.model.job import Attempt, JobInfo
from jobd.model.messages import (
    Fetch,
    Fetched,
    Find,
    Graph,
    GraphInfo,
    Jobs,
    List,
    Watch,
)
from jobd.model.states import State
from jobd.pool.protocol import Settings as PoolSettings
from jobd.pool.restrict import means
from jobd.scheduler import Scheduler
from jobd.store import Store

FIND_SLICE = 100
"""Jobs looked at in one turn where for each its attempts and the end of its output are read, too."""


@dataclass(frozen=True)
class QuestionDesk:
    """Tells how jobs are, and what came of them."""

    scheduler: Scheduler
    store: Store
    view: View
    listing: Listing
    watches: Watches
    environments: Environments
    clients: Clients
    pool_settings: PoolSettings

    @property
    def handlers(self) -> Handlers:
        """What it answers."""
        return {
            Watch: self.watches.watch,
            Fetch: self._fetch,
            Find: self._find,
            List: self._list,
            Graph: self._graph,
        }

    def _fetch(self, peer: bytes, request: Fetch) -> None:
        job = self.store.job(request.id)
        if job is None:
            raise no_such_job(request.id)
        state = job.state
        if state is State.QUEUED and request.id in self.view.running():
            state = State.RUNNING
        reply = Fetched(request.rid, job.id, state, job.value, job.error, job.cause, job.root)
        if job.array is not None:
            reply.items = job.array.items
        self.clients.reply(peer, reply, len(job.value or b""))

    def _find(self, peer: bytes, request: Find) -> Steps:
        clients, store = self.clients, self.store
        seen: set[int] = set()
        for infos in self.listing.matching(request.selector, FIND_SLICE):
            for info in infos:
                seen.add(info.id)
                info.earlier = self._attempts(info.id)
                job = store.job(info.id)
                if job is not None:
                    info.args, info.inputs = job.args, job.inputs or []
                    info.policy = self.environments.shown(job.policy)
                    info.after = job.after or []
                    info.enforced = (
                        means(job.policy, self.pool_settings.cgroup) if job.policy else {}
                    )
                    info.tail = output.last_lines(self.pool_settings.logs_dir, job.log)
                if job is not None and info.state is State.QUEUED:
                    info.waits_for = self.scheduler.waits_for(job)
            if infos:
                clients.reply(peer, Jobs(request.rid, infos, more=True), size_of(infos))
            yield
        unknown = missing(request.selector, seen)
        if unknown and not seen:
            raise no_such_job(unknown[0])
        clients.reply(peer, Jobs(request.rid, [], more=False))

    def _attempts(self, number: int) -> list[Attempt]:
        """Return a job's earlier attempts, with the last lines of each."""
        directory = self.pool_settings.logs_dir
        return [
            msgspec.structs.replace(past, tail=output.last_lines(directory, past.log))
            for past in self.store.attempts(number)
        ]

    def _list(self, peer: bytes, request: List) -> Steps:
        selector, limit = request.selector, max(1, min(request.limit, 10_000))
        if request.before:
            selector = below(self.listing.settled(selector), request.before)
        found: list[JobInfo] = []
        for infos in self.listing.matching(selector, min(limit + 1, listing.SLICE)):
            found += infos
            if len(found) > limit:
                break
            yield
        reply = Jobs(request.rid, found[:limit], more=len(found) > limit)
        self.clients.reply(peer, reply, size_of(found))

    def _graph(self, peer: bytes, request: Graph) -> Steps:
        store = self.store
        if store.job(request.id) is None:
            raise no_such_job(request.id)
        walk = Neighbours(store, request.id)
        yield from walk.steps()
        limit = min(request.limit, MOST_NEIGHBOURS)
        numbers = [request.id, *walk.before[:limit], *walk.after[:limit]]
        infos: list[JobInfo] = []
        for start in range(0, len(numbers), listing.SLICE):
            running = self.view.running()  # anew: turns of the loop lie between two slices
            for job in filter(None, map(store.job, numbers[start : start + listing.SLICE])):
                info = self.listing.info(job, running)
                info.inputs, info.after = job.inputs or [], job.after or []
                infos.append(info)
            yield
        left = [max(0, len(found) - limit) for found in (walk.before, walk.after)]
        reply = GraphInfo(request.rid, infos, left[0], left[1], walk.is_whole)
        self.clients.reply(peer, reply, size_of(infos))
