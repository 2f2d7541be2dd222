"""jobd.Client against a real daemon: what it promises, and what it says when it cannot keep it."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import zmq
from harness import DaemonUnderTest, eventually, is_alive, lines

from jobd import payload
from jobd.client import Client
from jobd.client.ahead import ROOM
from jobd.daemon.requests import decode
from jobd.model.errors import (
    BadFunction,
    ConfigError,
    DaemonUnreachable,
    Denied,
    JobCancelled,
    JobFailed,
    NotFound,
    UsageError,
    WaitTimeout,
)
from jobd.model.job import JobInfo
from jobd.model.messages import (
    PROTOCOL,
    Fetch,
    FrameError,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Request,
    Stop,
    Submit,
    Submitted,
    Welcome,
    decode_replies,
    encode,
)
from jobd.model.selector import Selector, one
from jobd.pool import linux
from jobd.wire.zmtp import Disconnected, Transport

Make = Callable[..., DaemonUnderTest]
Connect = Callable[..., Client]

MIB = 1024 * 1024
NO_ARGUMENTS = payload.encode_call((), {})[0]


@pytest.fixture
def client(shared: DaemonUnderTest, connect: Connect) -> Iterator[Client]:
    """Return a client of the shared daemon."""
    with connect(shared.socket) as client:
        yield client


def serves(daemon: DaemonUnderTest) -> None:
    """Make sure that a new client is served."""
    with Client(daemon.socket, timeout_s=20) as client:
        assert client.submit("work:add", 20, 22).result(20) == 42


# --- submitting


def test_what_is_passed_arrives_as_it_was(client: Client) -> None:
    """Arguments and results of every plain kind, and of kinds that JSON does not have."""
    values: list[Any] = [
        *(None, True, 0, -(2**70), 1.5, float("inf"), "", "ä\0\n\u20ac", "\ud800"),
        *([], {}, (1, 2), {1, 2}, b"\xff\0", {1: "one"}, [[[]]], 1 + 2j, range(3), {"a": (1,)}),
    ]
    arguments, keywords = client.submit("work:echo", *values, key="word").result(20)
    assert arguments == values
    assert [type(value) for value in arguments] == [type(value) for value in values]
    assert keywords == {"key": "word"}


def test_every_keyword_belongs_to_the_function(client: Client) -> None:
    """None is taken by the client: not function, not timeout, not self."""
    keywords = {"function": 1, "timeout": 2, "self": 3, "check": 4, "args": 5}
    assert client.submit("work:echo", **keywords).result(20) == [[], keywords]


def test_a_thousand_submits_are_on_their_way_before_the_first_is_answered(client: Client) -> None:
    """Each is a job of its own, with ids in the order of submission."""
    deferreds = [client.submit("work:add", n, 1) for n in range(1000)]
    assert [deferred.result(20) for deferred in deferreds] == list(range(1, 1001))
    ids = [deferred.id for deferred in deferreds]
    assert ids == sorted(set(ids))


def test_a_bulk_submit_has_ids_that_follow_on_each_other(client: Client) -> None:
    """One message, one commit; the shapes may differ."""
    deferreds = client.submit_many("work:add", [(1,), (1, 2), [5], (3, 4)])
    assert [deferred.result(20) for deferred in deferreds] == [2, 3, 6, 7]
    assert [deferred.id - deferreds[0].id for deferred in deferreds] == [0, 1, 2, 3]
    assert client.submit_many("work:add", []) == []


def test_a_bulk_submit_with_one_bad_call_queues_none(client: Client, mark: Path) -> None:
    """All or nothing."""
    before = client.status().jobs
    deferreds = client.submit_many("work:append", [(str(mark), "x"), (str(mark),)])
    with pytest.raises(BadFunction, match="missing a required argument: 'text'"):
        deferreds[0].id  # noqa: B018  # asking for it waits
    with pytest.raises(BadFunction):
        deferreds[1].result(20)
    assert client.submit("work:add", 1, 2).result(20) == 3
    after = client.status().jobs
    assert sum(after.values()) == sum(before.values()) + 1
    assert not mark.exists()


def test_map_gives_the_results_in_order_and_stops_at_the_first_failure(client: Client) -> None:
    """Whatever order they come in; all are submitted before it returns."""
    assert list(client.map("work:sleep", [0.02, 0.0, 0.01, 0.0])) == [0.02, 0.0, 0.01, 0.0]
    assert list(client.map("work:add", range(500))) == list(range(1, 501))
    assert list(client.map("work:add", [])) == []
    results = client.map("work:add", [1, "two", 3])
    assert next(results) == 2
    with pytest.raises(JobFailed, match="TypeError"):
        next(results)


def test_map_of_what_is_endless_looks_ahead_so_far_and_no_further(client: Client) -> None:
    """As far as is said, or as keeps the workers busy; what was not taken goes on."""
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    results = client.map("work:add", endless(), buffersize=3)
    assert read == 3
    assert [next(results) for _ in range(10)] == list(range(2, 12))
    assert read == 13
    client.flush()
    read = 0
    results = client.map("work:add", endless())
    assert read == ROOM
    assert next(results) == 2
    with pytest.raises(UsageError, match="0 is no buffersize"):
        client.map("work:add", endless(), buffersize=0)


def test_map_has_one_timeout_for_all(client: Client, mark: Path, gate: Path) -> None:
    """It counts from the call."""
    client.submit("faults:wait_at", str(mark), str(gate))
    results = client.map("faults:wait_unless_open", [str(gate)], timeout=0.05)
    with pytest.raises(WaitTimeout, match="has not ended within"):
        next(results)
    gate.touch()


def test_arguments_that_cannot_travel_are_refused_where_they_are_passed(client: Client) -> None:
    """Before anything is sent, with the type that is at fault."""
    with pytest.raises(UsageError, match=r"argument 1 \(_thread.lock\) cannot travel"):
        client.submit("work:echo", threading.Lock())
    with pytest.raises(UsageError, match="over the limit of"):
        client.submit_many("work:echo", [("x" * 12 * MIB,)] * 6)
    assert client.submit("work:add", 1, 2).result(20) == 3


def test_a_refused_submit_raises_at_its_id_and_not_again_at_the_end(
    shared: DaemonUnderTest, connect: Connect
) -> None:
    """Whoever has looked knows; the others go on."""
    with connect(shared.socket) as client:
        bad = client.submit("work:no_such_function")
        good = client.submit("work:add", 1, 2)
        with pytest.raises(BadFunction):
            bad.id  # noqa: B018  # asking for it waits
        assert good.result(20) == 3
        client.flush()


@pytest.mark.parametrize("how", ["flush", "close", "with"])
def test_a_refused_submit_that_nobody_looked_at_raises_at_the_end(
    shared: DaemonUnderTest, connect: Connect, how: str
) -> None:
    """Nothing is lost in silence; a close closes all the same."""
    client = connect(shared.socket)
    client.submit("work:no_such_function")
    with pytest.raises(BadFunction, match="no_such_function"):
        if how == "flush":
            client.flush()
        elif how == "close":
            client.close()
        else:
            with client:
                pass
    client.close()
    with pytest.raises(DaemonUnreachable, match="this client is closed"):
        client.submit("work:add", 1, 2)
    client.close()


def test_what_was_submitted_is_durable_when_the_block_is_left(
    shared: DaemonUnderTest, connect: Connect
) -> None:
    """Without a look at any deferred."""
    with connect(shared.socket) as client:
        deferreds = [client.submit("work:add", n) for n in range(300)]
    with Client(shared.socket) as other:
        assert [other.result(deferred.id, 20) for deferred in deferreds] == list(range(1, 301))


def test_a_block_that_is_left_by_an_error_raises_that_error(
    shared: DaemonUnderTest, connect: Connect
) -> None:
    """Not that of a submit, which would hide it... and Ctrl-C waits for nothing."""
    with pytest.raises(KeyboardInterrupt), connect(shared.socket) as client:
        client.submit("work:no_such_function")
        raise KeyboardInterrupt
    with pytest.raises(DaemonUnreachable, match="closed"):
        client.status()


# --- waiting and results


def test_a_result_can_be_had_again_and_by_anybody(client: Client, shared: DaemonUnderTest) -> None:
    """Reading destroys nothing; a deferred is a matter of the id alone."""
    deferred = client.submit("work:add", 1, 2)
    assert [deferred.result(20), deferred.result(20), deferred.done()] == [3, 3, True]
    with Client(shared.socket) as other:
        assert other.result(deferred.id, 20) == 3
        attached = other.attach(deferred.id)
        assert not attached.done()
        assert other.result(deferred.id, 20) == attached.result(0) == 3


def test_one_attached_deferred_is_enough_for_one_job(
    client: Client, mark: Path, gate: Path
) -> None:
    """The client knows it again."""
    number = client.submit("faults:wait_at", str(mark), str(gate)).id
    first, second = client.attach(number), client.attach(number)
    assert first == second
    gate.touch()
    assert client.wait([number, number], 20)[number].id == number
    assert first.result(20) == "through"


def test_a_wait_that_runs_out_says_so_and_the_job_goes_on(
    client: Client, mark: Path, gate: Path
) -> None:
    """By every door; the same deferred has the result later."""
    deferred = client.submit("faults:wait_at", str(mark), str(gate))
    sentence = f"job {deferred.id} has not ended within"
    for wait in (
        lambda: deferred.result(0.02),
        lambda: deferred.result(0),
        lambda: client.result(deferred.id, 0.02),
        lambda: client.wait([deferred.id], 0.02),
    ):
        with pytest.raises(WaitTimeout, match=sentence):
            wait()
    with pytest.raises(TimeoutError):
        deferred.result(0)
    gate.touch()
    assert deferred.result(20) == "through"


def test_a_job_that_does_not_exist_is_not_found(client: Client) -> None:
    """It is never pending."""
    for ask in (
        client.result,
        client.fetch,
        lambda n: client.wait([n]),
        lambda n: client.cancel(one(n)),
    ):
        with pytest.raises(NotFound, match="there is no job 987654321"):
            ask(987_654_321)
    with pytest.raises(NotFound):
        client.find(one(987_654_321))


def test_waiting_for_several_jobs_tells_how_each_has_ended(client: Client) -> None:
    """A failure among them is an answer, not an error."""
    good, bad = client.submit("work:add", 1, 2), client.submit("work:fail")
    ends = client.wait([good.id, bad.id], 20)
    assert {number: end.state.name for number, end in ends.items()} == {
        good.id: "SUCCEEDED",
        bad.id: "FAILED",
    }


def test_a_large_result_is_fetched_when_it_is_asked_for(client: Client) -> None:
    """The push leaves it out; nobody notices."""
    assert client.submit("faults:give_bytes", 5 * MIB).result(20) == b"x" * 5 * MIB
    deferreds = client.submit_many("faults:give_text", [(size,) for size in (32_000, 33_000, MIB)])
    assert [len(deferred.result(20)) for deferred in deferreds] == [32_000, 33_000, MIB]


def test_two_clients_are_told_of_the_same_end(
    shared: DaemonUnderTest, client: Client, mark: Path, gate: Path
) -> None:
    """And a third, which has died while it waited, is no hindrance."""
    number = client.submit("faults:wait_at", str(mark), str(gate)).id
    code = f"import jobd; jobd.Client({shared.socket!r}).result({number})"
    doomed = subprocess.Popen([sys.executable, "-c", code])
    others = [Client(shared.socket) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(other.result, number, 20) for other in others]
        eventually(lambda: len(connections(shared, doomed.pid)) == 1)
        doomed.kill()
        doomed.wait()
        gate.touch()
        assert [waiter.result(20) for waiter in waiting] == ["through"] * 2
    for other in others:
        other.close()
    serves(shared)


def connections(daemon: DaemonUnderTest, pid: int) -> list[str]:
    """Return the sockets that a process has open (its connection to the daemon, say)."""
    assert daemon.pid
    links = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(entry.path))
        except OSError:
            continue
    return [link for link in links if link.startswith("socket:")]


def test_threads_share_a_client(client: Client) -> None:
    """Each gets its own results, whoever of them reads the socket."""

    def work(thread: int) -> list[int]:
        found = []
        for turn in range(30):
            deferred = client.submit("work:add", thread, turn)
            many = client.submit_many("work:add", [(thread, turn + n) for n in range(5)])
            found.append(deferred.result(20))
            assert [h.result(20) for h in many] == [thread + turn + n for n in range(5)]
            client.status()
        return found

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(0, 8000, 1000)))
    assert results == [[thread + turn for turn in range(30)] for thread in range(0, 8000, 1000)]


def test_a_thread_that_submits_takes_nothing_from_under_one_that_waits(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits at the socket must see come what he waits for, and not at the next ping only."""
    monkeypatch.setattr("jobd.client.sync.PING_S", 1e6)
    late: list[BaseException] = []

    def wait(count: int) -> None:
        try:
            for number in range(count):
                client.submit("operator:add", number, 1).result(timeout=10)
        except BaseException as error:  # noqa: BLE001  # judged below
            late.append(error)

    threads = [threading.Thread(target=wait, args=(150,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for _ in range(100):
            client.submit("operator:add", 1, 1)
        client.flush(20)  # else they would wait behind a queue that grows without end
    assert late == []


def test_a_thread_that_waits_for_long_does_not_keep_another_from_its_result(
    client: Client, mark: Path, gate: Path
) -> None:
    """The one that reads wakes the others; the one that submits wakes the one that reads."""
    slow = client.submit("faults:wait_at", str(mark), str(gate))
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(slow.result, 20)
        eventually(lambda: lines(mark))
        for number in range(50):
            assert client.submit("work:add", number).result(20) == number + 1
        assert not waiter.done()
        gate.touch()
        assert waiter.result(20) == "through"


# --- no daemon, or none that can be used


def quickly(connect: Connect, socket_path: str, kind: type[Exception], sentence: str) -> None:
    """Connect, and be told what is wrong at once: long before the client's own timeout."""
    began = time.monotonic()
    with pytest.raises(kind, match=sentence):
        connect(socket_path, timeout_s=30)
    assert time.monotonic() - began < 10


def test_an_absent_daemon_is_told_at_once(tmp_path: Path, connect: Connect) -> None:
    """With the command that starts one."""
    quickly(
        connect,
        str(tmp_path / "none"),
        DaemonUnreachable,
        "no daemon at .*start one with 'jobd start'",
    )


def test_a_stale_socket_is_told_at_once(tmp_path: Path, connect: Connect) -> None:
    """Nobody listens there any more."""
    path = str(tmp_path / "stale")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    quickly(connect, path, DaemonUnreachable, f"no daemon at {path}")


def test_a_path_that_is_too_long_is_told_at_once(tmp_path: Path, connect: Connect) -> None:
    """And what to do about it."""
    quickly(
        connect,
        str(tmp_path / ("x" * 120)),
        ConfigError,
        "cannot be a socket: .*choose another --socket",
    )


def test_a_file_in_the_place_of_the_socket_is_told_at_once(
    tmp_path: Path, connect: Connect
) -> None:
    """A file, and a directory."""
    path = tmp_path / "file"
    path.write_text("mine", encoding="ascii")
    quickly(connect, str(path), DaemonUnreachable, "no daemon at")
    quickly(connect, str(tmp_path), DaemonUnreachable, "no daemon at")


def test_somebody_else_at_the_socket_is_told(tmp_path: Path, connect: Connect) -> None:
    """It speaks, but not jobd's protocol."""
    path = str(tmp_path / "web")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                peer.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        quickly(connect, path, DaemonUnreachable, "is no jobd: ")
        thread.join()


def test_a_daemon_that_does_not_answer_is_told_after_the_timeout(
    tmp_path: Path, connect: Connect
) -> None:
    """It has a socket, and says nothing."""
    path = str(tmp_path / "mute")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with pytest.raises(DaemonUnreachable, match="does not answer"):
            connect(path, timeout_s=0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_without_permission_is_told_at_once(shared: DaemonUnderTest) -> None:
    """Another user, in a process of its own; the daemon hears nothing of it."""
    shared.root.chmod(0o755)
    code = (
        "import os, sys\n"
        "from jobd.client import Client\n"
        "from jobd.model.errors import Denied\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    Client(sys.argv[1], timeout_s=30)\n"
        "except Denied as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, shared.socket]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert f"no permission for {shared.socket}" in result.stdout, result.stderr
    assert Denied.code == 77
    serves(shared)


# --- the daemon goes away and comes back


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_client_that_waits_is_told_by_the_next_daemon(
    make_daemon: Make, connect: Connect, mark: Path, gate: Path, how: str
) -> None:
    """It connects again by itself, and asks again for what it waits for."""
    daemon = make_daemon(daemon__drain_s=0).start()
    client = connect(daemon.socket)
    deferred = client.submit("faults:wait_at", str(mark), str(gate))
    number = deferred.id
    with ThreadPoolExecutor(2) as pool:
        waiters = [pool.submit(deferred.result, 20), pool.submit(client.result, number, 20)]
        eventually(lambda: lines(mark))
        if how == "killed":
            daemon.kill()
        else:
            daemon.terminate()
        daemon.start()
        gate.touch()
        assert [waiter.result(20) for waiter in waiters] == ["through"] * 2
    client.close()


def test_threads_that_submit_while_the_daemon_is_away_wait_for_the_next(
    make_daemon: Make, connect: Connect, mark: Path
) -> None:
    """None sees a closed socket; every submit is one job, whenever it was sent."""
    daemon = make_daemon().start()
    client = connect(daemon.socket)
    stop = threading.Event()

    def work(thread: int) -> int:
        turn = 0
        while not stop.is_set():
            name = f"{thread}.{turn}"
            client.submit("work:append", str(mark), name).result(20)
            client.status()
            turn += 1
        return turn

    with ThreadPoolExecutor(4) as pool:
        try:
            workers = [pool.submit(work, thread) for thread in range(4)]
            for times in range(1, 4):
                eventually(lambda times=times: len(lines(mark)) > times * 40)  # type: ignore[misc]
                daemon.kill()
                daemon.start()
            eventually(lambda: len(lines(mark)) > 200)
        finally:
            stop.set()
        turns = [worker.result(20) for worker in workers]
    expected = {f"{thread}.{turn}" for thread in range(4) for turn in range(turns[thread])}
    assert set(lines(mark)) == expected
    assert sum(client.status().jobs.values()) == len(expected)
    client.close()


def test_a_thread_that_asks_while_another_looks_for_the_daemon_waits_with_it(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """It does not stumble over the connection that is closed."""
    daemon = make_daemon().start()
    client = daemon.client()
    deferred = client.submit("faults:wait_at", str(mark), str(gate))
    with ThreadPoolExecutor(8) as pool:
        waiter = pool.submit(deferred.result, 20)
        eventually(lambda: lines(mark))
        daemon.kill()
        eventually(lambda: client._transport.fileno() == -1)
        submitted = [pool.submit(client.submit, "work:add", n, 1) for n in range(3)]
        asked = [pool.submit(client.status) for _ in range(3)]
        daemon.start()
        gate.touch()
        assert waiter.result(20) == "through"
        assert [s.result(20).result(20) for s in submitted] == [1, 2, 3]
        assert {a.result(20).pid for a in asked} == {daemon.pid}


def test_a_daemon_that_does_not_come_back_is_told_to_all_that_wait(
    make_daemon: Make, connect: Connect, mark: Path, gate: Path
) -> None:
    """After the client's own timeout; the client is closed then."""
    daemon = make_daemon(pool__orphan_s=0.1).start()
    client = connect(daemon.socket)
    deferred = client.submit("faults:wait_at", str(mark), str(gate))
    assert deferred.id == 1
    client.timeout_s = 0.3
    with ThreadPoolExecutor(3) as pool:
        waiters = [pool.submit(deferred.result) for _ in range(2)]
        eventually(lambda: lines(mark))
        daemon.kill()
        for waiter in waiters:
            with pytest.raises(DaemonUnreachable, match="did not come back|is closed"):
                waiter.result(20)
        submitter = pool.submit(client.submit, "work:add", 1, 2)
        with pytest.raises(DaemonUnreachable, match="is closed"):
            submitter.result(20)
    gate.touch()


# --- the protocol, by hand


def link(daemon: DaemonUnderTest) -> Transport:
    """Connect and shake hands."""
    transport = Transport.connect(daemon.socket, timeout_s=20, max_message_bytes=64 * MIB)
    transport.send(encode([Hello(1, PROTOCOL, PROTOCOL, "test")]), None)
    (welcome,) = hear(transport)
    assert isinstance(welcome, Welcome)
    return transport


def hear(transport: Transport, count: int = 1) -> list[Message]:
    """Return so many replies, at least."""
    found: list[Message] = []
    deadline = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} replies"
        for frame in transport.receive(1):
            found += decode_replies(frame)
    return found


def submit(uid: bytes, rid: int = 1, *, count: int = 1, check: bool = False) -> Submit:
    """Make a submit of jobs that do nothing."""
    return Submit(rid, uid, "work:nothing", [NO_ARGUMENTS] * count, [(0, ())], check)


@pytest.mark.parametrize("check", [False, True])
def test_a_submit_that_is_sent_again_gets_the_same_ids(make_daemon: Make, *, check: bool) -> None:
    """At once, later, from another connection, after a restart: one key is one submit."""
    daemon = make_daemon().start()
    uid = os.urandom(8) + (1).to_bytes(8, "big")
    twice = encode([submit(uid, rid, count=3, check=check) for rid in (2, 3)])
    again = encode([submit(uid, 4, count=3, check=check)])
    with closing(link(daemon)) as first, closing(link(daemon)) as second:
        first.send(twice, None)
        answers = hear(first)
        first.send(again, None)
        answers += hear(first)
        second.send(again, None)
        answers += hear(second)
    daemon.kill()
    daemon.start()
    with closing(link(daemon)) as third:
        third.send(again, None)
        answers += hear(third)
    assert {(a.first, a.count) for a in answers if isinstance(a, Submitted)} == {(1, 3)}
    assert not [a for a in answers if not isinstance(a, Submitted)]
    assert sum(daemon.client().status().jobs.values()) == 3


def test_one_key_from_many_connections_at_once_is_one_job(
    client: Client, shared: DaemonUnderTest
) -> None:
    """Each is told the same id."""
    before = sum(client.status().jobs.values())
    uid = os.urandom(8) + (7).to_bytes(8, "big")
    with ExitStack() as stack:
        links = [stack.enter_context(closing(link(shared))) for _ in range(20)]
        for transport in links:
            transport.send(encode([submit(uid)]), None)
        answers = [hear(transport)[0] for transport in links]
    assert len({a.first for a in answers if isinstance(a, Submitted)}) == 1
    assert all(isinstance(answer, Submitted) for answer in answers)
    assert sum(client.status().jobs.values()) == before + 1


def test_a_client_of_another_protocol_is_told_both_versions(shared: DaemonUnderTest) -> None:
    """The older side cannot know what the newer one says, but it can say that it does not."""
    raw = Transport.connect(shared.socket, timeout_s=20, max_message_bytes=MIB)
    with closing(raw) as transport:
        transport.send(encode([Hello(1, 90, 99, "9.0")]), None)
        (reply,) = hear(transport)
    assert isinstance(reply, Refused)
    assert reply.error == "protocol_mismatch"
    assert "(9.0) speaks protocol 90 to 99" in reply.message


def test_random_bytes_on_the_socket_harm_nobody(shared: DaemonUnderTest) -> None:
    """Two hundred peers that speak nothing at all, and some that stop in the middle."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    peers = []
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\0NULL" + bytes(48)
    for number in range(200):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(shared.socket)
        data = rng.randbytes(rng.randrange(2000))
        if number % 4 == 0:
            data = greeting + data
        elif number % 4 == 1:
            data = greeting[: rng.randrange(64)]
        try:
            peer.sendall(data)
        except OSError as error:
            assert error.errno in (errno.EPIPE, errno.ECONNRESET), seed
        peers.append(peer)
        if number % 2:
            peer.close()
    serves(shared)
    for peer in peers:
        peer.close()
    assert shared.process is not None
    assert shared.process.poll() is None, seed


def ends_the_daemon(frame: bytes | bytearray) -> bool:
    """Whether chance has made a request to stop of it."""
    try:
        return any(isinstance(request, Stop) for request in decode(frame))
    except FrameError:
        return False


def test_frames_that_are_no_requests_are_answered_with_an_error(shared: DaemonUnderTest) -> None:
    """Of every kind; the connection goes on."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    right = encode([Ping(5)])
    frames = [b"", b"\xc1", b"\x90", b"\x91" * 5000, rng.randbytes(300), b"[]", right[:-1]]
    frames += [right + b"\0", encode([[99, 1]]), encode([[4, 1, -1]]), encode([[4, 1, 2**64 - 1]])]
    frames += [encode([[1, "x"]]), encode([[2, 0, b"", "", [], []]]), encode({}), encode([[]])]
    for _ in range(300):
        spoilt = bytearray(right if rng.random() < 0.5 else encode([submit(os.urandom(16))]))
        for _ in range(rng.randrange(1, 4)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        if not ends_the_daemon(spoilt):
            frames.append(bytes(spoilt))
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.connect(f"ipc://{shared.socket}")
        for frame in frames:
            dealer.send(frame)
        last = 2**40  # longer than any number that a spoilt frame may come to have
        dealer.send(encode([Ping(last)]))
        refused = 0
        while True:
            assert dealer.poll(20_000), seed
            replies = decode_replies(dealer.recv())
            refused += sum(isinstance(reply, Refused) for reply in replies)
            if any(isinstance(reply, Pong) and reply.rid == last for reply in replies):
                break
    assert refused > len(frames) // 2
    serves(shared)


def test_requests_with_absurd_values_are_answered(make_daemon: Make) -> None:
    """Right in form, wrong in every number and text: no request ends the daemon."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    daemon = make_daemon().start()
    numbers: list[object] = [0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]
    texts: list[object] = ["", "\0", "work:nothing", "a" * 10_000, "../../etc/passwd", "é:ö"]
    floats: list[object] = [float("nan"), float("inf"), -1.0, 0.5, 1e300]
    keys: list[object] = [b"", b"x" * 16, os.urandom(16), bytes(16), b"\xff" * 16]

    def value(info: msgspec.inspect.Type) -> object:
        match info:
            case msgspec.inspect.IntType():
                return rng.choice(numbers)
            case msgspec.inspect.StrType():
                return rng.choice(texts)
            case msgspec.inspect.BytesType():
                return rng.choice(keys)
            case msgspec.inspect.FloatType():
                return rng.choice(floats)
            case msgspec.inspect.BoolType():
                return rng.random() < 0.5
            case msgspec.inspect.ListType(item_type=item):
                return [value(item) for _ in range(rng.choice([0, 1, 1, 3, 50]))]
            case msgspec.inspect.TupleType(item_types=items):
                return [value(item) for item in items]
            case msgspec.inspect.VarTupleType(item_type=item):
                return [value(item) for _ in range(rng.choice([0, 1, 3]))]
            case msgspec.inspect.UnionType(types=types):
                return value(rng.choice(types))
            case msgspec.inspect.NoneType():
                return None
            case msgspec.inspect.EnumType(cls=cls):
                return rng.choice(list(cls))
            case msgspec.inspect.StructType(tag=tag, fields=fields):
                return [*([] if tag is None else [tag]), *(value(field.type) for field in fields)]
        raise AssertionError(info)

    kinds = [k for k in get_args(Request) if k.__name__ not in ("Stop", "Reload", "Ping")]
    with closing(link(daemon)) as transport:
        for turn in range(30):
            requests = [value(msgspec.inspect.type_info(kind)) for kind in kinds for _ in range(3)]
            rng.shuffle(requests)
            for request in requests:
                transport.send(encode([request]), time.monotonic() + 20)
            transport.send(encode([Ping(10_000 + turn)]), time.monotonic() + 20)
            try:
                answers: list[Message] = []
                while not any(isinstance(r, Pong) and r.rid == 10_000 + turn for r in answers):
                    answers = hear(transport)
            except Disconnected:
                pytest.fail(f"seed {seed}: the daemon ended:\n{daemon.log}")
    serves(daemon)
    assert "Traceback" not in daemon.log, (seed, daemon.log)


def test_a_frame_of_a_tebibyte_is_not_waited_for(shared: DaemonUnderTest) -> None:
    """It is refused by its header; neither memory nor others pay for it."""
    rss = linux.rss_bytes(shared.pid)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(shared.socket)
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\0NULL" + bytes(48)
        ready = b"\x04\x19\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
        raw.sendall(greeting + ready)  # at once: a slow handshake would be cut off
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            raw.sendall(b"\x02" + (2**40).to_bytes(8, "big"))
            while raw.send(b"x" * MIB):
                pass
    serves(shared)
    assert linux.rss_bytes(shared.pid) - rss < 16 * MIB


def test_a_client_that_never_reads_costs_the_daemon_little(make_daemon: Make) -> None:
    """It asks and asks for large results: others are served, and memory is bounded."""
    daemon = make_daemon().start()
    client = daemon.client()
    number = client.submit("faults:give_bytes", 4 * MIB).id
    assert len(client.result(number, 20)) == 4 * MIB
    rss = linux.rss_bytes(daemon.pid)
    with closing(link(daemon)) as deaf:
        for rid in range(400):
            deaf.send(encode([Fetch(rid, number)]), time.monotonic() + 20)
            if rid % 20 == 0:
                client.ping()
        for _ in range(20):
            serves(daemon)
        grown = linux.rss_bytes(daemon.pid) - rss
    assert grown < 256 * MIB, f"{grown // MIB} MiB"


# --- a client dies


def test_a_client_killed_in_mid_submit_leaves_whole_jobs_only(make_daemon: Make) -> None:
    """What it was told is there, nothing is there by half, and a bulk is whole or not at all."""
    daemon = make_daemon(pool__workers=1).start()
    gate = daemon.root / "gate"
    client = daemon.client()
    client.submit("faults:wait_at", str(daemon.root / "mark"), str(gate))
    code = (
        "import jobd, sys\n"
        "client = jobd.Client(sys.argv[1])\n"
        "bulks = []\n"
        "for number in range(10_000):\n"
        "    bulks.append(client.submit_many('work:add', [(number, n) for n in range(7)]))\n"
        "    client.submit('work:add', number)\n"
        "    while bulks and bulks[0][0]._id:\n"
        "        print(bulks.pop(0)[0].id, flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, daemon.socket], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(20)]
    child.kill()
    rest = child.stdout.read()
    told += [int(line) for line in rest[: rest.rfind("\n") + 1].splitlines()]
    child.stdout.close()
    child.wait()

    def all_that_came() -> dict[int, JobInfo]:
        count = sum(client.status().jobs.values())
        found: dict[int, JobInfo] = {}
        more = True
        while more:
            jobs, more = client.page(Selector(all=True), 5000, min(found, default=0))
            found |= {info.id: info for info in jobs}
        return found if len(found) == count == sum(client.status().jobs.values()) else {}

    infos = eventually(all_that_came)
    assert sorted(infos) == list(range(1, len(infos) + 1))
    gate.touch()
    by_key: dict[bytes, list[int]] = {}
    for number, info in sorted(infos.items()):
        by_key.setdefault(info.uid, []).append(number)
    sizes = {len(ids) for ids in by_key.values()}
    assert sizes <= {1, 7}
    bulks = {ids[0]: ids for ids in by_key.values() if len(ids) == 7}
    assert set(told) <= set(bulks), "a bulk that was acknowledged is missing"
    for ids in list(bulks.values())[-3:]:
        value, *others = [client.result(number, 20) for number in ids]
        assert others == [value + n for n in range(1, 7)]


def test_a_client_that_is_gone_is_forgotten(make_daemon: Make, mark: Path, gate: Path) -> None:
    """Connections come and go without a trace in the daemon's files."""
    daemon = make_daemon().start()
    client = daemon.client()
    job = client.submit("faults:wait_at", str(mark), str(gate))
    eventually(lambda: lines(mark))

    def files() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    daemon.settle()
    before = files()
    for _ in range(50):
        with closing(link(daemon)) as transport:
            transport.send(encode([submit(os.urandom(16))]), None)
    eventually(lambda: files() <= before)
    gate.touch()
    assert job.result(20) == "through"


def test_a_cancelled_job_raises_for_whoever_waits(client: Client, mark: Path, gate: Path) -> None:
    """With the reason that was given."""
    deferred = client.submit("faults:wait_at", str(mark), str(gate))
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(deferred.result, 20)
        (pid,) = map(int, eventually(lambda: lines(mark)))
        client.cancel(one(deferred.id), "changed my mind")
        with pytest.raises(JobCancelled, match="was cancelled: changed my mind"):
            waiter.result(20)
    eventually(lambda: not is_alive(pid))


def test_a_daemon_that_stands_still_is_told_after_the_timeout(
    make_daemon: Make, connect: Connect
) -> None:
    """SIGSTOP: requests run into the client's deadline, and work again after SIGCONT."""
    daemon = make_daemon().start()
    client = connect(daemon.socket)
    client.timeout_s = 0.2
    os.kill(daemon.pid, signal.SIGSTOP)
    with pytest.raises(WaitTimeout, match=r"has not answered within 0\.2 s"):
        client.status()
    with pytest.raises(DaemonUnreachable, match="does not answer"):
        connect(daemon.socket, timeout_s=0.1)
    os.kill(daemon.pid, signal.SIGCONT)
    client.timeout_s = 20
    patient = connect(daemon.socket)
    assert patient.submit("work:add", 1, 2).result(20) == 3
    assert client.status().pid == daemon.pid
    patient.close()
    client.close()
