"""The control thread of a worker: sleeps in the control socket, for what cannot wait until a job ends.

That is stopping the job, giving back what has not started, a new daemon, and what the job
itself, or a process that it has started, has to say.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import NoReturn

from jobd.model.messages import encode
from jobd.model.orders import Alive, Waiting, decode_orders
from jobd.pool.door import Door
from jobd.pool.hands import Hands
from jobd.pool.inside import Inside
from jobd.pool.link import Gone
from jobd.wire.zmtp import Disconnected


@dataclass(frozen=True)
class Control:
    """What the thread listens to; ``orphan_s`` is how long a worker with empty hands waits for a daemon."""

    hands: Hands
    inside: Inside
    door: Door
    orphan_s: float

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._watch, name="jobd-control", daemon=True).start()

    def _watch(self) -> NoReturn:
        self._present()
        while True:
            try:
                self._listen()
            except Disconnected:
                self._find_daemon()

    def _listen(self) -> None:
        inside, door, socket = self.inside, self.door, self.hands.control
        ready = socket.wait((inside.fd, door.fd), inside.patience_s(time.monotonic()))
        if ready.get(inside.fd) is False:
            inside.fd = -1  # the job has closed it, with all the others
        if door.fd in ready:
            door.serve()
        for frame in socket.receive(0):
            for order in decode_orders(frame):
                self.hands.obey(order, inside)
        reports = inside.take(time.monotonic())
        if reports:
            if any(isinstance(report, Waiting) for report in reports):
                self.hands.isolate(socket)
            socket.send(encode(reports))

    def _find_daemon(self) -> None:
        """Present ourselves to the next daemon; with nothing in hand, wait for it only so long."""
        hands = self.hands
        while True:
            try:
                hands.control.reconnect(self.orphan_s)
            except Gone:
                with hands.lock:
                    if hands.current is None:
                        hands.board.leave()
                        os._exit(0)
            else:
                self._present()
                return

    def _present(self) -> None:
        self.hands.control.send(encode([Alive(os.getpid(), self.hands.boot)]))
