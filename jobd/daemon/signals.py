"""Signals, told to the loop by a pipe that it polls."""

from __future__ import annotations

import os
import signal
from collections import deque


class Signals:
    """SIGTERM, SIGINT and SIGHUP, in the order in which they came."""

    def __init__(self) -> None:
        self._got: deque[int] = deque()
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def catch(self) -> None:
        """From now on they are told to the loop; in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda got, _: self._got.append(got))
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def take(self) -> list[int]:
        """Return those that have come; ``fd`` was readable."""
        os.read(self.fd, 4096)
        got = []
        while self._got:
            got.append(self._got.popleft())
        return got

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self.fd)
        os.close(self._write)
