"""One daemon for each state directory and each socket: flock decides, before anything is bound.

Whatever is at the path of a socket is removed before it is bound, since a daemon that was
killed leaves it there; so the socket has a lock of its own beside it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from jobd.model.errors import AlreadyRunning, ConfigError, Denied


class Lock:
    """A held lock file; the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: str, what: str) -> None:
        """Take the lock.

        Raises:
            AlreadyRunning: it is held; the message names the holder.
            ConfigError, Denied: there can be no such file.
        """
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError as error:
            raise Denied(f"cannot lock {path}: {error.strerror}", "choose another place") from error
        except OSError as error:
            raise ConfigError(
                f"cannot lock {path}: {error.strerror}", "move away what is there"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (
                os.read(self._fd, 100).decode("ascii", "replace").strip() or "an unknown process"
            )
            os.close(self._fd)
            raise AlreadyRunning(
                f"{what} is held by {holder}",
                "use it, stop it with 'jobd stop', or choose another --state-dir",
            ) from None
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"pid {os.getpid()} since {since}\n".encode(), 0)
        except OSError:
            pass  # the disk is full: the lock holds all the same, it just cannot tell by whom

    def release(self) -> None:
        """Let go; the file stays, because removing it would race with the next holder."""
        os.close(self._fd)


def private_directory(path: str) -> None:
    """Make a directory of mode 0700, or make sure that nobody else can write to the one there.

    Raises:
        ConfigError: it belongs to somebody else, or others may write to it.
        Denied: it cannot be made.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
    except PermissionError as error:
        raise Denied(
            f"cannot make {path}: {error.strerror}", "choose another place, or its owner"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot make {path}: {error.strerror}", "choose another place"
        ) from error
    link = os.lstat(path)
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"the link {path} belongs to uid {link.st_uid}", "choose another place")
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to uid {found.st_uid}", "choose a directory of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"others may write to {path}", f"chmod 700 {path}")
