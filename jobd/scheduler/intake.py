"""What comes in: the jobs of new submits, and values that are put.

Jobs get their ids at once and wait for the commit that makes them durable; the submit is
answered with that, and refused with that if it fails.  Most are packed in parcels as they
came; those that have something of their own to tell from the start get rows
(``has_own_row``).
"""

from __future__ import annotations

from collections import Counter

from jobd.model.errors import QueueFull, Stopping
from jobd.model.job import NO_ARGS, PUT, Job
from jobd.model.lane import lane_of
from jobd.model.messages import Apply, Put, Submit
from jobd.model.options import Policy
from jobd.model.queues import DEFAULT
from jobd.model.states import Event
from jobd.scheduler.aftermath import Aftermath
from jobd.scheduler.batch import PARCEL_JOBS, Keyed, Submission
from jobd.scheduler.blocked import NO_SOURCES, Sources
from jobd.scheduler.keepers import Keepers
from jobd.scheduler.succession import Succession
from jobd.scheduler.timers import is_timed

PATIENCE_US = 2_000
"""How long a commit waits for outcomes that are expected sooner, to be one commit instead of two."""

FEW = 100
"""So many jobs of one submit that are not plain get rows of their own at once; more are packed in parcels."""


class Intake:
    """Takes in jobs, until the daemon is ending."""

    def __init__(
        self,
        keepers: Keepers,
        succession: Succession,
        aftermath: Aftermath,
        max_queued: int,
    ) -> None:
        """``max_queued``: so many jobs may wait, stored or not."""
        self.now = 0
        self.wall = 0
        self.is_closed = False
        """The daemon is ending: nothing more comes in."""
        self._ledger = keepers.ledger
        self._window = keepers.window
        self._lanes = keepers.window.lanes
        self._blocked = keepers.blocked
        self._arrays = keepers.arrays
        self._succession = succession
        self._aftermath = aftermath
        self._max_queued = max_queued

    def submitting(self, uid: bytes) -> Submission | None:
        """Return the submit with this key if it is not durable yet."""
        return self._ledger.submissions.get(uid)

    def submit(
        self,
        peer: bytes,
        request: Submit,
        policy: Policy | None = None,
        sources: Sources | None = None,
    ) -> None:
        """Take in the jobs of a submit whose uid is new; answered when they are durable.

        ``sources`` tells of those that they come after; ``request`` has their ids only by now.

        Raises:
            Stopping: the daemon is ending.
            QueueFull: so many jobs are queued already.
        """
        count = len(request.args)
        submission = self._open_submission(peer, request, count)
        if policy is not None:
            submission.keyed = Keyed(policy.key) if policy.key else None
            if policy.queue != DEFAULT:
                submission.queues = [(policy.queue, count)]
        is_plain = sources is None and request.array is None
        if is_plain and (policy is None or not has_own_row(policy, count)):
            if policy is not None:
                submission.lane = lane_of(policy)
            self._submit_parcels(submission, request, policy)
            return
        submission.has_rows = True
        watcher = peer if request.watch else None
        for index in range(count):
            self._admit_call(
                submission, index, request, index, policy, watcher, sources or NO_SOURCES
            )

    def apply(
        self, peer: bytes, request: Apply, policies: list[Policy | None], sources: Sources
    ) -> None:
        """Take in jobs of several functions, those first that others come after; as ``submit``.

        Raises:
            Stopping, QueueFull: as for ``submit``; none is taken in.
        """
        submission = self._open_submission(peer, request, len(request.jobs))
        submission.has_rows = True
        queues = Counter(policy.queue for policy in policies if policy is not None)
        submission.queues = [item for item in queues.items() if item[0] != DEFAULT]
        watcher = peer if request.watch else None
        for index, (call, policy) in enumerate(zip(request.jobs, policies, strict=True)):
            job = self._admit_call(submission, index, call, 0, policy, watcher, sources)
            sources.add(job)

    def _open_submission(self, peer: bytes, request: Submit | Apply, count: int) -> Submission:
        """Give a new submit its ids, in the open batch.

        Raises:
            Stopping, QueueFull: as for ``submit``.
        """
        ledger, uid = self._ledger, request.uid
        if self.is_closed:
            raise Stopping("the daemon is stopping", "submit again when it is back")
        batch = ledger.batch
        items = 0
        if isinstance(request, Submit) and request.array is not None:
            items = request.array.items + self._arrays.count_open()
        if ledger.waiting + batch.submitted + count + items > self._max_queued:
            raise QueueFull(
                f"the queue is full ({self._max_queued} jobs)",
                "wait for some to end, or raise limits.max_queued",
            )
        if not (batch.submissions or batch):
            batch.patient_until = self.now + PATIENCE_US
        first = ledger.next_id
        ledger.next_id = first + count
        submission = Submission(uid, first, count, [(peer, request.rid)])
        ledger.submissions[uid] = submission
        batch.submissions.append(submission)
        batch.submitted += count
        return submission

    def _submit_parcels(
        self, submission: Submission, request: Submit, policy: Policy | None
    ) -> None:
        """Take in jobs as they came; each gets a row once it has something of its own to tell."""
        batch, lane = self._ledger.batch, submission.lane
        function, args = request.function, request.args
        first, uid, count = submission.first, submission.uid, submission.count
        watcher = submission.tell[0][0] if request.watch else None
        if count == 1 and not lane and not self._window.is_full:
            job = Job(first, uid, 1, function, args[0], self.wall, policy)
            job.watchers = None if watcher is None else (watcher,)
            self._window.append(job)
            batch.loose.append(job)
            return
        for start in range(0, count, PARCEL_JOBS):
            part = args if count <= PARCEL_JOBS else args[start : start + PARCEL_JOBS]
            total = 0 if start else count
            record = batch.pack(first + start, uid, total, function, self.wall, part, policy, lane)
            if lane:
                submission.is_unseen = not self._lanes.admit(record, lane, watcher)
            else:
                self._window.admit(record, watcher)

    def replace(self, job: Job, uid: bytes) -> None:
        """Let the one job of a submit that is not durable yet take the place of a waiting one in memory."""
        self._succession.replace(job, self._ledger.submissions[uid])

    def put(self, peer: bytes, request: Put) -> None:
        """Take in a value, as the result of a job that has succeeded; answered when it is durable.

        Raises:
            Stopping, QueueFull: as for ``submit``.
        """
        call = Submit(request.rid, request.uid, PUT, [NO_ARGS], [], watch=request.watch)
        self.submit(peer, call)
        self._ledger.submissions[request.uid].has_rows = True
        number = self._ledger.next_id - 1
        job = self._window.jobs.get(number)
        if job is None:  # the window is full, and has left it to the store
            job = Job(number, request.uid, 1, PUT, NO_ARGS, self.wall)
            job.record = self._ledger.batch.parcels[-1].records[-1]
            job.watchers = (peer,) if request.watch else None
            self._window.recover(job)
            self._window.unspill(1)  # nobody will look for it there: it is no job that waits
        job.value = request.value
        job.started_at = job.ended_at = self.wall
        self._aftermath.finish(job, Event.PUT)

    def _admit_call(  # noqa: PLR0913, PLR0917  # what a job is made of
        self,
        submission: Submission,
        place: int,
        call: Submit,
        index: int,
        policy: Policy | None,
        watcher: bytes | None,
        sources: Sources,
    ) -> Job:
        """Take in one call of a submit, as a job with a row from the start: at this place among its jobs."""
        total = 0 if place else submission.count
        number, uid = submission.first + place, submission.uid
        job = Job(number, uid, total, call.function, call.args[index], self.wall, policy)
        job.inputs = (call.inputs[index] if call.inputs else None) or None  # type: ignore[assignment]  # ids only
        job.after = call.after or None  # type: ignore[assignment]  # as above
        job.lane = lane_of(policy)
        job.watchers = None if watcher is None else (watcher,)
        if call.array is not None:
            job.array = call.array
            self._arrays.admit(job, call.chunks)
        self._blocked.admit(job, sources)
        return job


def has_own_row(policy: Policy, count: int) -> bool:
    """Whether each of so many new jobs with this policy has a row of its own at once."""
    return (
        is_timed(policy)
        or policy.hold
        or bool(policy.key)
        or (count <= FEW and bool(lane_of(policy)))
    )
