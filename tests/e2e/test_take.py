"""Results that are consumed exactly once, whoever asks, and whoever dies over it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually

from jobd.client import Client, verbs
from jobd.model.errors import AlreadyTaken, JobFailed, NotFound, NotReady, ResultExpired
from jobd.model.messages import Ended
from jobd.model.selector import one
from jobd.model.states import State

MakeDaemon = Callable[..., DaemonUnderTest]


@pytest.fixture
def client(daemon: DaemonUnderTest) -> Client:
    """Return a client of the daemon."""
    return daemon.client()


HOLDER = """
import sys, time, jobd
from jobd.client import verbs

def hold(ended):
    print("here", flush=True)
    sys.stdin.read()

client = jobd.Client(sys.argv[1])
client._run(verbs.take(client._core, int(sys.argv[2]), hold))
"""


def test_a_result_is_taken_once(daemon: DaemonUnderTest, client: Client) -> None:
    """Then neither a taker, nor a reader, nor a job that has it for an argument gets it."""
    number = client.submit("work:add", 1).id
    client.wait([number], 20)
    done = daemon.cli("take", str(number))
    assert (done.returncode, done.stdout) == (0, "2\n")
    for verb in ("take", "result"):
        done = daemon.cli(verb, str(number))
        assert done.returncode == 4
        assert f"the result of job {number} was taken already" in done.stderr
    with pytest.raises(AlreadyTaken):
        client.result(number, 20)
    with pytest.raises(JobFailed, match=f"result of job {number} was taken already"):
        client.submit("work:add", client.attach(number)).result(20)


def test_there_must_be_something_to_take(daemon: DaemonUnderTest, client: Client) -> None:
    """A job that does not exist, has not ended, or has failed, each with its own exit code."""
    with pytest.raises(NotFound):
        client.take_encoded(99)
    slow = client.submit("work:sleep", 30)
    with pytest.raises(NotReady):
        client.take_encoded(slow.id)
    assert daemon.cli("take", str(slow.id)).returncode == 3
    failed = client.submit("work:fail", "bad")
    done = daemon.cli("take", "--wait", str(failed.id))
    assert (done.returncode, "ValueError: bad" in done.stderr) == (1, True)
    slow.cancel()


def test_of_twenty_takers_one_wins(daemon: DaemonUnderTest, client: Client) -> None:
    """The others are told that they are too late."""
    number = client.submit("work:add", 1).id
    won: list[object] = []
    late: list[AlreadyTaken] = []

    def take() -> None:
        with Client(daemon.socket) as other:
            try:
                won.append(other.take(number, 20))
            except AlreadyTaken as error:
                late.append(error)

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert won == [2]
    assert len(late) == 19


def test_a_taker_that_is_killed_before_it_says_so_has_taken_nothing(
    daemon: DaemonUnderTest, client: Client
) -> None:
    """The next one gets the value, be he there already or not."""
    number = client.submit("work:add", 1).id
    client.wait([number], 20)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, daemon.socket, str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"here\n"
        found: list[object] = []
        waiting = threading.Thread(target=lambda: found.append(client.take(number, 20)))
        waiting.start()
        with daemon.client() as third:
            assert third.ping() < 20  # whoever holds it is there: nobody else gets it
        assert found == []
        holder.kill()
    waiting.join(20)
    assert found == [2]


def test_what_was_taken_is_taken_after_a_crash_too(make_daemon: MakeDaemon) -> None:
    """And a value that was only shown is not."""
    daemon = make_daemon().start()
    client = daemon.client()
    first, second = client.submit("work:add", 1), client.submit("work:add", 2)
    assert client.take(first.id, 20) == 2
    assert second.result(20) == 3
    daemon.kill()
    daemon.start()
    with daemon.client() as later:
        with pytest.raises(AlreadyTaken):
            later.take(first.id, 20)
        assert later.take(second.id, 20) == 3


def test_a_result_that_was_kept_long_enough_has_expired(make_daemon: MakeDaemon) -> None:
    """Its job stays on record; who reads it, takes it or has it for an argument is told."""
    daemon = make_daemon(results__keep_s=0.01).start()
    client = daemon.client()
    number = client.submit("work:add", 1).id
    client.wait([number], 20)
    eventually(lambda: daemon.cli("result", str(number)).returncode == 4)
    done = daemon.cli("take", str(number), "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]) == (4, "result_expired")
    with pytest.raises(ResultExpired, match=f"result of job {number} has expired"):
        client.result(number, 20)
    with pytest.raises(JobFailed, match=f"result of job {number} has expired"):
        client.submit("work:add", client.attach(number)).result(20)
    assert daemon.cli("show", str(number)).returncode == 0


@pytest.mark.parametrize("restarts", [False, True], ids=["one daemon", "the next daemon"])
def test_a_result_that_a_job_waits_to_be_given_is_kept(
    make_daemon: MakeDaemon, gate: Path, mark: Path, *, restarts: bool
) -> None:
    """While a job is blocked, or queued, that has it as an input; later it expires as others do."""
    daemon = make_daemon(results__keep_s=0.01).start()
    client = daemon.client()
    wanted = client.submit("work:add", 1)
    slow = client.submit("work:mark_and_wait", str(mark), str(gate))
    blocked = client.submit("work:echo", wanted, slow)
    later = client.options(in_="1h").submit("work:echo", wanted)
    client.wait([wanted.id], 20)
    client.flush()
    eventually(mark.exists)
    if restarts:
        daemon.kill()
        client = daemon.start().client()
    other = client.submit("work:nothing").id
    eventually(lambda: daemon.cli("result", str(other)).returncode == 4)
    assert client.result(wanted.id, 20) == 2
    gate.touch()
    assert client.wait([blocked.id], 20)[blocked.id].state is State.SUCCEEDED
    client.cancel(one(later.id))
    eventually(lambda: daemon.cli("result", str(wanted.id)).returncode == 4)


def test_who_has_the_value_when_the_daemon_dies_keeps_it(make_daemon: MakeDaemon) -> None:
    """The taker tells the next daemon, and is believed: it is the same one."""
    daemon = make_daemon().start()
    client = daemon.client()
    number = client.submit("work:add", 1).id
    client.wait([number], 20)

    def restart(ended: Ended) -> bytes | None:
        daemon.kill()
        daemon.start()
        return ended.value

    assert client._run(verbs.take(client._core, number, restart)) == b"j2"
    with pytest.raises(AlreadyTaken):
        client.take(number, 20)
    eventually(lambda: daemon.cli("take", str(number)).returncode == 4)
