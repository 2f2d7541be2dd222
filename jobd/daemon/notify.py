"""Talk to systemd: sd_notify(3) over its datagram socket, or nothing where there is none."""

from __future__ import annotations

import os
import socket
import time


class Notify:
    """The service manager's ear."""

    def __init__(self, environ: dict[str, str] | os._Environ[str] = os.environ) -> None:
        path = environ.pop("NOTIFY_SOCKET", "")  # jobs must not inherit it
        self._address = "\0" + path[1:] if path.startswith("@") else path
        usec = environ.pop("WATCHDOG_USEC", "")
        for_us = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(usec) / 2e6 if usec.isdigit() and for_us else 0.0
        """How often to ping: half of what the unit allows; 0: never."""

    def send(self, **words: str | int) -> None:
        """Send words such as ``READY=1``; a manager that cannot be reached is no reason to fail."""
        if not self._address:
            return
        text = "\n".join(f"{key}={value}" for key, value in words.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.connect(self._address)
                channel.send(text.encode())
            except OSError:
                self._address = ""  # nobody listens

    def reloading(self) -> None:
        """Say that a reload has begun."""
        self.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
