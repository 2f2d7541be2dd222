"""Clients that ask and do not read: the daemon does not grow, others are served, nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, lines

from jobd.model.messages import (
    PROTOCOL,
    Fetch,
    Find,
    Follow,
    Hello,
    List,
    Logs,
    Ping,
    Refused,
    Request,
    Status,
    Watch,
    Welcome,
    decode_replies,
    encode,
)
from jobd.model.selector import Selector
from jobd.pool import linux
from jobd.wire.zmtp import Transport

Make = Callable[..., DaemonUnderTest]

MIB = 1024 * 1024
ALL = Selector(all=True)
FLOOD_S = 1.5
MAY_GROW = 48 * MIB


def link(daemon: DaemonUnderTest) -> Transport:
    """Connect and shake hands."""
    transport = Transport.connect(daemon.socket, timeout_s=20, max_message_bytes=64 * MIB)
    transport.send(encode([Hello(1, PROTOCOL, PROTOCOL, "test")]), None)
    while not (frames := transport.receive(20)):
        pass
    (welcome,) = decode_replies(frames[0])
    assert isinstance(welcome, Welcome)
    return transport


class Deaf:
    """A client that sends as much as is taken from it, and reads nothing."""

    def __init__(self, daemon: DaemonUnderTest) -> None:
        self._transport = link(daemon)
        self._socket = self._transport._socket
        self._rest = b""
        self.sent = 0

    def flood(self, request: Request) -> None:
        """Send what the socket takes now of this request, again and again."""
        frame = self._transport._connection.send(encode([request]))
        whole = frame * 500
        while True:
            self._rest = self._rest or whole
            try:
                sent = self._socket.send(self._rest)
            except BlockingIOError:
                return
            self.sent += sent
            self._rest = self._rest[sent:]

    def close(self) -> None:
        """Leave."""
        self._transport.close()


@contextmanager
def deaf_client(daemon: DaemonUnderTest) -> Iterator[Deaf]:
    """Return a client that reads nothing; in the end it leaves."""
    made = Deaf(daemon)
    try:
        yield made
    finally:
        made.close()


def cpu_ticks(pid: int) -> int:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.fixture(scope="module")
def full() -> Iterator[DaemonUnderTest]:
    """Return a daemon with a history, and something that runs."""
    with DaemonUnderTest() as daemon:
        client = daemon.write_jobs().start().client()
        for job in client.submit_many("work:add", [(n, 1) for n in range(5000)]):
            job.result(20)
        yield daemon


@pytest.mark.parametrize(
    "request_",
    [
        Ping(1),
        Status(1),
        Fetch(1, 1),
        List(1, ALL, 0, 10_000),
        Find(1, ALL),
        Watch(1, [1, 2, 3]),
        Logs(1, 1, 0, 0, 1000),
    ],
    ids=lambda request: type(request).__name__,
)
def test_who_asks_and_never_reads_costs_little(full: DaemonUnderTest, request_: Request) -> None:
    """Whatever is asked: memory is bounded, others are served, and it comes back."""
    client = full.client()
    assert client.submit("work:add", 1, 2).result(20) == 3
    before, most, longest = linux.rss_bytes(full.pid), 0, 0.0
    with deaf_client(full) as deaf:
        until = time.monotonic() + FLOOD_S
        while time.monotonic() < until:
            deaf.flood(request_)
            began = time.monotonic()
            client.ping()
            assert client.submit("work:add", 1, 2).result(20) == 3
            longest = max(longest, time.monotonic() - began)
            most = max(most, linux.rss_bytes(full.pid))
        assert deaf.sent > 100_000
    assert most - before < MAY_GROW, f"{(most - before) // MIB} MiB more"
    assert longest < 2.0
    eventually(lambda: linux.rss_bytes(full.pid) - before < MAY_GROW // 2)
    client.close()


def test_who_was_not_read_for_long_is_answered_in_the_end(full: DaemonUnderTest) -> None:
    """Each request, in its order, once it reads; meanwhile the daemon sleeps."""
    numbers = range(1, 20_001)
    transport = link(full)
    asked = iter(numbers)
    ask(transport, asked)
    with full.client() as client:
        eventually(lambda: client.ping() < 0.5)
        eventually(sleeps(full.pid))
    got: list[int] = []
    deadline = time.monotonic() + 20
    while len(got) < len(numbers):
        assert time.monotonic() < deadline
        transport.flush()
        if not transport.unsent:
            ask(transport, asked)
        for frame in transport.receive(0.001):
            got += [reply.rid for reply in decode_replies(frame)]  # type: ignore[union-attr]
    assert got == list(numbers)
    transport.close()


def ask(transport: Transport, numbers: Iterator[int]) -> None:
    """Send requests until the socket takes no more."""
    for number in numbers:
        transport.post(encode([Fetch(number, 1)]))
        if transport.unsent:
            return


def sleeps(pid: int) -> Callable[[], bool]:
    """Return a look that tells whether a process has done hardly anything for half a second."""
    seen: list[tuple[float, int]] = []

    def look() -> bool:
        seen.append((time.monotonic(), cpu_ticks(pid)))
        while seen[-1][0] - seen[0][0] > 1.0:
            del seen[0]
        return seen[-1][0] - seen[0][0] > 0.5 and seen[-1][1] - seen[0][1] < 10

    return look


def test_a_frame_of_too_many_requests_is_refused(full: DaemonUnderTest) -> None:
    """Decoded it would be gigabytes."""
    transport = link(full)
    transport.send(encode([Ping(1)] * 100_000), time.monotonic() + 20)
    while not (frames := transport.receive(20)):
        pass
    (refused,) = decode_replies(frames[0])
    assert isinstance(refused, Refused)
    assert "10000" in refused.message
    transport.close()


def test_one_client_may_wait_for_so_much_output_only(
    full: DaemonUnderTest, mark: Path, gate: Path
) -> None:
    """Requests that are not answered yet are kept, too: there is a bound on them."""
    client = full.client()
    job = client.submit("faults:wait_at", str(mark), str(gate))
    eventually(lambda: lines(mark))
    transport = link(full)
    for rid in range(1, 1101):
        transport.post(encode([Logs(rid, job.id, 0, 0, 1000, True)]))
    refused = 0
    deadline = time.monotonic() + 20
    while refused < 100:
        assert time.monotonic() < deadline
        transport.flush()
        for frame in transport.receive(0.01):
            refused += sum(isinstance(reply, Refused) for reply in decode_replies(frame))
    gate.touch()
    assert job.result(20) == "through"
    transport.close()


def test_a_follower_that_does_not_read_gets_no_more_than_fits(make_daemon: Make) -> None:
    """It has asked for a gigabyte of items: what it does not read stays in the store."""
    daemon = make_daemon()
    daemon.write_module(
        "large", "def pieces(n):\n    for i in range(n):\n        yield bytes(20_000)\n"
    )
    client = daemon.start().client()
    stream = client.options(bound=100_000).submit("large:pieces", 1500)
    assert sum(1 for _ in stream) == 1500
    client.ping()
    before = linux.rss_bytes(daemon.pid)
    transports = [link(daemon) for _ in range(3)]
    for transport in transports:
        for rid in range(20):
            transport.send(encode([Follow(100 + rid, stream.id, 0, 0, 0, 100_000)]), None)
    most = 0
    until = time.monotonic() + FLOOD_S
    while time.monotonic() < until:
        client.ping()
        assert client.submit("work:add", 1, 2).result(20) == 3
        most = max(most, linux.rss_bytes(daemon.pid))
    assert most - before < 3 * MAY_GROW, f"{(most - before) // MIB} MiB more"
    for transport in transports:
        transport.close()
    eventually(lambda: linux.rss_bytes(daemon.pid) - before < MAY_GROW)


def test_a_reader_of_output_that_stops_reading_holds_up_itself_only(
    make_daemon: Make,
) -> None:
    """A slow reader gets all in the end, and nobody waits for it."""
    daemon = make_daemon()
    daemon.write_module("chatty", "def talk(n):\n    print('x' * n)\n    return 'said'\n")
    client = daemon.start().client()
    job = client.submit("chatty:talk", 8 * MIB)
    assert job.result(20) == "said"
    before = linux.rss_bytes(daemon.pid)
    transport = link(daemon)
    pieces = 8 * MIB // 100_000 + 1
    for number in range(20 * pieces):
        offset = number % pieces * 100_000
        transport.post(encode([Logs(number + 1, job.id, 0, offset, 100_000)]))
    for _ in range(50):
        client.ping()
        assert client.submit("work:add", 1, 2).result(20) == 3
    assert linux.rss_bytes(daemon.pid) - before < MAY_GROW
    got, size = 0, 0
    deadline = time.monotonic() + 30
    while got < 20 * pieces:
        assert time.monotonic() < deadline
        for frame in transport.receive(0.01):
            for reply in decode_replies(frame):
                got += 1
                size += len(reply.data)  # type: ignore[union-attr]
        transport.flush()
    assert size >= 20 * 8 * MIB
    transport.close()
