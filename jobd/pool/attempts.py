"""Runs attempts in this process, one after the other, and leaves it as it was."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Container
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, cast

import msgspec

from jobd import context, payload
from jobd.blobs import Blobs, Spot
from jobd.failpoints import hit
from jobd.model.blob import item_name, result_name
from jobd.model.errors import PayloadUnreadable
from jobd.model.job import ErrorInfo, LogSpan, Notes, Outcome, Raised, Verdict, Wish
from jobd.model.orders import Limits, Task
from jobd.pool import children, forks, linux
from jobd.pool.alarm import Alarm, Overdue, Stopped
from jobd.pool.cgroup import Leaf
from jobd.pool.confine import refuse_pickles
from jobd.pool.failure import describe, one_line
from jobd.pool.forks import Forks
from jobd.pool.hands import Hands
from jobd.pool.inside import Inside
from jobd.pool.meter import MEASURED_US, Meter
from jobd.pool.output import output_of
from jobd.pool.pristine import TRIES, Pristine
from jobd.pool.process_state import stop_timers
from jobd.pool.protocol import Settings
from jobd.pool.raised import end_if_told, raised_by
from jobd.pool.resolve import resolve
from jobd.pool.restrict import restricted
from jobd.pool.results import encode_result
from jobd.pool.share import limited
from jobd.pool.streams import ConsumerGone, Stream
from jobd.pool.surroundings import Surrounded, set_argv
from jobd.pool.timer import SIGNAL

FORKS_US = 5
"""No process can be started in less: what was as quick leaves none behind."""

COPIES_US = 50
"""No fork takes less: where a job was as quick, we are not its child."""

MOST_NOTES = 20

Ended = tuple[int, bytes | None, ErrorInfo | None, Raised | None]
"""How an attempt has ended: the verdict, the value or the error, and what follows on that."""


class Attempts:
    """What it takes to run the jobs of a worker."""

    def __init__(  # an attempt meets all of a worker
        self,
        uid: str,
        settings: Settings,
        hands: Hands,
        children_of: Forks,
        inside: Inside,
        own_fds: Callable[[], set[int]],
    ) -> None:
        """``own_fds`` are the sockets without which a worker can end no job."""
        self.in_job = False
        """Code of a job runs: a signal may raise in it."""
        self.notes: list[str] = []
        """What is to be said of the job at hand beside how it ends, a sentence each."""
        self.meter = Meter()
        self.alarm = Alarm(lambda: self.in_job)
        self.output = output_of(uid, settings.logs_dir, settings.max_output_bytes, settings.outputs)
        self._uid = uid
        self._settings = settings
        self._hands = hands
        self._board = hands.board
        self._forks = children_of
        self._own_fds = own_fds
        self._inside = inside
        self._blobs = Blobs(settings.place)
        self._functions: dict[str, Callable[..., object]] = {}
        self._leaf: Leaf | None = None
        """The cgroup of our own that a restricted job has brought us to."""
        self._pristine: Pristine

    def prepare(self) -> None:
        """Take note of how this process is before its first job."""
        signals = (signal.SIGTERM, signal.SIGINT, SIGNAL)
        self._pristine = Pristine(signals, self.output.take_crashes)

    def run(self, task: Task) -> Outcome:
        """Run one attempt and tell what came of it."""
        wall_us = time.time_ns() // 1000
        if wall_us <= 0:
            wall_us = 1  # the clock is wrong, and 0 means "not yet"
        self._board.begin(task.id, task.attempt, wall_us, self.output.number, self.output.start)
        hit("job.taken")
        self._hands.began_s = began = time.perf_counter()
        limits = task.limits
        if limits is not None:
            self.alarm.set(limits.soft_timeout_s)
        ended_as, duration_us = self._call_cleanly(task, began)
        return self._outcome(task, ended_as, wall_us, duration_us)

    def _outcome(self, task: Task, ended_as: Ended, wall_us: int, duration_us: int) -> Outcome:
        """Tell what came of an attempt, and see to what it has left behind."""
        verdict, value, error, raised = ended_as
        if self.alarm.is_set:
            self._clear_alarm(verdict)
        log = self._tidy(duration_us)
        hit("job.ended")
        outcome = Outcome(
            task.id, task.attempt, verdict, value, error, wall_us, duration_us, log, None, raised
        )
        if self.notes:
            outcome.notes = _told_notes(self.notes)
            self.notes.clear()
        if duration_us >= MEASURED_US:
            outcome.usage = self.meter.measure(self._leaf)
            self._board.used(self.meter.cpu_us)
        return outcome

    def _call(self, task: Task, run: Callable[[Task], bytes] | None = None) -> Ended:
        """Have ``run`` call a job's function (None: in the usual way); return how that has ended."""
        try:
            try:
                self.in_job = True
                if run is None:
                    is_plain = task.limits is None and task.surroundings is None
                    run = self._result if is_plain else self._surrounded
                return Verdict.RETURNED, self._pristine.context().run(run, task), None, None
            except (Stopped, ConsumerGone):
                self.in_job = False
                self._forks.end_child()
                return Verdict.STOPPED, None, None, None
            except BaseException as error:  # noqa: BLE001  # whatever a job raises is the job's end
                self.in_job = False
                self._forks.end_child(error)
                if payload.is_success(error):
                    return Verdict.RETURNED, payload.encode_exit(_told(error)), None, None
                return self._failed(error)
            finally:
                self.in_job = False
        except Stopped:  # the signal came while the job's own exception was being handled
            self.in_job = False
            return Verdict.STOPPED, None, None, None
        except (context.TimeLimitExceeded, Overdue, KeyboardInterrupt) as error:  # so did another
            self.in_job = False
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
            self.in_job = False
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
        leaf = Leaf(self._settings.cgroup, self._uid)
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
        limit = self.alarm.ended_by_limit(error) if raised.wish == Wish.NOTHING else None
        if limit is None:
            return Verdict.RAISED, None, _told(error), raised
        return Verdict.TIMED_OUT, None, _told(limit), raised

    def _clear_alarm(self, verdict: int) -> None:
        note = self.alarm.note()
        if note and verdict != Verdict.TIMED_OUT:
            self.notes.append(note)
        self.alarm.clear()

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
        function = self._by_value(by_value) if by_value else self._functions.get(task.function)
        if function is None:
            function = self._functions[task.function] = resolve(task.function, allow)
        if len(sys.modules) != modules:
            # What a module has set by being imported stays, as it does; but not what it finds around it.
            self._pristine.adopt(is_surrounded=task.surroundings is not None)
        if self._hands.is_told_to_stop:
            raise Stopped
        value = function(*args, **kwargs)
        if type(value) in TO_RUN:
            value = self._run_on(task, value, as_json=as_json)
        if self._forks.is_child:
            forks.end(None)
        self.in_job = False
        if value is None:  # as of all that is run for its effect
            return payload.NONE
        spot = Spot(self._blobs, result_name, task.id, task.attempt, self._hands.boot)
        return encode_result(value, self._settings.max_payload_bytes, as_json=as_json, spot=spot)

    def _by_value(self, code: bytes) -> Callable[..., object]:
        """Return a function that travels by value."""
        return cast("Callable[..., object]", payload.unpickle(code))

    def _run_on(self, task: Task, value: Any, *, as_json: bool) -> object:
        """Run what the function has only begun: a coroutine, a generator, or an asynchronous one."""
        if type(value) is CoroutineType:
            return self.alarm.run(self._forks.guard(value))

        def encode(item: object, seq: int) -> bytes:
            spot = Spot(self._blobs, item_name, task.id, task.attempt, seq)
            most = self._settings.max_payload_bytes
            return encode_result(
                item, most, as_json=as_json, what="an item of its stream", spot=spot
            )

        stream = Stream(
            (task.id, task.attempt),
            encode=encode,
            send=self._hands.send_produced,
            enter=self._enter_job,
            leave=self._leave_job,
            inside=self._inside,
        )
        self.in_job = False
        self._hands.open_stream(stream)
        if type(value) is GeneratorType:
            return stream.run(value)
        self.alarm.run(self._forks.guard(stream.run_async(value)))
        return None

    def _enter_job(self) -> None:
        """From now on a stop may raise; one that came before does at once."""
        self.in_job = True
        if self._hands.is_told_to_stop:
            self.in_job = False
            raise Stopped
        self.alarm.check()

    def _leave_job(self) -> None:
        if self._forks.is_child:
            forks.end(None)  # an item of its stream is its parent's to send
        self.in_job = False

    # -- between two jobs --

    def look_ahead(self, *, sure: bool = True) -> bool:
        """Before a wait, or a job that may be long: whether it can begin here, after all that was short."""
        losses = self._pristine.look_ahead(sure=sure)
        if losses:
            self.replace("")
            self.notes.clear()  # nobody knows which job it was
        return not losses

    def patience_s(self) -> float | None:
        """Return how long a wait may last before the next look at this process; None: for ever."""
        return self._pristine.patience_s()

    def replace(self, note: str) -> None:
        """Begin no other job here, since this one has left what cannot be undone; the note says what."""
        self.notes.append(f"{note}: its worker was replaced")
        self._hands.leave()

    def _call_cleanly(self, task: Task, began: float) -> tuple[Ended, int]:
        """Call a job's function, and undo what it has changed in this process; return how long it took, too."""
        try:
            return self._cleaned(task, self._call(task), began, time.perf_counter())
        except BaseException as late:  # noqa: BLE001  # of a handler of signals that the job has left
            return self._too_late(task, late, began)

    def _cleaned(
        self, task: Task, ended_as: Ended, began: float, ended: float
    ) -> tuple[Ended, int]:
        """Undo what a job that has ended has changed in this process; return how long it took, too."""
        duration_us = int((ended - began) * 1e6)
        if duration_us >= COPIES_US and self._forks.look():
            forks.end(None)
        if task.limits is None and ended_as[0] == Verdict.RETURNED:
            losses = self._pristine.after(task.function, began, ended)
        else:
            losses = self._put_back(task, ended)
        if losses:
            self.replace(", and ".join(losses))
        return ended_as, duration_us

    def _too_late(self, task: Task, late: BaseException, began: float) -> tuple[Ended, int]:
        """As ``_cleaned``, of a job whose own signal has raised as it ended."""
        ended_as, losses = self._rung(task, late)
        if losses:
            self.replace(", and ".join(losses))
        return ended_as, int((time.perf_counter() - began) * 1e6)

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
        if self._hands.is_stop_ordered:
            return []  # nothing else runs here
        if task.limits is not None and task.limits.restricts:
            return self._pristine.threads_left()
        return self._pristine.after(task.function, self._hands.began_s, ended, sure=True)

    def _tidy(self, duration_us: int) -> LogSpan | None:
        """Undo what a job may have left behind, and tell what it wrote."""
        if duration_us >= FORKS_US:
            self.look_for_children()
        self.output.settle()
        return self.output.span(sure=self._pristine.is_fresh)

    def look_for_children(self) -> None:
        """See to it that the next job meets none of the processes that this one has started."""
        if not linux.has_children():
            return
        if self._hands.is_stop_ordered:
            children.end(self._own_fds(), are_told=True, are_awaited=True)
        elif count := children.left_running():
            processes = "process" if count == 1 else "processes"
            self.replace(f"it left {count} {processes} running")


TO_RUN = frozenset((CoroutineType, GeneratorType, AsyncGeneratorType))


def _told_notes(notes: list[str]) -> Notes:
    """Return notes as they travel: so many that a person reads them, and each in one line."""
    return tuple(one_line(note) for note in notes[:MOST_NOTES])


def _told(error: BaseException) -> ErrorInfo:
    """Describe an exception, and add it as it is if it can travel."""
    return msgspec.structs.replace(describe(error), pickled=payload.pickle_exception(error))
