"""A worker: runs jobs, one after the other, in its main thread.

Two threads, two sockets.  The main thread takes orders to run from the *job*
socket and sends outcomes there.  The control thread sleeps in the *control*
socket, for what cannot wait until a job ends: stopping it, giving back what has
not started, a new daemon, and what the job itself has to say (``inside``).  What
both touch is under one lock:

- ``_pending``: tasks that have not started,
- ``_current``: the one that runs,
- ``_held``: outcomes that were not sent yet,
- ``_unrecorded``: frames of outcomes that the daemon has not said to be durable,
- ``_stream``: what a generator produces, until its outcome is on its way.

Outcomes of short jobs are sent together, but never kept while a job runs that
may be long.  A frame is kept until it is recorded, because the daemon may die
with it; the next daemon asks for it (``Adopt``).

When the daemon dies, both threads see it at once and connect to the next one, to
which the control thread presents itself (``Alive``).  If none comes within
``orphan_s``, the worker ends as soon as it has nothing in hand.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Container
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, NoReturn

import msgspec

from jobd import context, payload
from jobd.blobs import Blobs, Spot
from jobd.failpoints import hit
from jobd.kin import VARIABLE, Kin
from jobd.model.blob import item_name, result_name
from jobd.model.errors import (
    DiskFull,
    PayloadNotStored,
    PayloadTooLarge,
    PayloadUnreadable,
    ResultNotSerialisable,
    ResultNotStored,
    ResultTooLarge,
)
from jobd.model.job import ErrorInfo, LogSpan, Notes, Outcome, Raised, Verdict, Wish
from jobd.model.messages import Message, encode
from jobd.model.orders import (
    Adopt,
    Alive,
    CloseStream,
    GiveBack,
    GivenBack,
    Grant,
    Handover,
    Leaving,
    Lent,
    Limits,
    Outcomes,
    Produced,
    Ready,
    Recorded,
    Retire,
    Run,
    StopJob,
    Task,
    decode_orders,
)
from jobd.pool import children, forks, linux
from jobd.pool.alarm import Alarm, Overdue, Stopped
from jobd.pool.cgroup import Leaf
from jobd.pool.confine import refuse_pickles
from jobd.pool.door import Door
from jobd.pool.failure import describe, one_line, safe_repr
from jobd.pool.initialize import initialize
from jobd.pool.inside import Inside
from jobd.pool.link import Gone, Link
from jobd.pool.meter import MEASURED_US, Meter
from jobd.pool.output import output_of
from jobd.pool.pristine import TRIES, Pristine
from jobd.pool.process_state import stop_timers
from jobd.pool.protocol import Settings
from jobd.pool.raised import end_if_told, raised_by
from jobd.pool.resolve import resolve
from jobd.pool.restrict import restricted
from jobd.pool.scoreboard import NOBODY, Scoreboard
from jobd.pool.share import limited
from jobd.pool.streams import ConsumerGone, Stream
from jobd.pool.surroundings import Surrounded, set_argv, spread
from jobd.pool.timer import SIGNAL
from jobd.wire.zmtp import Disconnected

HOLD_S = 0.001
"""Outcomes are sent at least this often while short jobs run one after the other."""

HELD_BYTES = 64 * 1024
"""A larger result is sent at once: a frame holds one of those at most."""

MAY_BE_LONG_US = 500
LONG_US = 1_000_000
"""What a job is taken for whose function has not run here yet."""

FORKS_US = 5
"""No process can be started in less: what was as quick leaves none behind."""

COPIES_US = 50
"""No fork takes less: where a job was as quick, we are not its child."""

STOPPED_MEMORY = 1_000
MOST_NOTES = 20
RECONNECT_S = 1.0
"""How long to try to reach a daemon that has just spoken to our other socket."""


Ended = tuple[int, bytes | None, ErrorInfo | None, Raised | None]
"""How an attempt has ended: the verdict, the value or the error, and what follows on that."""


class Worker:
    """The whole of a worker process."""

    def __init__(self, uid: str, settings: Settings) -> None:
        self.uid = uid
        self._forks = forks.Forks(self._forked)
        self._settings = settings
        self._boot = settings.boot
        self._blobs = Blobs(settings.place)
        self._lock = threading.RLock()
        self._pending: deque[Task] = deque()
        self._current: Task | None = None
        self._held: list[Outcome] = []
        self._unrecorded: dict[int, bytes] = {}
        self._stream: Stream | None = None
        self._moved = False
        """The next daemon knows our control socket, and the job socket still leads to the dead one."""
        self._seq = 0
        self._stop_early: deque[tuple[int, int]] = deque(maxlen=STOPPED_MEMORY)
        """Attempts to stop that had not arrived yet: the two sockets have no common order."""
        self._read = 0
        """The number of the last order to run that was read."""
        self._given_back = 0
        """Orders to run up to this number are given back."""
        self._leaving = False
        self._in_job = False
        self._idle = False
        self._told_to_stop = False
        self._notes: list[str] = []
        """What is to be said of the job at hand beside how it ends, a sentence each."""
        self._stop_ordered = False
        """By the daemon, which will kill us if it takes too long; nothing else runs here then."""
        self._sent_at = 0.0
        self._functions: dict[str, Callable[..., object]] = {}
        self._took_us: dict[str, int] = {}
        self._board = Scoreboard.create(os.path.join(settings.boards_dir, uid))
        self._output = output_of(
            uid, settings.logs_dir, settings.max_output_bytes, settings.outputs
        )
        self._inside = Inside(lambda: self._current, settings.client_socket)
        self._door = Door()
        self._alarm = Alarm(lambda: self._in_job)
        self._began_s = 0.0
        self._meter = Meter()
        self._leaf: Leaf | None = None
        """The cgroup of our own that a restricted job has brought us to."""
        self._jobs = Link(settings.socket, uid.encode() + b"/j")
        self._control = Link(settings.socket, uid.encode() + b"/c")

    # -- the main thread --

    def run(self) -> None:
        """Take orders and run jobs until retired."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self._alarm.install()
        signal.signal(signal.SIGINT, self._on_sigint)
        context.host = self._inside
        os.environ["JOBD_SOCKET"] = self._settings.client_socket  # where a job's own client goes
        os.environ[VARIABLE] = self._door.proof
        threading.Thread(target=self._watch, name="jobd-control", daemon=True).start()
        if self._settings.initializer:
            initialize(self._settings.initializer, self._output, self._forks)
        self._pristine = Pristine(
            (signal.SIGTERM, signal.SIGINT, SIGNAL), self._output.take_crashes
        )
        hit("worker.started")
        self._jobs.send(encode([Ready(os.getpid(), self._boot)]))
        while True:
            for frame in self._wait():
                for order in decode_orders(frame):
                    self._obey(order)
            self._work()
            if self._leaving and linux.has_children():
                children.end(self._own_fds())  # now: what they came from has been told
            if self._leaving and not self._unrecorded:
                self._leave()

    def _wait(self) -> list[bytes]:
        """Wait for orders; a SIGTERM from outside ends an idle worker."""
        frames: list[bytes] = []
        self._board.used(self._meter.begin())
        patience_s = self._pristine.patience_s()
        if patience_s == 0.0:
            if not self._look_ahead():
                return frames
            patience_s = None
        try:
            self._idle = True
            try:
                frames = self._jobs.receive(patience_s)
            except Disconnected:
                self._jobs.reconnect(self._settings.orphan_s)
                self._repeat()
            self._idle = False
        except (Stopped, Gone):
            self._leave()
        return frames

    def _look_ahead(self) -> bool:
        """Before a wait, or a job that may be long: whether it can begin here, after all that was short."""
        losses = self._pristine.look_ahead()
        if losses:
            self._replace("")
            self._notes.clear()  # nobody knows which job it was
        return not losses

    def _repeat(self) -> None:
        """Send again what is not recorded: the last frame may have gone to a daemon that was dead."""
        with self._lock:
            self._moved = False
            for frame in self._all_unrecorded():
                self._jobs.send(frame)

    def _all_unrecorded(self) -> list[bytes]:
        """Return the frames that the daemon has not said to be durable; the lock is held."""
        produced = self._stream.unrecorded() if self._stream else ()
        return [*self._unrecorded.values(), *(encode([message]) for message in produced)]

    def _obey(self, order: Message) -> None:
        match order:
            case Run(boot, tasks, number):
                with self._lock:
                    if boot == self._boot and number <= self._given_back:
                        pass  # given back already, before it was read
                    elif boot == self._boot and not self._leaving:
                        self._read = number
                        self._pending.extend(spread(order) if order.environments else tasks)
                    elif boot == self._boot:
                        self._jobs.send(encode([GivenBack([(t.id, t.attempt) for t in tasks])]))
            case Recorded(seqs):
                with self._lock:
                    for seq in seqs:
                        self._unrecorded.pop(seq, None)
            case Retire():
                self._leaving = True

    def _work(self) -> None:
        """Run what is pending, one job after the other."""
        task = self._next(None)
        while task is not None:
            refused = bool(self._stop_early) and (task.id, task.attempt) in self._stop_early
            if self._took_us.get(task.function, LONG_US) > MAY_BE_LONG_US:
                if self._held:
                    self._send_held()
                refused = not self._look_ahead() or refused
            if refused:
                self._jobs.send(encode([GivenBack([(task.id, task.attempt)])]))
                task = self._next(None)
                continue
            outcome = self._attempt(task)
            self._took_us[task.function] = outcome.duration_us
            task = self._next(outcome)

    def _next(self, outcome: Outcome | None) -> Task | None:
        """Keep what came of one job, and take the next one: nobody sees one without the other."""
        with self._lock:
            if outcome is not None:
                self._held.append(outcome)
                if self._stream is not None:
                    self._send_held()  # at once: on the other socket it might overtake the last items
                    self._stream.close()
                    self._stream = None
            if self._stop_ordered and self._pending:  # our control thread had no turn to do it
                self._jobs.send(encode([GivenBack([(t.id, t.attempt) for t in self._pending])]))
                self._pending.clear()
            self._told_to_stop = False  # before anybody can see what runs, and stop it
            task = self._current = self._pending.popleft() if self._pending else None
        if self._held:
            value = None if outcome is None else outcome.value
            large = value is not None and len(value) > HELD_BYTES
            # Always before a wait, and before the end: what is held is known to nobody else.
            if task is None or large or time.perf_counter() - self._sent_at > HOLD_S:
                self._send_held()
        if task is None and not self._leaving:
            self._look_for_children()  # of a thread that a job has left behind
        return task

    def _attempt(self, task: Task) -> Outcome:
        """Run one attempt and tell what came of it."""
        wall_us = time.time_ns() // 1000
        if wall_us <= 0:
            wall_us = 1  # the clock is wrong, and 0 means "not yet"
        self._board.begin(task.id, task.attempt, wall_us, self._output.number, self._output.start)
        hit("job.taken")
        self._began_s = began = time.perf_counter()
        limits = task.limits
        if limits is not None:
            self._alarm.set(limits.soft_timeout_s)
        (verdict, value, error, raised), duration_us = self._call_cleanly(task, began)
        if self._alarm.is_set:
            self._clear_alarm(verdict)
        log = self._tidy(duration_us)
        self._board.end()
        hit("job.ended")
        outcome = Outcome(task.id, task.attempt, verdict, value, error, wall_us, duration_us, log)
        outcome.raised = raised
        if self._notes:
            outcome.notes = _told_notes(self._notes)
            self._notes.clear()
        if duration_us >= MEASURED_US:
            outcome.usage = self._meter.measure(self._leaf)
            self._board.used(self._meter.cpu_us)
        return outcome

    def _call(self, task: Task) -> Ended:
        try:
            try:
                self._in_job = True
                is_plain = task.limits is None and task.surroundings is None
                run = self._result if is_plain else self._surrounded
                return Verdict.RETURNED, self._pristine.context().run(run, task), None, None
            except (Stopped, ConsumerGone):
                self._in_job = False
                self._forks.end_child()
                return Verdict.STOPPED, None, None, None
            except BaseException as error:  # noqa: BLE001  # whatever a job raises is the job's end
                self._in_job = False
                self._forks.end_child(error)
                if payload.is_success(error):
                    return Verdict.RETURNED, payload.encode_exit(_told(error)), None, None
                return self._failed(error)
            finally:
                self._in_job = False
        except Stopped:  # the signal came while the job's own exception was being handled
            self._in_job = False
            return Verdict.STOPPED, None, None, None
        except (context.TimeLimitExceeded, Overdue, KeyboardInterrupt) as error:  # so did another
            self._in_job = False
            self._forks.end_child(error)
            return self._failed(error)

    def _surrounded(self, task: Task) -> bytes:
        """As ``_result``, within the job's limits, and in the surroundings that it is given."""
        if task.surroundings is None:
            return self._restricted(task)
        around = Surrounded(task.surroundings, task.function)
        try:
            around.enter()
            return self._restricted(task)
        finally:
            self._in_job = False
            around.leave()

    def _restricted(self, task: Task) -> bytes:
        """As ``_result``, within the job's limits, which are lifted before its end is told."""
        if task.limits is None or not task.limits.restricts:
            return self._result(task)
        threads = limited(math.ceil(task.limits.cpus), self._settings.thread_variables)
        with threads, restricted(task.limits, self._enter_leaf(task.limits)):
            return self._result(task)

    def _enter_leaf(self, limits: Limits) -> Container[str]:
        """Go to a cgroup of our own, if there can be one; return the limits that it enforces."""
        if self._settings.cgroup is None:
            return ()
        leaf = Leaf(self._settings.cgroup, self.uid)
        try:
            held = leaf.enter(limits)
        except OSError as error:
            print(f"jobd: no cgroup for this job ({error}): rlimits instead", file=sys.stderr)
            return ()
        self._leaf = leaf
        return held

    def _failed(self, error: BaseException) -> tuple[int, None, ErrorInfo, Raised]:
        """Tell of a job that has raised, or that its soft limit has ended; it may raise the same by itself."""
        raised = raised_by(error)
        limit = self._alarm.ended_by_limit(error) if raised.wish == Wish.NOTHING else None
        if limit is None:
            return Verdict.RAISED, None, _told(error), raised
        return Verdict.TIMED_OUT, None, _told(limit), raised

    def _clear_alarm(self, verdict: int) -> None:
        note = self._alarm.note()
        if note and verdict != Verdict.TIMED_OUT:
            self._notes.append(note)
        self._alarm.clear()

    def _result(self, task: Task) -> bytes:  # noqa: C901  # all jobs pass here: a call costs more than it does
        # Here, not in `set_argv`: it is right for nearly every job, and a call would take longer.
        argv = getattr(sys, "argv", None)
        if type(argv) is not list or argv != [task.function] or task.surroundings is not None:
            set_argv(task.function, task.surroundings)
        allow, modules = self._settings.allow, len(sys.modules)
        if allow:
            refuse_pickles(task, allow)
        by_value, data = payload.split_by_value(task.args)
        inputs: Any = task.inputs  # no id is left once it is sent
        try:
            args, kwargs, as_json = payload.decode_call(data, inputs, self._blobs)
        except PayloadUnreadable as error:
            end_if_told(error.__cause__)
            raise
        function = payload.unpickle(by_value) if by_value else self._functions.get(task.function)
        if function is None:
            function = self._functions[task.function] = resolve(task.function, allow)
        if len(sys.modules) != modules:
            # What a module has set by being imported stays, as it does; but not what it finds around it.
            self._pristine.adopt(is_surrounded=task.surroundings is not None)
        if self._told_to_stop:
            raise Stopped
        value = function(*args, **kwargs)
        if type(value) in _TO_RUN:
            value = self._run_on(task, value, as_json=as_json)
        if self._forks.is_child:
            forks.end(None)
        self._in_job = False
        if value is None:  # as of all that is run for its effect
            return payload.NONE
        spot = Spot(self._blobs, result_name, task.id, task.attempt, self._boot)
        return self._encode(value, as_json=as_json, spot=spot)

    def _encode(
        self,
        value: object,
        *,
        as_json: bool,
        what: str = "its result",
        spot: Spot | None = None,
    ) -> bytes:
        try:
            data = payload.encode(value, shown_as=safe_repr, lossy=as_json, spot=spot)
        except payload.Unencodable as error:
            failed = ResultNotSerialisable(f"{what} cannot travel: {error}")
            if error.__cause__ is not None:
                failed.original = payload.pickle_exception(error.__cause__)
            raise failed from None
        except PayloadTooLarge as error:
            raise ResultTooLarge(f"{what} is too large: {error.message}") from None
        except (DiskFull, PayloadNotStored) as error:
            raise ResultNotStored(f"{what} cannot be stored: {error}") from None
        if len(data) > self._settings.max_payload_bytes:
            raise ResultTooLarge(
                f"{what} has {len(data)} bytes, over the limit of "
                f"{self._settings.max_payload_bytes} (limits.max_payload_bytes)"
            )
        return data

    def _run_on(self, task: Task, value: Any, *, as_json: bool) -> object:
        """Run what the function has only begun: a coroutine, a generator, or an asynchronous one."""
        if type(value) is CoroutineType:
            return self._alarm.run(self._forks.guard(value))

        def encode(item: object, seq: int) -> bytes:
            spot = Spot(self._blobs, item_name, task.id, task.attempt, seq)
            return self._encode(item, as_json=as_json, what="an item of its stream", spot=spot)

        stream = Stream(
            (task.id, task.attempt),
            encode=encode,
            send=self._send_produced,
            enter=self._enter_job,
            leave=self._leave_job,
            inside=self._inside,
        )
        self._in_job = False
        with self._lock:
            self._stream = stream
        if type(value) is GeneratorType:
            return stream.run(value)
        self._alarm.run(self._forks.guard(stream.run_async(value)))
        return None

    def _enter_job(self) -> None:
        """From now on a stop may raise; one that came before does at once."""
        self._in_job = True
        if self._told_to_stop:
            self._in_job = False
            raise Stopped
        self._alarm.check()

    def _leave_job(self) -> None:
        if self._forks.is_child:
            forks.end(None)  # an item of its stream is its parent's to send
        self._in_job = False

    def _send_produced(self, message: Produced) -> None:
        """Send what a stream has produced, on the job socket, where all of it keeps its order."""
        with self._lock:
            assert self._stream is not None
            self._seq += 1
            message.number = self._seq
            self._stream.keep(message)
            self._board.sent(self._seq)
            hit("produced.sending")
            if not self._moved:
                self._jobs.send(encode([message]))
                return
            try:
                self._jobs.reconnect(RECONNECT_S)
            except Gone:
                return  # this daemon is dead too; the next one will ask for what was kept
            self._repeat()

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM comes from our control thread, the daemon, or from outside; it ends the job that runs."""
        if self._forks.look():
            forks.die(signal.SIGTERM)
        if self._is_late():
            return
        was_told, self._told_to_stop = self._told_to_stop, True
        if self._in_job and not was_told:
            if not self._stop_ordered:
                os.killpg(os.getpid(), signal.SIGTERM)  # what the job has started was not told
            self._alarm.stop()
        if self._idle:
            self._idle = False
            raise Stopped

    def _is_late(self) -> bool:
        """Whether a SIGTERM was meant for an attempt that has ended; take note of one that was ordered."""
        ordered, task = self._board.to_stop, self._current
        if ordered == NOBODY:
            return False
        if task is None or (task.id, task.attempt) != ordered:
            self._board.order_stop(*NOBODY)  # the next one is meant for whoever runs then
            return True
        self._leaving = self._stop_ordered = True
        return False

    def _on_sigint(self, _number: int, _frame: FrameType | None) -> None:
        """As everywhere in Python, but while no code of a job runs."""
        if self._in_job:
            raise KeyboardInterrupt

    def _forked(self) -> None:
        """This is a child that a job has forked: nothing of the worker is its own but the output."""
        forks.leave_signals({signal.SIGTERM: self._on_sigterm, signal.SIGINT: self._on_sigint})
        self._jobs.close()
        self._control.close()
        self._door.forked()
        context.host = Kin(self._door.proof)

    def _send_held(self) -> None:
        with self._lock:
            frame = self._take_held()
            if frame:
                hit("outcomes.sending")
                self._jobs.send(frame)
                hit("outcomes.sent")
        self._sent_at = time.perf_counter()

    def _take_held(self) -> bytes:
        """Turn what is held into a frame to send; the lock is held."""
        if not self._held:
            return b""
        self._seq += 1
        outcomes = Outcomes(self._seq, self._held)
        frame = encode([outcomes])
        self._held = []
        # What a stream has sent is kept with its outcome, and recorded with it.
        produced = self._stream.unrecorded() if self._stream else []
        self._unrecorded[self._seq] = encode([*produced, outcomes]) if produced else frame
        self._board.sent(self._seq)
        return frame

    def _leave(self) -> NoReturn:
        """End; without the interpreter's own way out, which user code can block for ever."""
        self._board.leave()
        self._jobs.close()
        self._board.close()
        os._exit(0)

    def _replace(self, note: str) -> None:
        """Begin no other job here, since this one has left what cannot be undone; the note says what."""
        self._notes.append(f"{note}: its worker was replaced")
        with self._lock:
            self._leaving = True
            attempts = [(task.id, task.attempt) for task in self._pending]
            self._pending.clear()
            self._jobs.send(encode([Leaving(attempts)]))

    # -- between two jobs --

    def _call_cleanly(self, task: Task, began: float) -> tuple[Ended, int]:
        """Call a job's function, and undo what it has changed in this process; return how long it took, too."""
        try:
            ended_as: Ended = self._call(task)
            ended = time.perf_counter()
            duration_us = int((ended - began) * 1e6)
            if duration_us >= COPIES_US and self._forks.look():
                forks.end(None)
            if task.limits is None and ended_as[0] == Verdict.RETURNED:
                losses = self._pristine.after(task.function, began, ended)
            else:
                losses = self._put_back(task, ended)
        except BaseException as late:  # noqa: BLE001  # of a handler of signals that the job has left
            ended_as, losses = self._rung(task, late)
            duration_us = int((time.perf_counter() - began) * 1e6)
        if losses:
            self._replace(", and ".join(losses))
        return ended_as, duration_us

    def _rung(self, task: Task, late: BaseException) -> tuple[Ended, list[str]]:
        """A job's own signal has raised as the job ended: that is how it ended, if anybody is to blame."""
        if self._forks.look():
            forks.end(late)
        for _ in range(TRIES):
            try:
                stop_timers()
                losses = self._put_back(task, time.perf_counter())
                return (Verdict.RAISED, None, _told(late), raised_by(late)), losses
            except BaseException:  # noqa: BLE001, S112  # again
                continue
        raise late

    def _put_back(self, task: Task, ended: float) -> list[str]:
        """Undo what a job has changed that was limited, or has failed; return what cannot be undone."""
        if self._stop_ordered:
            return []  # nothing else runs here
        if task.limits is not None and task.limits.restricts:
            return self._pristine.threads_left()
        return self._pristine.after(task.function, self._began_s, ended, sure=True)

    def _tidy(self, duration_us: int) -> LogSpan | None:
        """Undo what a job may have left behind, and tell what it wrote."""
        if duration_us >= FORKS_US:
            self._look_for_children()
        self._output.settle()
        return self._output.span(sure=self._pristine.is_fresh)

    def _look_for_children(self) -> None:
        """See to it that the next job meets none of the processes that this one has started."""
        if not linux.has_children():
            return
        if self._stop_ordered:
            children.end(self._own_fds(), are_told=True, are_awaited=True)
        elif count := children.left_running():
            processes = "process" if count == 1 else "processes"
            self._replace(f"it left {count} {processes} running")

    def _own_fds(self) -> set[int]:
        """Return our sockets, without which we can end no job."""
        return {self._jobs.fileno(), self._control.fileno(), *self._door.fds()}

    # -- the control thread --

    def _watch(self) -> None:
        self._control.send(encode([Alive(os.getpid(), self._boot)]))
        while True:
            try:
                inside, door = self._inside, self._door
                patience_s = inside.patience_s(time.monotonic())
                ready = self._control.wait((inside.fd, door.fd), patience_s)
                if ready.get(inside.fd) is False:
                    inside.fd = -1  # the job has closed it, with all the others
                if door.fd in ready:
                    door.serve()
                for frame in self._control.receive(0):
                    for order in decode_orders(frame):
                        self._obey_at_once(order)
                reports = inside.take(time.monotonic())
                if reports:
                    self._control.send(encode(reports))
            except Disconnected:
                self._find_daemon()

    def _find_daemon(self) -> None:
        """Present ourselves to the next daemon; with nothing in hand, wait for it only so long."""
        while True:
            try:
                self._control.reconnect(self._settings.orphan_s)
            except Gone:
                with self._lock:
                    if self._current is None:
                        self._board.leave()
                        os._exit(0)
            else:
                self._control.send(encode([Alive(os.getpid(), self._boot)]))
                return

    def _obey_at_once(self, order: Message) -> None:
        with self._lock:
            match order:
                case GiveBack(upto):
                    self._give_back(upto)
                case StopJob(number, attempt):
                    self._stop(number, attempt)
                case Adopt(boot):
                    self._hand_over(boot)
                case Grant() | CloseStream():
                    self._obey_for_stream(order)
                case Lent():
                    self._inside.answered(order)

    def _obey_for_stream(self, order: Grant | CloseStream) -> None:
        stream = self._stream
        if stream is None or stream.job != (order.id, order.attempt):
            return
        if isinstance(order, Grant):
            stream.granted(order.credit, order.recorded)
        else:
            stream.closed()

    def _give_back(self, upto: int = 0) -> None:
        """Give back what has not started, and orders up to number ``upto`` that are still unread."""
        frame = self._take_held()
        if frame:
            self._control.send(frame)
        attempts = [(task.id, task.attempt) for task in self._pending]
        self._pending.clear()
        self._control.send(encode([GivenBack(attempts, self._read, upto)]))
        self._given_back = max(self._given_back, upto)

    def _stop(self, number: int, attempt: int) -> None:
        task = self._current
        if task is not None and (task.id, task.attempt) == (number, attempt):
            self._leaving = (
                True  # what a stopped job leaves behind is unknown: nothing else runs here
            )
            self._stop_ordered = True
            self._give_back()
            if self._board.to_stop != (number, attempt):  # else the daemon has not waited for us
                self._board.order_stop(number, attempt)
                linux.end_processes(os.getpid())
            return
        for task in self._pending:
            if (task.id, task.attempt) == (number, attempt):
                self._pending.remove(task)
                self._control.send(encode([GivenBack([(number, attempt)])]))
                return
        self._stop_early.append((number, attempt))

    def _hand_over(self, boot: str) -> None:
        if boot == self._boot:
            return
        self._boot = boot
        self._take_held()
        for frame in self._all_unrecorded():
            self._control.send(frame)
        self._moved = True
        self._pending.clear()
        task = self._current
        running = (task.id, task.attempt) if task else (0, 0)
        for_us = int((time.perf_counter() - self._began_s) * 1e6) if task else 0
        handover = Handover(os.getpid(), running, for_us)
        self._control.send(encode([handover, *self._inside.handed_over()]))


_TO_RUN = frozenset((CoroutineType, GeneratorType, AsyncGeneratorType))


def _told_notes(notes: list[str]) -> Notes:
    """Return notes as they travel: so many that a person reads them, and each in one line."""
    return tuple(one_line(note) for note in notes[:MOST_NOTES])


def _told(error: BaseException) -> ErrorInfo:
    """Describe an exception, and add it as it is if it can travel."""
    return msgspec.structs.replace(describe(error), pickled=payload.pickle_exception(error))
