"""What both ends of a connection between machines promise, through the loopback."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TypeVar

import pytest
import zmq

from jobd.model.errors import ConfigError
from jobd.wire import keys, tcp_router
from jobd.wire.tcp import TcpChannel, WrongKey, WrongServer
from jobd.wire.tcp_router import TcpRouter
from jobd.wire.zmtp import Disconnected

T = TypeVar("T")

WAIT_S = 20.0
LIMIT = 64_000_000


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Served:
    """A router for two keys, and what the daemon's loop does with it."""

    def __init__(self) -> None:
        self.server = keys.new_key()
        self.keys = [keys.new_key(), keys.new_key()]
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.router = self.listen()
        self.heard: list[tuple[bytes, bytes]] = []

    def listen(self, most: int | None = None) -> TcpRouter:
        """Make a router."""
        public = [key.public for key in self.keys]
        return TcpRouter(self.endpoint, LIMIT, self.server.secret, public, most)

    def comes(self, within_s: float) -> bool:
        """Wait until there may be something to drain."""
        return self.router.is_ready or bool(select.select([self.router.fd], [], [], within_s)[0])

    def until(self, is_so: Callable[[], object]) -> None:
        """Drain until something is so."""
        deadline = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < deadline, "it does not come to be"
            if self.comes(0.01):
                self.heard += self.router.drain(1000)

    def hear(self, count: int = 1) -> list[tuple[bytes, bytes]]:
        """Drain until so many frames have come."""
        self.until(lambda: len(self.heard) >= count)
        heard, self.heard = self.heard, []
        return heard

    def meanwhile(self, call: Callable[[], T]) -> T:
        """Return what a call returns that waits for the router."""
        with ThreadPoolExecutor(1) as thread:
            made = thread.submit(call)
            self.until(made.done)
            return made.result()

    def channel(self, key: keys.Key | None = None, server: bytes = b"") -> TcpChannel:
        """Connect a client."""
        own = key or self.keys[0]
        return self.meanwhile(
            lambda: TcpChannel.connect(
                self.endpoint,
                public=own.public,
                secret=own.secret,
                server=server or self.server.public,
                timeout_s=WAIT_S,
                max_message_bytes=LIMIT,
            )
        )

    def named(self, channel: TcpChannel) -> bytes:
        """Return what the router calls a client."""
        channel.send(b"who am I?", time.monotonic() + WAIT_S)
        ((name, _),) = self.hear()
        return name


@pytest.fixture
def served() -> Iterator[Served]:
    """Return a router."""
    made = Served()
    yield made
    made.router.close()


def collect(channel: TcpChannel, count: int) -> list[bytes]:
    """Receive until so many messages are there."""
    messages: list[bytes] = []
    while len(messages) < count:
        got = channel.receive(WAIT_S)
        assert got
        messages += got
    return messages


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1_000_000, 30_000_000])
def test_a_body_of_any_size_goes_there_and_back(served: Served, size: int) -> None:
    """Unchanged."""
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    with closing(served.channel()) as channel:
        channel.send(body, time.monotonic() + WAIT_S)
        ((name, heard),) = served.hear()
        assert heard == body
        assert served.router.send(name, body)
        assert collect(channel, 1) == [body]


def test_clients_are_told_apart_and_their_keys_are_known(served: Served) -> None:
    """Two of one key, and one of another."""
    with ExitStack() as stack:
        channels = [stack.enter_context(closing(served.channel(served.keys[n]))) for n in (0, 0, 1)]
        names = [served.named(channel) for channel in channels]
        assert len(set(names)) == 3
        assert [served.router.key_of(name) for name in names] == [0, 0, 1]
        for name, channel in zip(names, channels, strict=True):
            assert served.router.send(name, b"to " + name)
            assert collect(channel, 1) == [b"to " + name]


def test_who_takes_a_name_does_not_take_a_key_with_it(served: Served) -> None:
    """The name that a client gives itself is never another key's."""
    with zmq.Context() as context:
        names = []
        for key in served.keys:
            with context.socket(zmq.DEALER) as dealer:
                dealer.set(zmq.LINGER, 0)
                dealer.set(zmq.IDENTITY, b"same")
                dealer.set(zmq.CURVE_PUBLICKEY, key.public)
                dealer.set(zmq.CURVE_SECRETKEY, key.secret)
                dealer.set(zmq.CURVE_SERVERKEY, served.server.public)
                dealer.connect(served.endpoint)
                dealer.send_multipart([b"two", b"frames"])  # which is no message of ours
                dealer.send(b"x")
                ((name, body),) = served.hear()
                assert body == b"x"
                names.append(name)
            served.until(lambda: not served.router.reaches(names[-1], b"x")[0])
    assert names[0] != names[1]


def test_who_is_not_there_is_not_reached(served: Served) -> None:
    """Nor who has gone, of which it is told that somebody has."""
    nobody = TcpRouter.PREFIX + b"00" + b"nobody"
    assert served.router.reaches(nobody, b"x") == (False, False)
    with closing(served.channel()) as channel:
        name = served.named(channel)
        assert served.router.reaches(name, b"x") == (True, True)
        assert served.router.take_suspects() == []
    suspects: list[bytes] = []

    def has_suspects() -> bool:
        suspects.extend(served.router.take_suspects())
        return bool(suspects)

    served.until(has_suspects)
    assert suspects == [name]
    served.until(lambda: served.router.reaches(name, b"x") == (False, False))
    assert served.router.unsent(name) == 0


def test_ten_thousand_frames_at_once(served: Served) -> None:
    """They come whole, in order; the loop can sleep afterwards."""
    bodies = [b"%d" % number for number in range(10_000)]
    with closing(served.channel()) as channel:

        def send() -> None:
            for body in bodies:
                channel.send(body, time.monotonic() + WAIT_S)

        served.meanwhile(send)
        assert [body for _, body in served.hear(len(bodies))] == bodies
        assert not served.comes(0.05)


def test_who_does_not_read_misses_what_is_too_much(served: Served) -> None:
    """It is connected, and gets no more; how much that may be is counted until it is heard again."""
    with closing(served.channel()) as slow, closing(served.channel()) as other:
        names = [served.named(slow), served.named(other)]
        sent = 0
        while served.router.send(names[0], b"%d " % sent + bytes(100_000)):
            sent += 1
        assert served.router.reaches(names[0], b"x") == (True, False)
        assert served.router.unsent(names[0]) > sent * 100_000
        assert served.router.send(names[1], b"x")
        assert collect(other, 1) == [b"x"]
        assert [int(body.split()[0]) for body in collect(slow, sent)] == list(range(sent))
        served.named(slow)
        assert served.router.unsent(names[0]) == 0


def test_who_is_paused_is_heard_later(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its order; with too much of that, nobody is read, and the loop can sleep."""
    monkeypatch.setattr(tcp_router, "HELD_BYTES", 1000)
    with closing(served.channel()) as busy, closing(served.channel()) as other:
        name = served.named(busy)
        served.named(other)
        served.router.pause(name)
        for number in range(20):
            busy.send(b"%3d" % number * 100, time.monotonic() + WAIT_S)
        served.until(lambda: served.router._held_bytes >= 1000)
        other.send(b"and I?", time.monotonic() + WAIT_S)
        while served.comes(0.05):
            assert served.router.drain(100) == []
            assert not served.router.is_ready
        served.router.resume(name)
        heard = served.hear(21)
        assert [body for peer, body in heard if peer == name] == [
            b"%3d" % number * 100 for number in range(20)
        ]


def test_who_waits_at_the_descriptor_hears_of_what_a_send_has_noticed(served: Served) -> None:
    """A call of libzmq's takes its edge away, and it may be another thread's that does not read."""
    with closing(served.channel()) as channel:
        name = served.named(channel)
        assert served.router.send(name, b"one")
        assert served.router.send(name, b"two")
        assert select.select([channel.fileno()], [], [], WAIT_S)[0]
        for _ in range(100):
            channel.send(b"I have not read yet", time.monotonic() + WAIT_S)
            assert select.select([channel.fileno()], [], [], 0)[0]
        assert collect(channel, 2) == [b"one", b"two"]
        channel.receive(0)
        assert not select.select([channel.fileno()], [], [], 0)[0]


def test_there_may_be_a_bound(served: Served) -> None:
    """It counts those that come elsewhere; a few may stay beyond it, and who leaves makes room."""
    served.router.close()
    served.router = served.listen(most=3)
    elsewhere = 1
    served.router.elsewhere = lambda: elsewhere
    with ExitStack() as stack:
        channels = [stack.enter_context(closing(served.channel())) for _ in range(8)]
        names = [served.named(channel) for channel in channels]
        assert served.router.has_strangers
        assert served.router.admitted == 0
        assert [served.router.admits(name) for name in names] == [True] * 2 + [False] * 6
        assert [served.router.stays(name) for name in names[2:]] == [True] * 4 + [False] * 2
        assert served.router.stays(names[2])
        assert served.router.admitted == 2
        served.router.dismiss(names[7])
        assert served.router.send(names[7], b"an answer from before")
        assert served.router.admitted == 2
        served.named(channels[7])
        assert not served.router.admits(names[7])
        channels[0].close()
        served.until(lambda: not served.router.reaches(names[0], b"x")[0])
        assert served.router.admits(names[7])
        assert not served.router.admits(names[6])
        elsewhere = 0
        assert served.router.admits(names[2])
        assert served.router.admitted == 3


def test_whoever_is_suspected_is_so_once_more(served: Served) -> None:
    """A second later, as nobody tells when nothing can be sent any more."""
    with closing(served.channel()) as channel:
        name = served.named(channel)
        with closing(served.channel()):
            pass
        served.until(lambda: served.router._has_lost)
        told = [served.router.take_suspects()]
        for _ in range(2):
            served.router.look()
            assert served.router.is_ready is (len(told) == 1)
            told.append(served.router.take_suspects())
        assert told == [[name], [name], []]


def test_the_last_frames_are_read_after_its_end(served: Served) -> None:
    """What was sent before arrives, and then the end is told."""
    with closing(served.channel()) as channel:
        name = served.named(channel)
        for number in range(50):
            assert served.router.send(name, bytes([number]) * 20_000)
        served.router.close()
        served.router = TcpRouter(  # for the fixture to close
            f"tcp://127.0.0.1:{free_port()}", LIMIT, served.server.secret, []
        )
        assert [body[0] for body in collect(channel, 50)] == list(range(50))
        with pytest.raises(Disconnected):
            channel.receive(WAIT_S)


def test_a_strange_key_and_a_strange_server_are_told_apart(served: Served) -> None:
    """And neither is let in."""
    with pytest.raises(WrongKey):
        served.channel(keys.new_key())
    with pytest.raises(WrongServer):
        served.channel(server=keys.new_key().public)
    assert served.heard == []


@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN"])
def test_there_is_no_way_in_without_a_key(served: Served, mechanism: str) -> None:
    """Other mechanisms of ZeroMQ are not spoken."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        if mechanism == "PLAIN":
            dealer.set(zmq.PLAIN_USERNAME, b"admin")
            dealer.set(zmq.PLAIN_PASSWORD, b"admin")
        dealer.connect(served.endpoint)
        dealer.send(b"let me in")
        with closing(served.channel()) as channel:  # which comes later, and is heard
            assert served.named(channel)
    assert served.heard == []


def test_what_cannot_be_bound_is_said(served: Served) -> None:
    """Somebody has the port."""
    with pytest.raises(ConfigError, match="cannot listen"):
        served.listen()


def test_a_forked_child_leaves_it_alone(served: Served) -> None:
    """It closes its copy, and the parent goes on."""
    with closing(served.channel()) as channel:
        name = served.named(channel)
        pid = os.fork()
        if pid == 0:
            try:
                channel.close()
            finally:
                os._exit(0 if channel.fileno() == -1 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert served.named(channel) == name
