"""Worker processes that are objects: each does one small step when it is told to.

A worker follows ``jobd.pool.worker`` and ``hands``: a main thread with its own inbox, a control
thread with another, and what both touch.  It can die between any two steps; its
scoreboard tells afterwards what it was in.  What it sent before is on its way in
``out`` and arrives, or does not, as the network of the simulation likes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from random import Random
from types import SimpleNamespace
from typing import NamedTuple

import msgspec
from fake_streams import FUNCTION as STREAM
from fake_streams import FakeStream

from jobd.model.job import ErrorInfo, Outcome, Raised, Verdict, Wish
from jobd.model.messages import Message
from jobd.model.orders import (
    Adopt,
    Alive,
    Check,
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
    Ready,
    Recorded,
    Retire,
    Run,
    StopJob,
    Task,
    Waiting,
)
from jobd.model.stretch import calls_in, pack
from jobd.pool.deaths import Dead
from jobd.pool.scoreboard import Now

NOTHING = Now(0, 0, 0, 0, 0)
MAY_BE_LONG_US = 500
FOR_EVER = 1 << 30


class At(Enum):
    """Where the main thread is."""

    STARTING = 1
    WAITING = 2
    CHOOSING = 3
    TAKEN = 4
    IN_JOB = 5
    BETWEEN = 6
    ASKING = 7
    """In a job that would wait, and has not been told whether it may."""
    SUBMITTING = 9
    """In a job that has submitted another, and waits for its id."""
    LENT = 8
    """In a job that waits."""


class Running(NamedTuple):
    """The job that a worker is in."""

    task: Task
    stubborn: bool
    deaf: bool
    """It keeps the control thread from running."""
    fate: int
    duration_us: int


class Nested(NamedTuple):
    """What a job knows of another that it has submitted."""

    is_over: Callable[[], bool]
    number: Callable[[], int]
    """Its id; 0 as long as it is not known."""


NO_JOB = Nested(lambda: True, lambda: 0)


class Witness:
    """Who is told what really happens; the simulation's truth is one."""

    def started(self, worker: FakeWorker, task: Task) -> None:
        """An attempt starts."""

    def prevented(self, task: Task) -> None:
        """An attempt is stopped before a line of the job has run."""

    def finished(self, worker: FakeWorker, task: Task, verdict: int) -> None:
        """An attempt has come to its end."""

    def raised(self, worker: FakeWorker, task: Task, raised: Raised) -> None:
        """An attempt has raised."""

    def produced(self, worker: FakeWorker, stream: FakeStream) -> None:
        """A stream has made an item."""

    def killed(self, worker: FakeWorker, job: int, attempt: int) -> None:
        """A process is about to be killed because of an attempt."""

    def died(self, worker: FakeWorker) -> None:
        """A process is gone."""

    def age_us(self, worker: FakeWorker) -> int:  # noqa: ARG002  # for others to use
        """Return how long its job has been running."""
        return 0

    def nested(self, worker: FakeWorker, task: Task) -> Nested:  # noqa: ARG002  # for others to use
        """A job submits another."""
        return NO_JOB


def result_of(task: Task) -> bytes:
    """Return what an attempt returns: no other attempt returns the same."""
    return b"%s/%d" % (task.args, task.attempt)


CODE = b"~"
"""What stands before each call of an array ends with this, as it were a function that travels by value."""


def items_of(task: Task) -> list[Task]:
    """Return the items of a stretch, each as a task of its own; a task of one job is itself."""
    if not task.count:
        return [task]
    code, mark, chunk = task.args.partition(CODE)
    calls = calls_in(chunk)[task.at : task.at + task.count]
    attempt, function, queue = task.attempt, task.function, task.queue
    limits, around = task.limits, task.surroundings
    return [
        Task(number, attempt, function, code + mark + call, [], queue, limits, around)
        for number, call in enumerate(calls, task.id)
    ]


DIES = 99


class FakeWorker:
    """One process."""

    wishes = 0.0
    """How often what a job raises asks for another attempt, or for none."""

    quiet = 0.85
    """How often there is nothing to tell of an item that has returned but its value."""

    spoilt = 0.02
    """How often a job leaves behind what cannot be undone, so that its worker ends."""

    def __init__(self, uid: str, boot: str, pid: int, rng: Random, witness: Witness) -> None:
        self.uid = uid
        self.pid = pid
        self.boot = boot
        self.alive = True
        self.is_lost = False
        """Its scoreboard was lost with the whole machine."""
        self.cause = ""
        self.at = At.STARTING
        self.linked = {"/j": False, "/c": False}
        """Which of its two sockets are connected to a daemon."""
        self.inbox: dict[str, deque[Order]] = {"/j": deque(), "/c": deque()}
        self.out: dict[str, deque[Message]] = {"/j": deque(), "/c": deque()}
        self.board = NOTHING
        self.last = NOTHING
        """The attempt that runs, or ended last; nothing if the worker left of its own will."""
        self.board_seq = 0
        self.pending: deque[Task] = deque()
        self.current: Task | None = None
        self.running: Running | None = None
        self.steps_left = 0
        self.waits_left = 0
        self.waits = False
        """Its job waits for others, or has asked whether it may."""
        self._may_wait: bool | None = None
        self._nested = NO_JOB
        self.stretch: deque[Task] | None = None
        """What is left of the stretch at hand, behind the item that is current."""
        self._piece: Outcome | None = None
        """Items of it that have returned, one after the other; their values are apart."""
        self._values: list[bytes] = []
        self.held: list[Outcome] = []
        self.unrecorded: dict[int, list[Outcome]] = {}
        self.stream: FakeStream | None = None
        self.moved = False
        """Its job socket leads to a dead daemon, and another one has asked for what it has."""
        self._with_stream: dict[int, list[Produced]] = {}
        """What is kept of a stream together with its outcome, by the number of that."""
        self.leaving = False
        self.told_to_stop = False
        self.to_stop = (0, 0)
        """On the scoreboard: the attempt that was sent SIGTERM by order."""
        self._is_stop_ordered = False
        self._took_us: dict[str, int] = {}
        self._stop_early: set[tuple[int, int]] = set()
        self._seq = 0
        self._read_upto = 0
        self._given_back = 0
        self._rng = rng
        self._witness = witness

    def __repr__(self) -> str:
        return f"<{self.uid} {self.at.name} {self.board[:2]} {'' if self.alive else 'dead'}>"

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do and nothing to read."""
        read = not (self.inbox["/j"] or self.inbox["/c"])
        return self.at is At.WAITING and read and all(self.linked.values())

    def die(self, cause: str) -> None:
        """Be gone, without a word."""
        if self.alive:
            self.alive, self.cause = False, cause
            self._witness.died(self)

    def leave(self) -> None:
        """End of its own will."""
        self.last = NOTHING
        self.die("exit code 0")

    def left(self) -> list[Outcomes | Produced]:
        """Return what its scoreboard has of attempts that ended, and are not durable as far as it knows."""
        left: list[Outcomes | Produced] = []
        for seq, outcomes in self.unrecorded.items():
            left += [*self._with_stream.get(seq, ()), Outcomes(seq, outcomes)]
        held = [*self.held, *([self._whole_piece()] if self._piece is not None else ())]
        return [*left, Outcomes(0, held)] if held else left

    def lose_daemon(self) -> None:
        """The daemon has died: what was on its way to it is lost, what had come from it is not."""
        for channel in ("/j", "/c"):
            self.linked[channel] = False
            self.out[channel].clear()

    def _send(self, channel: str, report: Message) -> None:
        if self.linked[channel]:
            self.out[channel].append(report)

    # -- the main thread --

    def step(self) -> None:
        """Do the next small thing."""
        _STEPS[self.at](self)

    def _start(self) -> None:
        self.linked = {"/j": True, "/c": True}
        self._send("/j", Ready(self.pid, self.boot))
        self._send("/c", Alive(self.pid, self.boot))
        self.at = At.WAITING

    def _read(self) -> None:
        if self.inbox["/j"]:
            self._obey(self.inbox["/j"].popleft())
            self.at = At.CHOOSING
        elif not self.linked["/j"]:
            self.linked["/j"] = True
            self._send_again("/j")
            self.at = At.CHOOSING

    def _send_again(self, channel: str) -> None:
        for seq, outcomes in self.unrecorded.items():
            for message in self._with_stream.get(seq, ()):
                self._send(channel, message)
            self._send(channel, Outcomes(seq, outcomes))
        for message in self.stream.kept if self.stream else ():
            self._send(channel, message)

    def _obey(self, order: Order) -> None:
        match order:
            case Run(boot, _, number) if boot == self.boot and number <= self._given_back:
                pass
            case Run(boot, tasks, number) if boot == self.boot and not self.leaving:
                self._read_upto = number
                self.pending.extend(tasks)
            case Run(boot, tasks) if boot == self.boot:
                self._send("/j", GivenBack([(t.id, t.attempt) for t in tasks]))
            case Recorded(seqs):
                for seq in seqs:
                    self.unrecorded.pop(seq, None)
                    self._with_stream.pop(seq, None)
            case Retire():
                self.leaving = True

    def _choose(self) -> None:
        if self.pending:
            self.told_to_stop = False
            self.current = self.pending.popleft()
            if self.current.count and (self.current.id, self.current.attempt) in self._stop_early:
                self._send("/j", GivenBack([(self.current.id, self.current.attempt)]))
                self.current = None
            elif self.current.count:
                if self._took_us.get(self.current.function, FOR_EVER) > MAY_BE_LONG_US:
                    self._send_held("/j")
                self.stretch = deque(items_of(self.current))
                self.current = self.stretch.popleft()
                self.at = At.TAKEN
            else:
                self.at = At.TAKEN
        elif self.leaving and not self.unrecorded:
            self.leave()
        else:
            self.at = At.WAITING

    def _begin(self) -> None:
        task = self.current
        assert task is not None
        is_first = self.stretch is None
        if is_first and self.held and self._took_us.get(task.function, FOR_EVER) > MAY_BE_LONG_US:
            self._send_held("/j")
        if is_first and (task.id, task.attempt) in self._stop_early:
            self.current = None
            self._send("/j", GivenBack([(task.id, task.attempt)]))
            self.at = At.CHOOSING
            return
        self.board = self.last = Now(task.id, task.attempt, 1, 0, 0)
        self.running = self._plan(task)
        self.at = At.IN_JOB
        if self.told_to_stop:  # before a line of the job's own has run
            self._witness.prevented(task)
            self._hand_in(Verdict.STOPPED)
        else:
            self._witness.started(self, task)

    def _plan(self, task: Task) -> Running:
        dice = self._rng.random
        kind = task.function
        self.waits_left = int(dice() * 3) if kind == "m:nest" else 0
        long = kind == "m:long" or (kind == "m:fickle" and dice() < 0.2)
        self.steps_left = int(dice() * 15) + 2 if long else 1
        lethal = {"m:killer": 0.7, STREAM: 0.15}.get(kind, 0.02)
        if kind == STREAM:
            self.stream = FakeStream(task, int(dice() * 9))
        chance = dice()
        fate = DIES if chance < lethal else Verdict.RAISED if chance > 0.85 else Verdict.RETURNED
        is_soft = task.limits is not None and task.limits.soft_timeout_s > 0
        if is_soft and fate == Verdict.RETURNED and dice() < 0.5:
            fate = Verdict.TIMED_OUT
        duration_us = int(dice() * 50_000) + 2_000 if long else int(dice() * 60) + 5
        return Running(task, dice() < 0.3, long and dice() < 0.2, fate, duration_us)

    def _work(self) -> None:
        if self.waits_left:
            self._begin_wait()
            return
        if self.stream is not None and self._produce(self.stream):
            return
        self.steps_left -= 1
        if self.steps_left > 0:
            return
        assert self.running is not None
        if self.running.fate == DIES:
            self.die("SIGSEGV")
        else:
            self._finish(self.running.fate)

    def _produce(self, stream: FakeStream) -> bool:
        """Go on with a stream; return whether it has not come to its end."""
        if stream.closing:
            self._finish(Verdict.STOPPED)
            return True
        if stream.is_open and stream.made == stream.total:
            return False
        if stream.is_open and stream.made >= stream.credit:
            return True  # it waits
        self._seq += 1
        self.board_seq = self._seq
        message = stream.next(self._seq)
        if stream.made:
            self._witness.produced(self, stream)
        if self.moved:
            self.moved, self.linked["/j"] = False, True
            self._send_again("/j")
        else:
            self._send("/j", message)
        return True

    def _begin_wait(self) -> None:
        assert self.current is not None
        self.waits_left -= 1
        self._nested = self._witness.nested(self, self.current)
        self.at = At.SUBMITTING

    def _submit(self) -> None:
        if not (self._nested.number() or self._nested.is_over()):
            return
        self.waits, self._may_wait = True, None
        self._isolate()
        self._send("/c", self._waiting())
        self.at = At.ASKING

    def _waiting(self) -> Waiting:
        assert self.current is not None
        awaited = [self._nested.number()] if self.waits and self._nested.number() else []
        return Waiting(self.current.id, self.current.attempt, self.waits, awaited)

    def _ask(self) -> None:
        if self._may_wait:
            self.at = At.LENT
        elif self._may_wait is False:
            self._end_wait()
            self._finish(Verdict.RAISED)

    def _sleep(self) -> None:
        if self._nested.is_over():
            self._end_wait()
            self.at = At.IN_JOB
        elif self._rng.random() < 0.05:
            self._finish(Verdict.RETURNED)

    def _end_wait(self) -> None:
        self.waits = False
        self._send("/c", self._waiting())

    def _finish(self, verdict: int) -> None:
        assert self.running is not None
        if self.waits and self._rng.random() < 0.5:
            self._end_wait()
        self.waits = (
            False  # it may be a thread of the job that has waited: that says nothing any more
        )
        self._witness.finished(self, self.running.task, verdict)
        self._hand_in(verdict)

    def _hand_in(self, verdict: int) -> None:
        running, self.running = self.running, None
        assert running is not None
        task = running.task
        value = result_of(task) if verdict == Verdict.RETURNED else None
        has_raised = verdict in (Verdict.RAISED, Verdict.TIMED_OUT)
        error = ErrorInfo("E", str(task.attempt), "") if has_raised else None
        raised = self._raises(task) if has_raised else None
        self.board = NOTHING
        self.current = None
        took_us = running.duration_us
        self._took_us[task.function] = took_us
        if self.stretch is not None and value is not None and self._rng.random() < self.quiet:
            self._add_to_piece(task, value, took_us)
        else:
            self._close_piece()
            self.held.append(
                Outcome(task.id, task.attempt, verdict, value, error, 1, took_us, raised=raised)
            )
        self.at = At.BETWEEN
        if self.stream is not None:
            self._send_held("/j")
            self.stream = None

    def _add_to_piece(self, task: Task, value: bytes, took_us: int) -> None:
        """Keep an item's value with those of the items before it: there is nothing else to tell."""
        if self._piece is None:
            self._piece = Outcome(task.id, task.attempt, Verdict.RETURNED, None, None, 1, 0)
            self._values = []
        self._piece.duration_us += took_us
        self._values.append(value)

    def _whole_piece(self) -> Outcome:
        piece = self._piece
        assert piece is not None
        return msgspec.structs.replace(piece, count=len(self._values), value=pack(self._values))

    def _close_piece(self) -> None:
        if self._piece is not None:
            self.held.append(self._whole_piece())
            self._piece = None

    def _next_item(self) -> None:
        """Go on with the stretch at hand, or be done with it."""
        assert self.stretch is not None
        if self.leaving or self._is_stop_ordered:
            rest = self._drop_rest()
            if rest:
                self._send_held("/j")
                self._send("/j", GivenBack(rest))
        if self.stretch:
            if self._rng.random() < 0.2:  # it has been at it for a while
                self._send_held("/j")
            self.told_to_stop = False
            self.current = self.stretch.popleft()
            self.at = At.TAKEN
            return
        self._close_piece()
        self.stretch = self.current = None  # the next step is that behind a job

    def _isolate(self) -> None:
        """Have the item that runs be known as a job of its own: it has something to say."""
        if self.stretch is not None:
            rest = self._drop_rest()
            self._send_held("/c")
            if rest:
                self._send("/c", GivenBack(rest))

    def _drop_rest(self) -> list[tuple[int, int]]:
        """Run no more of the stretch at hand; return what is to be given back: one attempt at most."""
        if not self.stretch:
            return []
        first = self.stretch[0]
        self.stretch.clear()
        return [(first.id, first.attempt)]

    def _raises(self, task: Task) -> Raised:
        """Choose what a job raises: mostly the same, sometimes what asks for something."""
        names, dice = ["E", "Exception"], self._rng.random
        raised = Raised(["F", "Exception"] if dice() < 0.3 else names)
        if dice() < self.wishes:
            wish = (Wish.RETRY, Wish.SNOOZE, Wish.CANCEL)[int(dice() * 3)]
            raised = Raised(names, wish, (None, 0.0, 0.02)[int(dice() * 3)], "so it wants")
        self._witness.raised(self, task, raised)
        return raised

    def _send_or_hold(self) -> None:
        if self.stretch is not None:
            if self._rng.random() < self.spoilt:
                self._leave_spoilt()
            self._next_item()
            return
        if self._is_stop_ordered and self.pending:  # the control thread had no turn to do it
            self._send("/j", GivenBack([(task.id, task.attempt) for task in self.pending]))
            self.pending.clear()
        if self._rng.random() < self.spoilt:
            self._leave_spoilt()
        if not self.pending or self._rng.random() < 0.5:
            self._send_held("/j")
        self.at = At.CHOOSING

    def _leave_spoilt(self) -> None:
        self.leaving = True
        rest = self._drop_rest()
        self._send("/j", Leaving(rest + [(task.id, task.attempt) for task in self.pending]))
        self.pending.clear()

    def _send_held(self, channel: str) -> None:
        self._close_piece()
        if self.held:
            self._seal()
            self._send(channel, Outcomes(self._seq, self.unrecorded[self._seq]))

    def _seal(self) -> None:
        self._close_piece()
        if self.held:
            self._seq += 1
            self.unrecorded[self._seq] = self.held
            if self.stream is not None:
                self._with_stream[self._seq] = [*self.stream.kept]
            self.held = []
            self.board_seq = self._seq

    def insisted(self, attempt: tuple[int, int]) -> None:
        """Get a SIGTERM of the daemon, if this is the attempt, and it was not sent one by order."""
        if self.alive and self.board[:2] == attempt != self.to_stop:
            self.to_stop = attempt
            self.leaving = self._is_stop_ordered = True
            self.sigterm()

    def sigterm(self) -> None:
        """Get a SIGTERM, from the control thread, the daemon, or from outside."""
        self.told_to_stop = True
        running = self.running
        if running is not None:
            if not running.stubborn:
                self._finish(Verdict.STOPPED)
        elif self.at is At.WAITING:
            self.leave()

    # -- the control thread --

    @property
    def is_deaf(self) -> bool:
        """Whether the control thread cannot run: not started, or kept off by the job."""
        return self.at is At.STARTING or (self.running is not None and self.running.deaf)

    def listen(self) -> None:
        """Obey the next order that cannot wait, or connect to the next daemon."""
        if self.is_deaf:
            return
        if not self.inbox["/c"]:
            if not self.linked["/c"]:
                self.linked["/c"] = True
                self._send("/c", Alive(self.pid, self.boot))
            return
        match self.inbox["/c"].popleft():
            case GiveBack(upto):
                self._give_back(upto)
            case StopJob(number, attempt):
                self._stop(number, attempt)
            case Adopt(boot) if boot != self.boot:
                self._hand_over(boot)
            case Grant() | CloseStream() as order if self.stream is not None:
                self.stream.obey(order)
            case Lent(number, error) if self.waits and self.current and self.current.id == number:
                self._may_wait = not error

    def _give_back(self, upto: int = 0) -> None:
        rest = self._drop_rest()
        self._send_held("/c")
        attempts = rest + [(t.id, t.attempt) for t in self.pending]
        self._send("/c", GivenBack(attempts, self._read_upto, upto))
        self.pending.clear()
        self._given_back = max(self._given_back, upto)

    def _stop(self, number: int, attempt: int) -> None:
        current = self.current
        if current is not None and (current.id, current.attempt) == (number, attempt):
            self.leaving = self._is_stop_ordered = True
            self._give_back()
            if self.to_stop != (number, attempt):
                self.to_stop = number, attempt
                self.sigterm()
            return
        for task in self.pending:
            if (task.id, task.attempt) == (number, attempt):
                self.pending.remove(task)
                self._send("/c", GivenBack([(number, attempt)]))
                return
        self._stop_early.add((number, attempt))

    def _hand_over(self, boot: str) -> None:
        self.boot = boot
        self._seal()
        self._send_again("/c")
        self.moved = True
        self.pending.clear()
        if self.stretch is not None:
            self.stretch.clear()
        running = (self.current.id, self.current.attempt) if self.current else (0, 0)
        self._send("/c", Handover(self.pid, running, self._witness.age_us(self)))
        if self.waits:
            self._send("/c", self._waiting())


_STEPS: dict[At, Callable[[FakeWorker], None]] = {
    At.STARTING: FakeWorker._start,
    At.WAITING: FakeWorker._read,
    At.CHOOSING: FakeWorker._choose,
    At.TAKEN: FakeWorker._begin,
    At.IN_JOB: FakeWorker._work,
    At.BETWEEN: FakeWorker._send_or_hold,
    At.SUBMITTING: FakeWorker._submit,
    At.ASKING: FakeWorker._ask,
    At.LENT: FakeWorker._sleep,
}


class FakeChecker(FakeWorker):
    """A checker: answers, refuses, hangs, or dies of what it imports."""

    calm = False
    """Answer every question, and with a yes."""

    def step(self) -> None:
        """Report, or take up the next question."""
        if self.at is At.STARTING:
            self.linked["/j"] = True
            self._send("/j", Ready(self.pid, self.boot))
            self.at = At.WAITING
        elif self.at is At.WAITING and self.inbox["/j"]:
            order = self.inbox["/j"].popleft()
            if isinstance(order, Check):
                self._answer(order)
            else:
                self.leave()

    def _answer(self, order: Check) -> None:
        chance = 1.0 if self.calm else self._rng.random()
        if chance < 0.1:
            self.die("SIGSEGV")
        elif chance < 0.2:
            self.at = At.IN_JOB  # for ever
        else:
            self._send("/j", Checked(order.number, "no" if chance < 0.4 else "", ""))

    def listen(self) -> None:
        """It has no control thread."""

    def sigterm(self) -> None:
        """Get a SIGTERM from outside."""
        self.die("SIGTERM")

    def lose_daemon(self) -> None:
        """Be ended by the zygote: nobody else has asked anything."""
        self.die("SIGKILL")


class Machine:
    """All worker processes and their scoreboards; they outlive the daemons."""

    def __init__(self, rng: Random, witness: Witness) -> None:
        self.rng = rng
        self.witness = witness
        self.workers: dict[str, FakeWorker] = {}
        """Those that live, and those whose death no daemon has judged."""
        self.boards: dict[str, FakeWorker] = {}
        self.strays: list[tuple[str, str, Message]] = []
        """What the dead had sent and what has not arrived: (worker, socket, report)."""
        self.restarted: set[str] = set()
        """Workers that were lost with the whole machine: nobody can tell what they were in."""
        self._next_pid = 1000

    def spawn(self, uid: str, boot: str, *, checker: bool) -> FakeWorker:
        """Fork a worker, or a checker."""
        self._next_pid += 1
        kind = FakeChecker if checker else FakeWorker
        self.workers[uid] = kind(uid, boot, self._next_pid, self.rng, self.witness)
        if not checker:
            self.boards[uid] = self.workers[uid]
        return self.workers[uid]

    def boards_made(self) -> list[str]:
        """Return the names of the scoreboards; a worker makes its own before it connects."""
        return [uid for uid, worker in self.boards.items() if worker.at is not At.STARTING]

    @property
    def living(self) -> list[FakeWorker]:
        """Return the processes that live."""
        return [worker for worker in self.workers.values() if worker.alive]


class FakePool:
    """One daemon's view of the machine; as ``jobd.pool.supervisor.Pool``."""

    def __init__(self, machine: Machine, boot: str, boards_dir: str) -> None:
        self.machine = machine
        self.settings = SimpleNamespace(
            boot=boot, boards_dir=boards_dir, logs_dir=boards_dir, cgroup=None
        )
        self.processes: dict[str, FakeWorker] = {}
        self.trouble = ""
        self.is_late = False
        """Judge the dead although something they have sent has not arrived."""
        self.cannot_fork = False
        self._not_spawned: list[str] = []
        self._lost_checkers: list[tuple[str, str]] = []
        self._orders: list[tuple[str, int, int]] = []
        self.unheard = SimpleNamespace(ordered=lambda *order: self._orders.append(order))

    def insist(self) -> None:
        """Stop what should have been heard of by now: any of the orders, at any turn."""
        for uid, job, attempt in self._orders[:]:
            if self.machine.rng.random() < 0.2:
                self._orders.remove((uid, job, attempt))
                if uid in self.processes:
                    self.processes[uid].insisted((job, attempt))

    def start(self) -> bool:
        """Start a zygote, which there is none of."""
        return True

    def spawn(self, uid: str, *, checker: bool = False) -> None:
        """Have a worker forked, unless that fails."""
        if not self.cannot_fork:
            boot: str = self.settings.boot
            self.processes[uid] = self.machine.spawn(uid, boot, checker=checker)
        elif checker:
            self._lost_checkers.append((uid, "it could not be started"))
        else:
            self._not_spawned.append(uid)

    def adopt(self, uid: str) -> FakeWorker | None:
        """Take over a worker of a dead daemon, if it lives."""
        worker = self.machine.boards.get(uid)
        if worker is None or not worker.alive or worker.at is At.STARTING:
            return None
        self.processes[uid] = worker
        return worker

    def post_mortem(self, uid: str) -> Dead:
        """Tell what the scoreboard of a worker says that died unwatched."""
        worker = self.machine.boards.get(uid)
        if worker is None or uid in self.machine.restarted:
            return Dead(uid, "unknown", NOTHING, unknown=True)
        cause = "it ended while no daemon watched"
        return Dead(uid, cause, worker.board, left=worker.left(), pid=worker.pid)

    def look(self) -> None:
        """Nothing is to be seen that ``judge`` does not see."""

    def fds(self) -> list[int]:
        """Return what is to be polled: nothing."""
        return []

    def wake_at_s(self) -> float | None:
        """Return when a death has to be judged: the simulation sees to that."""
        return None

    def judge(self, received: dict[str, int]) -> list[Dead]:
        """Return the deaths of which all is known, or of which no more is waited for."""
        judged = [Dead(uid, "it could not be started", NOTHING) for uid in self._not_spawned]
        self._not_spawned.clear()
        for uid, worker in list(self.processes.items()):
            all_in = received.get(uid, 0) >= worker.board_seq
            if not worker.alive and (all_in or self.is_late):
                del self.processes[uid]
                self.machine.strays += [(uid, c, m) for c, out in worker.out.items() for m in out]
                self.machine.workers.pop(uid, None)
                judged.append(Dead(uid, worker.cause, worker.board, left=worker.left()))
                if isinstance(worker, FakeChecker):
                    self._lost_checkers.append((uid, worker.cause))
        return judged

    def take_lost_checkers(self) -> list[tuple[str, str]]:
        """Return the checkers that have ended, as (uid, how)."""
        lost, self._lost_checkers = self._lost_checkers, []
        return lost

    def takes_on(self, uid: str) -> bool:  # noqa: ARG002  # as the real one
        """Whether a worker that is ready can be looked at: here it can."""
        return True

    def sees(self, uid: str) -> bool:  # noqa: ARG002  # as the real one
        """Whether a worker's scoreboard can be read: here it can."""
        return True

    def now(self, uid: str) -> Now:
        """Return what a worker runs."""
        worker = self.processes.get(uid)
        return worker.board if worker else NOTHING

    def last(self, uid: str) -> Now:
        """Return what a worker runs, or has run last."""
        worker = self.processes.get(uid)
        return worker.last if worker else NOTHING

    def sweep(self) -> None:
        """End what dead zygotes have left behind: there is none."""

    def kill(self, uid: str, job: int, attempt: int) -> None:
        """Kill a worker, for a job's sake only while it runs that job."""
        worker = self.processes.get(uid)
        if worker is None or (job and worker.board[:2] != (job, attempt)):
            return
        if job:
            self.machine.witness.killed(worker, job, attempt)
        worker.die("SIGKILL")

    def forget_board(self, uid: str) -> None:
        """Remove a worker's scoreboard."""
        self.machine.boards.pop(uid, None)

    def zygote_pid(self) -> int:
        """Return the pid of a zygote."""
        return 1

    def close(self) -> None:
        """Kill what still lives."""
        for worker in self.processes.values():
            worker.die("SIGKILL")
