"""What Linux offers and Python does not wrap: prctl, and who is whose child."""

from __future__ import annotations

import ctypes
import functools
import os
import select
import signal
import time
from collections.abc import Iterable

HALTS_WITHIN_S = 0.02

_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

# Not os.waitid: the exception that tells of no child costs more than the system call.
_waitid = ctypes.PyDLL(None).waitid
_waitid.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_int)
_EXITED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def become_subreaper() -> None:
    """Make this process the parent of its orphaned descendants, so that none of them escapes."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if there is none with this pid.

    Pid and start time together name a process for ever; a pid alone is used again.

    Raises:
        OSError: it cannot be looked at, for want of files; that does not mean that there is none.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def halt(pid: int, pidfd: int) -> bool:
    """Stop a process; return, once its main thread stands still, whether it was running before."""
    if state(pid) == b"T":
        return False
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
    except ProcessLookupError:
        return False
    # In the kernel (D) it will stop before it comes back, and so will one that waits for a processor:
    # the limit is for that, and for systems whose /proc does not tell.
    until = time.monotonic() + HALTS_WITHIN_S
    while state(pid) not in (b"T", b"D", b"Z", b"X", b"") and time.monotonic() < until:
        os.sched_yield()
    return True


def go_on(pidfd: int) -> None:
    """Let a process go on that ``halt`` has stopped."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    except ProcessLookupError:
        pass  # somebody has killed it


def is_stopped(pid: int) -> bool:
    """Whether a signal (SIGSTOP, say) has stopped a process."""
    return state(pid) == b"T"


def state(pid: int) -> bytes:
    """Return the state of a process's main thread, as in /proc; b"" if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0]
    except OSError:
        return b""


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if there is none with this pid."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def trim() -> None:
    """Give memory back to the kernel that was freed and is kept for later; nothing if libc cannot."""
    give_back = getattr(_libc, "malloc_trim", None)
    if give_back is not None:
        give_back(0)


@functools.cache
def kernel_boot_id() -> bytes:
    """Return the 16 bytes that tell this boot of the machine from any other."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return bytes.fromhex(file.read().strip().replace("-", ""))


def children(pid: int) -> list[int]:
    """Return the pids of a process's living or unreaped children."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # it has just ended, and so it has none
    return found


def descendants(pid: int) -> list[int]:
    """Return the pids of a process's children, their children, and so on."""
    found = children(pid)
    for child in found:  # which grows meanwhile
        found += children(child)
    return found


def is_resource_tracker(pid: int) -> bool:
    """Whether a process removes what others leave in shared memory, for ``multiprocessing`` or loky."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"resource_tracker" in file.read(4096)
    except OSError:
        return False  # it has just ended


def await_ends(pids: Iterable[int], timeout_s: float) -> None:
    """Wait until these processes have ended, or the time is up."""
    deadline = time.monotonic() + timeout_s
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue  # it has ended, or there are no files to wait with
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(fd)


def process_group(pid: int) -> int:
    """Return the process group of a process; 0 if there is none with this pid."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal (one that has a handler for it does not)."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            masks = [line.split()[1] for line in file if line.startswith("SigIgn:")]
    except OSError:
        return False
    return bool(masks) and bool(int(masks[0], 16) >> (number - 1) & 1)


def end_processes(leader: int) -> None:
    """Send SIGTERM to a process group, and to what its leader has started that has left it."""
    strays = [pid for pid in descendants(leader) if process_group(pid) != leader]
    signal_group(leader, signal.SIGTERM)
    for pid in strays:
        signal_quietly(pid, signal.SIGTERM)


def has_children() -> bool:
    """Whether this process has any child, dead or alive; one system call."""
    return bool(_waitid(os.P_ALL, 0, None, _EXITED) == 0)


def kill_children(spare: frozenset[int] | set[int] = frozenset()) -> int:
    """Kill and reap all children but ``spare``, and those that come down to us by it; return how many.

    Only a subreaper gets its grandchildren this way.
    """
    killed = 0
    while True:
        doomed = [pid for pid in children(os.getpid()) if pid not in spare]
        if not doomed:
            return killed
        for pid in doomed:
            signal_quietly(pid, signal.SIGKILL)
        for pid in doomed:
            try:
                os.waitpid(pid, 0)
                killed += 1
            except ChildProcessError:
                pass  # somebody else has reaped it


def end_strays(spare: set[int]) -> None:
    """Kill all children but ``spare``, and reap those that are dead; never waits."""
    for pid in children(os.getpid()):
        if pid not in spare:
            signal_quietly(pid, signal.SIGKILL)
            reap(pid)


def reap_all() -> bool:
    """Take note of the end of all children that have ended; return whether others live. Never waits."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def reap(pid: int) -> None:
    """Take note of a child's end, if it has ended; never waits."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # somebody else has reaped it


def signal_quietly(pid: int, number: int) -> None:
    """Send a signal; the process may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def signal_group(pgid: int, number: int) -> None:
    """Send a signal to a process group; it may be gone already."""
    try:
        os.killpg(pgid, number)
    except ProcessLookupError:
        pass
