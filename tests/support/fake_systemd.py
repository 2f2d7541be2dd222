"""The service manager's end of sd_notify(3), for a daemon that runs without one.

with FakeSystemd(watchdog_s=2.0) as systemd:
    daemon.start(**systemd.environ)
    systemd.wait_for("READY")
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness import DEADLINE_S, eventually

SO_TIMESTAMPNS = 35  # socket(7); the module socket does not have it
SCM_CREDENTIALS = 2

STATES = ("READY", "RELOADING", "STOPPING")


@dataclass(frozen=True)
class Heard:
    """A message, when the kernel got it (seconds since 1970) and from which process."""

    at_s: float
    pid: int
    words: dict[str, str]

    @property
    def state(self) -> str:
        """The change of state that it tells, or ""."""
        return next((state for state in STATES if self.words.get(state) == "1"), "")


class FakeSystemd:
    """A notification socket, and everything that has come in by it."""

    def __init__(self, *, watchdog_s: float = 0.0, abstract: bool = False) -> None:
        self._dir = Path(tempfile.mkdtemp(prefix="systemd-", dir="/tmp"))  # short
        self.address = f"@jobd-{secrets.token_hex(8)}" if abstract else str(self._dir / "notify")
        self.environ = {"NOTIFY_SOCKET": self.address}
        if watchdog_s:
            self.environ["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self._heard: list[Heard] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setblocking(False)
        self._socket.bind("\0" + self.address[1:] if abstract else self.address)

    @property
    def heard(self) -> list[Heard]:
        """Everything that has come in so far."""
        try:
            while True:
                self._heard.append(_understand(*self._socket.recvmsg(65536, 256)[:2]))
        except BlockingIOError:
            return self._heard

    @property
    def states(self) -> list[str]:
        """The changes of state that were told so far."""
        return [heard.state for heard in self.heard if heard.state]

    @property
    def pings_at_s(self) -> list[float]:
        """When the watchdog was pinged."""
        return [heard.at_s for heard in self.heard if heard.words.get("WATCHDOG") == "1"]

    def wait_for(self, *states: str, within_s: float = DEADLINE_S) -> Heard:
        """Wait until exactly these changes of state were told; return the last one."""
        expected = list(states)
        eventually(lambda: len(self.states) >= len(expected), within_s=within_s)
        assert self.states == expected
        return [heard for heard in self.heard if heard.state][-1]

    def wait_for_pings(self, more: int) -> None:
        """Wait until the watchdog was pinged so many times more."""
        enough = len(self.pings_at_s) + more
        eventually(lambda: len(self.pings_at_s) >= enough)

    def wait_for_silence(self, seconds: float) -> None:
        """Wait until there was no ping for so long; fails if they go on."""
        began = time.time()
        eventually(lambda: time.time() - max([began, *self.pings_at_s]) > seconds)

    def stuff(self) -> None:
        """Fill the queue of the socket, as that of a manager that is busy with other things."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect("\0" + self.address[1:] if self.address[0] == "@" else self.address)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.send(b"STATUS=noise")

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        shutil.rmtree(self._dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _understand(text: bytes, ancillary: list[tuple[int, int, bytes]]) -> Heard:
    about = {kind: data for level, kind, data in ancillary if level == socket.SOL_SOCKET}
    seconds, nanoseconds = struct.unpack("qq", about[SO_TIMESTAMPNS])
    (pid,) = struct.unpack_from("i", about[SCM_CREDENTIALS])
    lines = text.decode().splitlines()
    return Heard(seconds + nanoseconds / 1e9, pid, dict(line.split("=", 1) for line in lines))
