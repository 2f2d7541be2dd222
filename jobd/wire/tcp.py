"""A client's end of a connection to another machine: libzmq's DEALER, with CURVE.

libzmq tells nothing by itself of what becomes of a connection, and would try again for ever.  So it
may not (``NEVER_MS``), and its *monitor* is read, on which it tells of the handshake and of the end.
When the handshake fails, a plain connection finds out what there is at the other end.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
import weakref
from collections import deque

import zmq

from jobd.wire.libzmq import EVENTS, IN, NOWAIT, OUT, has_more, prepare
from jobd.wire.zmtp import Disconnected, ProtocolError

PATIENCE_S = 0.7
"""A handshake that takes longer is reason to look whether jobd is there at all."""

PROBE_S = 0.3
LAST_WORDS_MS = 20
"""So long after the end of a connection libzmq may still bring what came before it."""

NEVER_MS = 86_400_000
"""When libzmq tries again by itself.  With -1, for "never", it would drop what had come before the end."""

HIGH_WATER = 1_000
MOST = 1_000
"""Messages taken at once."""

GREETING = (b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE").ljust(64, b"\0")
_MECHANISM = slice(12, 32)
_EVENT = struct.Struct("=HI")
_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
)


class WrongKey(Exception):
    """The daemon does not know this key."""


class WrongServer(Exception):
    """The daemon is not the one whose public key we have."""


class TcpChannel:
    """A connected DEALER; see ``zmtp.Transport``, whose promises it keeps.

    It may be used by several threads, one at a time; another may wait at ``fileno`` meanwhile.  libzmq's own
    file descriptor is an edge, which a thread that sends may take away from the one that waits: so where a
    call finds something to receive, it leaves a mark that keeps ``fileno`` readable until that is received.

    It is not for a forked child.
    """

    def __init__(
        self, *, public: bytes, secret: bytes, server: bytes, max_message_bytes: int
    ) -> None:
        """Make the socket; ``connect`` is the usual way to get here."""
        self._pid = os.getpid()
        self._context = zmq.Context()
        self._socket = dealer = self._context.socket(zmq.DEALER)
        prepare(dealer, max_message_bytes, HIGH_WATER, 0)
        dealer.set(zmq.RECONNECT_IVL, NEVER_MS)
        dealer.set(zmq.CURVE_PUBLICKEY, public)
        dealer.set(zmq.CURVE_SECRETKEY, secret)
        dealer.set(zmq.CURVE_SERVERKEY, server)
        self._monitor = dealer.get_monitor_socket(
            _FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self._mark = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._close_mark = weakref.finalize(self, os.close, self._mark)
        self._is_marked = False
        self._epoll = select.epoll()
        for fd in (dealer.FD, self._monitor.FD, self._mark):
            self._epoll.register(fd, select.EPOLLIN)
        self._inbox: list[bytes] = []
        self._line: deque[bytes] = deque()
        self._is_gone = False

    @classmethod
    def connect(  # what a connection is made of
        cls,
        endpoint: str,
        *,
        public: bytes,
        secret: bytes,
        server: bytes,
        timeout_s: float,
        max_message_bytes: int,
    ) -> TcpChannel:
        """Connect to ``tcp://host:port`` and shake hands, within ``timeout_s``.

        Raises:
            WrongKey, WrongServer: one of the two does not know the other.
            ProtocolError: what answers there is no jobd that listens for other machines.
            TimeoutError: nobody answers.
            OSError: nobody can be reached there.
        """
        channel = cls(
            public=public, secret=secret, server=server, max_message_bytes=max_message_bytes
        )
        try:
            channel._shake_hands(endpoint, time.monotonic() + timeout_s)  # ours
        except BaseException:
            channel.close()
            raise
        return channel

    # -- as zmtp.Transport --

    def send(self, body: bytes, deadline: float | None) -> None:
        """Hand a message to libzmq, by ``deadline``; raises TimeoutError: it goes out with the next call."""
        self.post(body)
        while self._line and not self._is_gone:  # its end is for the next read to say
            self._read()  # if both ends only wrote, two full queues would stop them for ever
            self.flush()
            if self._line and not self._wait(deadline):
                raise TimeoutError("the daemon does not read what it is sent")

    def post(self, body: bytes) -> None:
        """Send a message without waiting."""
        self._line.append(body)
        self.flush()

    @property
    def unsent(self) -> bool:
        """Whether something stays in line until libzmq takes more."""
        return bool(self._line)

    def flush(self) -> None:
        """Hand over what stays in line, as much as libzmq takes now."""
        line = self._line
        while line:
            try:
                self._socket.send(line[0], NOWAIT)
            except zmq.Again:
                if not self._look() & OUT:
                    return
            else:
                line.popleft()
        self._look()

    def receive(self, timeout_s: float | None) -> list[bytes]:
        """Return the messages that have come, waiting at most so long for the first; [] if none has.

        Raises ``Disconnected`` once the daemon has gone, or been silent for too long, and all that it
        sent has been returned.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._line:
                self.flush()
            self._read()
            if self._inbox:
                messages, self._inbox = self._inbox, []
                return messages
            if self._is_gone:
                raise Disconnected("the daemon closed the connection, or is silent")
            if not self._wait(deadline):
                return []

    @property
    def has_read(self) -> bool:
        """Whether something was taken in that is not received yet."""
        return bool(self._inbox) or self._is_gone

    def fileno(self) -> int:
        """Return what becomes readable when something may have come, and is so until it is received."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def close(self) -> None:
        """Close, once libzmq has sent what it was given; in a forked child it is left alone."""
        if self._epoll.closed:
            return
        self._epoll.close()
        self._close_mark()
        if self._pid == os.getpid():
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close()
            self._context.term()

    # -- inside --

    def _read(self) -> None:
        """Take in what has come: messages, or, if there are none, the news of the connection's end."""
        dealer, inbox = self._socket, self._inbox
        try:
            inbox.append(dealer.recv(NOWAIT))  # most likely there is one: nobody asks before
        except zmq.Again:
            if not self._is_gone and any(event & _FAILED for event, _ in self._news()):
                self._is_gone = True
                while dealer.poll(LAST_WORDS_MS, zmq.POLLIN):
                    inbox.append(dealer.recv(NOWAIT))
            self._set_mark(is_set=self._is_gone)
            return
        for _ in range(MOST):
            if not has_more(dealer):
                self._set_mark(is_set=False)
                return
            inbox.append(dealer.recv(NOWAIT))
        self._set_mark(is_set=True)

    def _look(self) -> int:
        """Return what can be done with the socket, and see to it that ``fileno`` tells if it is to receive."""
        events: int = self._socket.get(EVENTS)  # type: ignore[assignment]  # a number
        if events & IN or self._inbox:
            self._set_mark(is_set=True)
        return events

    def _set_mark(self, *, is_set: bool) -> None:
        if is_set is not self._is_marked:
            self._is_marked = is_set
            if is_set:
                os.eventfd_write(self._mark, 1)
            else:
                os.eventfd_read(self._mark)

    def _news(self) -> list[tuple[int, int]]:
        """Return (event, value) of what the monitor tells."""
        found = []
        while has_more(self._monitor):
            event, _endpoint = self._monitor.recv_multipart(NOWAIT)
            found.append(_EVENT.unpack(event))
        return found

    def _wait(self, deadline: float | None) -> bool:
        """Wait until something may have changed; return False if the time is up."""
        if deadline is None:
            self._epoll.poll()
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        self._epoll.poll(left)
        return True

    def _shake_hands(self, endpoint: str, deadline: float) -> None:
        host, port = _address(endpoint)
        self._socket.connect(endpoint)
        if self._is_shaken(min(deadline, time.monotonic() + PATIENCE_S)):
            return
        _probe(host, port, PROBE_S)
        if self._is_gone:
            raise WrongServer("the handshake has failed")
        if not self._is_shaken(deadline):  # it is jobd, and busy
            if self._is_gone:
                raise WrongServer("the handshake has failed")
            raise TimeoutError("the daemon does not answer")

    def _is_shaken(self, deadline: float) -> bool:
        """Wait for the end of the handshake; return whether it has succeeded."""
        while True:
            for event, _ in self._news():
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    return True
                if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    raise WrongKey("the daemon does not know this key")
                self._is_gone = True
            self._look()  # else its descriptor would not let us sleep
            if self._is_gone or not self._wait(deadline):
                return False


def _address(endpoint: str) -> tuple[str, int]:
    """Return host and port of ``tcp://host:port``; raises OSError if it is none."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise OSError(None, "it has to be tcp://HOST:PORT")
    return host.strip("[]"), int(port)


def _probe(host: str, port: int, timeout_s: float) -> None:
    """Find out what is there; raises OSError: nobody, TimeoutError: he is mute, ProtocolError: no jobd."""
    said = b""
    with socket.create_connection((host, port), timeout_s) as plain:
        plain.sendall(GREETING)
        if not select.select([plain], [], [], timeout_s)[0]:
            plain.sendall(
                b"\r\n\r\n"
            )  # which makes most others say something, in their own protocol
        while len(said) < len(GREETING) and GREETING.startswith(said[:1]):
            data = plain.recv(len(GREETING) - len(said))
            if not data:
                break
            said += data
    if len(said) < len(GREETING) or said[9] != GREETING[9]:
        raise ProtocolError("it does not speak ZMTP, the protocol of ZeroMQ")
    if said[_MECHANISM] != GREETING[_MECHANISM]:
        raise ProtocolError("it does not listen for clients on other machines")
