"""What jobd says to the service manager, heard on a socket of the test's own."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobd.daemon.notify import Notify


class Ear:
    """A manager's socket, and what has arrived in it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Take everything that has arrived."""
        found = []
        try:
            while True:
                found.append(self._socket.recv(65536).decode())
        except BlockingIOError:
            return found

    def fill(self) -> int:
        """Stuff the queue until nothing more goes in; return how many messages that took."""
        count = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(self.address)
            try:
                while True:
                    sender.send(b"STATUS=noise")
                    count += 1
            except BlockingIOError:
                return count

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    """Return a manager that listens at a path."""
    ear = Ear(str(tmp_path / "notify"))
    yield ear
    ear.close()


@pytest.fixture
def notify(ear: Ear) -> Iterator[Notify]:
    """Return what talks to ``ear``."""
    notify = Notify({"NOTIFY_SOCKET": ear.address})
    yield notify
    notify.close()


def test_words_of_one_call_arrive_as_lines_of_one_message(ear: Ear, notify: Notify) -> None:
    """The manager must see READY and STATUS together, or it shows the old status for a while."""
    notify.send(READY=1, STATUS="running")
    assert ear.heard() == ["READY=1\nSTATUS=running"]


def test_an_address_with_an_at_sign_is_an_abstract_one() -> None:
    """A manager in a container may have a socket that is in no file system."""
    ear = Ear(f"@jobd-test-{os.getpid()}-{time.monotonic_ns()}")
    notify = Notify({"NOTIFY_SOCKET": ear.address})
    notify.send(READY=1)
    assert ear.heard() == ["READY=1"]
    notify.close()
    ear.close()


def test_what_is_meant_for_the_daemon_is_taken_out_of_the_environment() -> None:
    """A job that inherited it could speak in the daemon's name."""
    environ = {
        "NOTIFY_SOCKET": "/nowhere",
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/root",
    }
    Notify(environ).close()
    assert environ == {"HOME": "/root"}


def test_a_daemon_that_no_manager_started_says_nothing() -> None:
    """Most daemons run without one."""
    notify = Notify({})
    notify.send(READY=1)
    notify.ping()
    notify.flush()
    notify.close()
    assert notify.watchdog_s == 0.0


@pytest.mark.parametrize("address", ["/nowhere/notify", "/" + "x" * 200, "vsock:2:1234", "@"])
def test_an_address_that_nobody_listens_at_is_no_reason_to_fail(address: str) -> None:
    """The daemon serves its clients whatever the manager does."""
    notify = Notify({"NOTIFY_SOCKET": address})
    notify.send(READY=1)
    notify.ping()
    notify.close()


def test_a_manager_that_was_away_is_heard_again_when_it_is_back(tmp_path: Path) -> None:
    """One that restarts is gone for a moment; pings that stopped then would have us killed."""
    address = str(tmp_path / "notify")
    notify = Notify({"NOTIFY_SOCKET": address})
    notify.ping()
    ear = Ear(address)
    notify.ping()
    assert ear.heard() == ["WATCHDOG=1"]
    notify.close()
    ear.close()


def test_a_full_queue_does_not_block_and_what_it_had_no_room_for_comes_later(
    ear: Ear, notify: Notify
) -> None:
    """The loop waits for nobody, and a start must not fail because the manager was slow."""
    noise = ear.fill()
    notify.send(READY=1)
    notify.ping()
    notify.send(STOPPING=1)
    assert len(ear.heard()) == noise
    notify.flush()
    assert ear.heard() == ["READY=1", "STOPPING=1"]


def test_no_ping_overtakes_what_still_waits(ear: Ear, notify: Notify) -> None:
    """A ping says that all is well now; an old one, sent later, would say it of another time."""
    noise = ear.fill()
    notify.send(READY=1)
    assert len(ear.heard()) == noise
    notify.ping()
    assert ear.heard() == ["READY=1", "WATCHDOG=1"]


def test_sending_needs_no_new_file_descriptor(ear: Ear, notify: Notify) -> None:
    """A daemon that has run out of them must still be able to say that it lives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        notify.send(READY=1)
        notify.ping()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ear.heard() == ["READY=1", "WATCHDOG=1"]


def test_the_beginning_of_a_reload_carries_its_time(ear: Ear, notify: Notify) -> None:
    """By it the manager tells an answer to this reload from one to an earlier one."""
    before = time.monotonic_ns() // 1000
    notify.reloading()
    after = time.monotonic_ns() // 1000
    (text,) = ear.heard()
    words = dict(line.split("=") for line in text.splitlines())
    assert words["RELOADING"] == "1"
    assert before <= int(words["MONOTONIC_USEC"]) <= after


def test_pings_are_due_twice_as_often_as_the_unit_demands() -> None:
    """Half the interval is what sd_watchdog_enabled(3) recommends."""
    notify = Notify({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
    assert notify.watchdog_s == 15.0
    assert Notify({"WATCHDOG_USEC": "30000000"}).watchdog_s == 15.0


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "0"},
    ],
)
def test_a_watchdog_for_another_process_or_without_sense_is_none(environ: dict[str, str]) -> None:
    """A shell between the manager and us leaves its own pid there."""
    assert Notify(environ).watchdog_s == 0.0
