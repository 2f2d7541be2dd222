"""What both ends of a connection between machines have of libzmq: its numbers, and how often it beats.

libzmq reads and writes in a thread of its own.  What it costs is asking it: so a look at ``EVENTS``
comes before each ``recv`` (an exception for "nothing is there" costs more), and nothing is asked twice.

A socket's file descriptor is an edge: it becomes readable when something *may* have changed, and is
silent about what was there before.  Every call may take that edge away.
"""

from __future__ import annotations

import zmq

BEAT_S = 1.0
SILENT_S = 3.0
"""A peer that has not answered a heartbeat for so long is gone."""

LINGER_S = 0.5
"""How long the end may take, so that the last words are read."""

# Plain numbers: pyzmq's are enums, with which each look would cost three times as much.
EVENTS, IN, OUT = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.POLLOUT)
NOWAIT = int(zmq.NOBLOCK)
MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


def prepare(socket: zmq.Socket[bytes], max_message_bytes: int, sent: int, arrived: int) -> None:
    """Set what both ends have alike; so many frames may wait to be sent, and to be read (0: no bound)."""
    for option, value in (
        (zmq.LINGER, int(LINGER_S * 1000)),
        (zmq.MAXMSGSIZE, max_message_bytes),
        (zmq.SNDHWM, sent),
        (zmq.RCVHWM, arrived),
        (zmq.HEARTBEAT_IVL, int(BEAT_S * 1000)),
        (zmq.HEARTBEAT_TIMEOUT, int(SILENT_S * 1000)),
        (zmq.HEARTBEAT_TTL, int(SILENT_S * 1000)),
    ):
        socket.set(option, value)


def has_more(socket: zmq.Socket[bytes]) -> bool:
    """Whether something can be read."""
    return bool(socket.get(EVENTS) & IN)  # type: ignore[operator]  # a number
