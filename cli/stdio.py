"""``jobd --stdio``: what a client on another machine starts by way of ssh."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

from jobd.client.link import connect

if TYPE_CHECKING:
    from jobd.cli.session import Session

PIECE_BYTES = 256 * 1024
ANSWERS_S = 5.0


def join(session: Session) -> int:
    """Carry bytes between the standard streams and the daemon's socket until one of the two ends.

    Raises:
        ConfigError: a setting cannot be used.
        DaemonUnreachable, Denied: there is no daemon, or it is somebody else's.
    """
    path = session.load().settings.socket
    connect(path, ANSWERS_S, errand=True)[0].close()  # who finds none says so in a sentence
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.connect(path)
        pairs = {0: daemon.fileno(), daemon.fileno(): 1}
        poll = select.poll()
        for source in pairs:
            poll.register(source, select.POLLIN)
        while True:
            for source, _ in poll.poll():
                data = os.read(source, PIECE_BYTES)
                if not data:
                    return 0
                _write(pairs[source], data)


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
