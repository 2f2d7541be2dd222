"""What `jobd.wire.zmtp` promises, held against libzmq itself and against peers that misbehave."""

import shutil
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import zmq
from hypothesis import example, given
from hypothesis import strategies as st

from jobd.wire.zmtp import Connection, Disconnected, ProtocolError, Transport

Bind = Callable[..., "zmq.Socket[bytes]"]

WAIT_S = 20.0  # far more than anything here needs: a failure, not a measure
LIMIT = 64_000_000

GREETING = (b"\xff" + bytes(8) + b"\x7f\x03\x01NULL").ljust(64, b"\0")
READY_ROUTER = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
READY_DEALER = READY_ROUTER.replace(b"ROUTER", b"DEALER")
HANDSHAKE = GREETING + READY_ROUTER


def frame(body: bytes) -> bytes:
    """Return a message's frame, built here apart from the code under test."""
    if len(body) < 256:
        return b"\0" + bytes([len(body)]) + body
    return b"\2" + struct.pack(">Q", len(body)) + body


def ping(context: bytes) -> bytes:
    """Return a PING command with a time to live of one second."""
    return b"\x04" + bytes([7 + len(context)]) + b"\x04PING\x00\x0a" + context


def pong(context: bytes) -> bytes:
    """Return the answer that `ping` has to get."""
    return b"\x04" + bytes([5 + len(context)]) + b"\x04PONG" + context


def soon() -> float:
    """Return a deadline on the monotonic clock that only a failure reaches."""
    return time.monotonic() + WAIT_S


def connected(path: str, limit: int = LIMIT) -> "closing[Transport]":
    """Connect to `path`, to be closed at the end of a `with`."""
    return closing(Transport.connect(path, timeout_s=WAIT_S, max_message_bytes=limit))


def collect(transport: Transport, count: int) -> list[bytes]:
    """Receive until `count` messages are there."""
    deadline = soon()
    messages: list[bytes] = []
    while len(messages) < count:
        assert time.monotonic() < deadline
        messages += transport.receive(WAIT_S)
    return messages


def ready_connection(limit: int = LIMIT) -> Connection:
    """Return a connection whose handshake is done."""
    connection = Connection(max_message_bytes=limit)
    assert connection.receive(HANDSHAKE) == []
    connection.take_output()
    return connection


@pytest.fixture
def path() -> Iterator[str]:
    """Return a path short enough for an AF_UNIX address, wherever pytest's own are."""
    directory = tempfile.mkdtemp(prefix="j", dir="/tmp")
    yield f"{directory}/s"
    shutil.rmtree(directory)


@pytest.fixture
def bind(path: str) -> Iterator[Bind]:
    """Return a function that binds a libzmq socket of a type, with options, at `path`."""
    context = zmq.Context()
    sockets: list[zmq.Socket[bytes]] = []

    def make(kind: int = zmq.ROUTER, **options: int) -> "zmq.Socket[bytes]":
        bound = context.socket(kind)
        sockets.append(bound)
        options = {"SNDHWM": 0, "RCVHWM": 0, "RCVTIMEO": int(WAIT_S * 1000)} | options
        for name, value in options.items():
            bound.setsockopt(getattr(zmq, name), value)
        bound.bind(f"ipc://{path}")
        return bound

    yield make
    for each in sockets:
        each.close(linger=0)
    context.term()


@contextmanager
def peer(path: str, play: Callable[[socket.socket], None]) -> Iterator[None]:
    """Listen at `path` and play a part, in a thread, on the one connection that comes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(WAIT_S)
    listener.bind(path)
    listener.listen()

    def run() -> None:
        with listener.accept()[0] as accepted:
            accepted.settimeout(WAIT_S)
            play(accepted)  # pytest reports, as a failure, what this raises in the thread

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(WAIT_S)
        listener.close()


def read_to_end(accepted: socket.socket) -> bytes:
    """Read until the other end closes."""
    return b"".join(iter(lambda: accepted.recv(1 << 20), b""))


class TestWithLibzmq:
    """The client's end against a real ROUTER, as the daemon has it."""

    @pytest.mark.parametrize("size", [0, 1, 255, 256, 1_000_000, 30_000_000])
    def test_round_trip(self, path: str, bind: Bind, size: int) -> None:
        """A body of any size goes there and back unchanged."""
        body = (bytes(range(256)) * (size // 256 + 1))[:size]
        router = bind()
        with connected(path) as transport:
            transport.send(body, soon())
            identity, arrived = router.recv_multipart()
            assert arrived == body
            router.send_multipart([identity, arrived])
            assert collect(transport, 1) == [body]

    def test_ten_thousand_messages_each_way(self, path: str, bind: Bind) -> None:
        """Many small messages arrive whole and in order in both directions."""
        bodies = [b"%d" % number for number in range(10_000)]
        router = bind()
        with connected(path) as transport:
            for body in bodies:
                transport.send(body, soon())
            pairs = [router.recv_multipart() for _ in bodies]
            assert [body for _, body in pairs] == bodies
            for pair in pairs:
                router.send_multipart(pair)
            assert collect(transport, len(bodies)) == bodies

    def test_pings_are_answered(self, path: str, bind: Bind) -> None:
        """A heart-beating ROUTER drops a mute client and keeps one that receives."""
        router = bind(HEARTBEAT_IVL=50)
        began = time.monotonic()
        with connected(path) as transport, socket.socket(socket.AF_UNIX) as mute:
            mute.connect(path)
            mute.sendall(GREETING + b"\x04\x06\x05READY")
            mute.settimeout(0)
            mute_is_dropped = False
            while not mute_is_dropped or time.monotonic() < began + 0.5:
                assert transport.receive(0.01) == []
                mute_is_dropped = mute_is_dropped or at_end(mute)
                assert time.monotonic() < began + WAIT_S
            transport.send(b"alive", soon())
            assert router.recv_multipart()[1] == b"alive"

    def test_handshake_satisfies_the_time_limit(self, path: str, bind: Bind) -> None:
        """A ROUTER with a limit drops a client without a handshake and keeps one with it."""
        router = bind(HANDSHAKE_IVL=100)
        with connected(path) as transport, socket.socket(socket.AF_UNIX) as mute:
            mute.settimeout(WAIT_S)
            mute.connect(path)
            read_to_end(mute)
            transport.send(b"alive", soon())
            assert router.recv_multipart()[1] == b"alive"

    @pytest.mark.parametrize("kind", [zmq.REP, zmq.PULL, zmq.DEALER])
    def test_wrong_socket_type(self, path: str, bind: Bind, kind: int) -> None:
        """A libzmq socket that is no ROUTER is refused by name."""
        bind(kind)
        with pytest.raises(ProtocolError, match=f"'{zmq.SocketType(kind).name}', not 'ROUTER'"):
            connected(path)

    def test_daemon_closes(self, path: str, bind: Bind) -> None:
        """When the ROUTER closes, a waiting receive and then a send say so."""
        router = bind()
        with connected(path) as transport:
            router.close(linger=0)
            with pytest.raises(Disconnected):
                transport.receive(WAIT_S)
            with pytest.raises(Disconnected):
                transport.send(b"anyone?", soon())

    def test_too_large_a_message(self, path: str, bind: Bind) -> None:
        """A message over the limit is refused, one of exactly the limit is not."""
        router = bind()
        with connected(path, limit=1000) as transport:
            transport.send(b"", soon())
            identity = router.recv_multipart()[0]
            router.send_multipart([identity, bytes(1000)])
            assert collect(transport, 1) == [bytes(1000)]
            router.send_multipart([identity, bytes(1001)])
            with pytest.raises(ProtocolError, match="1001 bytes, the limit is 1000"):
                transport.receive(WAIT_S)

    def test_close_twice(self, path: str, bind: Bind) -> None:
        """A second close does nothing, and the descriptor is gone after the first."""
        bind()
        with connected(path) as transport:
            assert transport.fileno() >= 0
            transport.close()
            transport.close()
            assert transport.fileno() == -1


def at_end(unblocking: socket.socket) -> bool:
    """Read what there is and say whether the other end has closed."""
    try:
        return not unblocking.recv(1 << 16)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


class TestConnecting:
    """Every way not to reach the daemon has its own error, at once or by the deadline."""

    def test_no_such_path(self, path: str) -> None:
        """A missing socket is FileNotFoundError."""
        with pytest.raises(FileNotFoundError):
            connected(path)

    def test_stale_socket(self, path: str) -> None:
        """A socket on which nobody listens any more is ConnectionRefusedError."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        assert Path(path).is_socket()
        with pytest.raises(ConnectionRefusedError):
            connected(path)

    def test_path_too_long(self, path: str) -> None:
        """A path over the kernel's limit is OSError."""
        with pytest.raises(OSError, match="too long"):
            connected(path + "x" * 108)

    def test_silent_peer(self, path: str) -> None:
        """A peer that accepts and says nothing is TimeoutError by the deadline."""
        with peer(path, lambda accepted: assert_bytes(read_to_end(accepted), GREETING)):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                Transport.connect(path, timeout_s=0.1, max_message_bytes=LIMIT)
            assert 0.1 <= time.monotonic() - began < WAIT_S / 2

    @pytest.mark.parametrize("interrupted", [False, True])
    def test_full_backlog(self, path: str, *, interrupted: bool) -> None:
        """A daemon that accepts nobody is TimeoutError by the deadline, signals or not."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            waiting = fill_backlog(path)
            began = time.monotonic()
            with signals(0.05 if interrupted else None), pytest.raises(TimeoutError):
                Transport.connect(path, timeout_s=0.2, max_message_bytes=LIMIT)
            assert 0.2 <= time.monotonic() - began < WAIT_S / 2
            for each in waiting:
                each.close()

    @pytest.mark.parametrize(
        "garbage", [b"HTTP/1.1 400 Bad Request\r\n", b"\xff\0\0\0\0\0\0\0\0\0"]
    )
    def test_not_zmtp(self, path: str, garbage: bytes) -> None:
        """A peer that speaks something else is refused without waiting for the deadline."""

        def play(accepted: socket.socket) -> None:
            accepted.sendall(garbage)
            read_to_end(accepted)

        with peer(path, play), pytest.raises(ProtocolError, match="does not speak ZMTP"):
            connected(path)

    def test_closed_in_the_handshake(self, path: str) -> None:
        """A peer that hangs up before it has shaken hands is Disconnected."""

        def play(accepted: socket.socket) -> None:
            accepted.sendall(GREETING)

        with peer(path, play), pytest.raises(Disconnected):
            connected(path)


def assert_bytes(got: bytes, expected: bytes) -> None:
    """Assert in a place that takes an expression only."""
    assert got == expected


def fill_backlog(path: str) -> list[socket.socket]:
    """Connect until the listener's queue is full and return what waits in it."""
    waiting: list[socket.socket] = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(0)
        try:
            client.connect(path)
        except BlockingIOError:
            client.close()
            return waiting
        waiting.append(client)


@contextmanager
def signals(every_s: float | None) -> Iterator[list[int]]:
    """Send this thread SIGUSR1 at an interval (None: never); yields those handled."""
    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
    me, over = threading.get_ident(), threading.Event()

    def send() -> None:
        while not over.wait(every_s):
            signal.pthread_kill(me, signal.SIGUSR1)

    sender = threading.Thread(target=send)
    if every_s is not None:
        sender.start()
    try:
        yield handled
    finally:
        over.set()
        if every_s is not None:
            sender.join()
        signal.signal(signal.SIGUSR1, before)


class TestTransport:
    """The socket's side of the matter, against a peer whose every write is known."""

    def test_many_messages_in_one_read(self, path: str) -> None:
        """What came together is returned together."""

        def play(accepted: socket.socket) -> None:
            accepted.sendall(HANDSHAKE + frame(b"tick") * 1000)
            read_to_end(accepted)

        with peer(path, play), connected(path) as transport:
            assert transport.receive(WAIT_S) == [b"tick"] * 1000

    def test_nothing_to_receive(self, path: str) -> None:
        """Receive returns an empty list, at once for 0 and else when the time is up."""

        def play(accepted: socket.socket) -> None:
            accepted.sendall(HANDSHAKE)
            read_to_end(accepted)

        with peer(path, play), connected(path) as transport:
            assert transport.receive(0) == []
            began = time.monotonic()
            assert transport.receive(0.05) == []
            assert time.monotonic() - began >= 0.05

    def test_signals_do_not_cut_a_wait_short(self, path: str) -> None:
        """Receive waits its time although signals are handled meanwhile."""

        def play(accepted: socket.socket) -> None:
            accepted.sendall(HANDSHAKE)
            read_to_end(accepted)

        with peer(path, play), connected(path) as transport, signals(0.01) as handled:
            began = time.monotonic()
            assert transport.receive(0.1) == []
            assert time.monotonic() - began >= 0.1
            assert handled

    def test_pings_do_not_end_a_wait(self, path: str) -> None:
        """A PING is answered within receive, which goes on waiting for the message."""

        def play(accepted: socket.socket) -> None:
            accepted.sendall(HANDSHAKE + ping(b"one"))
            read_exactly(accepted, GREETING + READY_DEALER + pong(b"one"))
            accepted.sendall(ping(b"two"))
            read_exactly(accepted, pong(b"two"))
            accepted.sendall(frame(b"done"))
            read_to_end(accepted)

        with peer(path, play), connected(path) as transport:
            assert transport.receive(None) == [b"done"]

    def test_two_full_buffers_do_not_deadlock(self, path: str) -> None:
        """A send goes on reading, so a peer that writes before it reads lets it finish."""
        theirs, ours = b"t" * 8_000_000, b"o" * 8_000_000

        def play(accepted: socket.socket) -> None:
            accepted.sendall(HANDSHAKE)
            accepted.sendall(frame(theirs) * 2)  # blocks until we read it
            assert read_to_end(accepted).endswith(frame(ours))

        with peer(path, play), connected(path) as transport:
            transport.send(ours, soon())
            assert collect(transport, 2) == [theirs, theirs]

    def test_a_late_send_keeps_its_frame_whole(self, path: str) -> None:
        """A send out of time leaves the rest in line, before the next message."""
        go_on = threading.Event()
        large = b"x" * 4_000_000

        def play(accepted: socket.socket) -> None:
            accepted.sendall(HANDSHAKE)
            assert go_on.wait(WAIT_S)
            assert read_to_end(accepted).endswith(frame(large) + frame(b"late") + frame(b"next"))

        with peer(path, play), connected(path) as transport:
            with pytest.raises(TimeoutError):
                transport.send(large, time.monotonic() + 0.05)
            with pytest.raises(TimeoutError):
                transport.send(b"late", time.monotonic() - 1)
            go_on.set()
            transport.send(b"next", soon())

    def test_the_last_words_are_heard(self, path: str) -> None:
        """What the daemon sent before it died arrives, even if nothing can be written."""

        def play(accepted: socket.socket) -> None:
            accepted.sendall(HANDSHAKE)
            read_exactly(accepted, GREETING + READY_DEALER)
            accepted.sendall(frame(b"last") + ping(b"") + frame(b"words"))

        with peer(path, play), connected(path) as transport:
            assert collect(transport, 2) == [b"last", b"words"]
            with pytest.raises(Disconnected):
                transport.receive(None)

    def test_death_during_a_send(self, path: str) -> None:
        """A daemon that dies while a message is being written is Disconnected."""

        def play(accepted: socket.socket) -> None:
            accepted.sendall(HANDSHAKE)
            read_exactly(accepted, GREETING + READY_DEALER)
            accepted.recv(1000)

        with peer(path, play), connected(path) as transport, pytest.raises(Disconnected):
            transport.send(bytes(8_000_000), None)


def read_exactly(accepted: socket.socket, expected: bytes) -> None:
    """Read as many bytes as are expected, and no more, and compare them."""
    got = b""
    while len(got) < len(expected):
        read = accepted.recv(len(expected) - len(got))
        assert read
        got += read
    assert got == expected


REFUSED = {
    "older": (b"\xff" + bytes(8) + b"\x7f\x01\x05", "older than 3.0"),
    "curve": (GREETING.replace(b"NULL", b"CURVE")[:64], "mechanism is 'CURVE', not 'NULL'"),
    "dealer": (HANDSHAKE.replace(b"ROUTER", b"DEALER"), "type is 'DEALER', not 'ROUTER'"),
    "no type": (GREETING + b"\x04\x06\x05READY", "type is '', not 'ROUTER'"),
    "cut name": (GREETING + b"\x04\x0a\x05READY\x0bSoc", "cut short"),
    "cut value": (GREETING + b"\x04\x0d\x05READY\x01X\x00\x00\x00\x09v", "cut short"),
    "error": (GREETING + b"\x04\x0a\x05ERROR\x03no\x1b", r"refused the connection: 'no\\x1b'"),
    "late error": (HANDSHAKE + b"\x04\x0a\x05ERROR\x03400", "refused the connection: '400'"),
    "early": (GREETING + frame(b"too early"), "before its READY"),
    "early ping": (GREETING + ping(b""), "'PING' before its READY"),
    "ready twice": (HANDSHAKE + READY_ROUTER, "the command 'READY'"),
    "unknown": (HANDSHAKE + b"\x04\x05\x04JOIN", "the command 'JOIN'"),
    "nameless": (HANDSHAKE + b"\x04\x00", "the command ''"),
    "more": (HANDSHAKE + b"\x01\x01x", "several frames"),
    "flags": (HANDSHAKE + b"\x08\x00", "undefined flags 0x08"),
    "large": (HANDSHAKE + b"\x02" + b"\xff" * 8, "bytes, the limit is 300"),
    "large command": (HANDSHAKE + b"\x06" + struct.pack(">Q", 8193), "command of 8193 bytes"),
    "cut ping": (HANDSHAKE + b"\x04\x06\x04PING\x00", "PING of 1 bytes"),
    "long ping": (HANDSHAKE + ping(bytes(17)), "PING of 19 bytes"),
}


def feed(connection: Connection, stream: bytes, step: int) -> None:
    """Hand over a stream in pieces of one size."""
    for start in range(0, len(stream), step):
        connection.receive(stream[start : start + step])


class TestConnection:
    """The protocol without a socket."""

    def test_the_handshake_by_hand(self) -> None:
        """A greeting is answered by READY, READY makes it ready."""
        connection = Connection(max_message_bytes=LIMIT)
        assert connection.greeting() == GREETING
        assert connection.take_output() == b""
        with pytest.raises(ProtocolError, match="before the handshake"):
            connection.send(b"")
        assert connection.receive(GREETING) == []
        assert connection.take_output() == READY_DEALER
        was_ready = connection.ready
        assert connection.receive(READY_ROUTER) == []
        assert (was_ready, connection.ready) == (False, True)
        assert connection.take_output() == b""

    @pytest.mark.parametrize("name", REFUSED)
    @pytest.mark.parametrize("step", [1, 10_000])
    def test_refusals(self, name: str, step: int) -> None:
        """A peer outside the subset is refused with its reason, for good."""
        stream, sentence = REFUSED[name]
        connection = Connection(max_message_bytes=300)
        with pytest.raises(ProtocolError, match=sentence):
            feed(connection, stream, step)
        with pytest.raises(ProtocolError, match=sentence):
            connection.receive(frame(b"as if nothing had been"))

    def test_an_unasked_pong_is_passed_over(self) -> None:
        """A PONG without a PING changes nothing."""
        connection = ready_connection()
        assert connection.receive(pong(b"") + frame(b"x")) == [b"x"]
        assert connection.take_output() == b""

    @given(st.binary(max_size=600))
    @example(bytes(255))
    @example(bytes(256))
    def test_frames(self, body: bytes) -> None:
        """A frame is what RFC 37 says, short up to 255 bytes and long above."""
        assert ready_connection().send(body) == frame(body)

    @given(
        parts=st.lists(st.tuples(st.booleans(), st.binary(max_size=16) | st.binary(max_size=600))),
        cuts=st.lists(st.integers(min_value=0, max_value=2000)),
        views=st.booleans(),
    )
    def test_any_cut_gives_the_same_messages(
        self, parts: list[tuple[bool, bytes]], cuts: list[int], *, views: bool
    ) -> None:
        """Messages and answers do not depend on how the stream was cut into reads."""
        sent = [(is_ping and len(body) <= 16, body) for is_ping, body in parts]
        stream = HANDSHAKE + b"".join(ping(b) if is_ping else frame(b) for is_ping, b in sent)
        connection = Connection(max_message_bytes=600)
        messages, output = [], b""
        edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        for start, end in pairwise(edges):
            piece = stream[start:end]
            messages += connection.receive(memoryview(piece) if views else piece)
            output += connection.take_output()
        assert connection.ready
        assert messages == [body for is_ping, body in sent if not is_ping]
        pongs = [pong(body) for is_ping, body in sent if is_ping]
        assert output == b"".join([READY_DEALER, *pongs])

    @given(st.sampled_from([b"", GREETING, HANDSHAKE]), st.lists(st.binary()))
    def test_random_bytes(self, before: bytes, pieces: list[bytes]) -> None:
        """Whatever bytes come, the only thing raised is ProtocolError."""
        connection = Connection(max_message_bytes=100)
        connection.receive(before)
        try:
            for piece in pieces:
                connection.receive(piece)
        except ProtocolError:
            pass

    @given(st.sampled_from([GREETING, HANDSHAKE]), st.binary(max_size=80))
    @example(GREETING, b"READY")
    @example(HANDSHAKE, b"PING")
    def test_random_commands(self, before: bytes, body: bytes) -> None:
        """Whatever a command contains, the only thing raised is ProtocolError."""
        connection = Connection(max_message_bytes=100)
        connection.receive(before)
        for named in (body, b"\x05READY" + body, b"\x04PING" + body, b"\x05ERROR" + body):
            try:
                connection.receive(b"\x04" + bytes([len(named)]) + named)
            except ProtocolError:
                return
