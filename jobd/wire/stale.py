"""What may be at the path of a socket: nothing, what a killed daemon has left, or what is not ours."""

from __future__ import annotations

import os
import socket
import stat
import struct

from jobd.model.errors import AlreadyRunning, ConfigError

CONNECT_S = 1.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def remove_stale(path: str) -> None:
    """Make room for a socket.

    Raises:
        ConfigError: something else than a socket is there.
        AlreadyRunning: somebody listens there.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return  # the usual case: the last daemon has removed it
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(
            f"{path} is to be our socket, and something else is there",
            "move it away, or choose another socket",
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass  # too busy to take us, or of another kind: somebody is there
        raise AlreadyRunning(
            f"{_listener(probe)} listens on {path}", "stop it, or choose another socket"
        )


def _listener(probe: socket.socket) -> str:
    try:
        data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return "another process"
    return f"pid {_CREDENTIALS.unpack(data)[0]}"
