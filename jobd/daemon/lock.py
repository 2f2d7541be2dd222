"""One daemon for each state directory and each socket: flock decides, before anything is bound.

The state directory is locked itself, beside a file in it that says by whom: somebody may remove
that file.  A socket has a lock of its own beside it, since one that a killed daemon has left
is removed before it is bound.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path

from jobd.model.errors import AlreadyRunning, ConfigError, Denied


class Lock:
    """A held lock file; the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: str, what: str, directory: str = "") -> None:
        """Take the lock, with ``directory`` also on that itself.

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
        self._fds = [self._fd]
        if directory:
            self._fds.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for fd in self._fds:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # What the file says is the holder's only if he holds the file.
                said = os.read(fd, 100).decode("ascii", "replace") if fd == self._fd else ""
                holder = said.strip() or _holder(fd)
                self.release()
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
        for fd in self._fds:
            os.close(fd)


def _holder(fd: int) -> str:
    """Return who holds the lock on an open file, as the kernel tells."""
    found = os.fstat(fd)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            pids = [fields[4] for fields in map(str.split, file) if fields[5:6] == [place]]
    except OSError:
        pids = []
    return f"pid {pids[0]}" if pids else "an unknown process"


def private_directory(path: str) -> None:
    """Make a directory of mode 0700, or make sure that nobody else can write to the one there.

    Nor may others write to a directory above it, where they could put another in its place, unless that
    is sticky, as /tmp is.

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
    for above in Path(os.path.realpath(path)).parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigError(
                f"others may write to {above}, and so replace {path} by a directory of theirs",
                f"chmod o-w {above}, or choose another place",
            )
