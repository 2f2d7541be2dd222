"""A listening socket, and what may be at its path: nothing, a dead daemon's, or what is not ours."""

from __future__ import annotations

import os
import socket
import stat

from jobd.credentials import credentials
from jobd.model.errors import AlreadyRunning, ConfigError

BACKLOG = 1024
CONNECT_S = 1.0


def listener(path: str) -> socket.socket:
    """Return a socket that listens at a path, for its owner only; the caller holds the lock of this path.

    Raises:
        ConfigError, AlreadyRunning: something is there that is not ours to remove.
    """
    remove_stale(path)
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    made.bind(path)
    os.chmod(path, 0o600)
    made.listen(BACKLOG)
    return made


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
            f"{_who(probe)} listens on {path}", "stop it, or choose another socket"
        )


def _who(probe: socket.socket) -> str:
    try:
        return f"pid {credentials(probe)[0]}"
    except OSError:
        return "another process"
