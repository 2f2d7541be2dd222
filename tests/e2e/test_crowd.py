"""More clients than are served, and fewer files than are wanted: who is told what, and what goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, lines

import jobd
from jobd.client import Client
from jobd.model.selector import Selector, one

Make = Callable[..., DaemonUnderTest]
Connect = Callable[..., Client]

AT_ONCE_S = 1.0
HANDSHAKE = (b"\xff" + bytes(8) + b"\x7f\x03\x01NULL").ljust(64, b"\0") + (
    b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
)


def with_files(most: int) -> list[str]:
    """Return the wrapper that gives a daemon so many files, soft and hard."""
    return ["bash", "-c", f'ulimit -n {most}; exec "$@"', "bash"]


def answers_soon(client: Client) -> None:
    """Make sure that questions are answered within a second."""
    began = time.monotonic()
    client.ping()
    assert client.status().pid
    assert time.monotonic() - began < AT_ONCE_S


def refused(socket: str) -> str:
    """Return what one client too many is told."""
    with pytest.raises(jobd.TooManyClients) as caught:
        Client(socket, timeout_s=20)
    assert (caught.value.code, caught.value.error) == (75, "too_many_clients")
    return str(caught.value)


@contextmanager
def no_files_left(daemon: DaemonUnderTest) -> Iterator[None]:
    """Take from a daemon every file that it has not opened, but the first few, which poll(2) wants."""
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (12, before[1]))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)


def add(client: Client) -> object:
    """Have a job done."""
    return client.submit("work:add", 1, 2).result(20)


def is_served(socket: str) -> bool:
    """Whether there is room for one more."""
    try:
        Client(socket, timeout_s=20).close()
    except jobd.TooManyClients:
        return False
    return True


def count(client: Client) -> int:
    """Return how many jobs there are."""
    return sum(client.status().jobs.values())


# --- limits.max_clients


def test_so_many_clients_are_served_and_each_other_is_told(make_daemon: Make) -> None:
    """Of fifty, three; the others hear why, at once; who leaves makes room."""
    daemon = make_daemon(limits__max_clients=3).start()
    with ExitStack() as stack:
        served = [stack.enter_context(Client(daemon.socket, timeout_s=20)) for _ in range(3)]
        began = time.monotonic()
        said = [refused(daemon.socket) for _ in range(47)][-1]
        assert time.monotonic() - began < 20
        assert said.startswith("3 clients are connected, as many as this daemon serves")
        assert "limits.max_clients" in said
        assert [c.submit("work:add", 1, 2).result(20) for c in served] == [3] * 3
        assert [t for t in served[0].status().trouble if "clients were sent away" in t]
        served[0].close()
        eventually(lambda: is_served(daemon.socket))


def test_fifty_at_once_are_all_told(make_daemon: Make) -> None:
    """None of them is dropped without a word."""
    daemon = make_daemon(limits__max_clients=1).start()
    daemon.client().ping()
    with ThreadPoolExecutor(50) as pool:
        told = list(pool.map(refused, [daemon.socket] * 50))
    assert len(told) == 50


def test_the_command_line_says_so(make_daemon: Make) -> None:
    """Exit code 75, one line; in JSON the name."""
    daemon = make_daemon(limits__max_clients=1).start()
    daemon.client().ping()
    ran = daemon.cli("submit", "work:add", "1", "2")
    assert (ran.returncode, ran.stdout) == (75, "")
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("jobd: 1 client is connected, as many as this daemon serves: ")
    assert json.loads(daemon.cli("ls", "--json").stdout)["error"] == "too_many_clients"


def test_an_overcrowded_daemon_can_be_looked_at_and_stopped(make_daemon: Make) -> None:
    """`ping`, `status`, `reload` and `stop` are for whoever has to find out."""
    daemon = make_daemon(limits__max_clients=1).start()
    client = daemon.client()
    client.ping()
    assert daemon.cli("ls").returncode == 75
    assert daemon.cli("ping").returncode == 0
    status = daemon.cli("status", "--json")
    assert status.returncode == 0
    assert [t for t in json.loads(status.stdout)["trouble"] if "1 client is connected" in t]
    assert daemon.cli("reload").returncode == 0
    with Client(daemon.socket, timeout_s=20, errand=True) as errand:
        answers_soon(errand)
    with pytest.raises(jobd.TooManyClients), Client(daemon.socket, errand=True) as errand:
        errand.submit("work:add", 1, 2).result(20)
    assert count(client) == 0
    assert daemon.cli("stop", "--now").returncode == 0
    assert daemon.wait() == 0


def test_who_comes_back_to_a_full_daemon_waits_for_room(
    make_daemon: Make, connect: Connect
) -> None:
    """Two were served before a restart, and one can be after it: the other one's turn comes."""
    daemon = make_daemon(limits__max_clients=2).start()
    clients = [connect(daemon.socket), connect(daemon.socket)]
    for client in clients:
        client.ping()
    daemon.kill()
    daemon.start(JOBD_LIMITS_MAX_CLIENTS="1")
    with ThreadPoolExecutor(2) as pool:
        asked = {pool.submit(add, client): client for client in clients}
        done, waiting = wait(asked, timeout=20, return_when=FIRST_COMPLETED)
        assert len(done) == len(waiting) == 1
        asked[done.pop()].close()
        assert waiting.pop().result(20) == 3
    for client in clients:
        client.close()


def test_who_comes_back_in_vain_is_told_why(make_daemon: Make, connect: Connect) -> None:
    """After the time that it has for this."""
    daemon = make_daemon(limits__max_clients=2).start()
    clients = [connect(daemon.socket, 5.0), connect(daemon.socket, 5.0)]
    for client in clients:
        client.ping()
    daemon.kill()
    daemon.start(JOBD_LIMITS_MAX_CLIENTS="1")
    errors = []
    for client in clients:
        try:
            add(client)
        except jobd.JobdError as error:
            errors.append(error)
    assert [type(error) for error in errors] == [jobd.TooManyClients]
    for client in clients:
        client.close()


# --- files


@pytest.mark.parametrize("kind", ["mute", "shaken", "client"])
def test_eighty_connections_with_a_hundred_files(
    make_daemon: Make, mark: Path, gate: Path, kind: str
) -> None:
    """The daemon lives, questions are answered at once, workers start, and no job runs twice."""
    daemon = make_daemon(jobs__max_crashes=0).start(wrapper=with_files(100))
    client = daemon.client()
    slow = client.submit("faults:wait_at", str(mark), str(gate))
    eventually(lambda: lines(mark))
    with ExitStack() as stack:
        for _ in range(80):
            if kind == "client":
                try:
                    stack.enter_context(Client(daemon.socket, timeout_s=20))
                except jobd.TooManyClients:
                    continue
            else:
                raw = stack.enter_context(socket.socket(socket.AF_UNIX))
                raw.connect(daemon.socket)
                raw.sendall(HANDSHAKE if kind == "shaken" else b"")
        for _ in range(5):
            answers_soon(client)
            began = time.monotonic()
            with Client(daemon.socket, timeout_s=20, errand=True) as errand:
                assert time.monotonic() - began < AT_ONCE_S
                answers_soon(errand)
        idle = [w.pid for w in client.status().workers if w.state == "idle"]
        os.kill(idle[0], signal.SIGKILL)
        eventually(lambda: idle[0] not in {w.pid for w in client.status().workers})
        jobs = client.submit_many("work:add", [(n, 1) for n in range(200)])
        assert [job.result(20) for job in jobs] == [n + 1 for n in range(200)]
        eventually(lambda: [w.state for w in client.status().workers].count("idle") == 1)
        gate.touch()
        assert slow.result(20) == "through"
    infos, _ = client.page(Selector(all=True), 1000)
    assert {info.attempt for info in infos} == {1}
    assert "Traceback" not in daemon.log


def test_without_a_single_file_it_goes_on(make_daemon: Make, mark: Path, gate: Path) -> None:
    """It answers, runs what it can, starts no worker that it could not watch, and says what is wrong."""
    daemon = make_daemon(jobs__max_crashes=0).start()
    client = daemon.client()
    slow = client.submit("faults:wait_at", str(mark), str(gate))
    eventually(lambda: lines(mark))
    assert client.submit("work:add", 1, 2).result(20) == 3
    eventually(lambda: "idle" in {w.state for w in client.status().workers})
    with no_files_left(daemon):
        (idle,) = [w.pid for w in client.status().workers if w.state == "idle"]
        began = time.monotonic()
        os.kill(idle, signal.SIGKILL)
        eventually(lambda: idle not in {w.pid for w in client.status().workers})
        jobs = client.submit_many("work:add", [(n, 1) for n in range(20)])
        eventually(lambda: [t for t in client.status().trouble if "file descriptors" in t])
        while time.monotonic() - began < 5:  # longer than a worker may seem to stand still
            answers_soon(client)
            client.page(Selector(all=True), 100)
            list(client.logs(slow.id, follow=False))
            with socket.socket(socket.AF_UNIX) as raw, contextlib.suppress(BlockingIOError):
                raw.setblocking(False)  # the listener's queue has room for a thousand
                raw.connect(daemon.socket)
    assert [job.result(60) for job in jobs] == [n + 1 for n in range(20)]
    gate.touch()
    assert slow.result(20) == "through"
    infos, _ = client.page(Selector(all=True), 1000)
    assert {info.attempt for info in infos} == {1}, "a healthy job was run again"
    eventually(lambda: not [t for t in client.status().trouble if "file descriptors" in t])
    assert "does not start what it was given" not in daemon.log


def test_workers_that_cannot_be_looked_at_are_not_taken_for_dead(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """A daemon with too few files to take over its predecessor's workers says so, and ends; they go on."""
    daemon = make_daemon(pool__workers=24, jobs__max_crashes=0).start()
    client = daemon.client()
    jobs = client.submit_many("faults:wait_at", [(str(mark), str(gate))] * 24)
    ids = [job.id for job in jobs]
    eventually(lambda: len(lines(mark)) == 24)
    daemon.kill()
    daemon.start(wait=False, wrapper=with_files(48))
    assert daemon.wait() == 78
    assert os.strerror(errno.EMFILE) in daemon.log
    assert "LimitNOFILE" in daemon.log
    after = daemon.start().client()
    gate.touch()
    assert [after.result(number, 20) for number in ids] == ["through"] * 24
    assert len(lines(mark)) == 24
    assert {after.find(one(number))[0].attempt for number in ids} == {1}


def test_strangers_at_the_socket_of_the_pool_use_up_no_files(make_daemon: Make) -> None:
    """Whoever is no worker is not let in, be there few files; workers are, and jobs run."""
    daemon = make_daemon(pool__max_jobs_per_worker=5).start(wrapper=with_files(150))
    client = daemon.client()
    with ExitStack() as stack:
        for number in range(300):
            raw = stack.enter_context(socket.socket(socket.AF_UNIX))
            raw.connect(daemon.socket + ".workers")
            raw.sendall(HANDSHAKE if number % 2 else b"")
            if not number % 30:
                answers_soon(client)
        jobs = client.submit_many("work:add", [(n, 1) for n in range(100)])
        assert [job.result(20) for job in jobs] == [n + 1 for n in range(100)]
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < 100
    assert "Assertion" not in daemon.log


def test_a_burst_beyond_the_limit_leaves_nothing_behind(make_daemon: Make) -> None:
    """Files are as many as before, and the loop sleeps."""
    daemon = make_daemon(limits__max_clients=2).start()
    client = daemon.client()
    client.submit("work:add", 1, 2).result(20)
    daemon.settle()

    def files() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    client.ping()  # by then it has seen that whoever looked before has left
    before = files()
    with closing(Client(daemon.socket, timeout_s=20)):
        for _ in range(200):
            refused(daemon.socket)
    eventually(lambda: files() == before)
    with pytest.raises(jobd.NotFound):
        client.fetch(10**6)
