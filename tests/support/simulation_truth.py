"""What really happens in a simulation, and the rules that it is judged by.

`Truth` hears of every start and end of an attempt, of every death, of every commit
and of every message to a client, and raises `Broken` at once when one of them
breaks a promise of the design.  `check_daemon` looks into the scheduler after
each turn of the loop.  The numbers in the messages are those of the invariants in
the design.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain

import msgspec
from fake_pool import FakeWorker, Witness, items_of, result_of
from fake_store import Commit, FakeStore
from fake_streams import FakeStream, StreamTruth, check_streams
from simulation_arrays import ArrayTruth, check_arrays
from simulation_inputs import Broken, EdgeTruth, check_edges, check_waits
from simulation_keys import KeyTruth
from simulation_limits import TimeTruth, check_limits, judge_limit
from simulation_order import OrderTruth, check_order, check_order_end, is_open, runnable
from simulation_timers import RetryTruth, check_timers

from jobd.daemon.assembly import Daemon
from jobd.model.item import FIRST_ITEM, owner_of
from jobd.model.job import PUT, Attempt, Job, Lease, Raised, Verdict
from jobd.model.messages import (
    Answers,
    Ended,
    Fetched,
    Gather,
    Items,
    Message,
    Pieces,
    Refused,
    Submitted,
)
from jobd.model.orders import Order, Run, Task
from jobd.model.queues import DEFAULT
from jobd.model.states import ENDED, Event, State
from jobd.scheduler import Phase, Scheduler, Worker, supply


class End(msgspec.Struct):
    """How an attempt ended, in the worker."""

    verdict: int
    worker: FakeWorker
    was_told_to_stop: bool


class Truth(Witness):
    """The one who knows."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.streams = StreamTruth(store)
        self.times = RetryTruth(store)
        self.edges = EdgeTruth()
        self.keys = KeyTruth(store)
        self.arrays = ArrayTruth(store)
        store.landed = self.committed
        self.max_crashes = 0
        self.boot = ""
        self.running: dict[bytes, FakeWorker] = {}
        """Who is in a job, by the job's arguments, which no other job has."""
        self.last: dict[bytes, int] = {}
        self.ends: dict[bytes, dict[int, End]] = {}
        self.crashes: Counter[bytes] = Counter()
        """How often a job's worker died in it; ``lost`` counts the ends that may pass for that."""
        self.lost: Counter[bytes] = Counter()
        self.reopened: set[int] = set()
        """Jobs that had ended and were retried."""
        self.down: set[bytes] = set()
        """Items of which a stretch was in hand when the machine went down: they may run once more."""
        self.stopped: set[bytes] = set()
        """Jobs that somebody has asked to be stopped."""
        self.daemon: Daemon | None = None
        self.submits: dict[bytes, list[bytes]] = {}
        """The arguments of the jobs of each submit, by its key."""
        self._pledged: dict[bytes, int] = {}
        """The first id of each submit that the daemon has taken in and not stored."""
        self.has_released = False
        """Somebody has let jobs go: one of which it is told that it is held may not be any more."""
        self.limits = TimeTruth()
        self.order = OrderTruth()
        self.starts = 0
        self.commits = 0

    # -- what workers do --

    def started(self, worker: FakeWorker, task: Task) -> None:
        """Judge a start: nobody else runs the job, it is on record, it may run."""
        self.starts += 1
        if task.function == PUT:
            raise Broken(f"{worker} starts {task}, which is a value")
        if self._is_ghost(worker, task):
            return
        args = task.args
        if args in self.running:
            raise Broken(f"5: {worker} starts {task} while {self.running[args]} runs it")
        if task.attempt <= self.last.get(args, 0) and args not in self.down:
            raise Broken(f"attempt {self.last[args]} was started before {task}")
        if self.store.args_of(task.id) == args:
            self._is_on_record(worker, task)
            if self.streams.has_items(task.id):
                raise Broken(f"{worker} starts {task}, of which there are items")
            for number, end in self.ends.get(args, {}).items():
                self._is_closed(task, number, end)
        if self.reopened.isdisjoint((task.id, owner_of(task.id))):  # those run at once
            self.times.started(task)
        self.order.started(task, self.known(task.id), {**self.running})
        self.keys.started(worker, task, self.running)
        self.running[args] = worker
        self.limits.started(worker, task)
        self.last[args] = task.attempt
        self.streams.begun(task)

    def _is_ghost(self, worker: FakeWorker, task: Task) -> bool:
        """Whether this job was never promised to anybody: its submit failed, or died with its daemon."""
        if not worker.uid.startswith(f"{self.boot}-"):
            return not self._leased(worker, task.id, task.attempt)
        return self.is_void(task)

    def is_void(self, task: Task) -> bool:
        """Whether a job is neither durable nor about to be."""
        if self.store.args_of(task.id) == task.args or self.daemon is None:
            return False
        waiting = self.daemon.scheduler.ledger.submissions.values()
        number = owner_of(task.id)
        return not any(s.first <= number < s.first + s.count for s in waiting)

    def _leased(self, worker: FakeWorker, number: int, attempt: int) -> bool:
        return any(
            lease.worker == worker.uid and _has(lease, number, attempt)
            for lease in self.store.leased.values()
        )

    def _is_on_record(self, worker: FakeWorker, task: Task) -> None:
        state = self.store.state_of(task.id)
        # An item may have been in hand when its array was held, or lie in a parcel of that.
        is_held = task.id >= FIRST_ITEM and state is State.HELD
        if state is not State.QUEUED and not is_held:
            raise Broken(f"2: {worker} starts {task}, which is {state!r}")
        if not self._leased(worker, task.id, task.attempt):
            raise Broken(f"4: {worker} starts {task}, which is not on record")
        row = self.store.rows.get(task.id)
        if row is not None and row.stop is Event.CANCEL and task.attempt > row.attempt + 1:
            raise Broken(f"{worker} starts {task} although it was cancelled")

    def _is_closed(self, task: Task, number: int, end: End) -> None:
        """Judge an earlier attempt: its outcome is on record, unless it was lost with the machine."""
        if end.worker.is_lost or end.verdict == Verdict.STOPPED:
            return
        # An order to stop that was on its way may have led to that, as far as anybody knows.
        was_told = end.was_told_to_stop or (not end.worker.alive and task.args in self.stopped)
        if was_told and end.verdict in (Verdict.RAISED, Verdict.TIMED_OUT):
            return
        if task.args in self.down:
            return
        if (task.id, number) not in self.store.records:
            raise Broken(f"5: {task} starts again although {end.worker} has ended attempt {number}")

    def prevented(self, task: Task) -> None:
        """Take note of a stop that may count as a crash if nobody has asked for it."""
        self.lost[task.args] += 1

    def age_us(self, worker: FakeWorker) -> int:
        """Return how long its job has been running."""
        return self.limits.age_us(worker)

    def finished(self, worker: FakeWorker, task: Task, verdict: int) -> None:
        """Take note of an end."""
        if self.running.get(task.args) is not worker:
            return
        del self.running[task.args]
        end = End(verdict, worker, worker.told_to_stop)
        self.ends.setdefault(task.args, {})[task.attempt] = end
        if verdict == Verdict.STOPPED:
            self.lost[task.args] += (
                1  # it counts as a crash if this is heard, and nobody asked for it
            )

    def raised(self, worker: FakeWorker, task: Task, raised: Raised) -> None:  # noqa: ARG002  # as it is called
        """Take note of what an attempt has raised."""
        self.times.raised(task, raised)

    def produced(self, worker: FakeWorker, stream: FakeStream) -> None:
        """Judge an item, unless it is of a job that was promised to nobody."""
        if self.running.get(stream.task.args) is worker:
            self.streams.produced(stream)

    def killed(self, worker: FakeWorker, job: int, attempt: int) -> None:
        """Judge a kill."""
        if self.daemon is not None:  # None: it is about to be made
            self.limits.killed(worker, job, attempt, self.daemon.scheduler)

    def died(self, worker: FakeWorker) -> None:
        """Take note of a death."""
        if worker.running is None:
            return
        args = worker.running.task.args
        if self.running.get(args) is worker:
            del self.running[args]
            self.crashes[args] += 1

    def machine_went_down(self) -> None:
        """Take note that everything on record may have run."""
        for lease in self.store.leased.values():
            for number, _, *count in lease.attempts:
                args = self.store.args_of(number)
                if count:
                    self._stretch_went_down(range(number, number + count[0]))
                elif args is not None:
                    self.crashes[args] += 1
                    self.stopped.add(args)

    def _stretch_went_down(self, numbers: range) -> None:
        """Take note that nobody can tell which of these items have run; one is held to have crashed."""
        for number in numbers:
            args = self.store.args_of(number)
            if args is not None and self.store.arrays.ranges(number, number + 1) == []:
                self.lost[args] += 1
                self.stopped.add(args)
                self.down.add(args)

    def daemon_died(self, boot: str) -> None:
        """Forget what the dead daemon had promised to nobody; ``boot`` is the next one."""
        durable = {self.store.args_of(number) for number in self.store.packed}
        durable |= {row.args for row in self.store.rows.values()} | self.store.arrays.all_args()
        for args in (self.running.keys() | self.last.keys()) - durable:
            self.forget(args)
        self._pledged.clear()
        self.keys.daemon_died()
        self.edges.daemon_died()
        self.boot = boot

    def forget(self, args: bytes) -> None:
        """The job with these arguments is none."""
        self.running.pop(args, None)
        self.last.pop(args, None)
        self.ends.pop(args, None)
        self.crashes.pop(args, None)
        self.lost.pop(args, None)

    def see_submits(self, daemon: Daemon) -> None:
        """Take note of the submits that the daemon has taken in, and of those that have failed."""
        now = daemon.scheduler.ledger.submissions
        for uid, first in list(self._pledged.items()):
            if uid not in now or now[uid].first != first:
                del self._pledged[uid]
                if self.store.state_of(first) is None:
                    for args in self.submits[uid]:
                        self.forget(args)
        self._pledged.update((uid, submission.first) for uid, submission in now.items())

    def ordered(self, worker: FakeWorker, order: Order) -> None:
        """Judge an order to a worker."""
        if self.daemon is not None and self.limits.ordered(worker, order, self.daemon):
            self.stopped.add(self.daemon.scheduler.workers[worker.uid].assigned[order.id].args)  # type: ignore[union-attr]  # it is a StopJob
        for stretch in order.tasks if isinstance(order, Run) else ():
            for task in items_of(stretch):
                if self.is_void(task):
                    raise Broken(f"{worker.uid} is to run {task}, whose submit has failed")
                self._has_its_inputs(task)

    def _has_its_inputs(self, task: Task) -> None:
        """Judge what a job is given of its inputs: what they have returned, in their order."""
        job = self.known(task.id)
        inputs = job.inputs or [] if job else []
        if len(task.inputs) != len(inputs):
            raise Broken(f"{task} has not the inputs {inputs}")
        for number, value in zip(inputs, task.inputs, strict=True):
            found = self.known(number)
            if found is not None and found.function == PUT:
                if [value] != self.submits[found.uid]:
                    raise Broken(f"{task} is given {value!r} for {number}, which was put")
                continue
            ends = self.ends.get(found.args, {}) if found else {}
            returned = [n for n, end in ends.items() if end.verdict == Verdict.RETURNED]
            if found is None or value not in [b"%s/%d" % (found.args, n) for n in returned]:
                raise Broken(
                    f"{task} is given {value!r} for {number}, which has returned {returned}"
                )

    def known(self, number: int) -> Job | None:
        """Return a job as the daemon has it in memory, or as it is stored."""
        jobs = self.daemon.scheduler.window.jobs if self.daemon else {}
        return jobs.get(number) or self.store.job(number)

    # -- what is stored --

    def committed(self, commit: Commit) -> None:
        """Judge a commit."""
        self.commits += 1
        store = self.store
        for _, new in commit.rows:
            self.edges.ended(new)
        for old, new in commit.rows:
            self._judge_row(old, new, commit)
            self.keys.judge_row(new)
            self.edges.judge(old, new)
        for before, after in commit.replaced:
            if before is not None and before != after:
                raise Broken(f"2: the record of {before} was overwritten by {after}")
            self.times.judge_attempt(after)
        for parcel in commit.ended_parcels:
            for first, _, _, _, _, args, _ in parcel.records:
                lost = [n for n in range(first, first + len(args)) if n not in store.rows]
                if lost:
                    raise Broken(f"1: the parcel of the jobs {lost} is gone, and they have no rows")
        if commit.parcels:
            self._no_job_twice()
        if store.tally != store.recount():
            raise Broken(f"counted {store.tally}, there are {store.recount()}")
        if store.unended != store.recount_queues():
            raise Broken(f"counted {store.unended}, there are {store.recount_queues()}")
        self.arrays.committed(commit, self.ends)
        for range_ in commit.unranged:
            self.reopened.update(range(range_.first, range_.first + range_.count))

    def _no_job_twice(self) -> None:
        rows = self.store.rows.items()
        seen = {row.args: number for number, row in rows if row.function != PUT}
        for number, place in self.store.packed.items():
            args = place.record[5][place.offset]
            if seen.setdefault(args, number) != number:
                raise Broken(f"the jobs {seen[args]} and {number} are of one submit: {args!r}")

    def _judge_row(self, old: Job | None, new: Job, commit: Commit) -> None:
        if old is not None:
            self._judge_change(old, new, commit)
        if new.array is None:  # else it is judged with its items
            self._judge_state(old, new)

    def _judge_state(self, old: Job | None, new: Job) -> None:
        if new.function == PUT:
            self._judge_put(old, new)
        elif new.state is State.SUCCEEDED:
            self._judge_end(new, Verdict.RETURNED)
            if new.value != result_of(Task(new.id, new.attempt, "", new.args)):
                raise Broken(f"3: {_brief(new)} has the value {new.value!r}")
        elif new.state is State.FAILED:
            self._judge_end(new, Verdict.RAISED)
            if new.error is None or new.error.message != str(new.attempt):
                raise Broken(f"3: {_brief(new)} has the error {new.error}")
        elif new.state is State.TIMED_OUT:
            judge_limit(new)
            if new.cause.startswith("soft"):
                self._judge_end(new, Verdict.TIMED_OUT)
        if new.crashes > self.crashes[new.args] + self.lost[new.args]:
            raise Broken(f"7: {_brief(new)} is blamed for {new.crashes} crashes")
        has_items = self.streams.has_items(new.id)
        self.times.judge_row(new, reopened=new.id in self.reopened, has_items=has_items)
        if new.state in (State.SUCCEEDED, State.FAILED):
            self.streams.judge_end(new)
        if new.state is State.CRASHED and self.streams.has_items(new.id):
            return  # not to be run again, whatever its budget
        budget = new.policy.max_crashes if new.policy else None
        budget = self.max_crashes if budget is None else budget
        if (new.state is State.CRASHED) is not (new.crashes > budget):
            raise Broken(f"7: {_brief(new)} has {new.crashes} crashes of {budget}")

    def _judge_put(self, old: Job | None, new: Job) -> None:
        """A value that was put has succeeded from the start, and is what its client has sent."""
        is_so = new.state is State.SUCCEEDED and [new.value] == self.submits[new.uid]
        if old is not None or not is_so or new.attempt:
            raise Broken(f"3: {_brief(new)} is {new.value!r}, and {self.submits[new.uid]} was put")

    def _judge_end(self, row: Job, verdict: int) -> None:
        end = self.ends.get(row.args, {}).get(row.attempt)
        if end is None or end.verdict != verdict:
            raise Broken(f"3: {_brief(row)}, but its attempt ended as {end}")

    def _judge_change(self, old: Job, new: Job, commit: Commit) -> None:
        self.times.judge_change(old, new)
        if new.attempt < old.attempt:
            raise Broken(f"the attempt of {_brief(new)} was {old.attempt}")
        if old.state >= ENDED:
            same = all(getattr(old, n) == getattr(new, n) for n in ("state", "value", "ended_at"))
            if not same:
                self._judge_retry(old, new, [after for _, after in commit.replaced])
        elif new.array is not None:
            return  # some of it may be retried while the rest is being stopped
        elif old.stop is Event.CANCEL and new.state is State.QUEUED and new.stop is None:
            raise Broken(f"the cancel of {_brief(old)} was lost: {_brief(new)}")

    def _judge_retry(self, old: Job, new: Job, recorded: list[Attempt]) -> None:
        if old.state is State.SUCCEEDED:
            raise Broken(f"2: {_brief(old)} has become {_brief(new)}")
        never_ran = (
            old.state in (State.CANCELLED, State.ABORTED, State.EXPIRED) and not old.started_at
        )
        if new.array is not None:
            self.reopened.add(old.id)
            return  # its attempts are those of its items
        kept = any((a.job, a.number, a.state) == (old.id, old.attempt, old.state) for a in recorded)
        if not (kept or never_ran):
            raise Broken(f"2: {_brief(old)} has become {_brief(new)}, and its end is not kept")
        self.reopened.add(old.id)

    # -- what is told --

    def told(self, message: Message) -> None:
        """Judge a message to a client: it must be so, durably."""
        match message:
            case Submitted(existed=True) | Refused(error="duplicate_key"):
                self.keys.told(message)
            case Submitted(_, first, count):
                for number in range(first, first + count):
                    if self.store.state_of(number) is None:
                        raise Broken(f"4: {message} is told, but {number} is not durable")
            case Ended(number) | Fetched(_, number):
                self._judge_told_end(number, message)
            case Items():
                self.streams.judge_told(message, reopened=message.id in self.reopened)
            case Answers(_, answers):
                for number, answer in answers:
                    self._judge_answer(number, answer)
            case Refused(_, "disk_full") if not self.store.was_full:
                raise Broken(f"{message}, and the disk never was full")
            case Refused(_, "store_busy") if not self.store.was_locked:
                raise Broken(f"{message}, and the store never was locked")
            case Refused(_, "store_failed"):
                raise Broken(f"{message}")

    def gathered(self, asked: Message, answer: Pieces) -> None:
        """Judge what is told of items: it is so, durably, but for those that were retried since."""
        assert isinstance(asked, Gather)
        self.arrays.gathered(asked.id, answer, self.reopened)

    def _judge_told_end(self, number: int, told: Ended | Fetched) -> None:
        row = self.store.job(number)
        if row is None:
            raise Broken(f"4: {told} is told of a job that is not durable")
        if isinstance(told, Fetched) and told.state in (State.QUEUED, State.RUNNING):
            return
        if isinstance(told, Ended) and number in self.reopened and row.state is not told.state:
            return  # asked for and retried in one turn: it was so when that was heard
        if isinstance(told, Ended) and row.state is told.state is State.ABORTED:
            return  # who is to blame may have changed in the turn in which this was said
        if (row.state, row.value, row.error, row.cause) != (
            told.state,
            told.value,
            told.error,
            told.cause,
        ):
            raise Broken(f"4: {told} is told of {_brief(row)}")

    def _judge_answer(self, number: int, answer: str) -> None:
        row = self.store.job(number)
        if answer == "not found":
            fits = row is None
        else:
            kind = next((known for known in _FITS if answer.startswith(known)), answer)
            is_of_array = row is not None and (row.array is not None or number >= FIRST_ITEM)
            if is_of_array and answer.startswith(_OF_ITEMS):
                return
            fits = row is not None and _FITS[kind](row)
            # What one turn tells goes out at its end, each answer as it was when it was heard, or
            # stored: the loop may have committed a retry by itself since, or have aborted and
            # revived it.
            again = number in self.reopened or bool(row and row.edges())
            fits = fits or (answer in _MAY_BE_OVER and again)
            fits = fits or (answer == "held" and self.has_released)
        if not fits:
            raise Broken(f"4: {answer!r} is told of {_brief(row) if row else number}")


_FITS: dict[str, Callable[[Job], bool]] = {
    "cancelled": lambda row: row.state is State.CANCELLED,
    "stopping": lambda row: row.state >= ENDED or row.stop is Event.CANCEL,
    "is running": lambda _: True,
    "already finished": lambda row: row.state >= ENDED,
    "already succeeded": lambda row: row.state is State.SUCCEEDED,
    "queued again": lambda row: row.state not in (State.FAILED, State.CRASHED),
    "it comes after": lambda row: row.state is not State.SUCCEEDED,
    "it waits for a failure": lambda row: row.state is not State.SUCCEEDED,
    "has not ended": lambda _: True,
    "its key": lambda _: True,
    "replaced by": lambda _: True,
    "held": lambda row: row.state in (State.HELD, State.CANCELLED, State.EXPIRED),
    "released": lambda _: True,
    "is not held": lambda _: True,
    "has expired": lambda row: row.state is State.EXPIRED,
}


_OF_ITEMS = (
    "held",
    "already finished",
    "cancelled ",
    "queued ",
    "has nothing to retry",
    "its array has succeeded",
    "stopping",
)
_MAY_BE_OVER = ("already finished", "cancelled", "stopping")


def _has(lease: Lease, number: int, attempt: int) -> bool:
    """Whether an attempt is one of a lease's, or in one of its stretches."""
    return any(
        a[1] == attempt and a[0] <= number < a[0] + (a[2] if len(a) > 2 else 1)
        for a in lease.attempts
    )


def _brief(job: Job) -> str:
    return (
        f"job {job.id} ({job.args!r}, {job.state.name}, attempt {job.attempt}, "
        f"crashes {job.crashes}, stop {job.stop}, {job.cause!r})"
    )


# -- the scheduler, after each turn --


def check_daemon(daemon: Daemon, store: FakeStore, room: int) -> None:
    """Look at everything that the scheduler holds; ``room`` is how many waiting jobs it may hold."""
    scheduler = daemon.scheduler
    _check_jobs(scheduler, room)
    check_waits(daemon, store)
    check_timers(daemon, store)
    check_order(daemon, store)
    _check_backlog(scheduler, store)
    _check_hands(scheduler)
    check_limits(scheduler)
    _check_idle(scheduler, store)
    check_arrays(scheduler, store)
    check_streams(scheduler, store)
    ledger = scheduler.ledger
    if ledger.in_flight is None and ledger.counts != store.tally:
        raise Broken(f"the scheduler counts {ledger.counts}, the store {store.tally}")
    if ledger.in_flight is None and ledger.queued != store.unended:
        raise Broken(f"the scheduler counts {ledger.queued}, the store {store.unended}")


def _check_jobs(scheduler: Scheduler, room: int) -> None:
    """9: what is in memory waits in the window, is assigned, or is about to be stored."""
    ledger, waiting = scheduler.ledger, 0
    watched = [*chain.from_iterable(scheduler.window.watchers._ranges.values())]
    for number, job in scheduler.window.jobs.items():
        if job.void or job.id != number:
            raise Broken(f"{_brief(job)} is in memory as {number}, void {job.void}")
        if watched and any(low <= number <= high for low, high in watched):
            raise Broken(f"{_brief(job)} is in memory, and watched as if it were not")
        if number >= FIRST_ITEM or job.array is not None:
            continue  # see check_arrays
        if job.state is State.QUEUED:
            waiting += 1
        elif job.state is State.RUNNING:
            if job.lease is None:
                raise Broken(f"{_brief(job)} runs, and nobody has it")
        elif not (ledger.is_unsettled(number) or number in scheduler.blocked.missing):
            raise Broken(f"9: {_brief(job)} is in memory for nothing")
    waiting -= sum(len(b.spill) for b in (ledger.batch, ledger.in_flight) if b is not None)
    if waiting > room:
        raise Broken(f"9: {waiting} jobs wait in memory, over {room}")


def _check_backlog(scheduler: Scheduler, store: FakeStore) -> None:
    """1: every queued job is in memory, or beyond the cursor and counted."""
    window, ledger = scheduler.window, scheduler.ledger
    jobs, cursor = window.jobs, window.cursor
    beyond = {n for n, lane in store.waiting() if not lane and n not in jobs}
    if not all(number > cursor for number in beyond):
        raise Broken(f"1: {sorted(beyond)} are lost: the cursor is at {cursor}")
    for submission in ledger.submissions.values():
        last = submission.first + submission.count
        if submission.lane:
            continue
        beyond.update(n for n in range(submission.first, last) if n not in jobs)
    if len(beyond) > window.spilled:
        raise Broken(f"1: {sorted(beyond)} are spilled, {window.spilled} are counted")


def _check_hands(scheduler: Scheduler) -> None:
    """Each assigned job is in one hand, under a lease that counts it, and has no stray deadline."""
    held: Counter[int] = Counter()
    seen: set[int] = set()
    for worker in scheduler.workers.values():
        for job in worker.assigned.values():
            if job.state is not State.RUNNING or job.lease is None or id(job) in seen:
                raise Broken(f"{worker.uid} has {_brief(job)}")
            if job.lease.worker != worker.uid:
                raise Broken(f"{worker.uid} has {_brief(job)}, leased to {job.lease.worker}")
            seen.add(id(job))
            held[job.lease.id] += 1
            if job.lease.open < held[job.lease.id]:
                raise Broken(f"{_brief(job)} is under a lease that is over: {job.lease}")
    running = sum(job.state is State.RUNNING for job in scheduler.window.jobs.values())
    if running > len(seen):
        raise Broken(f"{running} jobs run, {len(seen)} are in hands")
    for uid, number, attempt in scheduler.stops.deadlines:
        hands = scheduler.workers.get(uid)
        kept = hands.assigned.get(number) if hands else None
        if hands is None or (number and (kept is None or kept.attempt != attempt)):
            raise Broken(f"9: a deadline for {uid}, job {number}, attempt {attempt}")


def _check_idle(scheduler: Scheduler, store: FakeStore) -> None:
    """6: no worker idles while a job could run, and a slot is free."""
    if scheduler.draining or not any(map(_idles, scheduler.workers.values())):
        return
    active = sum(map(_takes_slot, scheduler.workers.values()))
    if active >= scheduler.options.workers:
        return
    decks = [worker for worker in scheduler.workers.values() if _keeps_deck(scheduler, worker)]
    if decks:
        raise Broken(f"6: a worker idles, and jobs lie on deck: {decks}")
    if scheduler.queues.opens_at(DEFAULT, scheduler._now) != 0:
        return
    window, ledger = scheduler.window, scheduler.ledger
    waiting = [job.id for job in runnable(scheduler)]
    if waiting:
        raise Broken(f"6: a worker idles, and {waiting} wait")
    if scheduler.queues.opens_at(DEFAULT, scheduler._now) != 0:
        return
    beyond = [n for n, lane in store.waiting() if not lane and n > window.cursor]
    stuck = [n for n in beyond if n <= ledger.stored_high]
    if any(n not in window.jobs for n in stuck) and not scheduler.wants_refill():
        raise Broken(f"6: a worker idles, {stuck} wait in the store, and nobody loads them")


def _keeps_deck(scheduler: Scheduler, worker: Worker) -> bool:
    """Whether a job waits in a worker's hands behind a long one, and is not asked back."""
    is_behind = (
        len(worker.assigned) - worker.unsent > 1
        and worker.phase is Phase.READY
        and not worker.stalled
    )
    heir = worker.heir
    if heir is not None and not is_open(scheduler, heir):
        return False  # nobody else could begin it either
    return is_behind and next(iter(worker.assigned.values())).cost_us > supply.AHEAD_US


def _takes_slot(worker: Worker) -> bool:
    return bool(worker.assigned) and worker.waiting is None


def _idles(worker: Worker) -> bool:
    return worker.phase is Phase.READY and not worker.assigned


class Slots:
    """Judges what is lent, from turn to turn of one daemon."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._had = {worker.uid for worker in scheduler.workers.values() if worker.assigned}
        """Workers that had jobs in hand."""
        self._hands = [j for worker in scheduler.workers.values() for j in worker.assigned.values()]
        self._awaited: set[int] = set()
        """Jobs that others have waited for, and those of them that were ready."""
        self._ready: set[int] = set()

    def check(self, scheduler: Scheduler) -> None:
        """No more than the cap is lent, and nobody idle gets a job while more run than there are slots."""
        workers, options = scheduler.workers.values(), scheduler.options
        waiting = [worker for worker in workers if worker.waiting is not None]
        for worker in waiting:
            if worker.waiting is not worker.assigned.get(
                worker.waiting.id if worker.waiting else 0
            ):
                raise Broken(f"{worker.uid} lends for {worker.waiting}, which it does not have")
        if sum(not worker.adopted for worker in waiting) > options.max_lent:
            raise Broken(f"{waiting} wait, over {options.max_lent}")
        active = {worker.uid for worker in workers if _takes_slot(worker)}
        fresh = active - self._had
        if len(active) > options.workers and fresh:
            raise Broken(f"{fresh} were given jobs, and {active} run for {options.workers} slots")
        ledger, jobs = scheduler.ledger, scheduler.window.jobs
        spill = {n for b in (ledger.batch, ledger.in_flight) if b is not None for n in b.spill}
        awaited = {number for worker in waiting for number in worker.awaited}
        ready = {n for n in awaited - spill if n in jobs and jobs[n].state is State.QUEUED}
        ready = {n for n in ready if is_open(scheduler, jobs[n])}
        hands = [job for worker in workers for job in worker.assigned.values()]
        had = {id(job) for job in self._hands}  # of a stretch the number changes
        others = {job.id for job in hands if id(job) not in had} - awaited - self._awaited
        if others and ready & self._ready:
            raise Broken(f"{others} were handed out, and jobs wait for {ready}")
        self._awaited |= awaited  # what goes first because of a wait does so when that is over, too
        self._ready, self._hands = ready, hands
        self._had = {worker.uid for worker in workers if worker.assigned}


def check_end(daemon: Daemon, store: FakeStore, truth: Truth) -> None:
    """Judge the state in which everything has come to rest."""
    scheduler = daemon.scheduler
    live = [n for n in store.packed.keys() | store.rows.keys() if (store.state_of(n) or 0) < ENDED]
    leaks: dict[str, object] = {
        "jobs that have not ended": live,
        "jobs in memory": scheduler.window.jobs,
        "jobs that are ready": len(scheduler.window),
        "bytes that are ready": scheduler.window._bytes,
        "jobs that are spilled": scheduler.window.spilled,
        "submits": scheduler.ledger.submissions,
        "leases": store.leased,
        "parcels": store.parcels,
        "deadlines": scheduler.stops.deadlines,
        "time limits": scheduler.stops.clocks.due,
        "streams": scheduler.streams.live,
        "followers to serve": scheduler.streams.due,
        "streams to be closed": scheduler.stops.closing,
        "jobs that run": truth.running,
        "watched ranges": _watched(scheduler, store),
        "arrays": [n for n, a in scheduler.arrays.live.items() if a.job.state < ENDED],
        "items of arrays": scheduler.arrays.touched,
        "a batch": bool(scheduler.ledger.batch) or scheduler.ledger.in_flight,
    }
    for what, found in leaks.items():
        if found:
            raise Broken(f"9: at the end there are {what}: {found}")
    check_edges(store)
    check_order_end(scheduler)
    for row in store.rows.values():
        # Who dies while he is being stopped is not to blame, be the order to stop on its way or not.
        if row.args not in truth.stopped and row.state not in (State.CANCELLED, State.TIMED_OUT):
            _check_blame(row, store, truth)


def _watched(scheduler: Scheduler, store: FakeStore) -> list[tuple[int, int]]:
    """Return the ranges that are watched beyond the window; nobody minds those of failed submits."""
    ranges = chain.from_iterable(scheduler.window.watchers._ranges.values())
    return [r for r in ranges if any(store.state_of(n) for n in range(r[0], r[1] + 1))]


def _check_blame(row: Job, store: FakeStore, truth: Truth) -> None:
    """7: each crash was counted, once."""
    # One that was stopped in the middle of its stream did not crash, whatever it is called.
    ends: list[Job | Attempt] = [row, *store.attempts(row.id)]
    crashed = [end for end in ends if end.state is State.CRASHED]
    counted = sum(end.cause != "stopped in the middle of its stream" for end in crashed)
    least, lost = truth.crashes[row.args], truth.lost[row.args]
    asked = truth.times.cancelled(row)
    told = truth.ends.get(row.args, {})
    # Who dies of the KILL at the end of his time is not to blame either.
    blameless = sum(
        (a.state is State.CANCELLED and a.number not in asked)
        or (a.state is State.TIMED_OUT and a.number not in told)
        for a in store.attempts(row.id)
    )
    if not least - blameless <= counted <= least + lost:
        raise Broken(f"7: {_brief(row)} crashed {least} to {least + lost} times, not {counted}")
