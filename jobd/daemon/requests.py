"""What clients ask, and what they are answered.

One method for each request, found by its type.  What may take long (a million
jobs to cancel) is a generator: the loop lets it do one page in each turn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from jobd._version import __version__
from jobd.daemon import logs
from jobd.daemon.allowed import AllowList
from jobd.daemon.neighbours import MOST as MOST_NEIGHBOURS
from jobd.daemon.neighbours import Neighbours
from jobd.daemon.queues import QueueDesk
from jobd.daemon.turns import QUESTIONS, Steps, Turns
from jobd.failpoints import hit
from jobd.model.errors import (
    JobdError,
    ProtocolMismatch,
    StoreFailed,
    UsageError,
    no_such_job,
)
from jobd.model.job import JSON, Attempt, Job, JobInfo, Progress
from jobd.model.messages import (
    PROTOCOL,
    Accepted,
    Answers,
    Apply,
    Cancel,
    Fetch,
    Fetched,
    Find,
    Follow,
    FrameError,
    Graph,
    GraphInfo,
    Hello,
    Hold,
    Jobs,
    List,
    LogData,
    Logs,
    More,
    Ping,
    Pong,
    Progressed,
    Put,
    Queues,
    Refused,
    Release,
    Reload,
    RemoveQueue,
    Request,
    Retry,
    SetQueue,
    Status,
    StatusInfo,
    Stop,
    Stuck,
    Submit,
    Submitted,
    Take,
    Taken,
    Unfollow,
    Watch,
    Watching,
    Welcome,
    WorkerInfo,
    numbers_in,
    refusal,
)
from jobd.model.options import Layers, Policy, decode_options
from jobd.model.orders import Progressing
from jobd.model.reference import MAX_CHARACTERS, parse_reference
from jobd.model.selector import MAX_ID, Selector
from jobd.model.states import ENDED, NAMES, State
from jobd.pool import linux
from jobd.pool.restrict import means
from jobd.pool.scoreboard import Now
from jobd.scheduler import Phase, Sources, ended_message
from jobd.scheduler.timers import expires_at
from jobd.store.sqlite import walk

if TYPE_CHECKING:
    from jobd.daemon.loop import Daemon

MOST_IN_A_FRAME = 10_000
"""A frame of millions of the smallest requests would be gigabytes once it is decoded."""

decode = msgspec.msgpack.Decoder(
    Annotated[list[Request], msgspec.Meta(max_length=MOST_IN_A_FRAME)]
).decode

_decode_few = msgspec.msgpack.Decoder(
    Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MOST_IN_A_FRAME)]
).decode

SLICE = 500
"""Jobs that a long request looks at in one turn of the loop."""

FIND_SLICE = 100
"""The same, where for each its attempts and the end of its output are read, too."""

LOG_CHUNK = 256 * 1024

MOST_FOLLOWED = 1_000
"""Requests of one client that wait for more output."""

MOST_SESSIONS = 100_000
MOST_POLICIES = 10_000


class Follower(msgspec.Struct):
    """A client that waits for more output."""

    peer: bytes
    request: Logs


class Requests:
    """The daemon's ear for clients."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._intake = daemon.scheduler.intake
        self._sessions: dict[bytes, bytes] = {}
        self._allowed = AllowList(daemon.settings.security.allow)
        self._layers = Layers.of(daemon.settings.rules)
        self._policies: dict[tuple[str, bytes, bool, bytes], Policy | None] = {}
        """By function, options, and whether the function travels by value: none of them is wrong."""
        self.queues = QueueDesk(daemon)
        self._max_payload_bytes = daemon.settings.limits.max_payload_bytes
        self.followers: list[Follower] = []
        self._progress: dict[str, Progressing] = {}
        """The latest of each worker."""
        self._onlookers: dict[bytes, set[int]] = {}
        """Jobs whose progress a client wants to be told."""
        self.turns = Turns(daemon.clients, daemon.tasks, self._handle)
        self.malformed = 0
        self._handlers: dict[type, Callable[[bytes, Any], Steps | None]] = {
            Hello: self._hello,
            Submit: self._submit,
            Put: self._put,
            Apply: self._apply,
            Graph: self._graph,
            Watch: self._watch,
            Fetch: self._fetch,
            Find: self._find,
            List: self._list,
            Cancel: self._cancel,
            Retry: self._retry,
            Hold: self._hold,
            Release: self._release,
            Status: self._status,
            Logs: self._logs,
            Stop: self._stop,
            Reload: self._reload,
            Ping: self._ping,
            Take: daemon.takes.take,
            Taken: daemon.takes.taken,
            Follow: daemon.streams.follow,
            More: daemon.streams.more,
            Unfollow: daemon.streams.unfollow,
            Queues: self.queues.tell,
            SetQueue: self.queues.change,
            RemoveQueue: self.queues.remove,
        }

    def take(self, peer: bytes, frame: bytes) -> None:
        """Handle all requests of one frame."""
        try:
            requests = decode(frame)
        except FrameError as error:
            self.malformed += 1
            text = f"that is no request of jobd's protocol {PROTOCOL}: {error}"
            for rid in numbers_in(frame) if _has_few(frame) else [0]:
                refused = Refused(rid, "usage", text, "is the client of another version?")
                self._daemon.clients.reply(peer, refused)
            return
        self.turns.take(peer, requests)

    def _handle(self, peer: bytes, request: Any) -> None:
        try:
            if self._daemon.remote is not None:
                self._daemon.remote.refuse(peer, request)
            steps = self._handlers[type(request)](peer, request)
        except StoreFailed:
            raise  # not the client's affair alone: the daemon ends
        except JobdError as error:
            self._daemon.clients.reply(peer, refusal(request.rid, error))
        else:
            if steps is not None:
                guarded = self._guarded(peer, request.rid, steps)
                self.turns.begin(peer, guarded, is_question=type(request) in QUESTIONS)

    def _guarded(self, peer: bytes, rid: int, steps: Steps) -> Steps:
        try:
            yield from steps
        except StoreFailed:
            raise
        except JobdError as error:
            self._daemon.clients.reply(peer, refusal(rid, error))

    # -- submits --

    def _submit(self, peer: bytes, request: Submit) -> None:
        hit("submit.received")
        policy = self._refuse_wrong(request)
        if not self._is_new(peer, request):
            return
        # Not sooner: what came before its queue was removed is known.
        self.queues.refuse_unknown(policy)
        if self._has_to_be_checked(request):
            self._daemon.checks.ask(peer, request, None, self._daemon.environments.around(policy))
        else:
            self._queue(peer, request, policy)
            hit("submit.accepted")

    def _refuse_wrong(self, request: Submit) -> Policy | None:
        """Refuse what can be seen to be wrong, before anybody is asked; return what holds for the jobs."""
        self._allowed.refuse_foreign(request)
        policy = self.policy(request)
        self._refuse_large(request)
        if policy is not None:
            self._daemon.keys.refuse_many(request, policy)
        return policy

    def _has_to_be_checked(self, request: Submit) -> bool:
        return request.check and not request.by_value and not self._daemon.checks.passes(request)

    def _queue(self, peer: bytes, request: Submit, policy: Policy | None) -> None:
        if request.inputs or request.after:
            self._daemon.dependencies.take_in(peer, request)
        else:
            self._take_in_jobs(peer, request, policy)

    def _apply(self, peer: bytes, request: Apply) -> None:
        hit("submit.received")
        _refuse_odd(request.uid)
        if not request.jobs:
            raise UsageError("a graph of no jobs", "give at least one")
        for call in request.jobs:
            call.uid, call.environment = request.uid, request.environment
            with self._about(call):
                self._refuse_wrong(call)
                if len(call.args) != 1:
                    raise UsageError("a job of a graph is one call", "map has many")
                self._daemon.keys.refuse_any(self.policy(call))
        if request.dry_run or self._is_new(peer, request):
            self._apply_checked(peer, request)

    def _apply_checked(self, peer: bytes, request: Apply) -> None:
        """Queue a graph, once each of its functions has been checked."""
        for call in request.jobs:
            with self._about(call):
                self.queues.refuse_unknown(self.policy(call))
        unchecked = [call for call in request.jobs if self._has_to_be_checked(call)]
        if unchecked:
            function = unchecked[0].function
            shapes = [shape for c in unchecked if c.function == function for shape in c.shapes]
            shapes = [*dict.fromkeys(shapes)]
            around = self._daemon.environments.around(self.policy(unchecked[0]))
            self._daemon.checks.ask(peer, request, Submit(0, b"", function, [], shapes), around)
        else:
            self._daemon.dependencies.take_in(peer, request)
            hit("submit.accepted")

    def take_in(self, peer: bytes, request: Submit | Apply, sources: Sources) -> None:
        """Have the scheduler take in jobs that come after ``sources``.

        Raises:
            JobdError: it refuses them.
        """
        if isinstance(request, Submit):
            self._take_in_jobs(peer, request, self.policy(request), sources)
        elif request.dry_run:
            self._daemon.clients.reply(peer, Accepted(request.rid))
        else:
            policies = [self.policy(call) for call in request.jobs]
            self._intake.apply(peer, request, policies, sources)
            self._daemon.environments.record(policies)

    def _take_in_jobs(
        self, peer: bytes, request: Submit, policy: Policy | None, sources: Sources | None = None
    ) -> None:
        """Have the scheduler take in jobs of one function, unless others have their key."""
        if policy is not None and policy.key:
            self._take_in_keyed(peer, request, policy, sources)
        else:
            self._intake.submit(peer, request, policy, sources)
            if policy is not None:
                self._daemon.environments.record([policy])

    def _take_in_keyed(
        self, peer: bytes, request: Submit, policy: Policy, sources: Sources | None
    ) -> None:
        replaced = self._daemon.keys.claim(peer, request, policy)
        if replaced is None:
            return
        self._intake.submit(peer, request, policy, sources)
        self._daemon.environments.record([policy])
        window = self._daemon.scheduler.window
        for job in replaced:
            self._intake.replace(window.load(job), request.uid)

    @contextmanager
    def _about(self, call: Submit) -> Iterator[None]:
        """Say of an error which job of a graph it is about."""
        try:
            yield
        except JobdError as error:
            raise type(error)(f"{_name_of(call)}: {error.message}", error.hint) from None

    def accept(self, peer: bytes, request: Submit | Apply) -> None:
        """Queue what has been checked, or have more of it checked."""
        try:
            if isinstance(request, Submit):
                policy = self.policy(request)
                self.queues.refuse_unknown(policy)
                self._queue(peer, request, policy)
                hit("submit.accepted")
            else:
                self._apply_checked(peer, request)
        except JobdError as error:
            self.refuse(peer, request, error)
        else:
            self._daemon.dependencies.checked(request.uid)

    def refuse(self, peer: bytes, request: Submit | Apply, error: JobdError) -> None:
        """Tell the client that its submit is refused."""
        self._daemon.clients.reply(peer, refusal(request.rid, error))
        self._daemon.dependencies.checked(request.uid)

    def _refuse_name(self, request: Submit) -> None:
        """Refuse a function by value whose name cannot be shown."""
        if not 0 < len(request.function) <= MAX_CHARACTERS or not request.function.isprintable():
            raise UsageError(
                f"the name of a function has 1 to {MAX_CHARACTERS} characters that can be shown",
                "is the client of another version?",
            )

    def policy(self, request: Submit) -> Policy | None:
        """Return what holds for the jobs of a submit; worked out once for the same words.

        Raises:
            UsageError: that is no name of a function; an option is unknown, or its value cannot be used.
        """
        key = (request.function, request.options, request.by_value, request.environment)
        try:
            return self._policies[key]
        except KeyError:
            pass  # nobody has used these words before
        if request.by_value:
            self._refuse_name(request)
        else:
            parse_reference(request.function)
        environments = self._daemon.environments
        if len(self._policies) >= MOST_POLICIES or environments.is_full:
            self._policies.clear()
            environments.forget()
        said = decode_options(request.options, request.environment)
        self._allowed.refuse_surroundings(request.function, said)
        policy = self._layers.policy(request.function, said, environments.keep)
        environments.count(len(request.options) + len(request.environment))
        self._policies[key] = policy
        return policy

    def _put(self, peer: bytes, request: Put) -> None:
        self._allowed.refuse_pickle(request)
        _refuse_odd(request.uid)
        self._refuse_size(len(request.value), "the value has")
        if not request.value:
            raise UsageError("a value that is none", "is the client of another version?")
        if self._is_new(peer, request):
            self._intake.put(peer, request)

    def _refuse_size(self, size: int, what: str) -> None:
        limit = self._max_payload_bytes
        if size > limit:
            raise UsageError(
                f"{what} {size} bytes, over the limit of {limit}",
                "pass a file name, or raise limits.max_payload_bytes",
            )

    def _refuse_large(self, request: Submit) -> None:
        _refuse_odd(request.uid)
        if not request.args:
            raise UsageError("a submit of no jobs", "give at least one")
        args = request.args
        size = len(args[0]) if len(args) == 1 else max(map(len, args))
        self._refuse_size(size, "the arguments have")

    def _is_new(self, peer: bytes, request: Submit | Put | Apply) -> bool:
        """Whether this key was never seen; if it was, answer with the same ids as before.

        The numbers of a client's session only rise, so one look at the highest
        tells a new key from one that must be looked up.
        """
        session, number = request.uid[:8], request.uid[8:]
        high = self._sessions.get(session)
        if high is None:
            high = self._daemon.store.session_high(session)
            if len(self._sessions) >= MOST_SESSIONS:
                self._sessions.clear()  # they are in the store
        if number > high:
            self._sessions[session] = number
            return True
        self._sessions[session] = high
        return not self._is_known(peer, request)

    def _is_known(self, peer: bytes, request: Submit | Put | Apply) -> bool:
        """Look up a key that may have come before; if it has, the sender is answered."""
        daemon, uid = self._daemon, request.uid
        submission = self._intake.submitting(uid)
        if submission is not None:
            submission.tell.append((peer, request.rid))
            first, count = submission.first, submission.count
        elif not isinstance(request, Put) and (
            daemon.checks.is_waiting(peer, request) or daemon.dependencies.is_waiting(peer, request)
        ):
            return True
        else:
            found = daemon.store.submit_of(uid)
            if found is None:
                return False
            first, count = found
            daemon.clients.reply(peer, Submitted(request.rid, first, count))
        if request.watch:
            self.watch_all(peer, first, count)
        return True

    def watch_all(self, peer: bytes, first: int, count: int) -> None:
        """Tell a client of the ends of these jobs."""
        steps = self._watch(peer, Watch(0, list(range(first, first + count))))
        self.turns.begin(peer, steps, is_question=True)

    # -- waiting and results --

    def _watch(self, peer: bytes, request: Watch) -> Steps:
        scheduler, clients = self._daemon.scheduler, self._daemon.clients
        unknown: list[int] = []
        if request.progress:
            self._look_on(peer, request.ids)
        for index, number in enumerate(request.ids):
            if index % SLICE == SLICE - 1:
                yield
            job = self._daemon.job(number)
            if job is None and scheduler.ledger.stored_high < number < scheduler.ledger.next_id:
                scheduler.window.watch(peer, number)
            elif job is None:
                unknown.append(number)
            elif job.state >= ENDED and number not in scheduler.window.jobs:
                clients.reply(peer, ended_message(job))
            else:
                self._watch_one(peer, number)
        if request.rid:
            clients.reply(peer, Watching(request.rid, unknown))

    def _watch_one(self, peer: bytes, number: int) -> None:
        """Tell a client of the end of a job that has not ended, and if it waits for a consumer."""
        scheduler = self._daemon.scheduler
        scheduler.window.watch(peer, number)
        at_bound = scheduler.at_bound(number)
        if at_bound is not None:
            self._daemon.clients.reply(peer, Stuck(number, at_bound))

    def _fetch(self, peer: bytes, request: Fetch) -> None:
        job = self._daemon.store.job(request.id)
        if job is None:
            raise no_such_job(request.id)
        state = job.state
        if state is State.QUEUED and request.id in self.running():
            state = State.RUNNING
        reply = Fetched(request.rid, job.id, state, job.value, job.error, job.cause, job.root)
        self._daemon.clients.reply(peer, reply, len(job.value or b""))

    # -- progress --

    def progressed(self, uid: str, report: Progressing) -> None:
        """A job says how far it is; lost with the daemon, and no longer shown once its attempt is over."""
        self._progress[uid] = report
        for peer, numbers in self._onlookers.items():
            if report.id in numbers:
                self._daemon.clients.reply(peer, Progressed(report.id, report.progress))

    def _look_on(self, peer: bytes, numbers: list[int]) -> None:
        """Tell a client of the progress of jobs from now on, and how far they are."""
        watched = self._onlookers.setdefault(peer, set())
        watched.update(numbers)
        for number, (uid, now) in self.running().items():
            progress = self._progress_of(uid, now) if number in watched else None
            if progress is not None:
                self._daemon.clients.reply(peer, Progressed(number, progress))

    def forget_worker(self, uid: str) -> None:
        """A worker is dead."""
        self._progress.pop(uid, None)

    def _progress_of(self, uid: str, now: Now) -> Progress | None:
        report = self._progress.get(uid)
        if report is None or (report.id, report.attempt) != (now.job, now.attempt):
            return None
        return report.progress

    # -- looking --

    def running(self) -> dict[int, tuple[str, Now]]:
        """Return the jobs that run at this moment, as (worker, what it is at)."""
        daemon, found = self._daemon, {}
        for worker in daemon.scheduler.workers.values():
            if worker.assigned:
                now = daemon.pool.now(worker.uid)
                job = worker.assigned.get(now.job)
                if job is not None and job.attempt == now.attempt:
                    found[now.job] = (worker.uid, now)
        return found

    def _info(self, job: Job, running: dict[int, tuple[str, Now]]) -> JobInfo:
        info = JobInfo(
            job.id,
            job.uid,
            job.state,
            job.function,
            job.created_at,
            job.started_at,
            job.ended_at,
            job.attempt,
            job.crashes,
            job.pid,
            job.cause,
            job.error,
            job.log.end - job.log.start if job.log else 0,
        )
        if job.policy is not None:
            info.queue, info.name = job.policy.queue, job.policy.name
        info.root, info.usage, info.due_at, info.notes = job.root, job.usage, job.due_at, job.notes
        info.at_bound = self._daemon.scheduler.at_bound(job.id)
        if job.state is State.HELD:
            info.due_at = expires_at(job)
        if job.id in running and job.state is State.QUEUED:
            uid, now = running[job.id]
            info.state, info.attempt, info.started_at = State.RUNNING, now.attempt, now.started_at
            info.pid = self._daemon.scheduler.workers[uid].pid
            info.progress = self._progress_of(uid, now)
        return info

    def _matching(self, selector: Selector, page: int) -> Iterator[list[JobInfo]]:
        """Yield the jobs that are selected, page by page; a page may be empty."""
        running = self.running()
        wanted = selector.states
        if selector.ranges:
            selector = self._settled(selector)
        if wanted == [State.RUNNING]:
            every = selector.all or selector.last
            ids = [n for n in running if every or any(a <= n <= b for a, b in selector.ranges)]
            selector = Selector([(n, n) for n in ids], 0, False, [State.QUEUED])
        elif State.RUNNING in wanted and State.QUEUED not in wanted:
            selector = msgspec.structs.replace(selector, states=[*wanted, State.QUEUED])
        for jobs in walk(self._daemon.store, selector, page):
            running = self.running()  # anew: turns of the loop lie between two pages
            infos = [self._info(job, running) for job in jobs]
            yield [info for info in infos if not wanted or info.state in wanted]

    def _settled(self, selector: Selector) -> Selector:
        """Turn ``last`` into the range of ids that it means now, beside the other ranges."""
        if not selector.last:
            return selector
        newest, _ = self._daemon.store.page(Selector([], 0, all=True), MAX_ID, 1)
        if not newest:
            return selector
        top = newest[0].id
        ranges = [*selector.ranges, (max(1, top - selector.last + 1), top)]
        return msgspec.structs.replace(selector, ranges=ranges, last=0)

    def _find(self, peer: bytes, request: Find) -> Steps:
        clients, store = self._daemon.clients, self._daemon.store
        seen: set[int] = set()
        for infos in self._matching(request.selector, FIND_SLICE):
            for info in infos:
                seen.add(info.id)
                info.earlier = self._attempts(info.id)
                job = store.job(info.id)
                if job is not None:
                    info.args, info.inputs = job.args, job.inputs or []
                    info.policy = self._daemon.environments.shown(job.policy)
                    info.after = job.after or []
                    info.enforced = self._means(job.policy)
                    info.tail = logs.last_lines(self._daemon.logs_dir, job.log)
                if job is not None and info.state is State.QUEUED:
                    info.waits_for = self._daemon.scheduler.waits_for(job)
            if infos:
                clients.reply(peer, Jobs(request.rid, infos, more=True), _size(infos))
            yield
        missing = _missing(request.selector, seen)
        if missing and not seen:
            raise no_such_job(missing[0])
        clients.reply(peer, Jobs(request.rid, [], more=False))

    def _means(self, policy: Policy | None) -> dict[str, str]:
        return means(policy, self._daemon.pool.settings.cgroup) if policy else {}

    def _attempts(self, number: int) -> list[Attempt]:
        """Return a job's earlier attempts, with the last lines of each."""
        directory = self._daemon.logs_dir
        return [
            msgspec.structs.replace(past, tail=logs.last_lines(directory, past.log))
            for past in self._daemon.store.attempts(number)
        ]

    def _list(self, peer: bytes, request: List) -> Steps:
        selector, limit = request.selector, max(1, min(request.limit, 10_000))
        if request.before:
            selector = _below(self._settled(selector), request.before)
        found: list[JobInfo] = []
        for infos in self._matching(selector, min(limit + 1, SLICE)):
            found += infos
            if len(found) > limit:
                break
            yield
        reply = Jobs(request.rid, found[:limit], more=len(found) > limit)
        self._daemon.clients.reply(peer, reply, _size(found))

    def _graph(self, peer: bytes, request: Graph) -> Steps:
        store = self._daemon.store
        if store.job(request.id) is None:
            raise no_such_job(request.id)
        walk = Neighbours(store, request.id)
        yield from walk.steps()
        limit = min(request.limit, MOST_NEIGHBOURS)
        numbers = [request.id, *walk.before[:limit], *walk.after[:limit]]
        infos: list[JobInfo] = []
        for start in range(0, len(numbers), SLICE):
            running = self.running()  # anew: turns of the loop lie between two slices
            for job in filter(None, map(store.job, numbers[start : start + SLICE])):
                info = self._info(job, running)
                info.inputs, info.after = job.inputs or [], job.after or []
                infos.append(info)
            yield
        left = [max(0, len(found) - limit) for found in (walk.before, walk.after)]
        reply = GraphInfo(request.rid, infos, left[0], left[1], walk.is_whole)
        self._daemon.clients.reply(peer, reply, _size(infos))

    def _status(self, peer: bytes, request: Status) -> None:
        daemon = self._daemon
        running = self.running()
        jobs = {NAMES[state]: daemon.scheduler.ledger.counts[state] for state in State}
        jobs["running"] = len(running)
        jobs["queued"] = max(0, jobs["queued"] - len(running))
        workers = []
        for worker in daemon.scheduler.workers.values():
            now = daemon.pool.now(worker.uid)
            state = (
                "waiting"
                if worker.waiting is not None
                else "busy"
                if now.job
                else "idle"
                if worker.phase is Phase.READY
                else worker.phase.name.lower()
            )
            process = daemon.pool.processes.get(worker.uid)
            pid = worker.pid or (process.pid if process else 0)  # it has not said so yet
            workers.append(WorkerInfo(pid, state, now.job, linux.rss_bytes(pid) if pid else 0))
        reply = StatusInfo(
            request.rid,
            __version__,
            os.getpid(),
            daemon.settings.state_dir,
            daemon.settings.socket,
            daemon.settings.store.durability,
            daemon.started_at_us,
            workers,
            jobs,
            linux.rss_bytes(os.getpid()),
            daemon.trouble() + self.queues.trouble(),
        )
        daemon.clients.reply(peer, reply)

    # -- changing --

    def _cancel(self, peer: bytes, request: Cancel) -> Steps:
        scheduler = self._daemon.scheduler
        grace_us = None if request.grace_s is None else round(request.grace_s * 1e6)

        def change(job: Job) -> str:
            if job.state >= ENDED and job.id not in scheduler.window.jobs:
                return "already finished"
            return scheduler.control.cancel(
                scheduler.window.load(job),
                request.reason,
                only_waiting=request.only_waiting,
                grace_us=grace_us,
            )

        yield from self._change(peer, request.rid, request.selector, change)

    def _hold(self, peer: bytes, request: Hold) -> Steps:
        scheduler = self._daemon.scheduler

        def change(job: Job) -> str:
            if job.id not in scheduler.window.jobs:
                if job.state >= ENDED:
                    return "already finished"
                if job.state is State.HELD:
                    return "held"
            return scheduler.control.hold(scheduler.window.load(job))

        yield from self._change(peer, request.rid, request.selector, change)

    def _release(self, peer: bytes, request: Release) -> Steps:
        scheduler = self._daemon.scheduler

        def change(job: Job) -> str:
            if job.id not in scheduler.window.jobs and job.state is not State.HELD:
                return "already finished" if job.state >= ENDED else "is not held"
            return scheduler.control.release(scheduler.window.load(job))

        yield from self._change(peer, request.rid, request.selector, change)

    def _retry(self, peer: bytes, request: Retry) -> Steps:
        scheduler = self._daemon.scheduler

        def change(job: Job) -> str:
            if job.id in scheduler.window.jobs or job.state < ENDED:
                return "has not ended"
            if job.state is State.SUCCEEDED:
                return "already succeeded"
            if request.args:
                return self._retry_edited(job, request.args)
            return self._daemon.dependencies.retry(job)

        if request.args:
            self._refuse_size(len(request.args), "the arguments have")
            chosen = request.selector
            if chosen.all or chosen.last or len(_missing(chosen, set())) != 1:
                raise UsageError("another call is for one job", "name it by its id")
        yield from self._change(peer, request.rid, request.selector, change)

    def _retry_edited(self, job: Job, args: bytes) -> str:
        """Open another round of a job with another call, in JSON as the one before."""
        if job.inputs or job.args[:1] not in JSON or args[:1] not in JSON:
            raise UsageError(
                f"the arguments of job {job.id} are not plain JSON, and cannot be edited",
                "submit it again with others",
            )
        job.args = args  # it comes from the store: should it not be loaded now, nobody sees this
        answer = self._daemon.dependencies.retry(job)
        if answer == "queued again":
            self._daemon.scheduler.ledger.batch.edited[job.id] = args
        return answer

    def _change(
        self, peer: bytes, rid: int, selector: Selector, change: Callable[[Job], str]
    ) -> Steps:
        """Apply a change to every selected job; each page is answered once it is durable."""
        scheduler = self._daemon.scheduler
        seen: set[int] = set()
        for infos in self._matching(selector, SLICE):
            answers: list[tuple[int, str]] = []
            for info in infos:
                seen.add(info.id)
                job = self._daemon.job(info.id)
                if job is not None:
                    answers.append((job.id, change(job)))
            hit("cancel.decided")
            if answers:
                scheduler.answer(peer, Answers(rid, answers, more=True))
            yield
        missing = _missing(selector, seen)
        if missing and not seen:
            raise no_such_job(missing[0])
        scheduler.answer(peer, Answers(rid, [(n, "not found") for n in missing], more=False))

    # -- output --

    def _logs(self, peer: bytes, request: Logs) -> None:
        if self._try_logs(peer, request):
            return
        if sum(follower.peer == peer for follower in self.followers) >= MOST_FOLLOWED:
            raise UsageError(
                f"{MOST_FOLLOWED} requests of this client wait for output already",
                "wait for one of them to be answered",
            )
        self.followers.append(Follower(peer, request))

    def forget(self, peer: bytes) -> None:
        """The client is gone: nobody waits for answers any more."""
        self._daemon.takes.forget(peer)
        self._onlookers.pop(peer, None)
        self.followers = [f for f in self.followers if f.peer != peer]

    def follow(self) -> None:
        """Answer the followers for whom there is something new."""
        self.followers = [f for f in self.followers if not self._try_logs_quietly(f)]

    def _try_logs_quietly(self, follower: Follower) -> bool:
        try:
            return self._try_logs(follower.peer, follower.request)
        except StoreFailed:
            raise
        except JobdError as error:
            self._daemon.clients.reply(follower.peer, refusal(follower.request.rid, error))
            return True

    def _try_logs(self, peer: bytes, request: Logs) -> bool:
        """Answer if there is output, or will be no more; else return False."""
        daemon, number = self._daemon, request.id
        job = daemon.store.job(number)
        if job is None:
            raise no_such_job(number)
        limit = max(1, min(request.limit, LOG_CHUNK))
        live = daemon.scheduler.window.jobs.get(number)
        running = self.running().get(number)
        attempt = request.attempt or (live or job).attempt
        if running and running[1].attempt == attempt:
            piece = self._read_running(*running, request.offset, limit)
        elif live is not None and _is_open(live, attempt):
            piece = logs.Piece(b"", end=False)
        else:
            attempts = {a.number: a.log for a in daemon.store.attempts(number)}
            piece = logs.read(
                daemon.logs_dir, logs.span_of(job, attempts, attempt), request.offset, limit
            )
        if request.follow and not piece.data and not piece.end:
            return False
        over = job.state >= ENDED and attempt >= job.attempt
        reply = LogData(
            request.rid, attempt, piece.data, request.offset, piece.end, over, piece.dropped
        )
        daemon.clients.reply(peer, reply, len(piece.data))
        return True

    def _read_running(self, uid: str, now: Now, offset: int, limit: int) -> logs.Piece:
        """Return what a running attempt has written so far, of the part that will be kept."""
        daemon = self._daemon
        most = daemon.settings.limits.max_output_bytes - offset
        piece = logs.read_running(daemon.logs_dir, uid, now, offset, max(0, min(limit, most)))
        if daemon.pool.now(uid) != now:
            return logs.Piece(b"", end=False)  # it has just ended: this may be the next job's
        return piece

    # -- the daemon itself --

    def _hello(self, peer: bytes, request: Hello) -> None:
        daemon = self._daemon
        if not request.low <= PROTOCOL <= request.high:
            raise ProtocolMismatch(
                f"the client ({request.version}) speaks protocol {request.low} to {request.high}, "
                f"the daemon ({__version__}) speaks {PROTOCOL}",
                "install the same version of jobd for both",
            )
        limits = daemon.settings.limits
        by_wire = request.by_wire or (daemon.remote is not None and daemon.remote.is_peer(peer))
        if by_wire:
            daemon.clients.by_wire.add(peer)
        reply = Welcome(
            request.rid,
            PROTOCOL,
            __version__,
            os.getpid(),
            daemon.boot,
            daemon.settings.state_dir,
            daemon.scheduler.options.workers,
            limits.max_payload_bytes,
            limits.max_message_bytes,
            None if by_wire else daemon.payloads.place,
            "{}.{}".format(*sys.version_info),
        )
        daemon.clients.reply(peer, reply)

    def _stop(self, peer: bytes, request: Stop) -> None:
        self._daemon.clients.reply(peer, Accepted(request.rid))
        self._daemon.stop(request.drain_s)

    def _reload(self, peer: bytes, request: Reload) -> None:
        self._daemon.clients.reply(peer, Accepted(request.rid))
        self._daemon.reload()

    def _ping(self, peer: bytes, request: Ping) -> None:
        clients = self._daemon.clients
        clients.reply(peer, Pong(request.rid, clients.sent(peer)))


def _has_few(frame: bytes) -> bool:
    """Whether a frame is a list of no more than may be in it, whatever they are."""
    try:
        _decode_few(frame)
    except (*FrameError, RecursionError):
        return False
    return True


def _is_open(job: Job, attempt: int) -> bool:
    """Whether an attempt is yet to come, or it runs, or its end is not durable."""
    if any(past.number == attempt for past in job.earlier or ()):
        return True
    if attempt == job.attempt > 0:
        return job.state not in (State.HELD, State.SCHEDULED, State.QUEUED)
    return attempt >= job.attempt


def _size(infos: list[JobInfo]) -> int:
    """Return about how many bytes these jobs take in an answer."""
    texts = sum(len(info.error.traceback) for info in infos if info.error)
    texts += sum(len(info.tail) + sum(len(a.tail) for a in info.earlier) for info in infos)
    texts += sum(len(info.policy.env) for info in infos if info.policy)
    return texts + sum(200 + len(info.args or b"") for info in infos)


def _name_of(call: Submit) -> str:
    """Return what a person calls a job of a graph."""
    try:
        said = decode_options(call.options)
    except UsageError:
        said = {}
    return f"job {said.get('name') or call.function}"


def _refuse_odd(uid: bytes) -> None:
    """Refuse a key that has not the protocol's length."""
    if len(uid) != 16:
        raise UsageError("the key of a submit has 16 bytes", "is the client of another version?")


def _missing(selector: Selector, seen: set[int]) -> list[int]:
    """Return the ids that were named one by one and do not exist (or are not in the wanted state)."""
    return [low for low, high in selector.ranges if low == high and low not in seen]


def _below(selector: Selector, before: int) -> Selector:
    ranges = [(1, MAX_ID)] if selector.all else selector.ranges
    cut = [(low, min(high, before - 1)) for low, high in ranges if low < before]
    return Selector(cut or [(0, 0)], 0, False, selector.states)
