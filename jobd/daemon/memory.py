"""The directory in memory of each state directory, and the removal of those that nobody will use again.

Beside each lies a *mark* that names the state directory and the file system that it is on.  Its
daemon holds a lock on the mark, which the kernel lets go of with the process.  Whoever starts looks
at the others' marks: where the lock is free and the state directory is gone, what is in memory goes
too.  Gone is what its own file system does not have: one that is not mounted now may come back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from typing import NamedTuple

from jobd.blobs import MARK, memory_directory
from jobd.daemon.lock import private_directory


class Belongs(NamedTuple):
    """What a mark says."""

    device: int
    state_dir: bytes


class Memory:
    """This daemon's directory in memory; made, marked, and removed again if nothing is in it."""

    def __init__(self, state_dir: str) -> None:
        """Make it, and remove what others have left behind.

        Raises:
            JobdError, OSError: there can be none.
        """
        self.directory = memory_directory(state_dir)
        private_directory(os.path.dirname(self.directory))
        self._mark = self.directory + MARK
        self._fd = _open_locked(self._mark)
        try:
            place = os.fsencode(os.path.realpath(state_dir))
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d %s" % (os.stat(state_dir).st_dev, place), 0)
            private_directory(self.directory)
        except BaseException:
            self.release()
            raise
        sweep(os.path.dirname(self.directory))

    def release(self) -> None:
        """Let go of it."""
        with contextlib.suppress(OSError):  # there are payloads in it
            os.rmdir(self.directory)
        if not os.path.exists(self.directory):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._mark)
        os.close(self._fd)


def sweep(parent: str) -> None:
    """Remove directories in memory whose daemons, and state directories, are gone."""
    for name in sorted(os.listdir(parent)):
        if name.endswith(MARK):
            with contextlib.suppress(OSError):  # somebody else is at it, or has just been
                _sweep_one(os.path.join(parent, name))


def _sweep_one(mark: str) -> None:
    fd = os.open(mark, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        device, _, place = os.read(fd, 65_536).partition(b" ")
        if not (device.isdigit() and place):
            return  # the disk was full, or its daemon was killed in between
        if _is_gone(Belongs(int(device), place)):
            shutil.rmtree(mark.removesuffix(MARK), ignore_errors=True)
            os.unlink(mark)
    finally:
        os.close(fd)


def _is_gone(belongs: Belongs) -> bool:
    """Whether the file system that a state directory was on has it no longer."""
    path = belongs.state_dir
    if os.path.lexists(path):
        return False
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    found = os.stat(path)
    return stat.S_ISDIR(found.st_mode) and found.st_dev == belongs.device


def _open_locked(mark: str) -> int:
    """Open a mark, made anew if a sweep has removed it meanwhile, and lock it."""
    while True:
        fd = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)  # others hold it for a look, ours for as long as we live
        with contextlib.suppress(FileNotFoundError):
            if os.stat(mark).st_ino == os.fstat(fd).st_ino:
                return fd
        os.close(fd)
