"""What Linux offers, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from harness import eventually

from jobd.pool import linux


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that computes, and says so."""
    program = "print(1, flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def used(pid: int) -> bytes:
    """Return the processor time that a process has used."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return b" ".join(file.read().rpartition(b")")[2].split()[11:13])


def test_a_process_that_was_halted_stands_still_until_it_goes_on(
    busy: subprocess.Popen[bytes],
) -> None:
    """When ``halt`` returns it has stopped; and who has stopped it is told."""
    pidfd = os.pidfd_open(busy.pid)
    assert linux.halt(busy.pid, pidfd)
    # Where others want the processors, it may have to wait for one before it is seen to stop.
    eventually(lambda: linux.state(busy.pid) == b"T")
    assert not linux.halt(busy.pid, pidfd)
    before = used(busy.pid)
    linux.go_on(pidfd)
    eventually(lambda: used(busy.pid) != before)
    os.close(pidfd)


def test_a_process_that_is_gone_is_neither_halted_nor_goes_on(
    busy: subprocess.Popen[bytes],
) -> None:
    """Nothing is raised, and nobody else is hit."""
    pidfd = os.pidfd_open(busy.pid)
    busy.send_signal(signal.SIGKILL)
    busy.wait()
    assert not linux.halt(busy.pid, pidfd)
    linux.go_on(pidfd)
    os.close(pidfd)
