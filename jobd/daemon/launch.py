"""Start a daemon from the command line: in the foreground, or in the background until it answers."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

import msgspec

from jobd.config import Loaded
from jobd.daemon.lock import private_directory
from jobd.daemon.owner import Owner
from jobd.model import errors
from jobd.model.errors import DaemonUnreachable, JobdError
from jobd.model.messages import Refused

LOG_NAME = "daemon.log"


def run_foreground(loaded: Loaded, ready_fd: int | None = None, owner: Owner | None = None) -> int:
    """Run the daemon in this process; return its exit code; raises JobdError if it cannot start."""
    from jobd.daemon import service  # noqa: PLC0415  # with sqlite3, which 'jobd start' does not need

    return service.run(loaded.settings, ready_fd, owner)


def start_in_background(loaded: Loaded, argv: list[str], timeout_s: float = 30.0) -> int:
    """Start ``jobd start --foreground`` with these further words, detached; return its pid once it answers.

    Raises:
        JobdError: it did not start; what it said is in the message.
    """
    state_dir = loaded.settings.state_dir
    private_directory(state_dir)
    child = spawn(argv, os.path.join(state_dir, LOG_NAME), timeout_s)
    child.returncode = 0  # it is a daemon now and outlives us: nobody waits for it
    return child.pid


def spawn(
    argv: list[str],
    log_path: str,
    timeout_s: float = 30.0,
    *,
    environ: Mapping[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Run ``jobd start --foreground`` with these further words; return once it answers.

    Args:
        argv: the words; what they leave open comes from the environment.
        log_path: the file that its stdout and stderr are appended to.
        timeout_s: how long that may take, in seconds.
        environ: its environment variables; None: ours.
        pass_fds: file descriptors that it inherits.

    Raises:
        JobdError: it did not start; what it said is in the message.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    log_fd = os.open(log_path, flags, 0o600)
    began_at = os.fstat(log_fd).st_size
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-P", "-m", "jobd", "start", "--foreground"]
    child = subprocess.Popen(
        [*command, "--ready-fd", str(write_fd), *argv],
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        env=environ,
        pass_fds=(write_fd, *pass_fds),
        start_new_session=True,
    )
    os.close(write_fd)
    os.close(log_fd)
    try:
        word = _await_word(read_fd, timeout_s)
        if not word.strip().isdigit():
            child.wait()
            refused = msgspec.json.decode(word, type=Refused)
            raise errors.BY_NAME.get(refused.error, JobdError)(refused.message, refused.hint)
    except TimeoutError:
        raise DaemonUnreachable(
            f"the daemon (pid {child.pid}) did not answer within {timeout_s:g} s", f"see {log_path}"
        ) from None
    except EOFError:
        raise what_it_said(child.wait(), log_path, began_at) from None
    finally:
        os.close(read_fd)
    return child


def _await_word(read_fd: int, timeout_s: float) -> bytes:
    """Return the line that a daemon that starts writes for its starter."""
    poll = select.poll()
    poll.register(read_fd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    text = b""
    while not text.endswith(b"\n"):
        if not poll.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            raise TimeoutError
        got = os.read(read_fd, 4096)
        if not got:
            raise EOFError
        text += got
    return text


def what_it_said(status: int, log_path: str, began_at: int = 0) -> JobdError:
    """Turn the last words of a daemon that has ended later on into the error that it met."""
    with open(log_path, encoding="utf-8", errors="replace") as file:
        file.seek(began_at)
        lines = [line.rstrip() for line in file if line.strip()]
    with_code = [error for error in errors.BY_NAME.values() if error.code == status]
    kind = min(
        with_code, key=lambda error: len(error.__mro__), default=JobdError
    )  # the most general
    said = next((line for line in reversed(lines) if line.startswith("jobd: ")), "")
    if not said:
        return DaemonUnreachable(
            f"the daemon has ended ({how_it_ended(status)})", f"see {log_path}"
        )
    return kind(said.removeprefix("jobd: "), f"its log is {log_path}")


def how_it_ended(status: int) -> str:
    """Turn what ``Popen.wait`` returns into words."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
