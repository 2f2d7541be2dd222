"""Jobs with keys: which other job is in the way of a new one, and what is answered then.

A key is decided upon in one turn of the loop, by all that is so by then, durable or not:
the index of keys in the store tells of the jobs that are stored, the ledger of those with
a change on its way, and memory has the latest state of each.  What is told of a job that
is not durable yet waits until it is.
"""

from __future__ import annotations

from collections.abc import Callable

from jobd.daemon.outbox import Clients
from jobd.daemon.view import View
from jobd.model.errors import DuplicateKey, UsageError
from jobd.model.job import Job
from jobd.model.messages import Refused, Submit, Submitted, refusal
from jobd.model.options import Policy
from jobd.model.states import ENDED, State
from jobd.scheduler import Scheduler
from jobd.store import Store

REMEMBERED = 10_000
"""Submits that were answered with another job: should they come again, the answer is the same."""

MOST = 100
"""Jobs that one submit may replace."""


def refuse_many(request: Submit, policy: Policy) -> None:
    """Refuse several jobs with one key.

    Raises:
        UsageError: so it is.
    """
    if policy.key and len(request.args) > 1:
        raise UsageError(
            f"a key is for one job, and this submit has {len(request.args)}",
            "submit each with a key of its own, or without",
        )


def refuse_any(policy: Policy | None) -> None:
    """Refuse a key of a job of a graph, which is taken in as a whole or not at all.

    Raises:
        UsageError: it has one.
    """
    if policy is not None and policy.key:
        raise UsageError("a job of a graph has no key", "submit it by itself")


class Keys:
    """Who has which key."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: Store,
        view: View,
        clients: Clients,
        watch: Callable[[bytes, int, int], None],
    ) -> None:
        """``watch`` has a client told of the ends of so many jobs from one on."""
        self._scheduler = scheduler
        self._store = store
        self._view = view
        self._clients = clients
        self._watch = watch
        self._owners: dict[bytes, int] = {}
        """By the uid of a submit the job that it was answered with."""

    def claim(self, peer: bytes, request: Submit, policy: Policy) -> list[Job] | None:
        """Return the jobs that a new one replaces: usually none.

        None: another job has the key, and stands for the new one; the sender is answered.

        Raises:
            DuplicateKey: another job has the key.
        """
        owner = self._known_owner(request.uid)
        if owner is None:
            found = self._in_the_way(policy)
            if not found:
                return []
            runs = next((job for job in found if job.state is State.RUNNING), None)
            if policy.if_exists == "replace" and runs is None and len(found) <= MOST:
                return found
            owner = runs or found[0]
        if policy.if_exists == "return":
            self._remember(request.uid, owner)
            self._answer(peer, Submitted(request.rid, owner.id, 1, existed=True), owner)
            if request.watch:
                self._watch(peer, owner.id, 1)
        else:
            refused = refusal(request.rid, _duplicate(policy, owner))
            assert isinstance(refused, Refused)
            self._answer(peer, refused, owner)
        return None

    def owner_of(self, uid: bytes) -> int:
        """Return the job that a submit was answered with that queued none; 0: there is none."""
        owner = self._known_owner(uid)
        return 0 if owner is None else owner.id

    def taken(self, job: Job) -> str:
        """Say why a job that has ended must not have another round; "" if it may."""
        policy = job.policy
        if policy is None or not policy.key:
            return ""
        if self._scheduler.succession.is_at(policy.key):
            return "its key is about to change hands"
        found = [other for other in self._in_the_way(policy) if other.id != job.id]
        return f"its key is that of job {found[0].id}, which has not ended" if found else ""

    def _in_the_way(self, policy: Policy) -> list[Job]:
        """Return jobs with the key that are in the way of one more, the oldest first; not all, if many are."""
        modes = policy.unique or ["live"]
        if "live" not in modes and "waiting" not in modes:
            return []
        highest = State.RUNNING if "live" in modes else State.QUEUED
        scheduler = self._scheduler
        unsettled = scheduler.ledger.unsettled_with(policy.key)
        hands = sum(len(worker.assigned) for worker in scheduler.workers.values())
        # As many may have ended, or have started, as the store does not know of.
        stored = self._store.keyed(policy.key, MOST + 1 + len(unsettled) + hands)
        jobs = [self._view.job(number) for number in sorted(unsettled.union(stored))]
        return [job for job in jobs if job is not None and job.state <= highest]

    def _known_owner(self, uid: bytes) -> Job | None:
        """Return the job that this submit was answered with before, if that is on record or will be."""
        number = self._owners.get(uid)
        return None if number is None else self._view.job(number)

    def _remember(self, uid: bytes, owner: Job) -> None:
        self._owners.pop(uid, None)
        self._owners[uid] = owner.id
        if len(self._owners) > REMEMBERED:
            del self._owners[next(iter(self._owners))]

    def _answer(self, peer: bytes, reply: Submitted | Refused, owner: Job) -> None:
        """Send an answer that is about a job, once that job is on record as it is."""
        scheduler = self._scheduler
        submission = scheduler.intake.submitting(owner.uid)
        if submission is not None and submission.keyed is not None:
            submission.keyed.answers.append((peer, reply))
        elif scheduler.ledger.is_unsettled(owner.id) and owner.state < ENDED:
            scheduler.answer_early(peer, reply)
        else:
            self._clients.reply(peer, reply)


def _duplicate(policy: Policy, owner: Job) -> DuplicateKey:
    runs = owner.state is State.RUNNING
    hint = f"'jobd wait {owner.id}' waits for it"
    if policy.if_exists == "replace" and runs:
        hint = f"only a job that waits is replaced: 'jobd cancel {owner.id}' stops it"
    how = "runs" if runs else "waits"
    return DuplicateKey(
        f"job {owner.id} has the key {policy.key!r} already, and {how}", hint, id=owner.id
    )
