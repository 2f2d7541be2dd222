"""The pool's ROUTER: workers come to it through a gate."""

from __future__ import annotations

import select

from jobd.wire.gate import Gate, Knows
from jobd.wire.router import Router


class PoolRouter(Router):
    """The pool's socket: whoever is no worker of ours never becomes a peer."""

    def __init__(self, path: str, max_message_bytes: int) -> None:
        """Bind; the caller holds the lock of this path.

        Raises:
            ConfigError, AlreadyRunning: something is there that is not ours to remove.
        """
        super().__init__("", max_message_bytes)
        self._gate = Gate(path, self.take_in)
        self._epoll.register(self._gate.fd, select.EPOLLIN)

    @property
    def is_ready(self) -> bool:
        """Whether there is something to drain of which ``fd`` does not tell; lets in who is known by now."""
        if self._gate.is_awaited:
            self._open()
        return False

    def let_in(self, knows: Knows) -> None:
        """From now on let in whomever ``knows`` calls a worker of ours."""
        self._gate.knows = knows

    def look(self) -> None:
        """Send away who has waited at the gate in vain, too; called every second."""
        super().look()
        self._gate.look()

    def close(self) -> None:
        """Let workers read what waits for them, for a moment; close, and remove the path."""
        self._gate.close()
        super().close()

    def _look_at(self, fd: int) -> None:
        if fd == self._gate.fd:
            self._open()

    def _open(self) -> None:
        self._gate.open()
        self.is_short = self._gate.is_short
