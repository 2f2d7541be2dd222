"""What happens next: a pure state machine, of which this is the face.

Events go in as method calls, after ``begin`` has told the time; effects come
out of ``take_effects`` (to be done now) and of ``take_batch`` (to be stored, and
what may be told and done once it is).  No I/O, no clock, no threads, no
randomness: the same events give the same effects.

Of its parts ``intake`` takes new jobs in, ``dispatch`` hands them to workers, ``control``
does to them what people and the clock want, and ``commits`` says when to store.  Here is
what concerns several of them: commits that are over, and what workers report.

Lending.  A job that waits for others does not count: its slot is lent, another
worker is started if none is idle, and what its own had been handed ahead is asked
back.  Those that it waits for go before all others: else a thousand jobs that wait for
one each would all begin, and wait, before the first is served.  A job that goes on
does so at once, so that more may run than there are slots: then nothing more is
started until there are no more (but for short jobs that were handed ahead before).

Durability.  An attempt is on record before its job starts, unless the job
itself is not stored yet: then both are stored together, before anybody hears
of the job.  Every answer waits in the batch that holds what it tells.
"""

from __future__ import annotations

from jobd.model.errors import JobdError
from jobd.model.job import AtBound, Job, Lease, Outcome
from jobd.model.lane import gates_of
from jobd.model.messages import INLINE_BYTES, Ended, Reply, Stuck, Submitted, refusal
from jobd.model.orders import GiveBack, Lent, Outcomes, Produced, Recorded, Retire
from jobd.model.queues import Override
from jobd.model.states import ENDED, Event, State
from jobd.scheduler import lending
from jobd.scheduler.aftermath import Aftermath
from jobd.scheduler.batch import Backlog, Batch
from jobd.scheduler.blocked import Blocked
from jobd.scheduler.commits import Commits
from jobd.scheduler.control import Control
from jobd.scheduler.dispatch import AHEAD_US, Dispatch, is_leaving
from jobd.scheduler.effects import Effects
from jobd.scheduler.intake import Intake
from jobd.scheduler.lanes import Line
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.queues import Queues, queue_of
from jobd.scheduler.roster import Death, Phase, Worker
from jobd.scheduler.staff import Options, Staff
from jobd.scheduler.stops import Stops
from jobd.scheduler.streams import Streams
from jobd.scheduler.succession import Succession
from jobd.scheduler.timers import Timers
from jobd.scheduler.window import Window

UNSTORED = 10_000
"""While so many changes wait for the disk, no more jobs become due: they would all be in memory."""


class Scheduler:
    """All jobs that are not at rest, all workers, and the rules."""

    def __init__(  # noqa: PLR0913  # what the store tells
        self,
        boot: str,
        options: Options,
        *,
        next_id: int = 1,
        counts: dict[State, int] | None = None,
        next_lease: int = 1,
        queues: Queues | None = None,
        queued: dict[str, int] | None = None,
    ) -> None:
        self.boot = boot
        self.options = options
        self.queues = queues or Queues()
        self.ledger = Ledger(next_id, counts or {}, next_lease, queued)
        # One more than there are: the store is looked through once, for parcels that are over.
        self.window = Window(
            self.queues,
            self.ledger.counts[State.QUEUED] + (next_id > 1),
            lambda number: lending.is_awaited(self.workers.values(), number),
            has_stored=next_id > 1,
        )
        self.lanes = self.window.lanes
        self.workers: dict[str, Worker] = {}
        self.timers = Timers(has_more=next_id > 1)
        self.blocked = Blocked(self.ledger, self.window, self.timers)
        self.streams = Streams(self.ledger)
        self.aftermath = Aftermath(
            self.ledger,
            self.window,
            self.timers,
            self.blocked,
            self.streams,
            options.max_crashes,
        )
        self.succession = Succession(self.ledger, self.blocked, self.timers, self.aftermath)
        self.intake = Intake(
            self.ledger,
            self.window,
            self.blocked,
            self.succession,
            self.aftermath,
            options.max_queued,
        )
        self.commits = Commits(self.ledger)
        self.stops = Stops(self.ledger, self.streams, self.workers, options.kill_grace_us)
        self.control = Control(
            self.ledger,
            self.window,
            self.timers,
            self.blocked,
            self.streams,
            self.stops,
            self.succession,
            self.aftermath,
        )
        self._effects = Effects()
        self.dispatch = Dispatch(
            boot,
            options,
            self.ledger,
            self.window,
            self.queues,
            self.workers,
            self.stops,
            self.aftermath,
            self._effects,
        )
        self._staff = Staff(boot, options, self.workers)
        self._now = 0
        self._wall = 0

    # -- time and effects --

    @property
    def draining(self) -> bool:
        """Whether the daemon is ending: nothing comes in, and nothing more is started."""
        return self.intake.is_closed

    def begin(self, now_us: int, wall_us: int) -> None:
        """Tell the time: monotonic for deadlines, UTC for records; both in microseconds."""
        self._now = self.commits.now = self.stops.now = now_us
        self.intake.now = self.dispatch.now = now_us
        self._wall = self.intake.wall = self.dispatch.wall = wall_us
        self.blocked.wall = self.timers.wall = wall_us

    def take_effects(self) -> Effects:
        """Decide what can be decided, and return what is to be done now."""
        if self.blocked.is_busy:
            self.blocked.settle()
        if not self.draining:
            self._effects.spawn += self._staff.hire(self._now)
            self._effects.orders += self._staff.shed(self._now)
            self.lanes.tick(self._now)
        stops = self.stops
        if stops.is_used:
            stops.stop_late()
        self.dispatch.has_more = False
        if not self.draining and (len(self.window) or self.lanes.is_used):
            self.dispatch.run()
        self.dispatch.ask_back()
        effects = self._effects.take()
        if stops.orders or stops.kill:
            effects.orders += stops.orders
            effects.kill += stops.kill
            stops.orders, stops.kill = [], []
        streams = self.streams
        if streams.stuck:
            self._tell_stuck()
        if streams.orders or streams.replies:
            effects.orders += streams.orders
            effects.replies += streams.replies
            streams.orders, streams.replies = [], []
        return effects

    def take_replies(self) -> list[tuple[bytes, Reply]]:
        """Return what is to be told now; the other effects can wait a moment."""
        replies, self._effects.replies = self._effects.replies, []
        return replies

    def wake_at(self) -> int | None:
        """Return when ``take_effects`` has to be called next without an event, or None."""
        times = [self._now] if self.dispatch.has_more else self.dispatch.times()
        if self.stops.is_used:
            times += self.stops.times()
        if self.ledger.batch:
            times += self.commits.times()
        if not self.draining:
            times += self._staff.times(self._now)
            opens_at = self.lanes.next_at()
            if opens_at is not None:
                times.append(opens_at)
        due_at = self.timers.next_at()
        if due_at is not None and self._may_fire():
            times.append(self._now + max(0, due_at - self._wall))
        return min(times, default=None)

    # -- the store --

    def take_batch(self) -> Batch:
        """Close the open batch; its commit is in flight until ``committed`` or ``not_committed``."""
        return self.ledger.take()

    def committed(self, took_us: float = 0.0) -> None:
        """The batch in flight is durable: tell everybody, and start what waited for it.

        ``took_us`` is the time from its first row on.
        """
        batch = self.ledger.kept()
        self.commits.succeeded()
        replies = self._effects.replies
        for submission in batch.submissions:
            for peer, rid in submission.tell:
                replies.append((peer, Submitted(rid, submission.first, submission.count)))
            if submission.keyed is not None:
                replies += submission.keyed.answers
                self.succession.kept(submission.keyed)
        replies += batch.early_replies
        self._tell_ends(batch)
        self.lanes.stored(batch.submissions, self.ledger.settled_high)
        if batch.edges:
            self.blocked.stored(batch.edges)
        if batch.items:
            self.streams.committed(batch)
        replies += batch.replies
        self.dispatch.committed(batch.orders, took_us)
        recorded: dict[str, list[int]] = {}
        for uid, seq in batch.recorded:
            recorded.setdefault(uid, []).append(seq)
        self._effects.orders += [(uid, Recorded(seqs)) for uid, seqs in recorded.items()]

    def _tell_ends(self, batch: Batch) -> None:
        jobs, reopened, replies = self.window.jobs, self.ledger.batch.jobs, self._effects.replies
        streams = self.streams.live
        for number, job in batch.jobs.items():
            if number in reopened:
                continue
            if job.state >= ENDED:
                if job.watchers:
                    ended = ended_message(job)
                    for peer in job.watchers:
                        replies.append((peer, ended))
                jobs.pop(number, None)
                if streams and number in streams:
                    self.streams.ended(number)
            elif job.state <= State.QUEUED:
                self._unload(job, batch)

    def _unload(self, job: Job, batch: Batch) -> None:
        """Leave a job to the store, where it is now, if there is no room for it."""
        if job.state is State.BLOCKED:
            self.blocked.unload(job)
        elif job.state in (State.SCHEDULED, State.HELD):
            self.window.unload(job)
        elif job.id in batch.spill:
            self.window.spill(job)

    def not_committed(self, error: JobdError) -> None:
        """The batch in flight was rolled back: refuse its submits, keep all else for the next try."""
        self.commits.failed()
        for submission in self.ledger.lost(self.window.jobs):
            self.blocked.forget(submission.first, submission.count)
            in_backlog = submission.in_backlog
            self.window.drop(submission.first, submission.count, in_backlog=in_backlog)
            self.ledger.forget_jobs(submission.first, submission.count)
            self.streams.void(range(submission.first, submission.first + submission.count))
            for peer, rid in submission.tell:
                self._effects.replies.append((peer, refusal(rid, error)))
            if submission.keyed is not None:
                for peer, reply in submission.keyed.answers:
                    self._effects.replies.append((peer, refusal(reply.rid, error)))
                self.succession.lost(submission.keyed)
        self.lanes.stored((), self.ledger.settled_high)
        self.dispatch.not_committed()

    # -- the window --

    def wants_refill(self) -> bool:
        """Whether parcels should be loaded from the store, from ``window.cursor`` on."""
        return not self.draining and self.window.wants_refill(self.ledger.stored_high)

    def refill(self, backlog: Backlog) -> None:
        """Take in stored jobs: every queued one up to where these reach is among them or in memory."""
        self.ledger.end_parcels(self.window.refill(backlog))
        if self.window.cursor >= self.ledger.stored_high:
            # All that is stored is in memory now: what is left are submits on their way there.
            submissions = self.ledger.submissions.values()
            waiting = sum(s.count for s in submissions if s.in_backlog)
            self.window.unspill(self.window.spilled - waiting)

    def thirsty_lanes(self) -> list[tuple[Line, int]]:
        """Return lanes of which so many jobs should be loaded from the store."""
        return self.lanes.thirsty(self.ledger.stored_high, self.ledger.settled_high)

    def refill_lane(self, line: Line, wanted: int, backlog: Backlog) -> None:
        """Take in stored jobs of a lane, as ``refill`` does of the plain ones."""
        high, settled = self.ledger.stored_high, self.ledger.settled_high
        self.ledger.end_parcels(self.lanes.refill(line, wanted, backlog, high, settled))

    # -- what the clock does --

    def due(self) -> list[int]:
        """Return jobs whose time has come, as it seems; each is to be loaded, for ``fire``."""
        return self.timers.due() if self._may_fire() else []

    def has_due(self) -> bool:
        """Whether there are more of them, for the next turn."""
        return self._may_fire() and self.timers.is_due()

    def _may_fire(self) -> bool:
        return not self.draining and len(self.ledger.batch.jobs) < UNSTORED

    # -- queues --

    def set_queue(self, name: str, said: Override, *, anew: bool = False) -> None:
        """Let this hold for a queue from now on, and make it if there is none; what runs goes on.

        With ``anew`` the settings hold for the rest, else what was said before.
        """
        queues = self.queues
        counted = queues.counts
        self.ledger.batch.queues[name] = queues.override(name, said, anew=anew)
        if queues.counts and not counted:
            hands = [(w, job) for w in self.workers.values() for job in w.assigned.values()]
            queues.recount(
                [queue_of(job) for worker, job in hands if job is not worker.waiting],
                [queue_of(job) for worker, job in hands if is_leaving(worker, job)],
            )
        self.lanes.queue_changed(name)
        if queues.is_limited(name):
            for worker in self.workers.values():
                worker.stall_at = self._now  # what was handed ahead comes back, to be counted first

    def forget_queue(self, name: str) -> None:
        """Let the settings hold again for a queue, or have no such queue if they do not have it."""
        self.queues.restore(name)
        self.lanes.queue_changed(name)
        self.ledger.batch.queues[name] = None

    def answer(self, peer: bytes, reply: Reply) -> None:
        """Send this reply once all that was decided so far is durable."""
        self.ledger.batch.replies.append((peer, reply))
        self.ledger.batch.urgent = True

    def answer_early(self, peer: bytes, reply: Reply) -> None:
        """Send this reply once all that was decided so far is durable, before any end is told."""
        self.ledger.batch.early_replies.append((peer, reply))
        self.ledger.batch.urgent = True

    # -- workers --

    def worker_ready(self, uid: str, pid: int) -> None:
        """A worker has started and connected."""
        worker = self.workers.get(uid)
        if worker is None:
            return
        worker.pid = pid
        self._staff.started()
        if worker.phase is Phase.STARTING:
            worker.phase = Phase.READY
        elif worker.phase is Phase.RETIRING:  # it could not be told before
            self._effects.orders.append((uid, Retire()))

    def add_orphan(self, uid: str, pid: int) -> None:
        """At start: this worker of a dead daemon counts as one of ours until it has ended."""
        self.workers[uid] = Worker(uid, Phase.ORPHAN, pid, adopted=True)

    def resume(
        self, uid: str, job: Job, attempt: int, lease: Lease, kept: tuple[int, int] | None = None
    ) -> None:
        """At start: this stored job was leased to that orphan; ``kept`` are its items, if any."""
        self.window.recover(job)
        job.attempt = attempt - 1
        self.dispatch.resume(self.workers[uid], job, lease)
        self.streams.resume(uid, job, kept)
        if job.stop is not None:
            self.stops.stop(job, job.stop)

    def forget_attempt(self, lease: Lease) -> None:
        """At start: one of this lease's attempts is of no interest any more."""
        self.ledger.close_lease(lease)
        self.ledger.batch.urgent = True

    def handed_over(self, uid: str, pid: int, running: tuple[int, int], for_us: int = 0) -> None:
        """An orphan has sent its outcomes; it is in this attempt ``for_us`` now, the rest never started."""
        worker = self.workers.get(uid)
        if worker is None or worker.phase is not Phase.ORPHAN:
            return
        worker.pid = pid
        worker.phase = Phase.RETIRING
        for job in list(worker.assigned.values()):
            if (job.id, job.attempt) != running:
                self.dispatch.take_back(worker, job)
            elif job.stop is None:
                self.stops.clocks.start(uid, job, self._now - for_us)
        self._effects.orders.append((uid, Retire()))

    def outcomes(self, uid: str, seq: int, outcomes: list[Outcome]) -> None:
        """A worker hands in what came of attempts."""
        worker = self.workers.get(uid)
        if worker is None:  # its jobs are in other hands, or never were on record
            self._effects.orders.append((uid, Recorded([seq])))
            return
        batch = self.ledger.batch
        batch.recorded.append((uid, seq))
        batch.urgent = True
        assigned, take, ended = worker.assigned, self.dispatch.take, self.aftermath.ended
        learn = self.dispatch.forecast.learn
        function, took_us, count = "", 0, 0
        for outcome in outcomes:
            job = assigned.get(outcome.id)
            if job is not None and job.attempt == outcome.attempt:
                if job.function != function or outcome.duration_us > AHEAD_US:
                    learn(function, took_us, count)
                    function, took_us, count = job.function, 0, 0
                took_us += outcome.duration_us
                count += 1
                take(worker, job)
                ended(worker, job, outcome)
        learn(function, took_us, count)
        self.dispatch.goes_on(worker)
        worker.done += len(outcomes)
        if 0 < self.options.max_jobs_per_worker <= worker.done:
            self.retire(uid)

    def produced(self, uid: str, report: Produced) -> None:
        """A worker hands in what a stream has produced."""
        worker = self.workers.get(uid)
        job = worker.assigned.get(report.id) if worker else None
        if job is None or job.attempt != report.attempt or job.void:
            self.streams.close(uid, report.id, report.attempt)  # nobody was promised anything of it
        else:
            self.streams.produced(uid, job, report.first, report.values)

    def given_back(
        self, uid: str, attempts: list[tuple[int, int]], read: int = 0, upto: int = 0
    ) -> None:
        """A worker gives back what it has not started, and the orders that it has not read."""
        worker = self.workers.get(uid)
        if worker is None:
            return
        unread = [
            (job.id, job.attempt)
            for job in worker.assigned.values()
            if job.lease is not None and read < job.lease.run <= upto
        ]
        for number, attempt in attempts + unread:
            job = worker.assigned.get(number)
            if job is not None and job.attempt == attempt:
                self.dispatch.take_back(worker, job)
        self.dispatch.begins_head(worker)

    def leaves(self, uid: str, attempts: list[tuple[int, int]]) -> None:
        """A worker is not what it was, and ends; it gives back what it has not started."""
        self.given_back(uid, attempts)
        worker = self.workers.get(uid)
        if worker is not None and worker.phase is Phase.READY:
            worker.phase = Phase.RETIRING
            # It may be a while until it reads what is still on its way to it.
            self._effects.orders.append((uid, GiveBack(worker.sent)))

    def waits(self, uid: str, number: int, attempt: int, awaited: list[int]) -> None:
        """A job waits for others, which go first now, and lends its slot, if it may."""
        worker = self.workers.get(uid)
        job = worker.assigned.get(number) if worker is not None else None
        # An attempt that is over has no slot to lend: should it wait for ever, nobody could run.
        error: JobdError | None = JobdError("this attempt of the job does not count any more")
        if worker is not None and job is not None and job.attempt == attempt:
            workers = list(self.workers.values())
            most, inputs = self.options.max_lent, self.blocked.missing
            if worker.waiting is job:
                most += 1  # it counts already: it waits for others too, or for fewer
            known = lending.Known(inputs, self._held_up)
            error = lending.refusal(workers, worker, number, awaited, known, most)
            if error is None:
                if self.queues.counts and worker.waiting is not job:
                    self.queues.ended(queue_of(job))
                    self.lanes.queue_changed(queue_of(job))
                worker.waiting, worker.awaited = job, lending.with_inputs(awaited, inputs)
                worker.stall_at = self._now
                for other in worker.awaited:
                    self.window.hasten(other)
        answer = Lent(number, error.error, error.message, error.hint) if error else Lent(number)
        self._effects.orders.append((uid, answer))

    def waits_for(self, job: Job) -> str:
        """Return what keeps a queued job from being started, in words; "": a free worker."""
        return self.lanes.waits_for(job.lane, self._now)

    def _held_up(self, number: int) -> dict[str, list[int]]:
        """Return the closed gates of a job that has not started, with the jobs that run with each."""
        job = self.window.jobs.get(number)
        if job is None or not job.lane or job.state >= State.RUNNING:
            return {}
        closed = self.lanes.closed_gates(job.lane)
        found: dict[str, list[int]] = {name: [] for name in closed}
        for worker in self.workers.values() if closed else ():
            for other in worker.assigned.values():
                for name, _ in gates_of(other.lane):
                    if name in found:
                        found[name].append(other.id)
        return found

    def goes_on(self, uid: str, number: int, attempt: int) -> None:
        """A job waits no longer."""
        worker = self.workers.get(uid)
        if worker is None or worker.waiting is None:
            return
        if (worker.waiting.id, worker.waiting.attempt) == (number, attempt):
            if self.queues.counts:
                self.queues.goes_on(queue_of(worker.waiting))
            worker.waiting = None

    def left(self, uid: str, reports: list[Outcomes | Produced]) -> None:
        """A worker that is dead had finished this; some of it may be known."""
        for report in reports:
            if isinstance(report, Outcomes):
                self.outcomes(uid, report.seq, report.outcomes)
            else:
                self.produced(uid, report)

    def worker_died(self, uid: str, death: Death) -> None:
        """A worker is seen dead, and all that had ended in it has been taken in."""
        worker = self.workers.pop(uid, None)
        if worker is None:
            return
        self.stops.forget(uid)
        self._staff.died(worker, self._now)
        for job in list(worker.assigned.values()):
            if death.unknown or (job.id, job.attempt) == death.running:
                self.dispatch.take(worker, job)
                self.aftermath.outlived(job, death)
            else:
                self.dispatch.take_back(worker, job)

    def retire(self, uid: str) -> None:
        """Replace a worker as soon as its job is done."""
        worker = self.workers.get(uid)
        if worker is not None and worker.phase is Phase.READY:
            worker.phase = Phase.RETIRING
            self._effects.orders += [(uid, GiveBack(worker.sent)), (uid, Retire())]

    def retire_all(self) -> None:
        """Replace every worker as soon as its job is done; one that is missing is started at once."""
        self._staff.start_over()
        for worker in self.workers.values():
            if worker.phase in (Phase.READY, Phase.STARTING):
                worker.phase = Phase.RETIRING
                give_back = GiveBack(worker.sent)
                self._effects.orders += [(worker.uid, give_back), (worker.uid, Retire())]

    @property
    def failed_starts(self) -> int:
        """How many workers in a row have died without having worked."""
        return self._staff.failed_starts

    # -- streams --

    def unfollow(self, peer: bytes, rid: int, number: int, *, close: bool) -> None:
        """A client follows a stream no longer; with ``close``, one that nobody else does is ended."""
        left = self.streams.unfollow(peer, rid, number)
        if close and left is not None:
            self.stops.close(left, self.window.jobs.get(left.job))

    def _tell_stuck(self) -> None:
        """Tell those who wait for a stream that it waits for somebody to consume it."""
        stuck, self.streams.stuck = self.streams.stuck, []
        for stream in stuck:
            at_bound = AtBound(stream.job, stream.bound)
            for number in self.blocked.downstream(stream.job):
                job = self.window.jobs.get(number)
                for peer in (job.watchers if job else None) or ():
                    self.streams.replies.append((peer, Stuck(number, at_bound)))

    def at_bound(self, number: int) -> AtBound | None:
        """Return the stream at its bound that a job waits for: itself, or an input, also of an input."""
        live = self.streams.live
        for other in lending.with_inputs([number], self.blocked.missing) if live else ():
            stream = live.get(other)
            if stream is not None and stream.is_stuck:
                return AtBound(stream.job, stream.bound)
        return None

    # -- the end of the daemon --

    def drain(self) -> None:
        """Start no more jobs, and let the workers end."""
        self.intake.is_closed = True
        for uid in [w.uid for w in self.workers.values() if w.phase is Phase.STARTING]:
            del self.workers[uid]  # it may never come; if it does, the pool ends it
        self.retire_all()

    def waits_of_all(self) -> list[list[int]]:
        """Return what each job that runs waits for, as far as that is known; none if one does not wait."""
        busy = [worker for worker in self.workers.values() if worker.assigned]
        if any(worker.waiting is None for worker in busy):
            return []
        return [worker.awaited for worker in busy]

    def stop_running(self) -> None:
        """Stop what still runs; it will run again at the next start."""
        for worker in self.workers.values():
            for job in worker.assigned.values():
                self.stops.stop(job, Event.PUT_BACK)
            if not worker.assigned:  # it was told to end, and does not hear
                self.stops.expect_end(worker.uid)

    def kill_all(self) -> None:
        """End every worker at once; what it ran goes back into the queue."""
        for uid in self.workers:
            self.kill(uid)

    def kill(self, uid: str) -> None:
        """End a worker at once; what it has in hand goes back into the queue without blame."""
        for job in self.workers[uid].assigned.values():
            job.stop = job.stop or Event.PUT_BACK
        self._effects.kill.append((uid, 0, 0))

    def is_at_rest(self) -> bool:
        """Whether nothing runs and all is stored."""
        return not (self.workers or self.ledger.batch or self.ledger.in_flight)


def ended_message(job: Job) -> Ended:
    """Return the push for a job's end; a large value is left out and has to be fetched."""
    value = job.value
    inline = value is None or len(value) <= INLINE_BYTES
    ended = Ended(job.id, job.state, value if inline else None, job.error, job.cause, inline)
    ended.root = job.root
    return ended
