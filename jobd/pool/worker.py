"""A worker: runs jobs, one after the other, in its main thread.

Two threads, two sockets.  The main thread takes orders to run from the *job* socket and
sends outcomes there.  The control thread sleeps in the *control* socket (``control``).  What
both touch is in ``hands``, how a job is run in ``attempts``.

Outcomes of short jobs are sent together, but never held while a job runs that may be
long.  A frame is kept until it is recorded, because the daemon may die with it; the next
daemon asks for it (``Adopt``).

When the daemon dies, both threads see it at once and connect to the next one, to
which the control thread presents itself (``Alive``).  If none comes within
``orphan_s``, the worker ends as soon as it has nothing in hand.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from jobd import context
from jobd.failpoints import hit
from jobd.kin import VARIABLE, Kin
from jobd.model.job import Outcome
from jobd.model.messages import Message, encode
from jobd.model.orders import Ready, Recorded, Retire, Run, Task, decode_orders
from jobd.pool import children, forks, linux
from jobd.pool.alarm import Stopped
from jobd.pool.control import Control
from jobd.pool.door import Door
from jobd.pool.hands import Hands
from jobd.pool.initialize import initialize
from jobd.pool.inside import Inside
from jobd.pool.items import ItemAttempts
from jobd.pool.link import Gone, Link
from jobd.pool.protocol import Settings
from jobd.pool.scoreboard import Scoreboard
from jobd.wire.zmtp import Disconnected

HOLD_S = 0.001
"""Outcomes are sent at least this often while short jobs run one after the other."""

SEND_US = 2_000
"""What has ended of a stretch is sent after so much work, though there is more of it."""

MAY_BE_LONG_US = 500
"""Before a job that may take longer, what is held is sent."""

MEETS_NOTHING_US = 25_000
"""Before a job that may take longer, the whole look comes in any case; before others when it is time for it."""

LONG_US = 1_000_000
"""What a job is taken for whose function has not run here yet."""


class Worker:
    """The whole of a worker process."""

    def __init__(self, uid: str, settings: Settings) -> None:
        self._forks = forks.Forks(self._forked)
        self._settings = settings
        self._idle = False
        self._sent_at = 0.0
        self._took_us: dict[str, int] = {}
        board = Scoreboard.create(os.path.join(settings.boards_dir, uid))
        self._inside = Inside(lambda: self._hands.current, settings.client_socket)
        self._door = Door()
        self._jobs = Link(settings.socket, uid.encode() + b"/j")
        control = Link(settings.socket, uid.encode() + b"/c")
        self._hands = hands = Hands(settings.boot, board, self._jobs, control)
        self._attempts = ItemAttempts(
            uid, settings, hands, self._forks, self._inside, self._own_fds
        )

    def run(self) -> NoReturn:
        """Take orders and run jobs until retired."""
        self._prepare()
        hit("worker.started")
        self._jobs.send(encode([Ready(os.getpid(), self._hands.boot)]))
        hands = self._hands
        while True:
            for frame in self._wait():
                for order in decode_orders(frame):
                    self._obey(order)
            self._work()
            if hands.is_leaving and linux.has_children():
                children.end(self._own_fds())  # now: what they came from has been told
            if hands.is_leaving and hands.delivery.is_all_recorded:
                self._leave()

    def _prepare(self) -> None:
        attempts = self._attempts
        signal.signal(signal.SIGTERM, self._on_sigterm)
        attempts.alarm.install()
        signal.signal(signal.SIGINT, self._on_sigint)
        context.host = self._inside
        os.environ["JOBD_SOCKET"] = self._settings.client_socket  # where a job's own client goes
        os.environ[VARIABLE] = self._door.proof
        Control(self._hands, self._inside, self._door, self._settings.orphan_s).start()
        if self._settings.initializer:
            initialize(self._settings.initializer, attempts.output, self._forks)
        attempts.prepare()

    def _wait(self) -> list[bytes]:
        """Wait for orders; a SIGTERM from outside ends an idle worker."""
        frames: list[bytes] = []
        attempts = self._attempts
        self._hands.board.used(attempts.meter.begin())
        patience_s = attempts.patience_s()
        if patience_s == 0.0:
            if not attempts.look_ahead():
                return frames
            patience_s = None
        try:
            self._idle = True
            try:
                frames = self._jobs.receive(patience_s)
            except Disconnected:
                self._jobs.reconnect(self._settings.orphan_s)
                self._hands.repeat()
            self._idle = False
        except (Stopped, Gone):
            self._leave()
        return frames

    def _obey(self, order: Message) -> None:
        match order:
            case Run():
                self._hands.accept(order)
            case Recorded(seqs):
                self._hands.recorded(seqs)
            case Retire():
                self._hands.is_leaving = True

    def _work(self) -> None:
        """Run what is pending, one job after the other."""
        hands, took_us, run = self._hands, self._took_us, self._attempts.run
        task = self._next(None)
        while task is not None:
            refused = bool(hands.stop_early) and (task.id, task.attempt) in hands.stop_early
            expected_us = took_us.get(task.function, LONG_US)
            if expected_us > MAY_BE_LONG_US:
                if hands.delivery.has_held:
                    self._send_held()
                sure = expected_us > MEETS_NOTHING_US
                refused = not self._attempts.look_ahead(sure=sure) or refused
            if refused:
                hands.refuse(task)
                task = self._next(None)
                continue
            if task.count:
                self._run_stretch(task)
                task = self._next(None)
                continue
            outcome = run(task)
            took_us[task.function] = outcome.duration_us
            task = self._next(outcome)

    def _run_stretch(self, task: Task) -> None:
        """Run items of an array, one after the other, as long as they are wanted here."""
        hands, attempts = self._hands, self._attempts
        hands.begin(task)
        quick = attempts.quick(task)
        run: Callable[[Task], Outcome | bytes] = quick or attempts.run
        quick_us = self._took_us.get(task.function, 0)
        outcome: Outcome | bytes | None = None
        busy_us = 0
        for item in attempts.items_of(task, quick=quick is not None):
            if not hands.step(item, outcome):
                outcome = None
                break
            outcome = run(item)
            if type(outcome) is bytes:
                if hands.delivery.is_urgent:
                    self._send_held()
                continue
            assert isinstance(outcome, Outcome)
            quick_us = outcome.duration_us
            busy_us += outcome.duration_us
            if busy_us > SEND_US:
                busy_us = 0
                self._send_held()
        hands.finish(outcome)
        attempts.end_stretch()
        self._took_us[task.function] = quick_us

    def _next(self, outcome: Outcome | None) -> Task | None:
        """Hand on what came of one job, and take the next one."""
        hands = self._hands
        task = hands.next(outcome)
        if hands.delivery.has_held:
            # Always before a wait, and before the end: nobody is waiting for it to be found.
            is_urgent = hands.delivery.is_urgent
            if task is None or is_urgent or time.perf_counter() - self._sent_at > HOLD_S:
                self._send_held()
        if task is None and not hands.is_leaving:
            self._attempts.look_for_children()  # of a thread that a job has left behind
        return task

    def _send_held(self) -> None:
        self._hands.send()
        self._sent_at = time.perf_counter()

    def _leave(self) -> NoReturn:
        """End; without the interpreter's own way out, which user code can block for ever."""
        self._hands.board.leave()
        self._jobs.close()
        self._hands.board.close()
        os._exit(0)

    def _own_fds(self) -> set[int]:
        """Return our sockets, without which we can end no job."""
        return {self._jobs.fileno(), self._hands.control.fileno(), *self._door.fds()}

    # -- signals --

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM comes from our control thread, the daemon, or from outside; it ends the job that runs."""
        hands, attempts = self._hands, self._attempts
        if self._forks.look():
            forks.die(signal.SIGTERM)
        if hands.is_late():
            return
        was_told, hands.is_told_to_stop = hands.is_told_to_stop, True
        if attempts.in_job and not was_told:
            if not hands.is_stop_ordered:
                os.killpg(os.getpid(), signal.SIGTERM)  # what the job has started was not told
            attempts.alarm.stop()
        if self._idle:
            self._idle = False
            raise Stopped

    def _on_sigint(self, _number: int, _frame: FrameType | None) -> None:
        """As everywhere in Python, but while no code of a job runs."""
        if self._attempts.in_job:
            raise KeyboardInterrupt

    def _forked(self) -> None:
        """This is a child that a job has forked: nothing of the worker is its own but the output."""
        forks.leave_signals({signal.SIGTERM: self._on_sigterm, signal.SIGINT: self._on_sigint})
        self._jobs.close()
        self._hands.control.close()
        self._door.forked()
        context.host = Kin(self._door.proof)
