"""Who runs what: jobs are handed to workers, and taken back.

Each idle worker gets one job.  Jobs whose function is known to be short are handed out
ahead of time, up to ``BUDGET_US`` of work for a worker and as much as it does while a commit
lasts.  Should one of them turn out long, the worker is asked to give back the others
``STALL_US`` later, so that no job waits for long behind another.

Behind a job that takes longer than that, one more is *on deck*: on record, and in the worker's
hands, so that it starts in the step that ends the one before.  It is asked back when another
worker idles, or when the one before takes three times as long as it should.

An order to run leaves at once if its jobs are stored together with their lease, as nobody
has heard of them before; else it waits for the commit of the lease.
"""

from __future__ import annotations

from jobd.model.item import FIRST_ITEM, owner_of
from jobd.model.job import Job, Lease
from jobd.model.options import BUILT_IN
from jobd.model.orders import GiveBack, Retire, Run, Surroundings, Task
from jobd.model.states import ASSIGN, Event, State, transition
from jobd.scheduler.aftermath import Aftermath
from jobd.scheduler.clocks import is_restricted, limits_of
from jobd.scheduler.effects import Effects
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.places import Places
from jobd.scheduler.roster import Phase, Worker
from jobd.scheduler.staff import Options
from jobd.scheduler.stops import Stops
from jobd.scheduler.supply import AHEAD_US, SHORT_US, Supply

BUDGET_US = 2_000.0
"""Work that is handed to a worker ahead of time, beside what it does while a commit lasts."""

SLOW_US = 8_000.0
"""A commit that takes longer leaves workers without work: that much more would be too unfair."""

REFILL = 0.75
"""A worker that has less than this part of what it may have is handed more."""

CREDIT = 2_048
"""Jobs that are handed to a worker ahead of time, at most."""

FIRST = 64
"""So many with the first order to idle workers: they begin with these while the next order is made."""

AHEAD_BYTES = 256 * 1024
"""So much is on its way to a worker at once; more would take long to arrive, and look like a long job."""

STRETCHES_US = 12_000.0
"""Of stretches so much is handed to a worker ahead of time."""

DECK_US = 250_000.0
"""Nothing is put on deck behind a job that is expected to take longer: a hand-over costs it nothing."""

STALL_US = 5_000
"""How long jobs may sit in a worker's hands without progress."""

STALLED_US = 1_000_000
"""When to ask a stalled worker again; its control thread may be kept from answering by C code."""


class Dispatch:
    """Hands jobs out, and takes them out of hands again."""

    def __init__(  # noqa: PLR0913, PLR0917  # a start concerns everybody
        self,
        boot: str,
        options: Options,
        ledger: Ledger,
        supply: Supply,
        workers: dict[str, Worker],
        stops: Stops,
        aftermath: Aftermath,
        effects: Effects,
    ) -> None:
        """``workers`` and ``effects`` are the scheduler's own."""
        self.now = 0
        self.has_more = False
        """Workers have got a first order only, and may have more at once."""
        self._boot = boot
        self._options = options
        self._ledger = ledger
        self.supply = supply
        self._window = supply.window
        self._lanes = supply.window.lanes
        self._arrays = supply.arrays
        self._queues = supply.queues
        self.places = Places(supply.queues, supply.window.lanes)
        self._workers = workers
        self._stops = stops
        self._aftermath = aftermath
        self._effects = effects
        self._commit_us = 0.0
        """What a commit takes, its rows included, on average of the latest: meanwhile nothing is handed out."""
        self._is_degraded = False
        """The disk was full: nothing starts before its record is stored."""

    # -- handing out --

    def run(self) -> None:
        """Hand out what may start."""
        ready = sorted(
            (w for w in self._workers.values() if w.phase is Phase.READY and w.waiting is None),
            key=lambda w: w.load_us,
        )
        slots = self._options.workers - sum(worker.is_active for worker in self._workers.values())
        hands = self._hand_to_idle(ready, slots)
        if slots >= 0 and (len(self._window) or self._lanes.count):
            self._hand_ahead(ready, hands)
            self._put_on_deck(ready, hands)
        for uid, jobs in hands.items():
            self._send(uid, jobs)
        if len(self._window):
            self._ledger.batch.urgent = True  # what still waits will not end before this commit

    def _hand_to_idle(self, ready: list[Worker], slots: int) -> dict[str, list[Job]]:
        """Hand one job each to workers that have none, as long as there are slots."""
        hands: dict[str, list[Job]] = {}
        for worker in ready:
            if worker.assigned or len(hands) >= slots:
                break
            job = self.supply.next()
            if job is None:
                break
            self._hand(worker, job, self.supply.cost_us(job))
            hands[worker.uid] = [job]
        return hands

    def _hand_ahead(self, ready: list[Worker], hands: dict[str, list[Job]]) -> None:
        """Hand out short jobs to workers that will be done soon, in equal shares."""
        budget_us = self._budget_us()
        if self._arrays.are_in_line:
            budget_us = max(budget_us, STRETCHES_US)
        rooms = [
            w
            for w in ready
            if w.assigned
            and w.load_us < REFILL * budget_us
            and not w.is_single_use
            and not self._is_stuck(w)
        ]
        if not rooms:
            return
        most = FIRST if hands else CREDIT
        waiting = len(self._window) + self._lanes.count
        share = most if self._arrays.are_in_line else min(most, -(-waiting // len(rooms)))
        for worker in rooms:
            if not self._fill(worker, hands.setdefault(worker.uid, []), share, budget_us):
                break
        self.has_more = any(len(jobs) >= most for jobs in hands.values())

    def _budget_us(self) -> float:
        """Return how much work is handed to a worker ahead of time."""
        return BUDGET_US + min(self._commit_us, SLOW_US)

    def _is_soon_done(self, worker: Worker) -> bool:
        """Whether a worker has so little in hand that short jobs are handed to it ahead of time."""
        return worker.load_us < REFILL * self._budget_us()

    def _fill(self, worker: Worker, taken: list[Job], share: int, budget_us: float) -> bool:
        """Hand a worker its share, as far as it has room; return whether there may be more short jobs."""
        take, cost_us = self.supply.next_short, self.supply.cost_us
        for _ in range(min(share, self._room(worker))):
            if worker.load_us > budget_us or worker.load_bytes > AHEAD_BYTES:
                break
            job = take()
            if job is None and self._lanes.is_used and worker.waiting is None:
                head = next(iter(worker.assigned.values()))
                job = self._heir_of(worker, head, is_short=True)
            if job is None:
                return self._lanes.is_used  # another one may have an heir
            self._hand(worker, job, cost_us(job))
            taken.append(job)
        return True

    def _heir_of(self, worker: Worker, head: Job, *, is_short: bool = False) -> Job | None:
        """Take the job that is to take over the places of what a worker runs, if there is one."""
        keeper = worker.keeper or head
        heir = self.supply.next_heir(keeper, is_short=is_short)
        if heir is not None:
            worker.keeper, heir.is_heir = keeper, True
        return heir

    def _put_on_deck(self, ready: list[Worker], hands: dict[str, list[Job]]) -> None:
        """Hand each worker the job that it is to begin with when the one that it runs has ended."""
        for worker in ready:
            if len(worker.assigned) != 1 or worker.is_single_use or self._is_stuck(worker):
                continue
            if worker.unsent or hands.get(worker.uid) or self._is_soon_done(worker):
                continue  # what is handed to it now might overtake that
            (head,) = worker.assigned.values()
            if head.cost_us > DECK_US or not self._room(worker):
                continue
            job = self.supply.next_for_deck()
            if job is None and worker.waiting is None:
                job = self._heir_of(worker, head)
            if job is not None:
                self._hand(worker, job, self.supply.cost_us(job))
                hands.setdefault(worker.uid, []).append(job)

    def _room(self, worker: Worker) -> int:
        """Return how many jobs more a worker may have in hand."""
        held, most = len(worker.assigned), self._options.max_jobs_per_worker
        return min(CREDIT - held, most - worker.done - held) if most else CREDIT - held

    def _is_stuck(self, worker: Worker) -> bool:
        """Whether a worker's jobs take longer than was expected."""
        return worker.stalled or (bool(worker.assigned) and self.now >= worker.stall_at)

    def _hand(self, worker: Worker, job: Job, cost_us: float, *, is_start: bool = True) -> None:
        self.places.take(job, is_start=is_start)
        job.state = transition(job.state, ASSIGN)
        job.attempt += 1
        job.pid = worker.pid
        job.cost_us = cost_us
        if not worker.assigned:
            worker.stall_at = self.stalls_at(cost_us)
        worker.assigned[job.id] = job
        worker.load_us += cost_us
        worker.load_bytes += len(job.args)
        if job.policy is not None:
            worker.is_single_use = is_restricted(job.policy)

    def resume(self, worker: Worker, job: Job, lease: Lease) -> None:
        """A worker that a dead daemon had started has this job in hand already."""
        if job.id >= FIRST_ITEM:
            self._arrays.handed(job)
        self._hand(worker, job, self.supply.cost_us(job), is_start=False)
        job.lease = lease
        self._stops.clocks.start(worker.uid, job, self.now)

    def _send(self, uid: str, jobs: list[Job]) -> None:
        """Order a worker to run these jobs: now, or once they are on record if their submit is."""
        if not jobs:
            return
        ledger = self._ledger
        lease = ledger.lease(uid, jobs)
        run = Run(self._boot, [_task(job) for job in jobs])
        first = jobs[0]  # the only one that may be long
        worker = self._workers[uid]
        # Not the first one's: it may have gone before others, as somebody waits for it.
        oldest = min(owner_of(number) for number, *_ in lease.attempts)
        if self._is_degraded or oldest <= ledger.taken_high:
            worker.unsent += len(jobs)
            ledger.batch.orders.append((uid, run))
            ledger.batch.urgent = True
        else:
            self._issue(worker, run, first)
            if first.cost_us > SHORT_US:
                ledger.batch.urgent = True

    def _issue(self, worker: Worker, run: Run, first: Job) -> None:
        """Let an order to run go out, numbered as the worker will get them."""
        worker.sent += 1
        run.number = worker.sent
        if first.lease is not None:
            first.lease.run = worker.sent
        self._effects.orders.append((worker.uid, run))
        if self._queues.counts:
            for task in run.tasks:
                self._queues.left(task.queue, self.now)
        if first.policy is not None:
            if len(worker.assigned) - worker.unsent == len(run.tasks):
                self._stops.clocks.start(worker.uid, first, self.now)
            if worker.is_single_use and worker.phase is Phase.READY:
                worker.phase = Phase.RETIRING
                self._effects.orders.append((worker.uid, Retire()))

    # -- orders that wait for a commit --

    def committed(self, orders: list[tuple[str, Run]], took_us: float) -> None:
        """A commit has come about in so many microseconds: these orders, which waited for it, may go."""
        self._commit_us += (took_us - self._commit_us) / 4
        self._is_degraded = False
        for uid, run in orders:
            self._issue_late(uid, run)

    def _issue_late(self, uid: str, run: Run) -> None:
        """Let an order go out that had to wait until it is on record; by now its worker may be dead."""
        worker = self._workers.get(uid)
        if worker is None:
            return
        worker.unsent -= len(run.tasks)
        if any(worker.assigned[task.id].doomed for task in run.tasks):
            for task in run.tasks:
                self.take_back(worker, worker.assigned[task.id])
            return
        if len(worker.assigned) - worker.unsent == len(run.tasks):
            # It begins with these.
            worker.stall_at = self.stalls_at(worker.assigned[run.tasks[0].id].cost_us)
        elif worker.stalled or self._is_wanted_from(worker):  # others will run these sooner
            for task in run.tasks:
                self.take_back(worker, worker.assigned[task.id])
            return
        self._issue(worker, run, worker.assigned[run.tasks[0].id])

    def not_committed(self) -> None:
        """A commit has failed, and all that was refused with it is void."""
        self._is_degraded = True
        self._recall()

    def _recall(self) -> None:
        """Take what was refused out of the orders that have not left yet: it must not start."""
        batch = self._ledger.batch
        waiting, batch.orders = batch.orders, []
        for uid, run in waiting:
            worker = self._workers.get(uid)
            if worker is None:
                continue  # dead, and what it had is in other hands
            kept = []
            for task in run.tasks:
                job = worker.assigned[task.id]
                if job.void:
                    worker.unsent -= 1
                    self.take(worker, job)
                else:
                    kept.append(task)
            if kept:
                batch.orders.append((uid, Run(run.boot, kept)))

    # -- what comes back --

    def times(self) -> list[int]:
        """Return when there is something to ask back, should nothing happen until then."""
        workers = self._workers.values()
        return [w.stall_at for w in workers if w.has_more_than_one]

    def ask_back(self) -> None:
        """Have workers give back what they have not come to for too long, or what another one could begin."""
        for worker in self._workers.values():
            if worker.has_more_than_one and (
                self.now >= worker.stall_at or (not worker.stalled and self._is_wanted_from(worker))
            ):
                self._ask_back_from(worker)

    def recall(self, uids: list[str]) -> None:
        """Have these workers give back what they have not come to."""
        for uid in uids:
            worker = self._workers.get(uid)
            if worker is not None:
                self._ask_back_from(worker)

    def _is_wanted_from(self, worker: Worker) -> bool:
        """Whether a worker idles that would begin what lies on deck here, or another job outranks that."""
        if len(worker.assigned) - worker.unsent == 1:
            return False  # a stretch, most of which is short
        if next(iter(worker.assigned.values())).cost_us <= AHEAD_US:
            return False  # it is about to begin here
        if self._lanes.is_used and self._is_outranked(worker):
            return True
        heir = worker.heir
        if heir is not None and not self.supply.is_open(heir):
            return False  # nobody else could begin it either
        workers = self._workers.values()
        if sum(other.is_active for other in workers) >= self._options.workers:
            return False
        return any(w.phase is Phase.READY and not w.assigned for w in workers)

    def _is_outranked(self, worker: Worker) -> bool:
        """Whether a job that may start has a higher priority than what lies on deck here."""
        head = next(iter(worker.assigned.values()))
        first = self.supply.choose() if worker.heir is None else self.supply.choose_after(head)
        waiting = [*worker.assigned.values()][:2][-1]  # or the first, of which items wait
        return first is not None and priority_of(first) > priority_of(waiting)

    def _ask_back_from(self, worker: Worker) -> None:
        worker.stall_at = self.now + STALLED_US
        worker.stalled = True
        self._effects.orders.append((worker.uid, GiveBack(worker.sent)))

    def goes_on(self, worker: Worker) -> None:
        """A worker has made progress."""
        head = self.begins_head(worker)
        worker.stall_at = self.stalls_at(head.cost_us if head is not None else 0.0)
        worker.stalled = False

    def begins_head(self, worker: Worker) -> Job | None:
        """What came before may be out of a worker's hands: what is first there now has begun; return it."""
        head = next(iter(worker.assigned.values()), None)
        if head is not None and head.policy is not None:
            self._stops.clocks.begins(worker.uid, head, self.now)
        return head

    def stalls_at(self, cost_us: float) -> int:
        """Return when a job that begins now, and should take so long, takes too long for those behind it."""
        return self.now + STALL_US + (round(2 * cost_us) if AHEAD_US < cost_us <= DECK_US else 0)

    def take(self, worker: Worker, job: Job) -> None:
        """Take a job out of a worker's hands."""
        self.places.free(worker, job)
        del worker.assigned[job.id]
        if worker.waiting is job:
            worker.waiting = None
        if job.id >= FIRST_ITEM:
            self._arrays.came_back(job)
        worker.load_us = worker.load_us - job.cost_us if worker.assigned else 0.0
        worker.load_bytes = worker.load_bytes - len(job.args) if worker.assigned else 0
        if job.stop is not None:
            self._stops.over(worker.uid, job)
        if job.policy is not None:
            self._stops.clocks.stop(worker.uid, job)
            worker.is_single_use = False  # it never got it, or retires
        lease = job.lease
        job.lease = None
        if lease is not None:
            self._ledger.close_lease(lease)

    def take_back(self, worker: Worker, job: Job) -> None:
        """Take from a worker what it has not started and never will."""
        self.take(worker, job)
        if job.stop is Event.CANCEL:
            self._aftermath.finish(job, Event.CANCEL)
        else:
            job.attempt -= 1  # it never was one
            self._aftermath.put_back(job)

    # -- stretches in workers' hands --

    def advance(self, worker: Worker, job: Job, count: int) -> None:
        """So many items of the stretch that a worker is at are over, and it goes on with the next."""
        number, size = job.id, len(job.args)
        over_us = job.cost_us * count / job.count
        self._arrays.advance(job, count)
        job.cost_us -= over_us
        worker.load_us -= over_us
        worker.load_bytes += len(job.args) - size
        rest = worker.assigned
        del rest[number]
        worker.assigned = {job.id: job, **rest}
        self._stop_doomed(job)

    def cut(self, worker: Worker, job: Job, first: int) -> None:
        """A worker does not come to the items of a stretch from this one on: they run some other time."""
        if first == job.id:  # those before have ended, and that was heard of
            self.take_back(worker, job)
            return
        size, cost_us, count = len(job.args), job.cost_us, job.count
        rest = self._arrays.cut(job, first)
        if rest is None:
            return
        job.cost_us = cost_us * (first - job.id) / count
        worker.load_us -= cost_us - job.cost_us
        worker.load_bytes += len(job.args) - size
        rest.state = State.QUEUED
        self._window.push(rest)
        self._stop_doomed(job)

    def _stop_doomed(self, job: Job) -> None:
        """What is left of a stretch may be one item, a job by itself: it is stopped if it was doomed."""
        if not job.doomed or job.id not in self._window.jobs:
            return
        doomed, job.doomed = job.doomed, None
        for low, behind, state, why in doomed:
            if state is not State.CANCELLED:
                continue  # of what is aborted the item that runs goes on
            if low <= job.id < behind:
                job.cause = why
                self._stops.stop(job, Event.CANCEL)


def priority_of(job: Job) -> int:
    """Return a job's priority; 0: as most have it."""
    return job.policy.priority if job.policy is not None else 0


def _task(job: Job) -> Task:
    if job.policy is None and job.inputs is None:
        task = Task(job.id, job.attempt, job.function, job.args)
    else:
        policy = job.policy or BUILT_IN
        inputs = [*(job.inputs or ())]
        limits, around = limits_of(policy), Surroundings.of(policy)
        task = Task(
            job.id, job.attempt, job.function, job.args, inputs, policy.queue, limits, around
        )
    if job.stretch is not None and job.stretch.count > 1:
        task.count, task.at = job.stretch.count, job.stretch.at
    return task
