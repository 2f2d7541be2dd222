"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import blocking
import pytest
from harness import DaemonUnderTest
from hypothesis import HealthCheck, settings

from jobd.client import Client

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and every process of a test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hundreds of processes import jobd: where the environment forbids to keep what was compiled
# (containers like to), each of them would compile it anew, which is half of all the time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The machine may be busy with something else: no timing decides a test.
settings.register_profile("jobd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("jobd")

MODULES = Path(__file__).parent / "support" / "jobs"


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., DaemonUnderTest]]:
    """Make daemons that are not started yet; all are closed after the test."""
    made: list[DaemonUnderTest] = []

    def make(**settings: object) -> DaemonUnderTest:
        daemon = DaemonUnderTest(**settings)  # type: ignore[arg-type]  # settings by name
        for module in MODULES.glob("*.py"):
            daemon.write_module(module.stem, module.read_text(encoding="utf-8"))
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def daemon(make_daemon: Callable[..., DaemonUnderTest]) -> DaemonUnderTest:
    """Return a running daemon with two workers; ``tests/support/jobs`` is on the workers' path."""
    return make_daemon().start()


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon with two workers, for the tests that do it no harm."""
    with DaemonUnderTest() as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """Return the path of a file that jobs wait for; after the test none waits any longer."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Return the path of a file to which jobs write that they run."""
    return tmp_path / "mark"


@pytest.fixture(params=["threads", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Return what opens a client: that for threads, or that for asyncio with the same face."""
    if request.param == "threads":
        yield lambda socket, timeout_s=20.0: Client(socket, timeout_s=timeout_s)
        return
    with closing(blocking.Loop()) as loop:
        yield lambda socket, timeout_s=20.0: blocking.connect(loop, socket, timeout_s)
