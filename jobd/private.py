"""A daemon that one process has for itself: it ends with that process, and leaves nothing behind.

It is handed a pidfd of its owner, so that it sees the owner's end whatever brings
it about, ``kill -9`` included; then it stops at once and removes its directory.
Should the daemon be killed too, its zygote ends the workers; the directory, which
nobody is left to remove, is removed by the next private daemon of this user.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence

from jobd.blobs import remove_memory
from jobd.config.directories import SOCKET_PATH_BYTES
from jobd.config.settings import WORKER_SUFFIX, env_name
from jobd.daemon import launch
from jobd.daemon.owner import AUTHKEY, INITIALIZER
from jobd.model.errors import DaemonUnreachable, JobdError

PREFIX = "jobd-private-"
SOCKET = "client.sock"
STATE = "state"
STOP_S = 15.0
"""How long a daemon may take to end; it waits for no job."""

ABANDONED_S = 60.0
"""A directory without a daemon that is so old is nobody's: a daemon starts faster than this."""

NOT_FOR_IT = ("JOBD_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "STATE_DIRECTORY")
"""Environment variables, by their beginning, that are about another daemon, or the owner's own unit."""


class PrivateDaemon:
    """A running daemon of this process's own.

    Args:
        workers: how many jobs run at once; 0: one for each core that may be used.
        path: where workers look for modules first; None: where this process does.
        initializer: a pickled ``(function, arguments)`` that each worker calls first; b"": none.
        state_dir: where jobs are kept for good, and surely; "": in the temporary directory
            that goes with the daemon, and without waiting for any disk.
        settings: more settings by key, ``{"jobs.max_crashes": 0}``.
        authkey: the key by which this process's ``multiprocessing`` objects know each other, for the
            workers; b"": they have keys of their own.
        outputs: the fds where jobs write; None: into their logs.

    Attributes:
        socket: the path at which it answers.
        process: the daemon's process.

    Raises:
        JobdError: it did not start.
    """

    def __init__(  # noqa: PLR0913  # all that one can be told
        self,
        workers: int = 0,
        *,
        path: Sequence[str] | None = None,
        initializer: bytes = b"",
        state_dir: str = "",
        settings: Mapping[str, object] | None = None,
        authkey: bytes = b"",
        outputs: tuple[int, int] | None = None,
    ) -> None:
        directory = _new_directory()
        self._log = os.path.join(directory, launch.LOG_NAME)
        self.socket = os.path.join(directory, SOCKET)
        words = ["--state-dir", state_dir or os.path.join(directory, STATE)]
        words += ["--socket", self.socket, "--workers", str(workers)]
        words += ["--durability", "full" if state_dir else "off"]
        for entry in _own_path() if path is None else path:
            words += ["--path", entry]
        fds = [_moved(os.pidfd_open(os.getpid()))]
        try:
            fds += map(_copied, outputs or ())
            for name, content in ((INITIALIZER, initializer), (AUTHKEY, authkey)):
                if content:
                    _write(os.path.join(directory, name), content)
            self.process = launch.spawn(
                [*words, "--owner", f"{','.join(map(str, fds))}:{directory}"],
                self._log,
                environ=_environ({"daemon.drain_s": 0, **(settings or {})}),
                pass_fds=tuple(fds),
            )
        except BaseException as error:
            _remove(directory)
            if isinstance(error, JobdError):
                raise type(error)(error.message) from None  # its hint is the log, and that is gone
            raise
        finally:
            for fd in fds:
                os.close(fd)
        # Also when nobody has called ``stop``: at the end of this process, or of this object.
        self._end = weakref.finalize(self, _end, self.process, directory, os.getpid())

    def why_it_ended(self) -> JobdError:
        """Return the daemon's last words, when it has hung up and before ``stop``."""
        try:
            status = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return DaemonUnreachable(f"the daemon (pid {self.process.pid}) does not answer")
        try:
            said = launch.what_it_said(status, self._log)
        except FileNotFoundError:  # it was stopped, and has removed everything
            return DaemonUnreachable(f"the daemon has ended ({launch.how_it_ended(status)})")
        return type(said)(said.message)  # without its hint: the log goes, too

    def stop(self) -> None:
        """End the daemon, whatever runs, and remove what it had; again does nothing."""
        self._end()

    def __repr__(self) -> str:
        return f"<jobd.private.PrivateDaemon pid {self.process.pid}>"


def _end(process: subprocess.Popen[bytes], directory: str, owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child has a copy of all objects, and none of their daemons
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _remove(directory)  # the daemon does it too, unless it was killed


def _remove(directory: str) -> None:
    remove_memory(os.path.join(directory, STATE))
    shutil.rmtree(directory, ignore_errors=True)


def _copied(fd: int) -> int:
    """Return a copy that is none of the first three: as 1 and 2 the daemon has its log."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _moved(fd: int) -> int:
    """Return one of another number, if it has one of those: a program may have closed them."""
    try:
        return _copied(fd)
    finally:
        os.close(fd)


def _write(path: str, content: bytes) -> None:
    """Write a file that nobody else may read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _own_path() -> list[str]:
    """Return where this process finds modules: what it can import, its workers can."""
    return [os.path.abspath(entry) for entry in sys.path if os.path.exists(entry or ".")]


def _environ(settings: Mapping[str, object]) -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith(NOT_FOR_IT)}
    return ours | {env_name(key): _text(value) for key, value in settings.items()}


def _text(value: object) -> str:
    return os.pathsep.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _new_directory() -> str:
    """Make a directory whose path is short enough for a socket; remove those that are nobody's."""
    room = SOCKET_PATH_BYTES - len(PREFIX) - len("12345678") - len(SOCKET + WORKER_SUFFIX) - 2
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > room:
        parent = "/tmp"  # noqa: S108  # mkdtemp makes it safe, and no other path is as short
    for path in _abandoned(parent):
        _remove(path)
    return tempfile.mkdtemp(prefix=PREFIX, dir=parent)


def _abandoned(parent: str) -> Iterator[str]:
    """Yield directories of private daemons that were killed together with their owners."""
    with os.scandir(parent) as entries:
        candidates = [entry for entry in entries if entry.name.startswith(PREFIX)]
    for entry in candidates:
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to look at
            status = entry.stat(follow_symlinks=False)
            old = time.time() - status.st_mtime > ABANDONED_S
            if old and status.st_uid == os.geteuid() and not _is_held(entry.path):
                yield entry.path


def _is_held(directory: str) -> bool:
    """Whether a living daemon has its socket there."""
    try:
        fd = os.open(os.path.join(directory, SOCKET + ".lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)
