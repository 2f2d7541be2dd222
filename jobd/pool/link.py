"""A worker's connection to the daemon, and to the next one when the daemon has died."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable

from jobd.wire.gate import pass_gate
from jobd.wire.zmtp import Disconnected, Transport

HANDSHAKE_S = 20.0  # of a machine that stands still; a daemon that lives answers at once
RETRY_S = 0.05
LARGEST_BYTES = 1 << 30


class Gone(Exception):
    """No daemon has come back in time."""


class Link:
    """A connection that one thread uses."""

    def __init__(self, path: str, identity: bytes) -> None:
        """Connect; raises OSError if nobody listens."""
        self._path = path
        self._identity = identity
        self._transport = self._connect()

    def _connect(self) -> Transport:
        deadline = time.monotonic() + HANDSHAKE_S
        return Transport.shake_hands(
            pass_gate(self._path, self._identity, deadline),
            deadline,
            max_message_bytes=LARGEST_BYTES,
            identity=self._identity,
        )

    def send(self, frame: bytes) -> None:
        """Send; to a daemon that has died, nothing: what matters is handed over to the next one."""
        try:
            self._transport.send(frame, None)
        except Disconnected:
            pass  # the next ``receive`` says so too, and there it is dealt with

    def receive(self, timeout_s: float | None = None) -> list[bytes]:
        """Wait for frames; raises Disconnected when the daemon has died."""
        return self._transport.receive(timeout_s)

    def wait(self, others: Iterable[int], timeout_s: float | None) -> dict[int, bool]:
        """Wait until frames may have come, or one of the other files can be read, or the time is up.

        Returns those others with which something is up, and whether that can be waited for at
        all; one that is -1 is left out.
        """
        poll = select.poll()
        own = self._transport.fileno()
        for fd in (own, *others):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        found = poll.poll(None if timeout_s is None else timeout_s * 1000)
        return {fd: event != select.POLLNVAL for fd, event in found if fd != own}

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._transport.fileno()

    def reconnect(self, patience_s: float) -> None:
        """Connect to the next daemon; raises Gone when none comes within ``patience_s``."""
        self._transport.close()
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._transport = self._connect()
            except OSError:
                if time.monotonic() > deadline:
                    raise Gone from None
                time.sleep(RETRY_S)
            else:
                return

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()
