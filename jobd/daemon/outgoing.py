"""What the scheduler has decided, carried out: orders and answers go out, workers are started and killed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jobd.daemon.outbox import Clients, Outbox
from jobd.failpoints import hit
from jobd.model.orders import (
    Adopt,
    CloseStream,
    GiveBack,
    Grant,
    Lent,
    Order,
    Recorded,
    Run,
    StopJob,
)
from jobd.pool.supervisor import Pool
from jobd.scheduler import Phase, Scheduler

AT_ONCE = (GiveBack, StopJob, Adopt, Grant, CloseStream, Lent)
"""Orders that go to a worker's control thread; the others wait for their turn in its main thread."""


class Outgoing:
    """The way out; each of ``feeders`` puts into a job's order what is in the store only."""

    def __init__(
        self,
        scheduler: Scheduler,
        pool: Pool,
        workers: Outbox,
        clients: Clients,
        feeders: Iterable[Callable[[Run], None]],
    ) -> None:
        self._scheduler = scheduler
        self._pool = pool
        self._workers = workers
        self._clients = clients
        self._feeders = tuple(feeders)
        self.flush = workers.flush
        """Send workers what was gathered for them."""
        self.put_off_no_more = workers.put_off_no_more

    def order(self, uid: str, order: Order) -> None:
        """Send this to a worker with the next flush."""
        suffix = b"/c" if isinstance(order, AT_ONCE) else b"/j"
        self._workers.put(uid.encode() + suffix, order)

    def act(self) -> None:
        """Do at once what the scheduler wants done."""
        effects = self._scheduler.take_effects()
        for uid, order in effects.orders:
            if type(order) is Run:
                self._feed(order)
            elif type(order) is Recorded and self._can_do_without(uid):
                self._workers.put_off(uid.encode() + b"/j", order)
                continue
            elif type(order) is StopJob:
                self._pool.unheard.ordered(uid, order.id, order.attempt)
            self.order(uid, order)
            if type(order) is Run:
                self._workers.flush()  # the job starts while we write
                hit("dispatch.sent")
        self._clients.outbox.put_all(effects.replies)
        for uid in effects.spawn:
            self._pool.spawn(uid)
            hit("worker.spawned")
        for key in effects.kill:
            self._pool.kill(*key)

    def _feed(self, order: Run) -> None:
        for feed in self._feeders:
            feed(order)

    def _can_do_without(self, uid: str) -> bool:
        """Whether a worker need not hear at once what is recorded: it does not wait for that to leave."""
        worker = self._scheduler.workers.get(uid)
        return worker is not None and worker.phase is Phase.READY
