"""What happens next: a pure state machine, of which this is the face.

Events go in as method calls, after ``begin`` has told the time; effects come
out of ``take_effects`` (to be done now) and of ``take_batch`` (to be stored, and
what may be told and done once it is).  No I/O, no clock, no threads, no
randomness: the same events give the same effects.

Of its parts ``intake`` takes new jobs in, ``dispatch`` hands them to workers, ``workforce``
hears these, ``loans`` those of their jobs that wait for others, ``control`` does to jobs what
people and the clock want, and ``commits`` says when to store.  Here is what concerns several
of them: commits that are over, and what is loaded from the store.

Durability.  An attempt is on record before its job starts, unless the job
itself is not stored yet: then both are stored together, before anybody hears
of the job.  Every answer waits in the batch that holds what it tells.
"""

from __future__ import annotations

from jobd.model.errors import JobdError
from jobd.model.item import array_of
from jobd.model.job import AtBound, Job
from jobd.model.messages import INLINE_BYTES, Ended, Reply, Stuck, Submitted, refusal
from jobd.model.orders import Recorded
from jobd.model.queues import Override
from jobd.model.states import ENDED, State
from jobd.scheduler import lending
from jobd.scheduler.aftermath import Aftermath
from jobd.scheduler.array_control import ArrayControl
from jobd.scheduler.arrays import Arrays
from jobd.scheduler.batch import Backlog, Batch
from jobd.scheduler.blocked import Blocked
from jobd.scheduler.commits import Commits
from jobd.scheduler.control import Control
from jobd.scheduler.dispatch import Dispatch
from jobd.scheduler.effects import Effects
from jobd.scheduler.intake import Intake
from jobd.scheduler.keepers import Keepers
from jobd.scheduler.known import Line
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.loans import Loans
from jobd.scheduler.places import is_leaving
from jobd.scheduler.queues import Queues, queue_of
from jobd.scheduler.roster import Phase, Worker
from jobd.scheduler.staff import Options, Staff
from jobd.scheduler.stops import Stops
from jobd.scheduler.streams import Streams
from jobd.scheduler.succession import Succession
from jobd.scheduler.supply import Supply
from jobd.scheduler.timers import Timers
from jobd.scheduler.window import Window
from jobd.scheduler.workforce import Workforce

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
        self.workers: dict[str, Worker] = {}
        self._effects = effects = Effects()
        self._now = self._wall = 0
        self.ledger = ledger = Ledger(next_id, counts or {}, next_lease, queued)
        # One more than there are: the store is looked through once, for parcels that are over.
        spilled = ledger.counts[State.QUEUED] + (next_id > 1)
        self.window = window = Window(
            self.queues, spilled, self._is_awaited, has_stored=next_id > 1
        )
        self.lanes = window.lanes
        self.timers = timers = Timers(has_more=next_id > 1)
        self.blocked = blocked = Blocked(ledger, window, timers)
        self.streams = streams = Streams(ledger)
        self.arrays = arrays = Arrays(ledger, window)
        window.take_item = arrays.push
        keepers = Keepers(ledger, window, timers, blocked, streams, arrays)
        self.aftermath = after = Aftermath(keepers, options.max_crashes)
        self.succession = Succession(ledger, blocked, timers, after)
        most = options.max_queued
        self.intake = Intake(keepers, self.succession, after, most)
        self.commits = Commits(ledger)
        self.stops = stops = Stops(ledger, streams, self.workers, options.kill_grace_us)
        self.control = Control(keepers, stops, self.succession, after)
        self.array_control = ArrayControl(keepers, self.workers, after, self.control)
        one_by_one = options.max_jobs_per_worker > 0
        self.supply = Supply(window, arrays, self.queues, after, one_by_one)
        self.dispatch = dispatch = Dispatch(
            boot, options, ledger, self.supply, self.workers, stops, after, effects
        )
        self._staff = staff = Staff(boot, options, self.workers)
        self.workforce = Workforce(
            self.workers, options, effects, keepers, stops, after, dispatch, staff
        )
        lent = options.max_lent
        self.loans = Loans(self.workers, lent, effects, self.queues, keepers, dispatch)

    def _is_awaited(self, number: int) -> bool:
        return lending.is_awaited(self.workers.values(), number)

    # -- time and effects --

    @property
    def draining(self) -> bool:
        """Whether the daemon is ending: nothing comes in, and nothing more is started."""
        return self.intake.is_closed

    def begin(self, now_us: int, wall_us: int) -> None:
        """Tell the time: monotonic for deadlines, UTC for records; both in microseconds."""
        self._now = self.commits.now = self.stops.now = now_us
        self.intake.now = self.dispatch.now = self.supply.now = now_us
        self._wall = self.intake.wall = self.supply.wall = self.ledger.wall = wall_us
        self.blocked.wall = self.timers.wall = wall_us

    def take_effects(self) -> Effects:
        """Decide what can be decided, and return what is to be done now."""
        if self.arrays.touched:
            self.array_control.settle()
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
        if self.array_control.recalled:
            self.dispatch.recall(self.array_control.take_recalled())
        effects = self._effects.take()
        if stops.orders or stops.kill:
            effects.orders += stops.orders
            effects.kill += stops.kill
            stops.orders, stops.kill = [], []
        self._add_streams(effects)
        return effects

    def _add_streams(self, effects: Effects) -> None:
        streams = self.streams
        if streams.stuck:
            self._tell_stuck()
        if streams.orders or streams.replies:
            effects.orders += streams.orders
            effects.replies += streams.replies
            streams.orders, streams.replies = [], []

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
        if self.arrays.touched:
            self.array_control.settle()
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
        for job in self.arrays.committed(batch):
            self.aftermath.tell(job)
        self._tell_ends(batch)
        self.lanes.stock.stored(batch.submissions, self.ledger.settled_high)
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
        if job.array is not None:
            return  # it is here as long as it has not ended
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
            if submission.first in self.arrays.live:
                self._void_items(submission.first)
            self.streams.void(range(submission.first, submission.first + submission.count))
            for peer, rid in submission.tell:
                self._effects.replies.append((peer, refusal(rid, error)))
            if submission.keyed is not None:
                for peer, reply in submission.keyed.answers:
                    self._effects.replies.append((peer, refusal(reply.rid, error)))
                self.succession.lost(submission.keyed)
        self.lanes.stock.stored((), self.ledger.settled_high)
        self.dispatch.not_committed()

    def _void_items(self, number: int) -> None:
        """The submit of this array has failed: whatever its items do is not recorded."""
        for worker in self.workers.values():
            for job in worker.assigned.values():
                job.void = job.void or array_of(job.id) == number
        for job in list(self.window.jobs.values()):
            if array_of(job.id) == number:
                job.void = True
                del self.window.jobs[job.id]
        self.ledger.forget_items(number)
        self.arrays.forget(number)

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
        return self.lanes.stock.thirsty(self.ledger.stored_high, self.ledger.settled_high)

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
                [queue_of(j) for worker, j in hands if j is not worker.waiting and not j.is_heir],
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

    def waits_for(self, job: Job) -> str:
        """Return what keeps a queued job from being started, in words; "": a free worker."""
        return self.lanes.waits_for(job.lane, self._now)

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
        self.workforce.retire_all()

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
