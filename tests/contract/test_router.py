"""What the daemon's ends of its sockets promise, held against libzmq, our own end, and peers that misbehave.

What both routers promise is asked of ``either``: the clients' at a Unix socket, and the pool's behind its gate.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Generic, TypeVar, cast

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from jobd.wire import router as wire
from jobd.wire.gate import pass_gate
from jobd.wire.pool_router import PoolRouter
from jobd.wire.router import Router
from jobd.wire.zmtp import Disconnected, Transport

T = TypeVar("T")

WAIT_S = 20.0  # far more than anything here needs: a failure, not a measure
LIMIT = 64_000_000

GREETING = (b"\xff" + bytes(8) + b"\x7f\x03\x01NULL").ljust(64, b"\0")
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
HANDSHAKE = GREETING + READY


def frame(body: bytes) -> bytes:
    """Return a message's frame, built here apart from the code under test."""
    if len(body) < 256:
        return b"\0" + bytes([len(body)]) + body
    return b"\2" + struct.pack(">Q", len(body)) + body


R = TypeVar("R", Router, PoolRouter)


class Base(Generic[R]):
    """A router, and a loop that drains it while a peer is waited for."""

    def __init__(self, path: str, router: R) -> None:
        self.path = path
        self.router: R = router
        self.heard: list[tuple[bytes, bytes]] = []

    def comes(self, within_s: float) -> bool:
        """Wait until there may be something to drain; return whether there is, or False if it is late."""
        return self.router.is_ready or bool(select.select([self.router.fd], [], [], within_s)[0])

    def drain(self, most: int = 1000) -> int:
        """Wait until there is something to do, and do it; return how many frames that brought."""
        assert self.comes(WAIT_S), "nothing comes"
        found = self.router.drain(most)
        self.heard += found
        return len(found)

    def until(self, is_so: Callable[[], object]) -> None:
        """Drain until something is so."""
        deadline = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < deadline, "it does not come to be"
            if self.comes(0.01):
                self.heard += self.router.drain(1000)

    def hear(self, count: int = 1) -> list[tuple[bytes, bytes]]:
        """Drain until so many frames have come, and return all that have."""
        self.until(lambda: len(self.heard) >= count)
        heard, self.heard = self.heard, []
        return heard

    def settle(self) -> None:
        """Drain until nothing comes."""
        while self.comes(0.05):
            self.heard += self.router.drain(1000)

    def connect(self) -> socket.socket:
        """Connect a plain socket."""
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(WAIT_S)
        connected.connect(self.path)
        return connected

    def meanwhile(self, connect: Callable[[], T]) -> T:
        """Return what a call returns that waits for the router."""
        with ThreadPoolExecutor(1) as thread:
            made = thread.submit(connect)
            self.until(made.done)
            return made.result()

    def raw(self, stream: bytes = HANDSHAKE) -> socket.socket:
        """Connect a plain socket, and have it say this."""
        connected = self.connect()
        connected.sendall(stream)
        return connected

    def transport(self, identity: bytes = b"") -> Transport:
        """Connect our own end."""
        connected = self.connect()
        deadline = time.monotonic() + WAIT_S
        return self.meanwhile(
            lambda: Transport.shake_hands(
                connected, deadline, max_message_bytes=LIMIT, identity=identity
            )
        )

    def named(self, transport: Transport) -> bytes:
        """Return what the router calls this peer."""
        transport.send(b"who am I?", time.monotonic() + WAIT_S)
        ((name, _),) = self.hear()
        return name


class Served(Base[Router]):
    """Our own router, to which whoever likes can connect."""

    def __init__(self, path: str) -> None:
        super().__init__(path, Router(path, LIMIT))


class Pool(Base[PoolRouter]):
    """The router of the pool, for which everybody here is a worker."""

    def __init__(self, path: str) -> None:
        super().__init__(path, PoolRouter(path, LIMIT))
        self.router.let_in(lambda identity, pid: identity == b"worker" and pid == os.getpid())

    def connect(self) -> socket.socket:
        """Come through the gate."""
        deadline = time.monotonic() + WAIT_S
        connected = self.meanwhile(lambda: pass_gate(self.path, b"worker", deadline))
        connected.settimeout(WAIT_S)
        return connected


@pytest.fixture
def directory() -> Iterator[str]:
    """Return a directory whose path is short enough, wherever pytest's own are."""
    made = tempfile.mkdtemp(prefix="j", dir="/tmp")
    yield made
    shutil.rmtree(made)


@pytest.fixture
def served(directory: str) -> Iterator[Served]:
    """Return a router of our own."""
    made = Served(f"{directory}/s")
    yield made
    made.router.close()


Either = Served | Pool


@pytest.fixture(params=[Served, Pool], ids=["unix", "pool"])
def either(directory: str, request: pytest.FixtureRequest) -> Iterator[Either]:
    """Return a router of each kind."""
    made: Either = request.param(f"{directory}/s")
    yield made
    made.router.close()


def collect(transport: Transport, count: int) -> list[bytes]:
    """Receive until so many messages are there."""
    messages: list[bytes] = []
    while len(messages) < count:
        got = transport.receive(WAIT_S)
        assert got
        messages += got
    return messages


def hangs_up(raw: socket.socket) -> bool:
    """Read until the router closes."""
    try:
        while raw.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    return True


# --- who speaks libzmq


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1_000_000, 30_000_000])
@pytest.mark.parametrize("identity", [b"", b"worker/j"])
def test_a_dealer_of_libzmq_is_served(served: Served, size: int, identity: bytes) -> None:
    """A body of any size goes there and back unchanged."""
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        if identity:
            dealer.set(zmq.IDENTITY, identity)
        dealer.connect(f"ipc://{served.path}")
        dealer.send(body)
        ((name, heard),) = served.hear()
        assert heard == body
        assert name == identity or not identity
        assert served.router.send(name, body)
        served.until(lambda: dealer.poll(0))
        assert dealer.recv() == body


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.ROUTER, zmq.PUSH, zmq.SUB])
def test_other_sockets_of_libzmq_are_not_heard(served: Served, kind: int) -> None:
    """Only DEALERs make sense here; whatever else connects brings nothing and harms nobody."""
    with zmq.Context() as context, context.socket(kind) as other:
        other.set(zmq.LINGER, 0)
        other.connect(f"ipc://{served.path}")
        if kind in (zmq.REQ, zmq.PUSH):
            other.send(b"x", zmq.NOBLOCK if kind == zmq.REQ else 0)
        with closing(served.transport()) as ours:
            assert served.named(ours)


def test_heartbeats_of_libzmq_are_answered(served: Served) -> None:
    """A peer that sends PINGs and would hang up without a PONG stays connected."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.IDENTITY, b"beating")
        dealer.set(zmq.HEARTBEAT_IVL, 20)
        dealer.set(zmq.HEARTBEAT_TIMEOUT, 5_000)
        dealer.connect(f"ipc://{served.path}")
        dealer.send(b"hello")
        served.hear()
        for _ in range(10):
            served.drain()  # a PING each
        assert served.router.reaches(b"beating", b"") == (True, True)


# --- who comes, comes again, and goes


def test_peers_without_a_name_get_one_each(either: Either) -> None:
    """Two of them are two."""
    with closing(either.transport()) as one, closing(either.transport()) as two:
        names = [either.named(one), either.named(two)]
        assert names[0] != names[1]
        for name, transport in zip(names, (one, two), strict=True):
            assert either.router.send(name, b"to " + name)
            assert collect(transport, 1) == [b"to " + name]


def test_a_peer_that_comes_again_takes_the_place_of_its_old_connection(either: Either) -> None:
    """A worker that reconnects keeps its name; the connection that was there before is closed."""
    with closing(either.transport(b"w/j")) as old, closing(either.transport(b"w/j")) as new:
        assert either.named(new) == b"w/j"
        assert either.router.send(b"w/j", b"run")
        assert collect(new, 1) == [b"run"]
        with pytest.raises(Disconnected):
            either.meanwhile(lambda: old.receive(WAIT_S))
    either.settle()
    assert either.router.reaches(b"w/j", b"") == (False, False)


def test_nobody_takes_a_name_that_the_router_gives(served: Served) -> None:
    """What begins with a zero is refused: it could be somebody else's."""
    who = b"\x08Identity\x00\x00\x00\x09\0\0\0\0\0\0\0\0\1"
    ready = b"\x04" + bytes([len(READY) - 2 + len(who)]) + READY[2:] + who
    with served.raw(GREETING + ready) as thief:
        served.settle()
        assert hangs_up(thief)


def test_who_is_not_there_is_not_reached(either: Either) -> None:
    """Nor who has gone; and that is told."""
    assert not either.router.send(b"nobody", b"x")
    assert either.router.reaches(b"nobody", b"x") == (False, False)
    with closing(either.transport(b"somebody")):
        either.until(lambda: either.router.reaches(b"somebody", b"x") == (True, True))
    either.settle()
    assert either.router.reaches(b"somebody", b"x") == (False, False)


def test_last_words_are_heard(served: Served) -> None:
    """What a peer has sent whole before it died arrives, be it written to meanwhile or not."""
    with served.raw() as dying:
        served.settle()
        dying.sendall(frame(b"last") + frame(b"words" * 10_000))
    ((name, last),) = served.hear()
    assert last == b"last"
    assert not served.router.send(name, b"are you there?")
    assert served.hear() == [(name, b"words" * 10_000)]


def test_last_words_are_heard_though_the_worker_is_gone(directory: str) -> None:
    """What has been read is not lost with the connection."""
    pool = Pool(f"{directory}/s")
    with closing(pool.router):
        with closing(pool.transport()) as dying:
            dying.send(b"last", None)
            dying.send(b"words" * 10_000, None)
        (name, last), (_, words) = pool.hear(2)
        assert (last, words) == (b"last", b"words" * 10_000)
        pool.until(lambda: pool.router.reaches(name, b"x") == (False, False))


def test_half_a_frame_is_none(either: Either) -> None:
    """A peer that dies in the midst of one leaves nothing."""
    with either.raw() as dying:
        either.settle()
        dying.sendall(frame(b"whole") + frame(b"x" * 1000)[:-1])
    either.settle()
    assert [body for _, body in either.heard] == [b"whole"]


# --- who sends too much


def test_ten_thousand_frames_at_once(either: Either) -> None:
    """They come whole, in order, and some at a time."""
    bodies = [b"%d" % number for number in range(10_000)]
    with either.raw() as busy:
        either.settle()
        sender = threading.Thread(target=busy.sendall, args=(b"".join(map(frame, bodies)),))
        sender.start()
        either.until(lambda: len(either.heard) >= 10)
        counts = []
        while len(either.heard) < len(bodies):
            counts.append(either.drain(100))
        sender.join()
    assert [body for _, body in either.heard] == bodies
    assert max(counts) < 100 + wire.READ_BYTES // 3


def test_who_sends_much_does_not_keep_others_waiting(served: Served) -> None:
    """With a bound of one frame a drain, it is each peer's turn."""
    with ExitStack() as stack:
        busy = [stack.enter_context(served.raw()) for _ in range(5)]
        served.settle()
        for each in busy:
            each.settimeout(0)
            with pytest.raises(BlockingIOError):
                while True:
                    each.send(frame(b"again") * 100)
        quiet = stack.enter_context(served.raw(HANDSHAKE + frame(b"once")))
        for _ in range(3 * (len(busy) + 2)):  # to accept it, to shake hands, to hear it
            served.drain(1)
        assert b"once" in [body for _, body in served.heard]
        assert quiet.fileno() >= 0


@pytest.mark.parametrize(
    "stream",
    [
        b"\x02" + struct.pack(">Q", LIMIT + 1),
        b"\x02" + b"\xff" * 8,
        b"\x01\x01x\x00\x01y",
        b"\x08\x00",
        b"\x04\x01\x05JOIN",
    ],
)
def test_who_breaks_the_rules_is_hung_up_on(either: Either, stream: bytes) -> None:
    """Too large a frame, by its header alone; several frames, odd flags, unknown commands."""
    with either.raw(HANDSHAKE + stream) as raw, closing(either.transport()) as other:
        either.settle()
        assert hangs_up(raw)
        assert either.named(other)


@settings(max_examples=30, deadline=None)
@given(
    before=st.sampled_from([b"", GREETING, HANDSHAKE]),
    pieces=st.lists(st.binary(max_size=300), max_size=4),
)
def test_random_bytes_hurt_nobody(before: bytes, pieces: list[bytes]) -> None:
    """Nothing is raised, and others are served."""
    directory = tempfile.mkdtemp(prefix="j", dir="/tmp")
    try:
        served = Served(f"{directory}/s")
        with closing(served.router), served.raw(before) as raw:
            for piece in pieces:
                try:
                    raw.sendall(piece)
                except (BrokenPipeError, ConnectionResetError):
                    break
                served.router.drain(10)
            with closing(served.transport(b"other")):
                served.until(lambda: served.router.reaches(b"other", b"") == (True, True))
    finally:
        shutil.rmtree(directory)


# --- who does not read


def test_who_does_not_read_misses_what_is_too_much(either: Either) -> None:
    """It is connected, and gets no more; what is in its line goes out whole once it reads."""
    with closing(either.transport(b"slow")) as slow, closing(either.transport(b"other")) as other:
        either.settle()
        sent = 0
        while either.router.send(b"slow", b"%d " % sent + bytes(1000)):
            sent += 1
        assert wire.HIGH_WATER <= sent < 3 * wire.HIGH_WATER
        assert either.router.reaches(b"slow", b"x") == (True, False)
        assert either.router.send(b"other", b"x")
        assert collect(other, 1) == [b"x"]
        either.settle()  # nothing to do: a full line must not keep the loop awake
        got: list[bytes] = []
        while len(got) < sent:
            got += slow.receive(0)
            either.router.drain(10)
        assert [int(body.split()[0]) for body in got] == list(range(sent))
        assert either.router.reaches(b"slow", b"again") == (True, True)
        assert collect(slow, 1) == [b"again"]


def test_pings_of_who_does_not_read_cost_nothing(served: Served) -> None:
    """Their answers wait in the same line, which is bounded."""
    ping = b"\x04\x17\x04PING\x00\x0a" + bytes(16)
    with served.raw() as deaf:
        served.settle()
        deaf.setblocking(False)
        for _ in range(20_000):
            try:
                deaf.send(ping)
            except BlockingIOError:
                served.router.drain(10)
        (peer,) = served.router._by_fd.values()
        assert len(peer.line) <= wire.HIGH_WATER


@pytest.mark.parametrize("has_line", [False, True])
def test_who_only_stops_reading_is_not_reached_and_costs_no_time(
    served: Served, *, has_line: bool
) -> None:
    """It is still listened to, and the loop can sleep."""
    with served.raw(HANDSHAKE + frame(b"I am")) as deaf:
        ((name, _),) = served.hear()
        (peer,) = served.router._by_fd.values()
        while has_line and not peer.line:
            served.router.send(name, bytes(10_000))
        deaf.shutdown(socket.SHUT_RD)
        if has_line:
            deaf.recv(1 << 20)
            served.until(lambda: not peer.line)
        assert not served.router.send(name, b"x")
        assert served.router.reaches(name, b"x") == (False, False)
        served.settle()
        assert not select.select([served.router.fd], [], [], 0)[0]
        deaf.sendall(frame(b"still"))
        assert served.hear() == [(name, b"still")]


# --- who does not shake hands


def test_who_does_not_shake_hands_is_hung_up_on(served: Served) -> None:
    """After two looks, a second apart in the daemon; who has done it stays."""
    with (
        served.raw(b"") as mute,
        served.raw(GREETING) as half,
        closing(served.transport()) as other,
    ):
        served.settle()
        for _ in range(3):
            served.router.look()
        assert hangs_up(mute)
        assert hangs_up(half)
        assert served.named(other)


def test_when_files_run_out_it_waits_for_some(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is accepted until the next look, and the loop is not kept awake by those who wait."""

    class Full:
        """A listener without any file left."""

        def __init__(self, real: socket.socket) -> None:
            self.fileno = real.fileno

        def accept(self) -> None:
            """Fail as the kernel does."""
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    real = served.router._listener
    assert real is not None
    monkeypatch.setattr(served.router, "_listener", cast("socket.socket", Full(real)))
    with served.raw(HANDSHAKE + frame(b"patient")):
        served.drain()
        assert not select.select([served.router.fd], [], [], 0)[0]
        monkeypatch.setattr(served.router, "_listener", real)
        served.router.look()
        assert [body for _, body in served.hear()] == [b"patient"]


def test_who_cannot_be_written_to_is_to_come_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has no memory for it: the peer reads the end, and nothing that came before is lost."""

    class Short:
        """A socket for which there is no memory."""

        def __init__(self, real: socket.socket) -> None:
            self.recv, self.shutdown, self.close = real.recv, real.shutdown, real.close

        def send(self, *_: object) -> int:
            """Fail as the kernel does."""
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    with served.raw(HANDSHAKE + frame(b"before")) as raw:
        ((name, _),) = served.hear()
        (peer,) = served.router._by_fd.values()
        monkeypatch.setattr(peer, "socket", cast("socket.socket", Short(peer.socket)))
        assert not served.router.send(name, b"x")
        assert served.router.reaches(name, b"x") == (False, False)
        raw.sendall(frame(b"after"))
        assert served.hear() == [(name, b"after")]
        assert hangs_up(raw)


# --- its own life


def test_it_takes_the_path_and_removes_it(served: Served) -> None:
    """What a killed daemon has left there is in nobody's way; only the user may connect."""
    directory = tempfile.mkdtemp(prefix="j", dir="/tmp")
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    router = Router(path, LIMIT)
    assert os.stat(path).st_mode & 0o777 == 0o600
    router.close()
    assert os.listdir(directory) == []
    os.rmdir(directory)
    assert served.router.path != path


def test_the_last_frames_are_read_after_its_end(either: Either) -> None:
    """A peer that reads slowly gets what was in its line."""
    with closing(either.transport(b"slow")) as slow:
        either.settle()
        for number in range(50):
            assert either.router.send(b"slow", bytes([number]) * 20_000)
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.extend(collect(slow, 50)))
        reader.start()
        either.router.close()
        reader.join(WAIT_S)
    assert [body[0] for body in got] == list(range(50))
    either.router = Router(either.path, LIMIT)  # for the fixture to close


# --- who asks, and does not read


def test_who_is_paused_is_read_no_further(served: Served) -> None:
    """What it sends stays with the kernel, until that has no more room; then it comes whole, in order."""
    with served.raw(HANDSHAKE + frame(b"I am")) as busy:
        ((name, _),) = served.hear()
        served.router.pause(name)
        busy.settimeout(0)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                sent += busy.send(frame(b"again"))
        assert not select.select([served.router.fd], [], [], 0.05)[0], "the loop could not sleep"
        served.router.resume(name)
        whole = sent // len(frame(b"again"))
        assert served.hear(whole) == [(name, b"again")] * whole


def test_who_is_paused_can_be_written_to(served: Served) -> None:
    """What waits for it goes out as it reads, and it is known how much that is."""
    with served.raw(HANDSHAKE + frame(b"I am")) as slow:
        ((name, _),) = served.hear()
        assert served.router.unsent(name) == 0
        served.router.pause(name)
        while not served.router.unsent(name):
            served.router.send(name, bytes(10_000))
        before = served.router.unsent(name)
        served.router.send(name, bytes(10_000))
        assert served.router.unsent(name) == before + len(frame(bytes(10_000)))
        slow.settimeout(WAIT_S)
        while served.router.unsent(name):
            slow.recv(1 << 20)
            served.settle()
        slow.sendall(frame(b"and?"))
        served.settle()
        assert served.heard == []
        served.router.resume(name)
        assert served.hear() == [(name, b"and?")]


def test_the_end_of_who_is_paused_is_seen(served: Served) -> None:
    """With its last words, of which the kernel has no more than its buffer."""
    served.router.close()
    served.router = Router(served.path, LIMIT, 10)
    with served.raw(HANDSHAKE + frame(b"I am")) as dying:
        ((name, _),) = served.hear()
        served.router.pause(name)
        dying.sendall(frame(b"last"))
        served.settle()
        assert served.heard == []
    assert served.hear() == [(name, b"last")]
    served.settle()
    assert served.router.take_gone() == [name]
    assert served.router.take_gone() == []
    assert served.router.unsent(name) == 0


def test_what_waits_for_a_peer_is_bounded_in_bytes(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few large frames are as bad as a thousand small ones."""
    monkeypatch.setattr(wire, "LINE_BYTES", 5_000_000)
    with closing(served.transport(b"slow")):
        served.settle()
        sent = 0
        while served.router.send(b"slow", bytes(1_000_000)):
            sent += 1
        assert 5 <= sent <= 7
        assert served.router.reaches(b"slow", b"x") == (True, False)


# --- who is one too many


@pytest.fixture
def small(served: Served) -> Served:
    """Return a router that admits two peers."""
    served.router.close()
    served.router = Router(served.path, LIMIT, 2)
    return served


def test_so_many_are_admitted_and_no_more(small: Served) -> None:
    """The third shakes hands and can be told so; it is admitted once another has gone."""
    with ExitStack() as stack:
        stack.enter_context(closing(small.transport(b"one")))
        other = stack.enter_context(closing(small.transport(b"two")))
        third = stack.enter_context(closing(small.transport(b"three")))
        small.settle()
        assert [small.router.admits(name) for name in (b"one", b"two")] == [True, True]
        assert not small.router.admits(b"three")
        assert small.router.send(b"three", b"no room")
        assert collect(third, 1) == [b"no room"]
        other.close()
        small.settle()
        assert small.router.admits(b"three")
        assert not small.router.has_strangers
        assert small.router.admitted == 2


def test_who_has_a_high_file_number_is_not_admitted(small: Served) -> None:
    """The numbers above are for what has to go on."""
    small.router.most_files = 0
    with closing(small.transport(b"one")):
        small.settle()
        assert not small.router.admits(b"one")
        small.router.most_files = 1000
        assert small.router.admits(b"one")


def test_a_few_may_stay_who_are_not_admitted(small: Served) -> None:
    """They do not take the place of others, and do not count."""
    with ExitStack() as stack:
        names = [b"%d" % number for number in range(2 + wire.GUESTS + 1)]
        for name in names:
            stack.enter_context(closing(small.transport(name)))
        small.settle()
        assert [small.router.stays(name) for name in names[2:]] == [True] * wire.GUESTS + [False]
        for _ in range(3):
            small.router.look()
        reached = [small.router.reaches(name, b"")[0] for name in names]
        assert reached == [True] * (2 + wire.GUESTS) + [False]
        assert small.router.admitted == 2
        assert small.router.has_strangers


@pytest.mark.parametrize("has_line", [False, True])
def test_who_is_dismissed_hears_the_last_word(small: Served, *, has_line: bool) -> None:
    """Whatever was in line before it; what it has still to say is not heard."""
    with small.raw(HANDSHAKE + frame(b"I am")) as raw:
        ((name, _),) = small.hear()
        while has_line and not small.router.unsent(name):
            small.router.send(name, bytes(10_000))
        small.router.send(name, b"the last word")
        small.router.dismiss(name)
        raw.settimeout(WAIT_S)
        got = b""
        while True:
            small.router.drain(10)
            try:
                data = raw.recv(1 << 16)
            except ConnectionResetError:
                break
            if not data:
                break
            got += data
        assert got.endswith(frame(b"the last word"))
        assert small.router.take_gone() == [name]


def test_who_is_in_vain_makes_room_for_those_who_wait(
    small: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who says nothing, and who is not admitted, which he is told; who is about to shake hands stays."""
    monkeypatch.setattr(wire, "NEWCOMERS", 4)
    small.router.farewell = b"no room"
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(closing(small.transport()))
        mute = stack.enter_context(small.raw(b""))
        half = stack.enter_context(small.raw(GREETING))
        shaken = [stack.enter_context(small.raw(HANDSHAKE)) for _ in range(2)]
        small.settle()
        outside = stack.enter_context(small.raw(HANDSHAKE + frame(b"at last")))
        small.until(lambda: small.router.is_pressed)
        assert not select.select([small.router.fd], [], [], 0.05)[0], "the loop could not sleep"
        small.router.relieve()
        monkeypatch.setattr(wire, "HASTE_S", 0.0)
        small.router.relieve()
        assert hangs_up(mute)
        for each in shaken:
            each.settimeout(WAIT_S)
            told = b""
            while data := each.recv(1 << 16):
                told += data
            assert told.endswith(frame(b"no room"))
        assert [body for _, body in small.hear()] == [b"at last"]
        half.sendall(READY + frame(b"slow, but here"))
        assert [body for _, body in small.hear()] == [b"slow, but here"]
        assert outside.fileno() >= 0


def test_without_files_one_can_be_told_all_the_same(
    small: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spare file is given up for him; he is not admitted, and the loop can sleep."""
    assert small.router._listener is not None
    real: socket.socket = small.router._listener
    spare = small.router._spare
    assert spare is not None

    class Full:
        """A listener that has as many files left as were closed."""

        def __init__(self) -> None:
            self.fileno = real.fileno
            self.close = real.close
            self.attempts = 0

        def accept(self) -> object:
            """Fail as the kernel does, unless the spare file is free."""
            self.attempts += 1
            try:
                os.fstat(cast("int", spare))
            except OSError:
                if not any(peer.borrowed for peer in small.router._by_fd.values()):
                    return real.accept()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    full = Full()
    monkeypatch.setattr(small.router, "_listener", full)
    monkeypatch.setattr(wire, "_spare", lambda: None)
    with small.raw(HANDSHAKE + frame(b"hello?")) as raw, small.raw(b""):
        ((name, body),) = small.hear()
        assert body == b"hello?"
        assert not small.router.admits(name)
        small.settle()
        assert small.router.is_short
        attempts = full.attempts
        assert not select.select([small.router.fd], [], [], 0.05)[0], "the loop could not sleep"
        assert full.attempts == attempts
        small.router.send(name, b"no")
        small.router.dismiss(name)
        raw.settimeout(WAIT_S)
        assert raw.recv(1 << 16).endswith(frame(b"no"))
