"""The daemon's ends of its two sockets: ROUTERs, drained without waiting.

A frame goes out at once or, when the peer is gone or reads too slowly, not at
all: the daemon waits for nobody.  A client that missed something learns it from
the count in ``Pong``.
"""

from __future__ import annotations

import os

import zmq

HIGH_WATER = 1_000
"""Frames that wait for a client that does not read."""

HANDSHAKE_MS = 1_000


class Router:
    """A bound ROUTER socket."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], path: str, max_message_bytes: int
    ) -> None:
        """Bind; the caller holds the lock of this path, because libzmq takes it from anybody."""
        self._socket = context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 500)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.set(zmq.ROUTER_HANDOVER, 1)  # a worker that reconnects keeps its identity
        self._socket.set(zmq.MAXMSGSIZE, max_message_bytes)
        self._socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self._socket.set(zmq.SNDHWM, HIGH_WATER)
        self._socket.set(zmq.RCVHWM, HIGH_WATER)
        self._socket.set(zmq.BACKLOG, 1024)
        self._socket.bind(f"ipc://{path}")
        os.chmod(path, 0o600)
        self.path = path

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """The socket, for a poller."""
        return self._socket

    def drain(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return up to ``most`` (peer, frame) that have arrived; messages of any other shape are dropped."""
        receive, get = self._socket.recv, self._socket.getsockopt
        found: list[tuple[bytes, bytes]] = []
        rcvmore, flags = zmq.RCVMORE, zmq.NOBLOCK
        try:
            while len(found) < most:
                peer = receive(flags)
                frame = receive(flags)
                while get(rcvmore):
                    receive(flags)
                    frame = b""
                found.append((peer, frame))
                if len(found) == 1 and not int(get(zmq.EVENTS)) & zmq.POLLIN:
                    break  # often it is just one: cheaper to ask than to run into the exception
        except zmq.Again:
            pass
        return found

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send a frame; return False if the peer is gone or does not keep up."""
        return self._send(peer, frame) == 0

    def reaches(self, peer: bytes, frame: bytes) -> tuple[bool, bool]:
        """Send a frame; return whether the peer is connected, and whether it gets the frame."""
        errno = self._send(peer, frame)
        return errno != zmq.EHOSTUNREACH, errno == 0

    def _send(self, peer: bytes, frame: bytes) -> int:
        try:
            self._socket.send_multipart((peer, frame), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return error.errno
            raise
        return 0

    def close(self) -> None:
        """Close, and remove the path."""
        self._socket.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass  # libzmq removes it in some versions
