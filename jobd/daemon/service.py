"""From settings to a running daemon: what is taken, in which order, and given back in the reverse one.

The locks come first: nothing is opened or bound before they are held.  Then the
store, because what it tells decides everything else; then the sockets; the
workers of a dead predecessor are found before any new one is started.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import shutil
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path

import msgspec

from jobd._version import __version__
from jobd.blobs import remove_memory
from jobd.config.settings import Settings
from jobd.daemon import payloads
from jobd.daemon.assembly import Daemon, Parts
from jobd.daemon.door import raise_limit
from jobd.daemon.lock import Lock, private_directory
from jobd.daemon.loop import wall_us
from jobd.daemon.notify import Notify
from jobd.daemon.owner import Owner
from jobd.daemon.remote import Remote
from jobd.daemon.workers import as_death
from jobd.failpoints import hit
from jobd.model.blob import Place
from jobd.model.errors import ConfigError, JobdError, StoreDamaged, StoreFailed, StoreLost
from jobd.model.item import array_of, items_of
from jobd.model.job import Lease
from jobd.model.messages import refusal
from jobd.model.queues import DEFAULT, Rule, unknown_queue
from jobd.model.states import ENDED, State
from jobd.pool import cgroup, cores
from jobd.pool.deaths import Dead
from jobd.pool.protocol import Settings as PoolSettings
from jobd.pool.supervisor import Pool
from jobd.scheduler import Options, Scheduler
from jobd.scheduler.queues import Queues
from jobd.store import Store, files
from jobd.wire.pool_router import PoolRouter
from jobd.wire.router import Router

log = logging.getLogger("jobd")

SMALL_OUTCOMES_BYTES = 64 * 1024 * 1024
"""What a worker's frame may hold beside one large result: many small ones, errors, tracebacks."""

JUDGED_S = 60.0
"""How long a database that looks damaged is read before that is believed."""

GC_THRESHOLD = (100_000, 20, 1_000)
"""Hardly anything here is cyclic: Python's own threshold costs a fifth of the time for each submit."""


def run(settings: Settings, ready_fd: int | None = None, owner: Owner | None = None) -> int:
    """Run a daemon to its end; return the exit code.

    ``ready_fd`` is closed after a line was written to it: the pid, once requests are answered, or
    a ``Refused``, in JSON, that has the error because of which there will be none.
    With an ``owner`` it is a private one, which ends with that process.

    Raises:
        JobdError: it could not start.
        InitializerFailed: the owner's initializer has failed in a worker.
    """
    logging.basicConfig(
        level=settings.daemon.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    with contextlib.ExitStack() as stack:
        path = Path(settings.state_dir) / "jobd.db"
        try:
            daemon = _prepare(settings, stack, owner)
        except JobdError as found:
            error = _judged(found, path)
            if ready_fd is not None:
                _tell_starter(ready_fd, _as_json(error))
            raise error from found
        daemon.signals.catch()  # before anybody hears that it runs, and stops it
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        log.info(
            "jobd %s is running, pid %d, state in %s", __version__, os.getpid(), settings.state_dir
        )
        if ready_fd is not None:
            _tell_starter(ready_fd, b"%d" % os.getpid())
        try:
            daemon.run()
        except StoreFailed as found:
            error = _judged(found, path)
            log.critical("%s; ending at once, so that nothing is promised that is not kept", error)
            if isinstance(error, StoreLost):
                _save(daemon)
            stack.pop_all()  # a disk that fails is not waited for; the workers wait for the next daemon
            os._exit(error.code)
        log.info("stopped")
        hit("stop.closed")
    if owner is not None:
        if settings.state_dir.startswith(owner.directory):
            remove_memory(settings.state_dir)
        shutil.rmtree(owner.directory, ignore_errors=True)  # the owner may be there no more
    return 0


def _judged(error: JobdError, path: Path) -> JobdError:
    """Return what an error comes to: a disk that fails for a moment makes a database look damaged."""
    if not isinstance(error, StoreDamaged):
        return error
    try:
        files.read_through(path, JUDGED_S)
        problems = files.problems(path, JUDGED_S)
    except (JobdError, OSError) as unreadable:
        return StoreFailed(f"{path} cannot be read: {unreadable}", "is its disk there?")
    if not problems and isinstance(error.__cause__, sqlite3.Error):
        return StoreFailed(f"{error.message}, but {path} is whole", "jobd has to be started again")
    return StoreDamaged(error.message, f"{files.what_to_do(path)}; {files.TELLS_MORE}")


def _save(daemon: Daemon) -> None:
    """Save what the store's open files hold that somebody has deleted, as nobody else can."""
    try:
        log.critical("%s", daemon.writer.save())
    except StoreFailed as error:
        log.critical("%s", error)


def _tell_starter(ready_fd: int, word: bytes) -> None:
    try:
        os.write(ready_fd, word + b"\n")
    except OSError:
        pass  # whoever started us waits no longer; that is no reason to end
    os.close(ready_fd)


def _as_json(error: JobdError) -> bytes:
    told = refusal(0, error)
    for name in ("message", "hint"):  # there may be the name of a file in them, of any bytes
        text = getattr(told, name).encode("utf-8", "backslashreplace").decode()
        setattr(told, name, text)
    return msgspec.json.encode(told)


def _prepare(settings: Settings, stack: contextlib.ExitStack, owner: Owner | None) -> Daemon:
    umask = os.umask(0o077)
    nofile_soft = raise_limit()
    notify = Notify()
    stack.callback(notify.close)
    for directory in (settings.state_dir, os.path.dirname(settings.socket)):
        private_directory(directory)
    state_dir = settings.state_dir
    what = f"the state directory {state_dir}"
    stack.callback(Lock(os.path.join(state_dir, "lock"), what, state_dir).release)
    stack.callback(Lock(settings.socket + ".lock", f"the socket {settings.socket}").release)
    hit("start.locked")
    store = Store(Path(settings.state_dir) / "jobd.db", settings.store.durability)
    stack.callback(store.close)
    limits = settings.limits
    client_router = Router(settings.socket, limits.max_message_bytes, limits.max_clients)
    stack.callback(client_router.close)
    worker_router = PoolRouter(
        settings.worker_socket, limits.max_payload_bytes + SMALL_OUTCOMES_BYTES
    )
    stack.callback(worker_router.close)
    remote = Remote.listen(settings)
    if remote is not None:
        stack.callback(remote.router.close)
    place = payloads.prepare(settings, stack)
    pool_settings = _pool_settings(settings, place, nofile_soft, umask, owner)
    for directory in (pool_settings.boards_dir, pool_settings.logs_dir):
        private_directory(directory)
    scheduler = _scheduler(settings, pool_settings.boot, store)
    pool = Pool(pool_settings)
    worker_router.let_in(partial(_is_worker, pool))
    pool.start()
    dead = _recover(scheduler, store, pool)
    pool.sweep_leaves()
    hit("start.recovered")
    parts = Parts(
        settings=settings,
        scheduler=scheduler,
        store=store,
        pool=pool,
        payloads=payloads.Payloads(place, store, scheduler),
        client_router=client_router,
        worker_router=worker_router,
        notify=notify,
        owner=owner,
        remote=remote,
    )
    daemon = Daemon(parts)
    daemon.writer.buried += dead
    stack.callback(daemon.close)
    return daemon


def _pool_settings(
    settings: Settings, place: Place, nofile_soft: int, umask: int, owner: Owner | None
) -> PoolSettings:
    return PoolSettings(
        boot=secrets.token_hex(4),
        socket=settings.worker_socket,
        client_socket=settings.socket,
        boards_dir=os.path.join(settings.state_dir, "workers"),
        logs_dir=os.path.join(settings.state_dir, "logs"),
        path=list(settings.path),
        preload=list(settings.pool.preload),
        orphan_s=settings.pool.orphan_s,
        preload_timeout_s=settings.pool.preload_timeout_s,
        max_payload_bytes=settings.limits.max_payload_bytes,
        place=place,
        max_output_bytes=settings.limits.max_output_bytes,
        nofile_soft=nofile_soft,
        allow=list(settings.security.allow),
        umask=umask,
        threads=cores.each(settings.pool.threads_per_worker, settings.pool.worker_count),
        private=owner is not None,
        initializer=owner.initializer if owner else "",
        authkey=owner.authkey if owner else "",
        outputs=owner.outputs if owner else None,
        cgroup=_cgroup(settings),
    )


def _cgroup(settings: Settings) -> cgroup.Group | None:
    """Return the cgroup that we may divide among workers, if there is one; we are in a leaf of it then."""
    if settings.pool.cgroup == "off":
        return None
    try:
        group = cgroup.claim(cgroup.find(), settings.state_dir)
    except cgroup.NoGroup as why:
        log.info("limits of jobs are rlimits: %s", why)
        return None
    controllers = ", ".join(group.controllers) or "none"
    log.info("limits of jobs: cgroups in %s, controllers: %s", group.path, controllers)
    return group


def _scheduler(settings: Settings, boot: str, store: Store) -> Scheduler:
    options = Options(
        workers=settings.pool.workers or len(os.sched_getaffinity(0)),
        max_crashes=settings.jobs.max_crashes,
        kill_grace_us=int(settings.pool.kill_grace_s * 1e6),
        max_queued=settings.limits.max_queued,
        max_lent=settings.pool.max_lent,
        max_jobs_per_worker=settings.pool.max_jobs_per_worker,
    )
    leases = store.leases()
    queues = Queues(rules_of(settings), store.queues())
    _refuse_unknown_queues(settings, queues)
    return Scheduler(
        boot,
        options,
        next_id=store.next_id(),
        counts=store.counts(),
        next_lease=leases[0].id + 1 if leases else 1,
        queues=queues,
        queued=store.queued(),
    )


def rules_of(settings: Settings) -> dict[str, Rule]:
    """Return the queues that the settings have."""
    return {
        name: Rule(said.get("slots", 0), said.get("rate", ""))
        for table, said in settings.rules.items()
        if (name := table.removeprefix("queues.")) != table
    }


def _refuse_unknown_queues(settings: Settings, queues: Queues) -> None:
    """Refuse defaults that would have every submit refused.

    Here, and not where the settings are read: only the store knows the queues that were made
    by hand, and a client need not be kept from the daemon by a table that is not for it.

    Raises:
        ConfigError: a default names a queue that nobody has made.
    """
    for table, said in settings.rules.items():
        name = said.get("queue", DEFAULT)
        if not queues.is_known(name):
            error = unknown_queue(name, queues.rules)
            raise ConfigError(f"[{table}] names a queue, and {error.message}", error.hint)


def _recover(scheduler: Scheduler, store: Store, pool: Pool) -> list[str]:
    """Find out what became of the attempts that were on record when the last daemon ended.

    The newest lease of a job counts; an older one is from before it was given back.
    Returns the dead workers: their scoreboards tell the same to the next daemon, should
    this one end before it has stored what it found.
    """
    scheduler.begin(time.monotonic_ns() // 1000, wall_us())
    for number in store.arrays.unended():
        _recover_array(scheduler, store, number)
    seen: set[int] = set()
    dead: dict[str, Dead] = {}
    for lease in store.leases():
        uid = lease.worker
        if uid not in scheduler.workers:
            process = pool.processes.get(uid) or pool.adopt(uid)
            if process is None:
                dead[uid] = pool.post_mortem(uid)
            scheduler.workforce.add_orphan(uid, dead[uid].pid if process is None else process.pid)
        _recover_lease(scheduler, store, lease, seen)
    for uid, found in dead.items():
        scheduler.workforce.left(uid, found.left)
        scheduler.workforce.worker_died(uid, as_death(found))
    _sweep(pool, {*dead, *pool.processes})
    return list(dead)


def _recover_lease(scheduler: Scheduler, store: Store, lease: Lease, seen: set[int]) -> None:
    for number, attempt, *count in lease.attempts:
        if count:
            _recover_stretch(scheduler, store, lease, (number, number + count[0]), attempt, seen)
            continue
        job = None if number in seen else store.job(number)
        seen.add(number)
        if job is None or job.state >= ENDED or attempt <= job.attempt:
            scheduler.workforce.forget_attempt(lease)
        else:
            scheduler.workforce.resume(lease.worker, job, attempt, lease, store.kept_items(number))


def _recover_array(scheduler: Scheduler, store: Store, number: int) -> None:
    """Take in an array that has not ended, and those of its items that are jobs by themselves and ready."""
    job = store.job(number)
    assert job is not None
    assert job.array is not None
    span = items_of(number, job.array.items)
    rows = store.arrays.rows(*span)
    scheduler.window.recover(job)
    scheduler.arrays.restore(job, store.arrays.ranges(*span), rows)
    ready = [item for item, state in rows if state is State.QUEUED]
    for row in store.own_rows(ready).values():
        scheduler.window.load(row)
    array = scheduler.arrays.live[number]
    scheduler.arrays.enter(array)


def _recover_stretch(
    scheduler: Scheduler,
    store: Store,
    lease: Lease,
    span: tuple[int, int],
    attempt: int,
    seen: set[int],
) -> None:
    """Give a worker of the last daemon back what it had in hand of an array, as far as that has not ended."""
    array = scheduler.arrays.live.get(array_of(span[0]))
    jobs = []
    if array is not None:
        # Those that run and were to be stopped have rows.
        numbers = [n for n, state in store.arrays.rows(*span) if state < ENDED and n not in seen]
        rows = store.own_rows(numbers).values()
        jobs = [row for row in rows if row.state is State.QUEUED and attempt > row.attempt]
    for job in jobs:
        lease.open += 1
        seen.add(job.id)
        scheduler.workforce.resume(lease.worker, job, attempt, lease)
    pieces = [] if array is None else scheduler.arrays.take_out(array, *span)
    for first, count in pieces:
        assert array is not None
        for stretch in store.arrays.stretches(first, first + count):
            job = scheduler.arrays.job_of(array, stretch)
            scheduler.workforce.resume_stretch(lease.worker, job, lease)
            lease.open += 1
    if jobs or pieces:
        lease.open -= 1
    else:
        scheduler.workforce.forget_attempt(lease)


def _is_worker(pool: Pool, identity: bytes, pid: int) -> bool:
    """Whether a peer is a worker of ours, or of a dead daemon on the same state."""
    uid = identity[:-2].decode("ascii", "replace")
    process = pool.processes.get(uid)
    # Of one that was forked a moment ago its zygote has still to tell.
    is_orphan = uid.partition("-")[0] != pool.settings.boot and uid.replace("-", "").isalnum()
    if process is None and is_orphan:
        try:
            process = pool.adopt(uid)
        except ConfigError as error:
            log.warning("%s", error)
    return process is not None and process.pid == pid


def _sweep(pool: Pool, named: set[str]) -> None:
    """Remove the scoreboards of workers that are gone; those that live are told to end once they connect."""
    for uid in os.listdir(pool.settings.boards_dir):
        if uid not in named and pool.adopt(uid) is None:
            pool.forget_board(uid)
