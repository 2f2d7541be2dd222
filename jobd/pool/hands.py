"""What a worker has in hand, where its two threads meet: under one lock.

The main thread takes tasks and keeps outcomes, and sends on the *job* socket.  The control
thread gives back what has not started, stops what runs, and hands all over to the next
daemon, and sends on the *control* socket.  The two sockets have no common order: a stop may
come before what is to be stopped.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from jobd.failpoints import hit
from jobd.model.job import Outcome, Verdict
from jobd.model.messages import encode
from jobd.model.orders import (
    Adopt,
    CloseStream,
    GiveBack,
    GivenBack,
    Grant,
    Handover,
    Leaving,
    Lent,
    Order,
    Produced,
    Run,
    StopJob,
    Task,
)
from jobd.pool import linux
from jobd.pool.delivery import Delivery, is_small
from jobd.pool.inside import Inside
from jobd.pool.link import Gone, Link
from jobd.pool.scoreboard import NOBODY, Scoreboard
from jobd.pool.streams import Stream
from jobd.pool.surroundings import spread

STOPPED_MEMORY = 1_000
RECONNECT_S = 1.0
"""How long to try to reach a daemon that has just spoken to our other socket."""


class Hands:
    """The tasks that have not started, the one that runs, and what came of the others."""

    def __init__(self, boot: str, board: Scoreboard, jobs: Link, control: Link) -> None:
        """``boot`` is the daemon's that the worker listens to."""
        self.lock = threading.RLock()
        self.boot = boot
        self.board = board
        self.jobs = jobs
        self.control = control
        self.current: Task | None = None
        """The task that runs."""
        self.began_s = 0.0
        """When it began, on the performance counter."""
        self.is_leaving = False
        """Nothing more is begun here."""
        self.is_told_to_stop = False
        """Somebody has sent SIGTERM since the task was taken."""
        self.is_stop_ordered = False
        """By the daemon, which will kill us if it takes too long; nothing else runs here then."""
        self.delivery = Delivery(board)
        self._stretch: Task | None = None
        """The stretch of an array's items that is at hand; the item that runs is ``current``."""
        self._behind = 0
        """The number of its first item that is not run here."""
        self._pending: deque[Task] = deque()
        self._moved = False
        """The next daemon knows our control socket, and the job socket still leads to the dead one."""
        self.stop_early: deque[tuple[int, int]] = deque(maxlen=STOPPED_MEMORY)
        """Attempts to stop that had not arrived yet."""
        self._read = 0
        """The number of the last order to run that was read."""
        self._given_back = 0
        """Orders to run up to this number are given back."""

    # -- the main thread --

    def accept(self, order: Run) -> None:
        """Take in tasks, unless they are to be given back, or another daemon's."""
        with self.lock:
            if order.boot != self.boot or order.number <= self._given_back:
                return
            if self.is_leaving:
                self.jobs.send(encode([GivenBack([(t.id, t.attempt) for t in order.tasks])]))
                return
            self._read = order.number
            self._pending.extend(spread(order) if order.environments else order.tasks)

    def next(self, outcome: Outcome | None) -> Task | None:
        """Keep what came of one task, and take the next one: nobody sees one without the other."""
        with self.lock:
            if outcome is not None:
                self.delivery.keep(outcome)
                if self.delivery.stream is not None:
                    self._close_stream()
            if self.is_stop_ordered and self._pending:  # our control thread had no turn to do it
                self.jobs.send(encode([GivenBack(self._drop_pending())]))
            self.is_told_to_stop = False  # before anybody can see what runs, and stop it
            task = self.current = self._pending.popleft() if self._pending else None
        return task

    def begin(self, stretch: Task) -> None:
        """Take up a stretch, whose items ``step`` takes one by one."""
        with self.lock:
            self._stretch, self._behind = stretch, stretch.id + stretch.count

    def step(self, item: Task, outcome: Outcome | bytes | None) -> bool:
        """Keep what came of one item, and take the next of its stretch; False: it is not run here.

        An outcome may be only a value: there is nothing else to tell.
        """
        with self.lock:
            if outcome is not None:
                self._keep_item(outcome)
            if self.is_leaving or self.is_stop_ordered:
                rest = self._drop_rest(item.id)
                if rest:
                    self._send_over(self.jobs)
                    self.jobs.send(encode([GivenBack(rest)]))
            if item.id >= self._behind:
                return False
            self.is_told_to_stop = False
            self.current = item
        return True

    def finish(self, outcome: Outcome | bytes | None) -> None:
        """Keep what came of the last item of a stretch, unless that is kept, and be done with it."""
        with self.lock:
            if outcome is not None:
                self._keep_item(outcome)
            self.delivery.close_piece()
            self._stretch = self.current = None

    def _keep_item(self, outcome: Outcome | bytes) -> None:
        delivery = self.delivery
        if type(outcome) is bytes:
            assert self.current is not None
            delivery.add(self.current, self.began_s, outcome)
            return
        assert isinstance(outcome, Outcome)
        if is_quiet(outcome):
            assert self.current is not None
            delivery.add(self.current, self.began_s, outcome.value or b"")
            return
        delivery.close_piece()
        delivery.keep(outcome)
        if delivery.stream is not None:
            self._close_stream()

    def _drop_rest(self, first: int) -> list[tuple[int, int]]:
        """Run no item of the stretch at hand from this one on; return what is to be given back: at most one."""
        stretch = self._stretch
        if stretch is None or first >= self._behind:
            return []
        self._behind = first
        return [(first, stretch.attempt)]

    def isolate(self, link: Link) -> None:
        """Have the item that runs be known as a job of its own: it has something to say."""
        with self.lock:
            if self._stretch is None or self.current is None:
                return
            rest = self._drop_rest(self.current.id + 1)
            self._send_over(link)
            if rest:
                link.send(encode([GivenBack(rest)]))

    def _send_over(self, link: Link) -> None:
        frame = self.delivery.take()
        if frame:
            link.send(frame)

    def _close_stream(self) -> None:
        self.send()  # at once: on the other socket it might overtake the last items
        assert self.delivery.stream is not None
        self.delivery.stream.close()
        self.delivery.stream = None

    def refuse(self, task: Task) -> None:
        """Give back the task that was taken, and has not started."""
        self.jobs.send(encode([GivenBack([(task.id, task.attempt)])]))

    def send(self) -> None:
        """Send all outcomes that are held."""
        with self.lock:
            frame = self.delivery.take()
            if frame:
                hit("outcomes.sending")
                self.jobs.send(frame)
                hit("outcomes.sent")

    def recorded(self, seqs: list[int]) -> None:
        """These frames are durable."""
        with self.lock:
            self.delivery.recorded(seqs)

    def repeat(self) -> None:
        """Send again what is not recorded: the last frame may have gone to a daemon that was dead."""
        with self.lock:
            self._moved = False
            for frame in self.delivery.unrecorded():
                self.jobs.send(frame)

    def leave(self) -> None:
        """Begin nothing more, and say so."""
        with self.lock:
            self.is_leaving = True
            rest = self._drop_rest(self.current.id + 1) if self.current is not None else []
            self.jobs.send(encode([Leaving(rest + self._drop_pending())]))

    def open_stream(self, stream: Stream) -> None:
        """The task that runs produces this."""
        self.isolate(self.jobs)
        with self.lock:
            self.delivery.stream = stream

    def send_produced(self, message: Produced) -> None:
        """Send what the stream has produced, on the job socket, where all of it keeps its order."""
        with self.lock:
            frame = self.delivery.produce(message)
            hit("produced.sending")
            if not self._moved:
                self.jobs.send(frame)
                return
            try:
                self.jobs.reconnect(RECONNECT_S)
            except Gone:
                return  # this daemon is dead too; the next one will ask for what was kept
            self.repeat()

    def is_late(self) -> bool:
        """Whether a SIGTERM was meant for an attempt that has ended; take note of one that was ordered."""
        ordered, task = self.board.to_stop, self.current
        if ordered == NOBODY:
            return False
        if task is None or (task.id, task.attempt) != ordered:
            self.board.order_stop(*NOBODY)  # the next one is meant for whoever runs then
            return True
        self.is_leaving = self.is_stop_ordered = True
        return False

    # -- the control thread --

    def obey(self, order: Order, inside: Inside) -> None:
        """Do what cannot wait until a job ends; ``inside`` is that job's ear."""
        with self.lock:
            match order:
                case GiveBack(upto):
                    self._give_back(upto)
                case StopJob(number, attempt):
                    self._stop(number, attempt)
                case Adopt(boot) if boot != self.boot:
                    self._hand_over(boot, inside)
                case Grant() | CloseStream():
                    self._obey_for_stream(order)
                case Lent():
                    inside.answered(order)

    def _obey_for_stream(self, order: Grant | CloseStream) -> None:
        stream = self.delivery.stream
        if stream is None or stream.job != (order.id, order.attempt):
            return
        if isinstance(order, Grant):
            stream.granted(order.credit, order.recorded)
        else:
            stream.closed()

    def _give_back(self, upto: int = 0) -> None:
        """Give back what has not started, and orders up to number ``upto`` that are still unread."""
        rest = self._drop_rest(self.current.id + 1) if self.current is not None else []
        self._send_over(self.control)
        self.control.send(encode([GivenBack(rest + self._drop_pending(), self._read, upto)]))
        self._given_back = max(self._given_back, upto)

    def _stop(self, number: int, attempt: int) -> None:
        task = self.current
        if task is not None and (task.id, task.attempt) == (number, attempt):
            # What a stopped job leaves behind is unknown: nothing else runs here.
            self.is_leaving = self.is_stop_ordered = True
            self._give_back()
            if self.board.to_stop != (number, attempt):  # else the daemon has not waited for us
                self.board.order_stop(number, attempt)
                linux.end_processes(os.getpid())
            return
        for task in self._pending:
            if (task.id, task.attempt) == (number, attempt):
                self._pending.remove(task)
                self.control.send(encode([GivenBack([(number, attempt)])]))
                return
        self.stop_early.append((number, attempt))

    def _hand_over(self, boot: str, inside: Inside) -> None:
        self.boot = boot
        self.delivery.take()
        for frame in self.delivery.unrecorded():
            self.control.send(frame)
        self._moved = True
        self._pending.clear()
        if self.current is not None:
            self._behind = self.current.id + 1
        task = self.current
        running = (task.id, task.attempt) if task else (0, 0)
        for_us = int((time.perf_counter() - self.began_s) * 1e6) if task else 0
        handover = Handover(os.getpid(), running, for_us)
        self.control.send(encode([handover, *inside.handed_over()]))

    # -- both --

    def _drop_pending(self) -> list[tuple[int, int]]:
        """Forget the tasks that have not started, and return their attempts."""
        attempts = [(task.id, task.attempt) for task in self._pending]
        self._pending.clear()
        return attempts


def is_quiet(outcome: Outcome) -> bool:
    """Whether there is nothing to tell of an item but that it has returned a small value."""
    return (
        outcome.verdict == Verdict.RETURNED
        and outcome.value is not None
        and is_small(outcome.value)
        and outcome.log is None
        and outcome.usage is None
        and not outcome.notes
    )
