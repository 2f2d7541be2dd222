"""New jobs: what clients submit, put, and apply as a graph.

A submit goes through one pass: what can be seen to be wrong is refused; a key that came
before is answered as then; the checker judges a function that it does not know yet; the
sources are found; who has the job's key is found; then the scheduler takes it in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from jobd.daemon.checks import Checks
from jobd.daemon.environments import Environments
from jobd.daemon.keys import Keys, refuse_any, refuse_many
from jobd.daemon.outbox import Clients
from jobd.daemon.policies import Policies, name_of, refuse_odd
from jobd.daemon.predecessors import Predecessors
from jobd.daemon.turns import Handlers
from jobd.failpoints import hit
from jobd.model.errors import JobdError, UsageError
from jobd.model.job import NO_ARGS, ArraySpec
from jobd.model.messages import Accepted, Apply, Put, Submit, Submitted, refusal
from jobd.model.options import Policy
from jobd.model.stretch import calls_in, count_in, is_plain
from jobd.scheduler import Scheduler, Sources
from jobd.store import Store

MOST_SESSIONS = 100_000


@dataclass
class SubmitDesk:
    """Takes in jobs; ``watch`` has a client told of the ends of so many jobs from one on."""

    scheduler: Scheduler
    store: Store
    policies: Policies
    environments: Environments
    checks: Checks
    predecessors: Predecessors
    keys: Keys
    clients: Clients
    watch: Callable[[bytes, int, int], None]
    sessions: dict[bytes, bytes] = field(default_factory=dict)
    """The highest key of each session of a client."""

    def __post_init__(self) -> None:
        """Look the way of a submit up once."""
        self._intake = self.scheduler.intake

    @property
    def handlers(self) -> Handlers:
        """What it answers."""
        return {Submit: self._submit, Put: self._put, Apply: self._apply}

    def _submit(self, peer: bytes, request: Submit) -> None:
        hit("submit.received")
        policy = self._refuse_wrong(request)
        if not self._is_new(peer, request):
            return
        # Not sooner: what came before its queue was removed is known.
        self.policies.refuse_unknown_queue(policy)
        if self._has_to_be_checked(request):
            self.checks.ask(peer, request, None, self.environments.around(policy))
        else:
            self._queue(peer, request, policy)
            hit("submit.accepted")

    def _refuse_wrong(self, request: Submit) -> Policy | None:
        """Refuse what can be seen to be wrong, before anybody is asked; return what holds for the jobs."""
        policy = self.policies.judged(request)
        if policy is not None:
            refuse_many(request, policy)
        if request.array is not None:
            self._refuse_wrong_array(request, request.array, policy)
        return policy

    def _refuse_wrong_array(self, request: Submit, spec: ArraySpec, policy: Policy | None) -> None:
        """Refuse an array whose calls are not those that it says to have, or may not be."""
        if (
            len(request.args) != 1
            or not request.args[0].endswith(NO_ARGS)
            or len(request.inputs) > 1
        ):
            raise UsageError("the call of an array has no arguments", "its items have them")
        if policy is not None and policy.key:
            raise UsageError("an array has no key", "give one to a job that submits it")
        counted = 0
        for count, blob in request.chunks:
            try:
                found = count_in(blob)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                found = 0
            if not found or found != count:
                raise UsageError(
                    "the calls of an array make no sense", "is the client of another version?"
                )
            counted += count
            self.policies.refuse_size(len(blob), "the arguments of an item have")
            if not is_plain(blob):
                self.policies.allowed.refuse_calls(request.function, calls_in(blob))
        if counted != spec.items:
            raise UsageError(
                f"{counted} calls for an array of {spec.items} items",
                "is the client of another version?",
            )

    def _has_to_be_checked(self, request: Submit) -> bool:
        return request.check and not request.by_value and not self.checks.passes(request)

    def _queue(self, peer: bytes, request: Submit, policy: Policy | None) -> None:
        if request.inputs or request.after:
            self._take_in_after(peer, request)
        else:
            self._take_in_jobs(peer, request, policy)

    def _apply(self, peer: bytes, request: Apply) -> None:
        hit("submit.received")
        refuse_odd(request.uid)
        if not request.jobs:
            raise UsageError("a graph of no jobs", "give at least one")
        for call in request.jobs:
            call.uid, call.environment = request.uid, request.environment
            with self._about(call):
                self._refuse_wrong(call)
                if len(call.args) != 1:
                    raise UsageError("a job of a graph is one call", "map has many")
                refuse_any(self.policies.of(call))
        if request.dry_run or self._is_new(peer, request):
            self._apply_checked(peer, request)

    def _apply_checked(self, peer: bytes, request: Apply) -> None:
        """Queue a graph, once each of its functions has been checked."""
        for call in request.jobs:
            with self._about(call):
                self.policies.refuse_unknown_queue(self.policies.of(call))
        unchecked = [call for call in request.jobs if self._has_to_be_checked(call)]
        if unchecked:
            function = unchecked[0].function
            shapes = [shape for c in unchecked if c.function == function for shape in c.shapes]
            shapes = [*dict.fromkeys(shapes)]
            around = self.environments.around(self.policies.of(unchecked[0]))
            self.checks.ask(peer, request, Submit(0, b"", function, [], shapes), around)
        else:
            self._take_in_after(peer, request)
            hit("submit.accepted")

    def _take_in_after(self, peer: bytes, request: Submit | Apply) -> None:
        """Take in jobs that may come after others, unless a source's own submit is not through yet."""
        sources = self.predecessors.of(peer, request)
        if sources is not None:
            self._take_in_behind(peer, request, sources)

    def _go_on_after(self, key: bytes) -> None:
        """The submit with this key is through, or was refused: go on with those that wait for it."""
        for parked in self.predecessors.waiting_for(key):
            uid = parked.request.uid
            self.predecessors.forget(uid)
            try:
                self._take_in_after(parked.peer, parked.request)
            except JobdError as error:
                self.refuse(parked.peer, parked.request, error)
            else:
                if not self.predecessors.has(uid):
                    self._go_on_after(uid)

    def _take_in_behind(self, peer: bytes, request: Submit | Apply, sources: Sources) -> None:
        """Have the scheduler take in jobs that come after ``sources``."""
        if isinstance(request, Submit):
            self._take_in_jobs(peer, request, self.policies.of(request), sources)
        elif request.dry_run:
            self.clients.reply(peer, Accepted(request.rid))
        else:
            policies = [self.policies.of(call) for call in request.jobs]
            self._intake.apply(peer, request, policies, sources)
            self.environments.record(policies)

    def _take_in_jobs(
        self, peer: bytes, request: Submit, policy: Policy | None, sources: Sources | None = None
    ) -> None:
        """Have the scheduler take in jobs of one function, unless others have their key."""
        if policy is not None and policy.key:
            self._take_in_keyed(peer, request, policy, sources)
        else:
            self._intake.submit(peer, request, policy, sources)
            if policy is not None:
                self.environments.record([policy])

    def _take_in_keyed(
        self, peer: bytes, request: Submit, policy: Policy, sources: Sources | None
    ) -> None:
        replaced = self.keys.claim(peer, request, policy)
        if replaced is None:
            return
        self._intake.submit(peer, request, policy, sources)
        self.environments.record([policy])
        window = self.scheduler.window
        for job in replaced:
            self._intake.replace(window.load(job), request.uid)

    def accept(self, peer: bytes, request: Submit | Apply) -> None:
        """Queue what has been checked, or have more of it checked."""
        try:
            if isinstance(request, Submit):
                policy = self.policies.of(request)
                self.policies.refuse_unknown_queue(policy)
                self._queue(peer, request, policy)
                hit("submit.accepted")
            else:
                self._apply_checked(peer, request)
        except JobdError as error:
            self.refuse(peer, request, error)
        else:
            self._go_on_after(request.uid)

    def refuse(self, peer: bytes, request: Submit | Apply, error: JobdError) -> None:
        """Tell the client that its submit is refused."""
        self.clients.reply(peer, refusal(request.rid, error))
        self._go_on_after(request.uid)

    def _put(self, peer: bytes, request: Put) -> None:
        self.policies.allowed.refuse_pickle(request)
        refuse_odd(request.uid)
        self.policies.refuse_size(len(request.value), "the value has")
        if not request.value:
            raise UsageError("a value that is none", "is the client of another version?")
        if self._is_new(peer, request):
            self._intake.put(peer, request)

    def _is_new(self, peer: bytes, request: Submit | Put | Apply) -> bool:
        """Whether this key was never seen; if it was, answer with the same ids as before.

        The numbers of a client's session only rise, so one look at the highest
        tells a new key from one that must be looked up.
        """
        session, number = request.uid[:8], request.uid[8:]
        high = self.sessions.get(session)
        if high is None:
            high = self.store.session_high(session)
            if len(self.sessions) >= MOST_SESSIONS:
                self.sessions.clear()  # they are in the store
        if number > high:
            self.sessions[session] = number
            return True
        self.sessions[session] = high
        return not self._is_known(peer, request)

    def _is_known(self, peer: bytes, request: Submit | Put | Apply) -> bool:
        """Look up a key that may have come before; if it has, the sender is answered."""
        uid = request.uid
        submission = self._intake.submitting(uid)
        if submission is not None:
            submission.tell.append((peer, request.rid))
            first, count = submission.first, submission.count
        elif not isinstance(request, Put) and (
            self.checks.is_waiting(peer, request) or self.predecessors.is_waiting(peer, request)
        ):
            return True
        else:
            found = self.store.submit_of(uid)
            if found is None:
                return False
            first, count = found
            self.clients.reply(peer, Submitted(request.rid, first, count))
        if request.watch:
            self.watch(peer, first, count)
        return True

    @contextmanager
    def _about(self, call: Submit) -> Iterator[None]:
        """Say of an error which job of a graph it is about."""
        try:
            yield
        except JobdError as error:
            raise type(error)(f"{name_of(call)}: {error.message}", error.hint) from None
