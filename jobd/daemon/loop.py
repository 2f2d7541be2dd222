"""The loop: drain everything that has arrived, decide once, act once.

One thread owns all state, so there is no lock.  It waits in one poll and nowhere
else.  In each turn: the commit that is over, requests, reports; then the scheduler's
effects go out, and if the disk is free, what has been gathered is written and handed
to the committer.  Deaths, signals, one step of each long request and whatever else is
to be looked after come behind that, so that no job waits for it; what follows from
them goes out in the same way.  Load makes batches larger by itself; no timer gathers
anything.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections import deque

from jobd.config.settings import Settings
from jobd.daemon import logs
from jobd.daemon.checks import Checks
from jobd.daemon.committer import Committer
from jobd.daemon.dependencies import Dependencies
from jobd.daemon.door import MORE_FILES, Door
from jobd.daemon.environments import Environments
from jobd.daemon.heap import Heap
from jobd.daemon.keys import Keys
from jobd.daemon.notify import Notify
from jobd.daemon.outbox import Clients, Outbox
from jobd.daemon.owner import Owner
from jobd.daemon.payloads import Payloads
from jobd.daemon.readers import Readers
from jobd.daemon.remote import BothRouters, ByWire, Remote
from jobd.daemon.requests import Requests
from jobd.daemon.retention import Retention
from jobd.daemon.streams import StreamService
from jobd.daemon.takes import Takes
from jobd.daemon.turns import Steps
from jobd.failpoints import hit
from jobd.model.errors import (
    ConfigError,
    DiskFull,
    InitializerFailed,
    JobdError,
    StoreBusy,
    StoreFailed,
)
from jobd.model.job import Job
from jobd.model.messages import FrameError
from jobd.model.orders import (
    Adopt,
    Alive,
    Checked,
    CloseStream,
    GiveBack,
    GivenBack,
    Grant,
    Handover,
    Leaving,
    Lent,
    Order,
    Outcomes,
    Produced,
    Progressing,
    Ready,
    Recorded,
    Report,
    Retire,
    Run,
    StopJob,
    Waiting,
    decode_reports,
)
from jobd.model.states import ENDED, State
from jobd.pool import linux
from jobd.pool.scoreboard import Now, log_name
from jobd.pool.supervisor import Dead, Pool, tail_of
from jobd.scheduler import Death, Phase, Scheduler, lanes, timers
from jobd.store import Store
from jobd.wire.router import Router
from jobd.wire.zmq_router import PoolRouter

log = logging.getLogger("jobd")

DRAIN_CLIENTS = 100
"""Frames taken from clients in one turn, about a millisecond's worth: workers must not wait for more."""

DRAIN_WORKERS = 1_000

REFILL = 4_000
HOUSEKEEPING_S = 1.0
MAY_STAND_STILL = 3
"""Times that a worker may be found with jobs in hand and at none of them, without any progress."""

LONE_JOBS = 4
QUICK_S = 0.0005
"""So few jobs are committed by the loop itself, while nothing else waits and the last commit was quick.

A disk that stalls makes the loop wait once: from then on the thread does it, until it is quick again.
"""

SPINS = 100 if len(os.sched_getaffinity(0)) > 1 else 0
"""How often to look, without sleep, for what is most likely about to come.

A processor that sleeps wakes up late: 30 to 60 µs.  A look takes 2 µs or so; no more is
spent for a lone job, and nothing while there is more to do.  With one processor, what is
waited for could not run meanwhile.
"""

COMES_BACK_S = 0.0002
"""A client that asks again so soon is expected to do so the next time too."""

FOLLOW_S = 0.05
SAVE_WAITS_S = 30.0
"""How long a commit may still take when the store's files were deleted."""

COMMIT_HANGS_S = 60.0
"""A commit that takes longer than this stops the watchdog's ping."""

LONGEST_DRAIN_S = 30 * 86_400.0

CLOSE_S = 15.0
"""What the end may take when no job runs any more: the last commit, the zygote, the checkpoint."""

AT_ONCE = (GiveBack, StopJob, Adopt, Grant, CloseStream, Lent)
"""Orders that go to a worker's control thread; the others wait for their turn in its main thread."""


class Daemon:
    """Everything that one daemon has; made by jobd.daemon.service."""

    def __init__(  # noqa: PLR0913, PLR0915  # what it joins; service.py hands each part in, ready for use
        self,
        settings: Settings,
        *,
        scheduler: Scheduler,
        store: Store,
        pool: Pool,
        payloads: Payloads,
        client_router: Router,
        worker_router: PoolRouter,
        notify: Notify,
        owner: Owner | None = None,
        remote: Remote | None = None,
    ) -> None:
        self.settings = settings
        self.remote = remote
        self.boot = boot = scheduler.boot
        self.scheduler = scheduler
        self.store = store
        self.pool = pool
        self.logs_dir = pool.settings.logs_dir
        self.started_at_us = wall_us()
        self.now_s = time.monotonic()
        self.tasks: deque[Steps] = deque()
        both = BothRouters(client_router, remote.router) if remote else client_router
        self.clients = Clients(both, ByWire(payloads.place))
        self._door = Door(
            client_router,
            settings.limits.max_clients,
            scheduler.options.workers,
            scheduler.options.max_lent,
        )
        self.streams = StreamService(self)
        self.payloads = payloads
        self.keys = Keys(self)
        self.environments = Environments(self.scheduler.ledger, self.store)
        self.dependencies = Dependencies(self)
        self.takes = Takes(self)
        self.retention = Retention(self)
        self.requests = Requests(self)
        self.committer = Committer(store.commit)
        self._readers = Readers(store.ahead, lambda: not self.committer.busy)
        self.checks = Checks(
            boot,
            settings.jobs.check_timeout_s,
            spawn=lambda uid: pool.spawn(uid, checker=True),
            send=self._order,
            kill=lambda uid: pool.kill(uid, 0, 0),
            accept=self.requests.accept,
            refuse=self.requests.refuse,
        )
        self._client_router, self._worker_router = client_router, worker_router
        self._of_libzmq = [worker_router, *([remote.router] if remote else ())]
        # A worker of a dead daemon connects its two sockets one after the other: its orders wait for that.
        self._workers = Outbox(
            worker_router, lambda peer: peer[:-2].decode("ascii", "replace") in pool.processes
        )
        self._notify, self._owner = notify, owner
        self._received: dict[str, int] = {}
        self._still: dict[str, tuple[int, Now]] = {}
        """Workers that were found to stand still: how often in a row, and what they had run last."""
        self._disk_trouble = ""
        self.buried: list[str] = []
        """Dead workers whose scoreboards are kept, because what they had in hand is not stored yet."""
        self._burying: list[str] = []
        """Those for whom the commit in flight does it."""
        self._stop_at = 0.0
        self._stopping = 0
        self._write_began_s = 0.0
        self._housekeeping_at = 0.0
        self._ping_at = 0.0
        self._heap = Heap()
        self._told_at = 0.0
        """When somebody was told that something is durable."""
        self._comes_back = False
        """Whether the last client that was told so had its next request at once."""
        self._signals: deque[int] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pool_fds: set[int] = set()
        self._poller = select.poll()
        fds = [router.fd for router in (client_router, *self._of_libzmq)]
        fds += [self.committer.fd, self._wake_read, *([owner.fd] if owner else ())]
        for fd in fds:
            self._poller.register(fd, select.POLLIN)

    def job(self, number: int) -> Job | None:
        """Return a job as it is in memory, or else as it is stored."""
        return self.scheduler.window.jobs.get(number) or self.store.job(number)

    # -- running --

    def run(self) -> None:
        """Run until stopped.

        Raises:
            StoreFailed: the store cannot be trusted any more; nothing was answered since.
        """
        for sentence in self.requests.queues.trouble():
            log.warning("%s", sentence)
        self._notify.send(READY=1, STATUS="running")
        while not self._turn():
            pass

    def save_store(self) -> str:
        """Save what the store's files hold that were deleted under us; nothing else may follow.

        Raises:
            StoreFailed: it cannot be done.
        """
        if not self.committer.is_over(SAVE_WAITS_S):
            raise StoreFailed("a commit hangs, so nothing could be saved", "is the disk in order?")
        return self.store.save()

    def close(self) -> None:
        """Let go of everything; workers that still live are killed."""
        self.committer.close()
        self.pool.close()
        self.payloads.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def stop(self, drain_s: float | None = None) -> None:
        """End: first request drains (running jobs get ``drain_s``), the second stops at once."""
        self._stopping += 1
        if self._stopping > 1 or drain_s == 0:
            log.info("stopping at once; what runs will run again at the next start")
            self.scheduler.kill_all()
        if self._stopping > 1:
            return
        hit("stop.draining")
        asked = self.settings.daemon.drain_s if drain_s is None else drain_s
        limit = min(LONGEST_DRAIN_S, max(0.0, asked))  # in this order: then NaN is 0
        log.info("draining: running jobs get %g s, then they are put back", limit)
        # The jobs' time, then what the processes and the disk may take: no less than that.
        needs_s = limit + self.settings.pool.kill_grace_s + CLOSE_S
        usec = int(needs_s * 1e6)
        self._notify.send(STOPPING=1, STATUS="draining", EXTEND_TIMEOUT_USEC=usec)
        self._stop_at = self.now_s + limit
        self.scheduler.drain()

    def reload(self) -> None:
        """Replace the workers by new ones, each when its job is done."""
        if self._stopping:
            return  # there will be no new ones, and READY must not follow STOPPING
        log.info("reloading: every worker is replaced when its job is done")
        self._notify.reloading()
        if self.pool.start():  # else there would be no better ones
            self.scheduler.retire_all()
            self.checks.reload()
        self._notify.send(READY=1, STATUS="running")

    def trouble(self) -> list[str]:
        """Return sentences about what does not work at the moment."""
        places = self.payloads.trouble, self._readers.trouble
        found = [self._disk_trouble, self.pool.trouble, *self.pool.warnings, *places]
        found.append(self._door.trouble(self.now_s))
        if self._worker_router.is_short:
            found.append(f"no file descriptors are left to connect workers with: {MORE_FILES}")
        if self.scheduler.failed_starts > 1 and not self.pool.trouble:
            found.append(
                f"{self.scheduler.failed_starts} workers in a row have died without having worked"
            )
        return [text for text in found if text]

    # -- one turn --

    def _turn(self) -> bool:
        """Do one turn of the loop; return whether all is over."""
        ready = self._poll()
        self.now_s = time.monotonic()
        scheduler = self.scheduler
        scheduler.begin(round(self.now_s * 1e6), wall_us())
        self.requests.turns.go_on()
        if self.committer.busy and self.committer.fd in ready:
            self._committed(self.committer.finish())
        if self._client_router.fd in ready:
            self._comes_back = self.now_s - self._told_at < COMES_BACK_S
            frames = self._client_router.drain(DRAIN_CLIENTS)
            if self._client_router.has_strangers:
                frames = self._door.let_in(frames, self.now_s)
            self._hear(frames)
            self._forget_gone(self._client_router.take_gone())
        if self.remote is not None and self.remote.router.fd in ready:
            self._hear(self.remote.router.drain(DRAIN_CLIENTS))
            suspects = self.remote.router.take_suspects()
            self._forget_gone([peer for peer in suspects if not self.clients.reaches(peer)])
        if self._worker_router.fd in ready:
            self._take_reports()
        self._go_on()
        self._see_deaths(ready)
        if self._wake_read in ready:
            self._obey_signals()
        self._step_tasks()
        self._keep_house()
        self._load_backlog()
        if self.dependencies.has_more:
            self.dependencies.step()
        self._look_at_the_clock()
        self._go_on()
        return self._is_over()

    def _go_on(self) -> None:
        """Do what follows from what has come in by now."""
        self._act()
        while self.scheduler.dispatch.has_more:
            self._act()
        self._write()
        self._flush()

    def _load_backlog(self) -> None:
        """Load what waits in the store of the plain jobs and of lanes, and look for lanes; a slice of each."""
        scheduler, store = self.scheduler, self.store
        known, high = scheduler.lanes, scheduler.ledger.stored_high
        if scheduler.wants_refill():
            scheduler.refill(store.backlog(scheduler.window.cursor, high, REFILL))
        if not known.is_used:
            return
        between = known.next_scan()
        if between is not None:
            found = store.lanes(*between, lanes.SCAN)
            known.scanned(found, is_all=len(found) < lanes.SCAN)
        for line, wanted in scheduler.thirsty_lanes():
            backlog = store.backlog(line.cursor, high, wanted, line.text)
            scheduler.refill_lane(line, wanted, backlog)

    def _look_at_the_clock(self) -> None:
        """Load timers from the store, and do what is due."""
        scheduler, store = self.scheduler, self.store
        soonest = scheduler.timers
        if soonest.wants_refill():
            entries = store.due(soonest.horizon, timers.REFILL)
            soonest.refill(entries, scheduler.ledger.unsettled())
        due, jobs = scheduler.due(), scheduler.window.jobs
        stored = store.own_rows([number for number in due if number not in jobs]) if due else {}
        for number in due:
            job = jobs.get(number) or stored.get(number)
            if job is not None:
                scheduler.control.fire(job)

    def _flush(self) -> None:
        """Send what was gathered for clients and workers."""
        self.streams.serve()
        self._flush_clients()
        self._workers.flush()

    def _flush_clients(self) -> None:
        for peer in self.clients.flush():
            self._forget(peer)

    def _hear(self, frames: list[tuple[bytes, bytes]]) -> None:
        for peer, frame in frames:
            self.clients.heard(peer, self.now_s)
            self.requests.take(peer, frame)

    def _forget_gone(self, gone: list[bytes]) -> None:
        """Clients have hung up: nothing is kept for them any longer."""
        for peer in gone:
            self._heap.has_ended()
            self.requests.turns.gone(peer)
            self._forget(peer)

    def _forget(self, peer: bytes) -> None:
        self.clients.by_wire.discard(peer)
        self.scheduler.window.forget_peer(peer)
        self.requests.forget(peer)
        self.streams.check(peer)

    def _poll(self) -> dict[int, int]:
        wanted = set(self.pool.fds())
        if wanted != self._pool_fds:
            for fd in self._pool_fds - wanted:
                self._poller.unregister(fd)
            for fd in wanted - self._pool_fds:
                self._poller.register(fd, select.POLLIN)
            self._pool_fds = wanted
        # Last of all: whatever is done with a socket of libzmq may take its edge away.
        waiting = [router.fd for router in self._of_libzmq if router.is_ready]
        if waiting:
            return dict(self._poller.poll(0)) | dict.fromkeys(waiting, select.POLLIN)
        ready = self._spin() if self._is_short_wait() else None
        return dict(ready or self._poller.poll(self._timeout_ms()))

    def _is_short_wait(self) -> bool:
        """Whether something is about to come in: what a lone job has come to, or the next question."""
        if self.committer.busy:
            return False
        return self._comes_back or self.scheduler.commits.is_awaited()

    def _spin(self) -> list[tuple[int, int]]:
        """Look for a moment without sleeping."""
        poll = self._poller.poll
        for _ in range(SPINS):
            if ready := poll(0):
                return ready
        self._comes_back = False
        return []

    def _timeout_ms(self) -> int:
        scheduler = self.scheduler
        has_more = self.tasks or self.streams.has_more or self.dependencies.has_more
        if has_more or self.requests.turns.has_more or scheduler.has_due():
            return 0
        times = [self._housekeeping_at]
        wake_us = scheduler.wake_at()
        if wake_us is not None and not (self.committer.busy and wake_us / 1e6 <= self.now_s):
            times.append(wake_us / 1e6)
        others = (
            self.pool.wake_at_s(),
            self.checks.deadline_s(),
            self._door.wake_at_s(self.now_s),
        )
        times += [at for at in others if at is not None]
        if self.requests.followers:
            times.append(self.now_s + FOLLOW_S)
        if self._stop_at:
            times.append(self._stop_at)
        if self._ping_at:
            times.append(self._ping_at)
        if scheduler.wants_refill() and not self.committer.busy:
            return 0
        if scheduler.timers.wants_refill() or scheduler.lanes.wants_more:
            return 0
        wait_s = min(times) - time.monotonic()
        return max(0, -int(-wait_s * 1000 // 1))

    # -- workers --

    def _take_reports(self) -> None:
        for peer, frame in self._worker_router.drain(DRAIN_WORKERS):
            uid = peer[:-2].decode("ascii", "replace")
            try:
                reports = decode_reports(frame)
            except FrameError as error:
                log.warning("worker %s sent what is no report (%s); it is replaced", uid, error)
                self.pool.kill(uid, 0, 0)
                continue
            for report in reports:
                if type(report) is Produced:
                    self._take_items(uid, report)
                else:
                    self._take_report(uid, report)

    def _take_items(self, uid: str, report: Produced) -> None:
        hit("produced.received")
        self._received[uid] = max(report.number, self._received.get(uid, 0))
        self.scheduler.produced(uid, report)

    def _take_report(self, uid: str, report: Report) -> None:
        scheduler = self.scheduler
        match report:
            case Outcomes(seq, outcomes):
                hit("outcomes.received")
                self._received[uid] = max(seq, self._received.get(uid, 0))
                scheduler.outcomes(uid, seq, outcomes)
            case Alive():
                self._greet(uid)
            case GivenBack() | Leaving():
                self._take_back(uid, report)
            case Waiting() | Progressing():
                self._hear_job(uid, report)
            case Ready(pid):
                self._take_on(uid, pid)
            case Handover():
                self._take_over(uid, report)
            case Checked():
                self.checks.checked(uid, report)

    def _take_on(self, uid: str, pid: int) -> None:
        """A worker, or the checker, is ready; one that we cannot look at gets no job."""
        self.checks.ready(uid)
        if uid not in self.scheduler.workers or self.pool.takes_on(uid):
            self.scheduler.worker_ready(uid, pid)

    def _take_back(self, uid: str, report: GivenBack | Leaving) -> None:
        if isinstance(report, GivenBack):
            self.scheduler.given_back(uid, report.attempts, report.read, report.upto)
        else:
            self.scheduler.leaves(uid, report.attempts)

    def _load(self, numbers: list[int]) -> None:
        """Bring queued jobs into memory that are in the store only: they are wanted first."""
        window = self.scheduler.window
        if not (window.spilled or self.scheduler.lanes.is_used):
            return
        for number in numbers:
            job = None if number in window.jobs else self.store.job(number)
            if job is not None and job.state is State.QUEUED:
                window.load(job)

    def _take_over(self, uid: str, report: Handover) -> None:
        """A worker of a dead daemon has handed over what it had."""
        log.info("took over worker %d, which is at job %d", report.pid, report.running[0])
        self.scheduler.handed_over(uid, report.pid, report.running, report.for_us)
        if uid not in self.scheduler.workers:
            self._order(uid, Retire())

    def _hear_job(self, uid: str, report: Waiting | Progressing) -> None:
        """A job has something to say while it runs."""
        match report:
            case Waiting(number, attempt, True, awaited):
                self._load(awaited)
                self.scheduler.waits(uid, number, attempt, awaited)
            case Waiting(number, attempt):
                self.scheduler.goes_on(uid, number, attempt)
            case Progressing():
                self.requests.progressed(uid, report)

    def _greet(self, uid: str) -> None:
        """A worker has connected; one that we did not start has to hand over what it has."""
        worker = self.scheduler.workers.get(uid)
        if worker is None or worker.phase is Phase.ORPHAN:
            if (
                uid not in self.pool.processes
            ):  # it had no scoreboard yet when we looked, at the start
                try:
                    self.pool.adopt(uid)
                except ConfigError as error:
                    log.warning("%s", error)
                    return
            self._order(uid, Adopt(self.boot))

    def _order(self, uid: str, order: Order) -> None:
        suffix = b"/c" if isinstance(order, AT_ONCE) else b"/j"
        self._workers.put(uid.encode() + suffix, order)

    def _see_deaths(self, ready: dict[int, int]) -> None:
        if self._owner is not None and self._owner.fd in ready:
            log.info("the owner of this daemon has ended")
            self._poller.unregister(self._owner.fd)  # it stays readable
            self.stop(0.0)  # nobody is left who would want what runs
        if not self._pool_fds.isdisjoint(ready):
            self.pool.look()
        self.pool.insist()
        for dead in self.pool.judge(self._received):
            hit("worker.dead")
            self._bury(dead)
        for uid, how in self.pool.take_lost_checkers():
            self.checks.died(uid, how)
        self.checks.expire(self.now_s)

    def _bury(self, dead: Dead) -> None:
        worker = self.scheduler.workers.get(dead.uid)
        initializing = worker is not None and worker.phase is Phase.STARTING
        if initializing and self._owner is not None and self._owner.initializer:
            raise self._initializer_failed(dead)
        if worker is not None:
            level = logging.WARNING if worker.assigned else logging.INFO
            log.log(
                level,
                "worker %s ended: %s, with %d jobs",
                dead.uid,
                dead.cause,
                len(worker.assigned),
            )
        self.scheduler.worker_died(dead.uid, as_death(dead))
        self._received.pop(dead.uid, None)
        self.requests.forget_worker(dead.uid)
        ledger = self.scheduler.ledger
        if ledger.batch or ledger.in_flight:  # should we die before, the next daemon has to look
            self.buried.append(dead.uid)
        else:
            self.pool.forget_board(dead.uid)

    def _initializer_failed(self, dead: Dead) -> InitializerFailed:
        """Say why a worker died before it was ready; the traceback is the last that it wrote."""
        tail, _ = tail_of(os.path.join(self.logs_dir, log_name(dead.uid, 1)), 0)
        said = tail.rpartition("\n")[2] or f"its worker ended: {dead.cause}"
        return InitializerFailed(f"the initializer failed: {said}")

    # -- effects and the store --

    def _act(self) -> None:
        effects = self.scheduler.take_effects()
        for uid, order in effects.orders:
            if type(order) is Run:
                self.dependencies.feed(order)
                self.environments.feed(order)
            elif type(order) is Recorded and self._can_do_without(uid):
                self._workers.put_off(uid.encode() + b"/j", order)
                continue
            elif type(order) is StopJob:
                self.pool.unheard.ordered(uid, order.id, order.attempt)
            self._order(uid, order)
            if type(order) is Run:
                self._workers.flush()  # the job starts while we write
                hit("dispatch.sent")
        self.clients.outbox.put_all(effects.replies)
        for uid in effects.spawn:
            self.pool.spawn(uid)
            hit("worker.spawned")
        for key in effects.kill:
            self.pool.kill(*key)

    def _can_do_without(self, uid: str) -> bool:
        """Whether a worker need not hear at once what is recorded: it does not wait for that to leave."""
        worker = self.scheduler.workers.get(uid)
        return worker is not None and worker.phase is Phase.READY

    def _write(self) -> None:
        """Store what has been gathered, if the disk is free and there is reason to."""
        if self.committer.busy:
            return
        if self.scheduler.commits.is_due():
            self._write_batch()
        elif self.scheduler.commits.is_awaited():
            self._begin()  # while the job runs: then there is less to do when it has ended

    def _write_batch(self) -> None:
        scheduler = self.scheduler
        self._write_began_s = time.monotonic()
        error = self._begin()
        if isinstance(error, StoreBusy) and scheduler.commits.puts_off():
            return
        batch = scheduler.take_batch()
        self._burying += self.buried
        self.buried.clear()
        for reference in batch.released:
            self.payloads.release(reference)
        self.payloads.writing(batch.changes)
        hit("batch.taken")
        if error is None:
            try:
                self.store.write(batch)
            except DiskFull as full:
                error = full
        if error is not None:
            self._not_committed(error)
            return
        hit("batch.written")
        few = max(len(batch.changes), batch.submitted) <= LONE_JOBS
        lone = few and not len(scheduler.window)
        if lone and self.committer.took_s < QUICK_S:
            hit("batch.committing")
            self._committed(self.committer.commit_here())
            self._act()
            return
        self.committer.start()
        hit("batch.committing")

    def _begin(self) -> JobdError | None:
        try:
            self.store.begin()
        except (DiskFull, StoreBusy) as error:
            return error
        return None

    def _committed(self, error: JobdError | None) -> None:
        if error is None:
            hit("batch.committed")
            self._disk_trouble = ""
            for uid in self._burying:
                self.pool.forget_board(uid)
            self._burying.clear()
            self.payloads.written()
            self.scheduler.committed((time.monotonic() - self._write_began_s) * 1e6)
            self.clients.outbox.put_all(self.scheduler.take_replies())
            self._flush_clients()  # before anything else is done
            self._told_at = time.monotonic()
            hit("batch.told")
        elif isinstance(error, DiskFull):
            self.store.rollback()
            self._not_committed(error)
        else:
            raise error

    def _not_committed(self, error: JobdError) -> None:
        if not self._disk_trouble:
            log.error("%s; submits are refused until it heals", error.message)
        self._disk_trouble = error.message
        self.payloads.not_written()
        self.scheduler.not_committed(error)
        self._act()

    # -- the rest --

    def _step_tasks(self) -> None:
        for _ in range(len(self.tasks)):
            steps = self.tasks.popleft()
            if next(steps, True) is None:
                self.tasks.append(steps)

    def _keep_house(self) -> None:
        """Do what the clock asks for."""
        if self.requests.followers:
            self.requests.follow()
        self._client_router.relieve()
        if self._stop_at:
            self._stop_in_time()
        if self._notify.watchdog_s and self.now_s >= self._ping_at:
            self._feed_watchdog()
        if self.now_s >= self._housekeeping_at:
            self._housekeeping_at = self.now_s + HOUSEKEEPING_S
            self._look_around()

    def _stop_in_time(self) -> None:
        """While draining: stop what runs when its time is over, or when it can come to no end."""
        if self.now_s >= self._stop_at:
            log.info("the time to drain is over: what still runs is put back")
        elif self._waits_in_vain():
            log.info("what still runs waits for jobs that do not start any more: it is put back")
        else:
            return
        self._stop_at = 0.0
        self.scheduler.stop_running()

    def _waits_in_vain(self) -> bool:
        """Whether all that runs waits for jobs that have not ended."""
        waits = self.scheduler.waits_of_all()
        return bool(waits) and all(any(map(self._is_live, numbers)) for numbers in waits)

    def _is_live(self, number: int) -> bool:
        job = self.job(number)
        return job is not None and job.state < ENDED

    def _feed_watchdog(self) -> None:
        self._ping_at = self.now_s + self._notify.watchdog_s
        hangs = self.committer.busy and self.now_s - self._write_began_s > COMMIT_HANGS_S
        if not hangs:
            self._notify.ping()

    def _look_around(self) -> None:
        """Look after what nobody tells us of: deleted files, silent clients, endless output."""
        self._notify.flush()
        self._door.look(len(self.pool.processes))
        self._client_router.look()
        self._worker_router.look()
        self.store.check_identity()
        self._readers.look(self.now_s)
        for peer in self.clients.silent(self.now_s):
            self.scheduler.window.forget_peer(peer)
            self.requests.forget(peer)
        limit = self.settings.limits.max_output_bytes
        for worker in self.scheduler.workers.values():
            now = self.pool.now(worker.uid)
            if now.job:
                logs.punch(self.logs_dir, worker.uid, now, limit)
        self._replace_the_large()
        self._heap.look()
        self.streams.probe()
        self.takes.probe()
        self._end_the_stuck()
        self.pool.sweep()
        self._workers.put_off_no_more()
        for steps in (self.payloads.look(self.now_s), self.retention.look(self.now_s)):
            if steps is not None:
                self.tasks.append(steps)

    def _replace_the_large(self) -> None:
        """Replace workers that have grown beyond what they may, each when its job is done."""
        limit = self.settings.pool.max_worker_rss
        for worker in [*self.scheduler.workers.values()] if limit else ():
            size = linux.rss_bytes(worker.pid) if worker.phase is Phase.READY else 0
            if size > limit:
                log.info("worker %d has %d bytes: it is replaced", worker.pid, size)
                self.scheduler.retire(worker.uid)

    def _end_the_stuck(self) -> None:
        """Kill workers that do not start what they were given: stopped by a signal, most likely."""
        ledger = self.scheduler.ledger
        batches = [ledger.batch, ledger.in_flight or ledger.batch]
        waiting = {uid for batch in batches for uid, _ in batch.orders}  # told after a commit
        before, self._still = self._still, {}
        for worker in self.scheduler.workers.values():
            uid, last = worker.uid, self.pool.last(worker.uid)
            if worker.phase is Phase.ORPHAN or not worker.assigned or uid in waiting:
                continue
            if self.pool.now(uid).job or not self.pool.sees(uid):
                continue
            looks, seen = before.get(uid, (0, last))
            self._still[uid] = (looks + 1 if seen == last else 1, last)
            if self._still[uid][0] > MAY_STAND_STILL:
                log.warning(
                    "worker %d does not start what it was given: it is replaced", worker.pid
                )
                self.scheduler.kill(uid)

    def _is_over(self) -> bool:
        if not self._stopping or self.committer.busy or self.tasks:
            return False
        if self._disk_trouble and (self._stopping > 1 or not self._stop_at):
            self._give_up_disk()
        return self.scheduler.is_at_rest()

    def _give_up_disk(self) -> None:
        """The time to end is over, and the disk still full: once nothing runs, end without it."""
        if not any(worker.assigned for worker in self.scheduler.workers.values()):
            raise StoreFailed(
                f"{self._disk_trouble}, and the daemon has to end",
                "what could not be stored runs again at the next start",
            )

    # -- signals --

    def catch_signals(self) -> None:
        """From now on SIGTERM, SIGINT and SIGHUP are told to the loop; in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda got, _: self._signals.append(got))
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def _obey_signals(self) -> None:
        os.read(self._wake_read, 4096)
        while self._signals:
            number = self._signals.popleft()
            log.info("got %s", signal.Signals(number).name)
            if number == signal.SIGHUP:
                self.reload()
            else:
                self.stop(0.0 if self._owner is not None else None)


def wall_us() -> int:
    """Return the time of the wall clock, µs since 1970; one that is before that is wrong, and counts as 1."""
    return max(1, time.time_ns() // 1000)


def as_death(dead: Dead) -> Death:
    """Tell the scheduler what the pool has found out."""
    now = dead.now
    span = None
    if now.job and dead.log_end > now.log_start:
        name = log_name(dead.uid, now.log_number)
        span = (name, now.log_start, dead.log_end, dead.log_dropped)
    running = (now.job, now.attempt)
    death = Death(dead.cause, running, dead.unknown, now.started_at, dead.tail, span, dead.usage)
    death.by_rlimit = dead.by_rlimit
    return death
