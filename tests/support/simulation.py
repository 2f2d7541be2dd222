"""Random histories of a whole daemon, each from a seed, each replayable.

What is real: the loop, the requests, the recovery and the scheduler.  What is
played: the clock, the disk (`fake_store`), the processes (`fake_pool`), the
clients (`fake_client`) and the network between them.  A history does a hundred
random things: submits, steps of workers, turns of the loop, a full disk, deaths,
a killed daemon, a machine that goes down.  Then everything heals, and all that
was promised must come true.  The rules are in `simulation_truth`.

    python tests/support/simulation.py SEED       replays one history, and tells it
    python tests/support/simulation.py FIRST LAST runs many
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from bisect import bisect
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple

import fake_store
from fake_client import FakeClient
from fake_pool import FOR_EVER, At, FakeChecker, FakePool, FakeWorker, Machine, Nested
from fake_store import FakeStore
from fake_streams import FUNCTION as STREAM
from fake_streams import Pass
from msgspec.structs import replace
from simulation_arrays import ArraySlots, args_in
from simulation_inputs import Broken, waiting_for
from simulation_order import Turns, lane_of
from simulation_queues import ChangeTruth, QueueTruth, choose_rules
from simulation_truth import Slots, Truth, check_daemon, check_end

from jobd.config import settings as config
from jobd.daemon import (
    array_verbs,
    assembly,
    backlog,
    control,
    dependencies,
    door,
    lifecycle,
    listing,
    loop,
    outgoing,
    service,
    signals,
    submits,
    workers,
    writer,
)
from jobd.daemon import arrays as array_desk
from jobd.daemon.notify import Notify
from jobd.daemon.payloads import Payloads
from jobd.model.blob import Place
from jobd.model.errors import DiskFull, JobdError, StoreFailed
from jobd.model.item import array_of, owner_of
from jobd.model.job import NO_ARGS
from jobd.model.messages import Pieces, decode_replies, encode
from jobd.model.orders import CloseStream, StopJob, Task, decode_orders
from jobd.model.states import ENDED, State
from jobd.model.stretch import calls_in
from jobd.scheduler import (
    Phase,
    arrays,
    batch,
    blocked,
    commits,
    dispatch,
    forecast,
    intake,
    known,
    plain,
    stock,
    supply,
    timers,
)
from jobd.scheduler.queues import queue_of

BORN_US = 1_000_000_000
WALL_US = 1_700_000_000_000_000
BOARDS_DIR = "/nonexistent"
PLACE = Place("", BOARDS_DIR, "disk", True, False, 2**20, 2**20)
HEAL_ROUNDS = 3_000  # a full disk is tried again after two thousand; the rest takes a few hundred
IDLE_TURNS = 40
ARRAYS = 0.4
"""How many of the histories have arrays."""


class Killed(BaseException):
    """The daemon was killed in mid-turn; nothing of it may catch this."""


class Failed(AssertionError):
    """A history went wrong; the message has the seed and the step."""


class Weights(NamedTuple):
    """How often what happens, in one history."""

    turn: float = 30
    work: float = 42
    listen: float = 8
    land: float = 12
    wait: float = 6
    submit: float = 8
    put: float = 0.5
    graph: float = 1.5
    array: float = 0
    part: float = 0
    gather: float = 0
    resend: float = 2
    follow: float = 4
    consume: float = 8
    turn_away: float = 0.5
    watch: float = 2
    cancel: float = 1.5
    retry: float = 1.5
    claim: float = 4.0
    hold: float = 1.0
    release: float = 1.0
    look: float = 0.5
    ping: float = 0.5
    vanish: float = 0.3
    kill_worker: float = 1.0
    sigterm: float = 0.3
    late: float = 0.5
    fork: float = 0.5
    disk: float = 0.8
    lock: float = 0.4
    reload: float = 0.3
    stop: float = 0.4
    crash: float = 1.0
    power: float = 0.2
    jump: float = 0.2
    queue: float = 2


FAULTS = Weights._fields[Weights._fields.index("resend") :]


class Router:
    """One of the daemon's sockets."""

    def __init__(self, sim: Simulation, *, is_for_clients: bool) -> None:
        self.fd = self
        self.inbox: deque[tuple[bytes, bytes]] = deque()
        self.lagging: set[int] = set()
        self._deliver = sim.to_client if is_for_clients else sim.to_worker

    def drain(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return what has arrived."""
        return [self.inbox.popleft() for _ in range(min(most, len(self.inbox)))]

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send a frame; return whether the peer is there."""
        return self._deliver(peer, frame)

    def reaches(self, peer: bytes, frame: bytes) -> tuple[bool, bool]:
        """Send a frame; return whether the peer is there, and whether it gets the frame."""
        is_there = self._deliver(peer, frame)
        return is_there, is_there

    def look(self) -> None:
        """Hang up on those who do not shake hands: here everybody does."""

    def unsent(self, peer: bytes) -> int:  # noqa: ARG002  # as the real one
        """Return what waits for a peer to read: here everybody reads at once."""
        return 0

    def pause(self, peer: bytes) -> None:
        """Read no more from a peer: nothing more comes than what was read."""

    def resume(self, peer: bytes) -> None:
        """Read again from a peer."""

    most_files = 0
    farewell = b""
    is_pressed = is_short = has_strangers = is_ready = False
    admitted = 0

    def relieve(self) -> None:
        """Make room for those who wait: nobody does."""

    def take_gone(self) -> list[bytes]:
        """Return those who have hung up: nobody is seen to do so here."""
        return []


class NoPayloads(Payloads):
    """The payloads of a machine without files."""

    def look(self, now_s: float) -> None:
        """Find nothing."""


class Committer:
    """The disk's thread: a commit lands when the simulation wants it."""

    def __init__(self, commit: Any) -> None:
        self._commit = commit
        self._error: JobdError | None = None
        self.fd = self
        self.busy = False
        self.has_landed = False
        self.took_s = 1.0

    def commit_here(self) -> JobdError | None:
        """Commit at once."""
        self.land()
        return self.finish()

    def start(self) -> None:
        """Begin a commit."""
        self.busy, self.has_landed = True, False

    def land(self) -> None:
        """The disk has done it, or has refused."""
        self._error, self.has_landed = None, True
        try:
            self._commit()
        except DiskFull as error:
            self._error = error

    def finish(self) -> JobdError | None:
        """Take note of the end of the commit."""
        self.busy = self.has_landed = False
        return self._error


class Simulation:
    """One history."""

    def __init__(
        self,
        seed: int,
        *,
        verbose: bool = False,
        store: FakeStore | None = None,
        streams: float = 0.0,
    ) -> None:
        self.seed, self.step = seed, 0
        self.now_us = BORN_US
        self.ready: list[object] = []
        self.timeout_ms = self.frames = 0
        self._verbose = verbose
        self._log: deque[str] = deque(maxlen=None if verbose else 12)
        self._digest = hashlib.blake2b(digest_size=16)
        rng = self._rng = Random(seed)
        self._dice = rng.random
        self.store = store or FakeStore()
        self.truth = Truth(self.store)
        self.truth.streams.passes = self._passes
        self.truth.limits.clock = lambda: self.now_us
        self.machine = Machine(rng, self.truth)
        # Of its own, so that histories without arrays stay as they are.
        self._array_dice = Random(f"arrays of {seed}").random
        self._has_arrays = self._array_dice() < ARRAYS
        self._hits_left = 0
        self._is_stopping = False
        self._boots = 0
        self._peers: set[bytes] = set()
        self._clients: dict[bytes, FakeClient] = {}
        self._endless: FakeWorker | None = None
        self._has_retried = False
        self._streams = streams or (0.0, 0.1, 0.5)[int(self._dice() * 3)]
        self._depends = (0.0, 0.4, 0.9)[int(self._dice() * 3)]
        self._limited = (0.0, 0.3)[int(self._dice() * 2)]
        self._retries = (0.0, 0.3, 0.8)[int(self._dice() * 3)]
        self._timed = (0.0, 0.2, 0.7)[int(self._dice() * 3)]
        self._held = (0.0, 0.0, 0.2)[int(self._dice() * 3)]
        self._ordered = (0.0, 0.3, 0.9)[int(self._dice() * 3)]
        self._queued = (0.0, 0.2, 0.8)[int(self._dice() * 3)]
        self._jump_us = 0
        self.truth.times.wall_us = self._wall_us
        self._nests = (0.0, 0.1, 0.5)[int(self._dice() * 3)]
        self._awaited: set[bytes] = set()
        """The arguments of jobs that were submitted by jobs, which wait for them."""
        self.truth.nested = self._nested  # type: ignore[method-assign]  # the rest of the witness is below
        self._settings = self._choose_settings()
        self._changes = ChangeTruth(self.store, service.rules_of(self._settings))
        self.truth.limits.most = self._settings.pool.max_jobs_per_worker
        self._limits = self._choose_limits()
        self._heaped = list(accumulate(self._choose_weights()))
        self._events = int(self._dice() * 150) + 50
        self.daemon: assembly.Daemon
        self._pool: FakePool
        self._slots: Slots
        self._array_slots: ArraySlots
        self._queues: QueueTruth
        self._client_router: Router
        self._worker_router: Router

    # -- what kind of history it is --

    def _choose_settings(self) -> config.Settings:
        dice = self._dice
        self.truth.max_crashes = int(dice() * 3)
        settings = config.Settings(
            pool=config.Pool(
                workers=int(dice() * 3) + 1,
                kill_grace_s=0.05,
                max_jobs_per_worker=max(0, int(dice() * 8) - 4),
                max_lent=(0, 1, 2, 64)[int(dice() * 4)],
            ),
            jobs=config.Jobs(max_crashes=self.truth.max_crashes, check_timeout_s=0.2),
            daemon=config.Daemon(drain_s=0.05),
            limits=config.Limits(max_queued=int(dice() * 80) + 5),
            rules=choose_rules(dice),
        )
        if self._has_arrays and self._array_dice() < 0.6:  # else hardly a stretch is handed out
            return replace(settings, pool=replace(settings.pool, max_jobs_per_worker=0))
        return settings

    def _choose_limits(self) -> list[tuple[Any, str, Any]]:
        """Make the limits of the scheduler small, so that few jobs reach them."""
        dice = self._dice
        parcel_jobs = int(dice() * 5) + 1
        few = self._array_dice
        clock = SimpleNamespace(
            monotonic=lambda: self.now_us / 1e6,
            monotonic_ns=lambda: self.now_us * 1000,
            time_ns=lambda: self._wall_us() * 1000,
        )
        poller = SimpleNamespace(
            register=lambda *_: None, unregister=lambda *_: None, poll=self._polled
        )
        pipes = SimpleNamespace(
            pipe2=lambda _: (-1, -2), close=lambda _: None, O_NONBLOCK=0, O_CLOEXEC=0
        )
        return [
            (plain, "JOBS", int(dice() * 8) + 2),
            (plain, "BYTES", int(dice() * 60) + 15),
            (plain, "LOW_WATER", int(dice() * 4) + 1),
            (batch, "PARCEL_JOBS", parcel_jobs),
            (batch, "PARCEL_BYTES", int(dice() * 50) + 5),
            (intake, "PARCEL_JOBS", parcel_jobs),
            (commits, "LOCKED_US", int(dice() * 500_000)),
            (dispatch, "CREDIT", int(dice() * 4) + 1),
            (intake, "FEW", int(dice() * 4)),
            (known, "JOBS", int(dice() * 8) + 2),
            (known, "BYTES", int(dice() * 60) + 15),
            (known, "MOST", int(dice() * 6) + 2),
            (known, "LEAST", int(dice() * 2) + 1),
            (known, "LANES", int(dice() * 3) + 1),
            (known, "ALL_LANES", int(dice() * 6) + 2),
            (stock, "SCAN", int(dice() * 3) + 1),
            (stock, "REFILLS", int(dice() * 2) + 1),
            (stock, "REFILL", int(dice() * 4) + 1),
            (timers, "ENTRIES", int(dice() * 8) + 2),
            (timers, "LOW_WATER", int(dice() * 4) + 1),
            (timers, "REFILL", int(dice() * 4) + 1),
            (timers, "SLICE", int(dice() * 3) + 1),
            (FakeWorker, "wishes", (0.0, 0.3)[int(dice() * 2)]),
            (arrays, "LOADED", int(few() * 12) + 2),
            (supply, "LONGEST", int(few() * 8) + 1),
            (forecast, "UNKNOWN_US", (1e6, 100.0)[int(few() + 0.4 * self._has_arrays)]),
            (array_verbs, "SLICE", int(few() * 3) + 1),
            (array_desk, "ANSWER_BYTES", int(few() * 200) + 1),
            (blocked, "JOBS", int(dice() * 6)),
            (blocked, "EDGES", int(dice() * 12)),
            (blocked, "SLICE", int(dice() * 3) + 1),
            (dependencies, "SLICE", int(dice() * 3) + 1),
            (backlog, "REFILL", int(dice() * 6) + 1),
            (workers, "MAY_STAND_STILL", 1 << 30),  # nobody does; it would hide what is forgotten
            (door, "DRAIN", int(dice() * 6) + 1),
            (listing, "SLICE", int(dice() * 4) + 2),
            (fake_store, "SCAN", int(dice() * 8) + 1),
            *((module, "time", clock) for module in (lifecycle, loop, writer)),
            (loop, "select", SimpleNamespace(poll=lambda: poller, POLLIN=1)),
            (signals, "os", pipes),
            (assembly, "Committer", Committer),
            *(
                (module, "hit", self._hit)
                for module in (control, lifecycle, outgoing, submits, workers, writer)
            ),
            (service, "time", clock),
            (service, "os", SimpleNamespace(listdir=lambda _: self.machine.boards_made())),
        ]

    def _choose_weights(self) -> Weights:
        """Leave some faults out, each time others: rare meetings become frequent (swarm testing)."""
        changed = {}
        for name in FAULTS:
            usual = getattr(Weights(), name)
            changed[name] = usual * (0, 0, 1, 3)[int(self._dice() * 4)]
        if self._has_arrays:
            often = (1, 1, 3)[int(self._array_dice() * 3)]
            changed |= {"array": 5 * often, "part": 5 * often, "gather": 4}
        return Weights(**changed)

    # -- running --

    def run(self) -> str:
        """Run the history; return a digest of everything that was sent and stored."""
        with _replaced(self._limits), _quiet():
            room = plain.JOBS + batch.PARCEL_JOBS * 2 + backlog.REFILL
            room += known.JOBS + known.ALL_LANES * (known.LEAST + batch.PARCEL_JOBS)
            hands = self._settings.pool.workers + self._settings.pool.max_lent
            self._room = room + hands * (dispatch.CREDIT + 1) * 2
            try:
                self._start_daemon()
                for number in range(3):
                    self._connect(number)
                while self.step < self._events:
                    self._do_something()
                self._heal()
            except Exception as error:
                raise Failed(self._story(error)) from error
        return self._digest.hexdigest()

    def _story(self, error: Exception) -> str:
        kind = "" if isinstance(error, Broken) else f"{type(error).__name__}: "
        lines = "\n  ".join(self._log)
        return f"seed {self.seed}, step {self.step}: {kind}{error}\n  {lines}"

    def _note(self, *words: object) -> None:
        if self._verbose:
            print(f"{self.step:4d} {self.now_us - BORN_US:9d}", *words)
        else:
            self._log.append(f"{self.step} {' '.join(map(str, words))}")

    def _do_something(self) -> None:
        self.step += 1
        self.now_us += int(self._dice() * 300)
        point = bisect(self._heaped, self._dice() * self._heaped[-1])
        getattr(self, f"_do_{Weights._fields[point]}")()

    # -- the daemon --

    def _start_daemon(self) -> None:
        self._boots += 1
        boot = f"boot{self._boots}"
        self.truth.daemon_died(boot)
        self._changes.daemon_died()
        for uid in [w.uid for w in self.machine.workers.values() if not w.alive]:
            del self.machine.workers[uid]
        store: Any = self.store
        pool: Any = FakePool(self.machine, boot, BOARDS_DIR)
        scheduler = service._scheduler(self._settings, boot, store)
        dead = service._recover(scheduler, store, pool)
        self._client_router = Router(self, is_for_clients=True)
        self._worker_router = Router(self, is_for_clients=False)
        self._pool = pool
        client_router: Any = self._client_router
        worker_router: Any = self._worker_router
        self.daemon = assembly.Daemon(
            assembly.Parts(
                settings=self._settings,
                scheduler=scheduler,
                store=store,
                pool=pool,
                payloads=NoPayloads(PLACE, store, scheduler),
                client_router=client_router,
                worker_router=worker_router,
                notify=Notify({}),
            )
        )
        self.daemon.writer.buried += dead
        self._slots = Slots(scheduler)
        self._array_slots = ArraySlots(scheduler)
        Turns(scheduler)
        self._queues = QueueTruth(scheduler)
        self.truth.daemon = self.daemon
        self._hits_left = 0
        self._is_stopping = False
        self._note("a daemon starts:", boot)

    def _hit(self, name: str) -> None:
        self._hits_left -= 1
        if self._hits_left == 0:
            raise Killed(name)

    @property
    def _committer(self) -> Committer:
        committer: Any = self.daemon.committer
        return committer  # type: ignore[no-any-return]  # ours, in the place of the real one

    def _polled(self, timeout_ms: int) -> list[tuple[object, int]]:
        self.timeout_ms = timeout_ms
        return [(source, 1) for source in self.ready]

    def _turn(self) -> None:
        """Let the daemon do one turn with what has arrived, and judge it."""
        self.ready = [r for r in (self._client_router, self._worker_router) if r.inbox]
        committer = self._committer
        if committer.busy and committer.has_landed:
            self.ready.append(committer)
        if self._is_stopping:
            self._note_stopped()
        committer.took_s = 0.0 if self._dice() < 0.3 else 1.0  # was the disk quick?
        try:
            is_over = self.daemon.loop.turn()
        except (Killed, StoreFailed) as end:
            if isinstance(end, StoreFailed) and not self.daemon.writer.trouble:
                raise
            self._note("the daemon ends:", repr(end))
            self._crash()
            return
        self._pool.is_late = False
        self._judge()
        if is_over:
            self._note("the daemon has ended")
            self.daemon.close = lambda: None  # type: ignore[method-assign]
            self._pool.close()
            self._restart()

    def _note_stopped(self) -> None:
        """Exempt what runs from the count of crashes: a daemon that ends may have it stopped."""
        for worker in self.daemon.scheduler.workers.values():
            for job in worker.assigned.values():
                self.truth.stopped.update(args_in(job))

    def _judge(self) -> None:
        daemon = self.daemon
        self.truth.see_submits(daemon)
        self.truth.edges.see(daemon, self.store)
        check_daemon(daemon, self.store, self._room)
        self.truth.keys.check(daemon)
        self.truth.limits.look(daemon.scheduler)
        self._slots.check(daemon.scheduler)
        self._array_slots.check(daemon.scheduler)
        self._queues.look(daemon.scheduler)

    def _crash(self) -> None:
        """Kill the daemon; a commit under way lands, or does not."""
        committer = self._committer
        if self.store.pending is not None:
            if committer.busy and self._dice() < 0.5:
                committer.land()
            self.store.rollback()
        self._restart()

    def _restart(self) -> None:
        """Start the next daemon, a while later; the workers go on meanwhile."""
        for worker in self.machine.living:
            worker.lose_daemon()
            if worker.at is At.STARTING and self._dice() < 0.5:
                worker.die("exit code 70")
            elif worker.current is None and self._dice() < 0.1:
                worker.leave()  # it has waited too long for the next daemon
        for _ in range(int(self._dice() * 12)):
            self._do_work()
        if self._dice() < 0.3:
            self._do_kill_worker()
        self.now_us += int(self._dice() * 100_000)
        self._start_daemon()
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            client.reconnect(self._new_peer())
            self._clients[client.peer] = client
            if self._dice() < 0.7:
                client.remind()

    # -- the network --

    def _connect(self, number: int) -> None:
        client = FakeClient(
            number,
            self._rng,
            self._from_client,
            nests=self._nests,
            streams=self._streams,
            depends=self._depends,
            limited=self._limited,
            retries=self._retries,
            timed=self._timed,
            held=self._held,
            ordered=self._ordered,
            queued=self._queued,
        )
        client.peer = self._new_peer()
        self._clients[client.peer] = client

    def _new_peer(self) -> bytes:
        peer = b"peer%d" % (len(self._peers) + 1)
        self._peers.add(peer)
        return peer

    def _from_client(self, peer: bytes, frame: bytes) -> None:
        self._client_router.inbox.append((peer, frame))

    def to_client(self, peer: bytes, frame: bytes) -> bool:
        """Deliver a frame of the daemon; it is judged even if nobody is there to read it."""
        self._digest.update(frame)
        self.frames += 1
        for message in decode_replies(frame):
            if self._verbose:
                self._note("   ", peer.decode(), "is told", message)
            self.truth.told(message)
            self._changes.told(peer, message, self.truth.commits)
        client = self._clients.get(peer)
        for message in decode_replies(frame) if client is not None else ():
            if isinstance(message, Pieces):
                self.truth.gathered(client.asked[message.rid], message)  # type: ignore[union-attr]  # it is there
        if peer not in self._peers:
            raise Broken(f"{peer!r} is told something, and is nobody")
        if client is not None:
            client.hear(frame)
        return client is not None

    def to_worker(self, peer: bytes, frame: bytes) -> bool:
        """Deliver a frame of the daemon to one of a worker's two threads."""
        uid, channel = peer[:-2].decode(), peer[-2:].decode()
        worker = self.machine.workers.get(uid)
        if worker is None or not worker.linked[channel]:
            return False
        self._digest.update(frame)
        for order in decode_orders(frame):
            if self._verbose:
                self._note("   ", uid, channel, "is told", order)
            if isinstance(order, StopJob | CloseStream):
                job = self.daemon.scheduler.window.jobs.get(order.id)
                if job is not None:
                    self.truth.stopped.add(job.args)
            self._queues.ordered(order, self.now_us)
            if worker.alive:
                self.truth.ordered(worker, order)
                worker.inbox[channel].append(order)
        return True

    def _carry(self, *, everything: bool = False) -> None:
        """Bring frames of workers to the daemon, in the order of each of their sockets."""
        inbox, dice = self._worker_router.inbox, self._dice
        while self.machine.strays and dice() < 0.5:
            uid, channel, stray = self.machine.strays.pop(0)
            inbox.append((f"{uid}{channel}".encode(), encode([stray])))
        for uid, worker in self.machine.workers.items():
            for channel in ("/j", "/c") if dice() < 0.5 else ("/c", "/j"):
                out = worker.out[channel]
                count = len(out)
                if count and not everything and dice() < 0.4:
                    count = int(dice() * (count + 1))
                peer = uid.encode() + channel.encode()
                for _ in range(count):
                    inbox.append((peer, encode([out.popleft()])))

    # -- what can happen --

    def _any_worker(self) -> FakeWorker | None:
        living = self.machine.living
        return living[int(self._dice() * len(living))] if living else None

    def _any_client(self) -> FakeClient:
        clients = list(self._clients.values())
        return clients[int(self._dice() * len(clients))]

    def _do_turn(self) -> None:
        self._carry()
        self._note("turn")
        self._turn()

    def _do_work(self) -> None:
        worker = self._any_worker()
        if worker is None:
            return
        for _ in range(int(self._dice() * 5) + 1):
            if worker.alive:
                worker.step()
        self._note("works:", worker)

    def _do_listen(self) -> None:
        worker = self._any_worker()
        if worker is not None:
            worker.listen()

    def _do_land(self) -> None:
        if self._committer.busy and not self._committer.has_landed:
            self._note("commit lands")
            self._committer.land()

    def _do_wait(self) -> None:
        self.now_us += (2_000, 6_000, 60_000, 400_000)[int(self._dice() * 4)]
        self._do_turn()

    def _do_submit(self) -> None:
        client = self._any_client()
        order = client.submit()
        self.truth.submits[order.uid] = order.args
        self._note(client.peer, "submits", order.function, len(order.args))

    def _do_claim(self) -> None:
        client = self._any_client()
        order = client.submit(claim=True)
        self.truth.submits[order.uid] = order.args
        self._note(client.peer, "submits with a key", order.function)

    def _do_put(self) -> None:
        client = self._any_client()
        order = client.put()
        self.truth.submits[order.uid] = order.args
        self._note(client.peer, "puts", order.args[0])

    def _do_graph(self) -> None:
        client = self._any_client()
        order = client.graph()
        self.truth.submits[order.uid] = order.args
        self._note(client.peer, "submits a graph of", len(order.args))

    def _do_array(self) -> None:
        client = self._any_client()
        order = client.submit_array()
        code = order.args[0][: -len(NO_ARGS)]
        calls = [code + call for _, chunk in order.chunks for call in calls_in(chunk)]
        self.truth.submits[order.uid] = [*order.args, *calls]
        self._note(client.peer, "submits", order.array, "of", order.function)

    def _do_part(self) -> None:
        client = self._any_client()
        self._note(client.peer, "asks", client.change_array())

    def _do_gather(self) -> None:
        self._any_client().gather()

    def _nested(self, worker: FakeWorker, task: Task) -> Nested:
        """Let a job submit another, through somebody's client; it may be gone before it is answered."""
        client = self._any_client()
        order = client.submit(one=True)
        self.truth.submits[order.uid] = order.args
        self._awaited.update(order.args)
        self._note(worker, "in job", task.id, "submits", order.function)

        def is_over() -> bool:
            span = client.answers.get(order.uid)
            if span is None:
                return order.uid not in client.open or self._clients.get(client.peer) is not client
            state = self.store.state_of(span[0])
            return state is None or state >= ENDED

        return Nested(is_over, lambda: client.answers.get(order.uid, (0, 0))[0])

    def _do_resend(self) -> None:
        client = self._any_client()
        if client.open and self._dice() < 0.7:
            client.resend(next(iter(client.open)))
        else:
            client.try_again()

    def _do_follow(self) -> None:
        """Follow a job; rather one that produces, and that others may follow too."""
        client = self._any_client()
        known = client.known
        if self._dice() < 0.7:
            known = list(self.daemon.scheduler.streams.live) or known
        if known:
            client.follow(known[int(self._dice() * len(known))])

    def _do_consume(self) -> None:
        found = self._any_client().consume()
        if found is not None:
            self._note("consumed:", found)
            self.truth.streams.consumed(*found)

    def _do_turn_away(self) -> None:
        self._any_client().turn_away()

    def _do_watch(self) -> None:
        known = self._any_client().known
        if known:
            self._any_client().watch([known[int(self._dice() * len(known))]])

    def _do_cancel(self) -> None:
        self._note("cancel")
        self._any_client().cancel()

    def _do_retry(self) -> None:
        self._note("retry")
        self._any_client().retry()

    def _do_hold(self) -> None:
        self._note("hold")
        self._any_client().hold()

    def _do_release(self) -> None:
        self._note("release")
        self.truth.has_released = True
        self._any_client().release()

    def _do_look(self) -> None:
        self._any_client().look()

    def _do_ping(self) -> None:
        self._any_client().ping(self.now_us)

    def _do_queue(self) -> None:
        client = self._any_client()
        change = client.change_queue()
        self._changes.asked(client.peer, change)
        self._note(client.peer, "asks", change)

    def _do_vanish(self) -> None:
        client = self._any_client()
        self._note(client.peer, "vanishes")
        del self._clients[client.peer]
        self._connect(client.number + 10)

    def _do_kill_worker(self) -> None:
        worker = self._any_worker()
        if worker is not None:
            self._note("killed:", worker)
            worker.die("SIGKILL")

    def _do_sigterm(self) -> None:
        worker = self._any_worker()
        if worker is not None and worker.at is not At.STARTING:
            self._note("SIGTERM to", worker)
            worker.sigterm()

    def _do_late(self) -> None:
        self._pool.is_late = True

    def _do_fork(self) -> None:
        self._pool.cannot_fork = not self._pool.cannot_fork
        self._note("cannot fork:", self._pool.cannot_fork)

    def _do_disk(self) -> None:
        self.store.is_full = not self.store.is_full
        self.store.was_full = True
        self._note("full disk:", self.store.is_full)

    def _do_lock(self) -> None:
        self.store.is_locked = not self.store.is_locked
        self.store.was_locked = True
        self._note("locked store:", self.store.is_locked)

    def _do_reload(self) -> None:
        self._note("reload")
        self._any_client().reload()

    def _do_stop(self) -> None:
        self._note("stop")
        self._is_stopping = True
        self._any_client().stop_daemon()

    def _do_crash(self) -> None:
        if self._dice() < 0.5:
            self._note("the daemon is killed")
            self._crash()
        else:
            self._hits_left = int(self._dice() * 8) + 1

    def _do_power(self) -> None:
        self._note("the machine goes down")
        if self.store.pending is not None and self._committer.busy and self._dice() < 0.5:
            self._committer.land()
        self.store.rollback()
        self.truth.machine_went_down()
        for worker in self.machine.living:
            worker.alive = False
        self.truth.running.clear()
        self.machine.restarted.update(self.machine.boards)
        for worker in self.machine.boards.values():
            worker.is_lost = True
        self._restart()

    def _do_jump(self) -> None:
        """Put the wall clock forward or back."""
        self._jump_us = int((self._dice() * 2 - 1) * 20e6)
        self.truth.times.has_jumped = True
        self._note("the clock jumps:", self._jump_us)

    def _wall_us(self) -> int:
        return WALL_US + self.now_us + self._jump_us

    # -- the end --

    def _heal(self) -> None:
        """Take all faults away; everything that was promised must come true."""
        self._note("healing")
        self.store.is_full = self.store.is_locked = False
        self._pool.cannot_fork = False
        self._jump_us = 0
        self._hits_left = 0
        self._freeze_one()
        rounds = 0
        while not self._is_at_rest():
            rounds += 1
            if rounds > HEAL_ROUNDS:
                raise Broken(f"no rest: {self._unrest()}")
            if rounds % 30 == 1:
                self._remind_all()
                self._follow_all()
                self._release_all()
                self._resume_all()
            for client in self._clients.values():
                while (found := client.consume()) is not None:
                    self.truth.streams.consumed(*found)
            self._do_all()
        if self._endless is not None:
            self._thaw()
            self._heal()
            return
        if not self._has_retried and self._dice() < 0.3:
            self._has_retried = True
            self._note("all that has failed is retried")
            self._any_client().retry_all()
            self._heal()
            return
        self._turn()  # it may still hold the ids of jobs that were cancelled
        while self.daemon.scheduler.wants_refill():  # and there may be more of them in the store
            self._turn()
        check_end(self.daemon, self.store, self.truth)
        for client in self._clients.values():
            if client.open or client.waits or client.asked or client.follower.passes:
                raise Broken(f"{client.peer!r} waits: {client.open} {client.waits} {client.asked}")

    def _freeze_one(self) -> None:
        """Let one job run for ever: nothing may be stuck behind it as long as others can work."""
        while self._client_router.inbox:  # a change of a queue may be on its way
            self._turn()
        if self._settings.pool.workers < 2 or self._dice() < 0.5 or self.daemon.lifecycle.stopping:
            return
        scheduler = self.daemon.scheduler
        for worker in self.machine.living:
            known = scheduler.workers.get(worker.uid)
            if worker.running is None or known is None or known.phase is not Phase.READY:
                continue
            if worker.waits or worker.waits_left or worker.running.task.args in self._awaited:
                continue
            number = worker.running.task.id
            job = known.assigned.get(number) or known.stretch_of(number)
            if job is not None and scheduler.queues.is_limited(queue_of(job)):
                continue  # it might have its only slot
            if job is not None and lane_of(job).gates:
                continue  # others of its key wait for it
            array = scheduler.arrays.live.get(array_of(worker.running.task.id))
            if array is not None and array.spec.slots:
                continue  # other items wait for it
            is_stream = worker.stream is not None  # it has an end of its own
            if job is not None and job.stop is None and not (worker.running.deaf or is_stream):
                worker.steps_left = FOR_EVER
                self._endless = worker
                self._note("runs for ever:", worker)
                return

    def _thaw(self) -> None:
        if self._endless is not None:
            self._endless.steps_left = 1
            self._note("goes on:", self._endless)
            self._endless = None

    def _passes(self) -> Iterator[Pass]:
        for client in self._clients.values():
            yield from client.follower.passes.values()

    def _follow_all(self) -> None:
        """Have somebody follow what waits for a consumer."""
        client = next(iter(self._clients.values()))
        followed = {one.job for one in self._passes()}
        for number in self.store.packed.keys() | self.store.rows.keys():
            job = self.store.job(number)
            waits = job is not None and job.function == STREAM and job.state < ENDED
            if waits and number not in followed:
                client.follow(number)

    def _release_all(self) -> None:
        """Have somebody release all that is held."""
        if self.store.tally[State.HELD]:
            self.truth.has_released = True
            next(iter(self._clients.values())).release_all()

    def _resume_all(self) -> None:
        """Have somebody resume what is paused."""
        client = next(iter(self._clients.values()))
        for name, rule in self.daemon.scheduler.queues.rules.items():
            if rule.paused:
                self._changes.asked(client.peer, client.resume(name))

    def _remind_all(self) -> None:
        for client in self._clients.values():
            client.remind()
            client.ping(self.now_us)

    def _do_all(self) -> None:
        """Let everybody do what can be done; if that is nothing, let time pass."""
        self.step += 1
        self.now_us += 500  # so that a full disk is tried again within these rounds
        for worker in self.machine.living:
            if isinstance(worker, FakeChecker):
                worker.calm = True
            for _ in range(6):
                if worker.alive:
                    worker.listen()
                    worker.step()
        self._carry(everything=True)
        self._pool.is_late = True
        self._do_land()
        was_idle = not (self._client_router.inbox or self._worker_router.inbox)
        was_idle = was_idle and not self._committer.busy
        self._turn()
        if was_idle and not self.daemon.tasks:
            self._pass_time()

    def _pass_time(self) -> None:
        """Sleep as the daemon would; a daemon that does not sleep with nothing to do spins."""
        before = self.frames, self.truth.commits, self.truth.starts
        for _ in range(IDLE_TURNS):
            self._turn()
            if self.timeout_ms or (self.frames, self.truth.commits, self.truth.starts) != before:
                break
            if self._committer.busy or self.daemon.tasks or self.daemon.scheduler.wants_refill():
                break
            if self.daemon.dependencies.has_more:  # as when many expire at once
                break
        else:
            raise Broken(f"the loop spins: wake at {self.daemon.scheduler.wake_at()}")
        self.now_us += max(200, min(self.timeout_ms, 1000) * 1000)

    def _is_at_rest(self) -> bool:
        return not self._unrest()

    def _unrest(self) -> str:
        """Tell what is still going on, or ''."""
        endless = self._endless.running if self._endless else None
        live = {*self.store.live, *(self.store.packed.keys() - self.store.rows.keys())}
        if endless:
            live -= waiting_for(self.store, owner_of(endless.task.id)) | {endless.task.id}
            for number in self.store.arrays.unended():
                if self.store.state_of(number) is State.QUEUED:
                    live |= {*self.store.arrays.are_open(number)} - {endless.task.id}
        if live:
            return f"jobs {live} have not ended"
        if self._committer.busy or self._client_router.inbox or self._worker_router.inbox:
            return "something is on its way"
        if self._endless is not None:
            return ""
        daemon = self.daemon
        queues = daemon.scheduler.queues
        if any(queues.opens_at(name, self.now_us) != 0 for name in queues.rules):
            return "a queue is closed"  # and may have the ids of jobs that were cancelled
        if daemon.dependencies.has_more:
            return "somebody is to be told of an end"
        if daemon.scheduler.ledger.batch or daemon.tasks or daemon.scheduler.wants_refill():
            return "something waits to be stored, or loaded"
        if daemon.scheduler.lanes.stock.wants_more or daemon.scheduler.lanes.next_at() is not None:
            return "a lane is to be looked at"
        strange = [
            worker
            for worker in self.machine.living
            if worker.uid not in daemon.scheduler.workers
            and not (isinstance(worker, FakeChecker) and worker.uid == daemon.checks._uid)
        ]
        if strange:
            return f"{strange} live, and nobody knows them"
        busy = [w for w in self.machine.living if not (w.is_idle or isinstance(w, FakeChecker))]
        ready = [w for w in daemon.scheduler.workers.values() if w.phase is Phase.READY]
        if busy or len(ready) != self._settings.pool.workers:
            return f"{busy} are not done, {list(daemon.scheduler.workers.values())}"
        clients = self._clients.values()
        waiting = [c.peer for c in clients if c.open or c.waits or c.asked or c.follower.passes]
        return f"{waiting} wait" if waiting else ""


@contextmanager
def _replaced(names: list[tuple[Any, str, Any]]) -> Iterator[None]:
    before = [(module, name, getattr(module, name)) for module, name, _ in names]
    for module, name, value in names:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextmanager
def _quiet() -> Iterator[None]:
    log = logging.getLogger("jobd")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


def main(words: list[str]) -> None:
    """Replay one history, or run many."""
    first, last = int(words[0]), int(words[-1])
    if len(words) == 1:
        print(Simulation(first, verbose=True).run())
        return
    began = time.perf_counter()
    failed: list[int] = []
    for seed in range(first, last):
        try:
            Simulation(seed).run()
        except Failed as error:
            failed.append(seed)
            print(error, file=sys.stderr)
    print(f"{last - first} histories, {time.perf_counter() - began:.1f} s, failed: {failed[:50]}")


if __name__ == "__main__":
    main(sys.argv[1:])
