"""Who is at the other end of a Unix socket, as the kernel knows it."""

from __future__ import annotations

import _socket as socket  # the plain one: every command of the command line would load the other
import struct

_CREDENTIALS = struct.Struct("3i")  # struct ucred


def credentials(connected: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and gid of who has connected, or listens, at the other end; raises OSError."""
    data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return pid, uid, gid
