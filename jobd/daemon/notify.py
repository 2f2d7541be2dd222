"""Talk to systemd: sd_notify(3) over its datagram socket, or nothing where there is none."""

from __future__ import annotations

import os
import socket
import time
from collections import deque

MOST_WAITING = 16


class Notify:
    """The service manager's ear.

    Nothing here blocks or fails: the daemon serves its clients whatever the manager does.
    """

    def __init__(self, environ: dict[str, str] | os._Environ[str] = os.environ) -> None:
        path = environ.pop("NOTIFY_SOCKET", "")  # jobs must not inherit it
        self._address = "\0" + path[1:] if path.startswith("@") else path
        # One socket for good: a daemon that has run out of files must still say that it lives.
        self._socket = _open() if path else None
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        usec = environ.pop("WATCHDOG_USEC", "")
        for_us = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(usec) / 2e6 if usec.isdigit() and for_us else 0.0
        """How often to ping: half of what the unit allows; 0: never."""

    def send(self, **words: str | int) -> None:
        """Send words such as ``READY=1``; what there is no room for is kept for ``flush``."""
        text = "\n".join(f"{key}={value}" for key, value in words.items())
        self._waiting.append(text.encode())
        self.flush()

    def reloading(self) -> None:
        """Say that a reload has begun."""
        self.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def ping(self) -> None:
        """Say that all is well at this moment; never kept, because later it may not be true."""
        self.flush()
        if not self._waiting:
            self._deliver(b"WATCHDOG=1")

    def flush(self) -> None:
        """Send what had to wait; to be called now and then."""
        while self._waiting and self._deliver(self._waiting[0]):
            self._waiting.popleft()

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()

    def _deliver(self, text: bytes) -> bool:
        """Return whether that was it: it went out, or there is nobody to hear it."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto(text, self._address)
        except BlockingIOError:
            return False  # the manager is alive, and slow
        except OSError:
            pass  # nobody listens now; a manager that restarts will again
        return True


def _open() -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    channel.setblocking(False)
    return channel
