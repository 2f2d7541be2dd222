"""ZeroMQ's wire protocol, spoken over a plain Unix socket: by clients on this machine, workers and the daemon.

A command line must not pay for libzmq to reach the daemon. Its import alone costs more than
the rest of a short command, it starts a thread, and it hides what a user needs to know at
once: no such path, nobody listening, no permission, daemon gone. A plain socket reports each
of them as an errno or as the end of the stream.

`Connection` is the protocol without any I/O, `Transport` puts a DEALER's socket under it,
`jobd.wire.router` a ROUTER's. The subset of ZMTP 3.1 (RFC 37,
https://rfc.zeromq.org/spec/37/) spoken here:

- both ends send a greeting of 64 bytes: a signature (FF, eight bytes, 7F), the version,
  the security mechanism (only NULL), and filler;
- both send a READY command with their socket type, DEALER or ROUTER, a DEALER with the
  identity by which the ROUTER is to know it, if it wants one of its own;
- then frames: one byte of flags (1 more, 2 long, 4 command), the length in one byte or,
  if long, in eight (big-endian), the body. jobd's messages are one frame each;
- PING is answered by PONG with the same context. We send no PING: on a Unix socket the
  death of the peer ends the stream, and no network lies between to go silent.

An ERROR command, another mechanism or socket type, a message of several frames or one
that is too large is a `ProtocolError`. It is final: the connection has to be closed.
"""

# What the module `socket` is made of. That one makes enums of two hundred constants first, which
# takes as long as all else that the command line does to reach the daemon: 4 ms.
import _socket as socket
import errno
import select
import struct
import time

_MORE, _LONG, _COMMAND = 1, 2, 4
_LONG_HEADER = struct.Struct(">BQ")
_LENGTH = struct.Struct(">I")
_TIMEVAL = struct.Struct("@ll")

_GREETING_BYTES = 64
_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_VERSION = b"\x03\x01"
_MECHANISM = slice(12, 32)
_NULL = b"NULL"

# Commands are few and short; the bound on messages, which a user may set low, is not theirs.
_MAX_COMMAND_BYTES = 8192
# RFC 37 bounds the context of a PING, so an answer can never be made to grow.
_PING_TTL_BYTES, _MAX_PING_CONTEXT_BYTES = 2, 16

# Linux gives a Unix socket 208 KiB by default: one read takes what one buffer can hold.
_READ_BYTES = 256 * 1024
# The most that poll(2) takes as its int; a longer wait ends after 24 days.
_MAX_POLL_MS = 2**31 - 1


class ProtocolError(Exception):
    """The peer does not speak the subset of ZMTP in which jobd talks to itself."""


class Disconnected(ConnectionError):
    """The daemon closed the connection, or died."""


def _command(name: bytes, data: bytes) -> bytes:
    """Return the frame of a command; ours are all short."""
    return bytes((_COMMAND, 1 + len(name) + len(data), len(name))) + name + data


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + _LENGTH.pack(len(value)) + value


def _quoted(raw: bytes) -> str:
    """Return what a peer said in quotes, without anything a terminal would obey."""
    return ascii(raw[:255].decode("latin-1"))


_GREETING = (_SIGNATURE + _VERSION + _NULL).ljust(_GREETING_BYTES, b"\0")
_MAX_IDENTITY_BYTES = 255
# A lookup is cheaper than building two bytes for each message.
_SHORT_HEADERS = tuple(bytes((0, size)) for size in range(256))


class Connection:
    """One end of a ZMTP connection: bytes in, messages out, and no I/O.

    The states follow each other and none comes back: greeting, handshake, `ready`; the
    first `ProtocolError` ends each of them, and every later `receive` repeats it.
    """

    __slots__ = (
        "_failure",
        "_greeted",
        "_identity",
        "_max_message_bytes",
        "_output",
        "_partial",
        "_wanted",
        "is_router",
        "peer",
        "ready",
    )

    def __init__(
        self, *, max_message_bytes: int, identity: bytes = b"", is_router: bool = False
    ) -> None:
        """Begin; a ROUTER knows us by ``identity`` (up to 100 bytes), or gives us one."""
        self.ready = False
        self.is_router = is_router
        self.peer = b""
        """The identity that the peer wants, once it is ready."""
        self._identity = identity
        self._greeted = False
        self._failure = ""
        self._max_message_bytes = max_message_bytes
        self._output = bytearray()
        # The beginning of a frame (or greeting) and the size at which to look at it again.
        self._partial = bytearray()
        self._wanted = 0

    def greeting(self) -> bytes:
        """Return the bytes to send as soon as the socket is connected.

        READY is not among them, though NULL would allow it: a libzmq socket of a wrong
        type that has our READY may hang up before it has said what it is.
        """
        return _GREETING

    def send(self, body: bytes) -> bytes:
        """Return the frame that carries `body`; not before `ready`."""
        if not self.ready:
            raise ProtocolError("a message cannot be sent before the handshake is complete")
        size = len(body)
        if size < 256:
            return _SHORT_HEADERS[size] + body
        return _LONG_HEADER.pack(_LONG, size) + body

    def take_output(self) -> bytes:
        """Return, once, what the protocol itself has to send now: READY, or PONGs."""
        if not self._output:
            return b""
        output = bytes(self._output)
        self._output.clear()
        return output

    def receive(self, data: bytes | memoryview) -> list[bytes]:
        """Take in bytes as they came and return the messages which they complete.

        Raises `ProtocolError`; messages complete in the same `data` are then dropped.
        """
        if self._failure:
            raise ProtocolError(self._failure)
        if self._partial:
            self._partial += data
            # A large frame comes in hundreds of reads: they only pile up until it is whole.
            if len(self._partial) < self._wanted:
                return []
            # Emptied before the frame is cut out, so that 64 MB are never held three times.
            data = bytes(self._partial)
            self._partial.clear()
        elif not isinstance(data, bytes):
            data = bytes(data)
        if self._greeted:
            return self._take_frames(data, 0)
        if self._take_greeting(data):
            return self._take_frames(data, _GREETING_BYTES)
        return []

    @property
    def missing(self) -> int:
        """How many bytes of a frame that has begun are known not to be here yet."""
        return self._wanted - len(self._partial) if self._partial else 0

    def _take_frames(self, data: bytes, position: int) -> list[bytes]:
        """Cut `data`, from `position`, into frames. Every message passes here: kept flat."""
        messages: list[bytes] = []
        size, limit = len(data), self._max_message_bytes
        wanted = 2
        while size - position >= 2:
            flags = data[position]
            if flags & _LONG:
                if size - position < _LONG_HEADER.size:
                    wanted = _LONG_HEADER.size
                    break
                length = _LONG_HEADER.unpack_from(data, position)[1]
                start = position + _LONG_HEADER.size
            else:
                length = data[position + 1]
                start = position + 2
            # From the header alone: nobody makes us wait for, and keep, a body we refuse.
            if flags & ~_LONG or length > limit or not self.ready:
                self._check_header(flags, length)
            end = start + length
            if end > size:
                wanted = end - position
                break
            if flags & _COMMAND:
                self._take_command(data[start:end])
            else:
                messages.append(data[start:end])
            position = end
        if position < size:
            self._partial += data[position:]
            self._wanted = wanted
        return messages

    def _check_header(self, flags: int, length: int) -> None:
        """Refuse a frame unless it is a command, or a message in its time and size."""
        if flags & ~(_MORE | _LONG | _COMMAND):
            raise self._failed(f"the peer sent a frame with the undefined flags 0x{flags:02x}")
        if flags & _MORE:
            raise self._failed("the peer sent a message of several frames, jobd's have one")
        if flags & _COMMAND:
            limit = _MAX_COMMAND_BYTES
        elif not self.ready:
            raise self._failed("the peer sent a message before its READY command")
        else:
            limit = self._max_message_bytes
        if length > limit:
            what = "command" if flags & _COMMAND else "message"
            raise self._failed(f"the peer sent a {what} of {length} bytes, the limit is {limit}")

    def _take_greeting(self, data: bytes) -> bool:
        """Check as much of the greeting as is there; say whether that was all of it."""
        # Byte by byte, since who is no ZMTP peer may never send as many as 64.
        if data[:1] not in (b"", b"\xff") or (len(data) > 9 and not data[9] & 1):
            raise self._failed("the peer does not speak ZMTP, the protocol of ZeroMQ")
        if len(data) > 10 and data[10] < 3:
            raise self._failed("the peer speaks a ZMTP older than 3.0")
        if len(data) < _GREETING_BYTES:
            self._partial += data
            self._wanted = len(data) + 1
            return False
        mechanism = data[_MECHANISM].rstrip(b"\0")
        if mechanism != _NULL:
            raise self._failed(f"the peer's security mechanism is {_quoted(mechanism)}, not 'NULL'")
        self._greeted = True
        kind = _property(b"Socket-Type", b"ROUTER" if self.is_router else b"DEALER")
        who = _property(b"Identity", self._identity) if self._identity else b""
        self._output += _command(b"READY", kind + who)
        return True

    def _take_command(self, body: bytes) -> None:
        name_end = 1 + body[0] if body else 0
        name, data = body[1:name_end], body[name_end:]
        if name == b"ERROR":
            raise self._failed(f"the peer refused the connection: {_quoted(data[1:])}")
        if name == b"READY" and not self.ready:
            self._take_ready(data)
        elif name == b"PING" and self.ready:
            self._take_ping(data)
        # An unasked PONG is odd, but RFC 37 doesn't forbid it and it changes nothing.
        elif name != b"PONG" or not self.ready:
            when = "" if self.ready else " before its READY"
            raise self._failed(f"the peer sent the command {_quoted(name)}{when}")

    def _take_ready(self, metadata: bytes) -> None:
        properties = self._properties(metadata)
        socket_type = properties.get(b"socket-type", b"")
        wanted = b"DEALER" if self.is_router else b"ROUTER"
        if socket_type != wanted:
            is_not = f"not '{wanted.decode()}'"
            raise self._failed(f"the peer's socket type is {_quoted(socket_type)}, {is_not}")
        self.peer = properties.get(b"identity", b"")
        # What begins with a zero is what a ROUTER calls those who want no name.
        if len(self.peer) > _MAX_IDENTITY_BYTES or self.peer[:1] == b"\0":
            raise self._failed(f"the peer cannot be called {_quoted(self.peer)}")
        self.ready = True

    def _take_ping(self, data: bytes) -> None:
        context = data[_PING_TTL_BYTES:]
        if len(data) < _PING_TTL_BYTES or len(context) > _MAX_PING_CONTEXT_BYTES:
            raise self._failed(f"the peer sent a PING of {len(data)} bytes")
        self._output += _command(b"PONG", context)

    def _properties(self, metadata: bytes) -> dict[bytes, bytes]:
        """Parse READY's metadata; names are compared without case, hence in lower case."""
        found = {}
        position = 0
        while position < len(metadata):
            name_end = position + 1 + metadata[position]
            start = name_end + _LENGTH.size
            if start > len(metadata):
                raise self._failed("the peer's READY command is cut short")
            end = start + _LENGTH.unpack_from(metadata, name_end)[0]
            if end > len(metadata):
                raise self._failed("the peer's READY command is cut short")
            found[metadata[position + 1 : name_end].lower()] = metadata[start:end]
            position = end
        return found

    def _failed(self, sentence: str) -> ProtocolError:
        self._failure = sentence
        return ProtocolError(sentence)


class Transport:
    """A connected Unix socket that carries messages to the daemon and back.

    For one thread, and not for a forked child. `send` and `receive` wait; `post`, `flush` and
    `receive(0)` never do, for who has an event loop. PINGs are answered while `send` or
    `receive` runs: who does neither for long must not be told to beat.

    The read side alone reports that the daemon has gone, so that nothing which it said
    before is lost: a failed write is left to wait, and the next read finds the end.
    """

    __slots__ = ("_connection", "_inbox", "_outgoing", "_poll", "_socket")

    def __init__(
        self, connected: socket.socket, *, max_message_bytes: int, identity: bytes = b""
    ) -> None:
        """Take over a connected stream socket; `connect` is the usual way to get here."""
        connected.settimeout(0)
        self._socket = connected
        self._connection = Connection(max_message_bytes=max_message_bytes, identity=identity)
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self._inbox: list[bytes] = []
        # Everything goes out in this order, so a PONG never lands within a half-sent frame.
        self._outgoing = bytearray()

    @classmethod
    def connect(
        cls, path: str, *, timeout_s: float, max_message_bytes: int, identity: bytes = b""
    ) -> "Transport":
        """Connect to the daemon's socket at `path` and shake hands, within `timeout_s`.

        Raises `OSError` as the kernel gave it (nothing there, nobody listening, no
        permission, path too long), `TimeoutError` if the daemon takes too long,
        `Disconnected` if it hangs up and `ProtocolError` if it is something else.
        """
        deadline = time.monotonic() + timeout_s
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # close-on-exec by PEP 446
        try:
            _connect_by(raw, path, deadline)
        except BaseException:
            raw.close()
            raise
        return cls.shake_hands(
            raw, deadline, max_message_bytes=max_message_bytes, identity=identity
        )

    @classmethod
    def shake_hands(
        cls,
        connected: socket.socket,
        deadline: float,
        *,
        max_message_bytes: int,
        identity: bytes = b"",
    ) -> "Transport":
        """Take over a connected socket and shake hands on it, by `deadline` on the monotonic clock.

        Raises `TimeoutError`, `Disconnected` and `ProtocolError`, as `connect` does; then it is closed.
        """
        try:
            transport = cls(connected, max_message_bytes=max_message_bytes, identity=identity)
            transport._shake_hands(deadline)
        except BaseException:
            connected.close()
            raise
        return transport

    def send(self, body: bytes, deadline: float | None) -> None:
        """Write a message whole, by `deadline` on the monotonic clock (None: however long).

        Reads meanwhile, without bound: if both ends only wrote, two full buffers would
        stop them for ever. Raises `Disconnected`, and `TimeoutError`: what has then not
        been written stays in line and goes out with the next call, so that the frames
        stay whole, and a caller who resends after it may be heard twice.
        """
        frame = self._connection.send(body)
        if self._outgoing:
            self._outgoing += frame
        else:
            # The usual case is one system call, and no copy.
            written = self._write(frame)
            if written == len(frame):
                return
            self._outgoing += memoryview(frame)[written:]
        while self._outgoing:
            if not self._wait(deadline):
                raise TimeoutError("the daemon does not read what it is sent")
            self._exchange()

    def post(self, body: bytes) -> None:
        """Send a message without waiting; what the socket does not take now stays in line.

        While something is `unsent`, call `flush` whenever the socket can be written.
        """
        self._outgoing += self._connection.send(body)
        self.flush()

    @property
    def unsent(self) -> bool:
        """Whether something stays in line until the socket can be written again."""
        return bool(self._outgoing)

    def flush(self) -> None:
        """Write what stays in line, as much as the socket takes now."""
        del self._outgoing[: self._write(self._outgoing)]

    def receive(self, timeout_s: float | None) -> list[bytes]:
        """Return the messages which one read yields, waiting at most so long for the first.

        0 does not wait, None waits for ever; [] means that the time is up. More may be
        left in the socket. Raises `Disconnected` once the daemon has gone and all that it
        sent has been returned, and `ProtocolError`.
        """
        if not self._inbox:
            self._exchange()
        if not self._inbox and timeout_s != 0:
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            # A wake-up need not bring a message: it may be a PING, or part of a frame.
            while not self._inbox and self._wait(deadline):
                self._exchange()
        messages, self._inbox = self._inbox, []
        return messages

    @property
    def has_read(self) -> bool:
        """Whether messages are here already, so that the socket need not become readable."""
        return bool(self._inbox)

    def fileno(self) -> int:
        """Return the socket's descriptor to wait on, or -1 after `close`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; again does nothing."""
        self._socket.close()

    def _shake_hands(self, deadline: float) -> None:
        self._outgoing += self._connection.greeting()
        self.flush()
        while not self._connection.ready:
            if not self._wait(deadline):
                raise TimeoutError("the daemon accepted the connection but does not answer")
            self._exchange()

    def _wait(self, deadline: float | None) -> bool:
        """Wait until the socket can be read, or written if anything waits for that."""
        events = select.POLLIN | select.POLLOUT if self._outgoing else select.POLLIN
        self._poll.modify(self._socket, events)
        if deadline is None:
            return bool(self._poll.poll())
        # poll() takes a negative time for "for ever"; it goes on by itself after a signal.
        left_ms = max(0.0, (deadline - time.monotonic()) * 1000)
        return bool(self._poll.poll(min(left_ms, _MAX_POLL_MS)))

    def _exchange(self) -> None:
        """Read once into the inbox, then write what is due; neither waits."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            pass
        except ConnectionResetError as reset:
            raise Disconnected("the daemon closed the connection") from reset
        else:
            if not data:
                raise Disconnected("the daemon closed the connection")
            self._inbox += self._connection.receive(data)
            self._outgoing += self._connection.take_output()
        if self._outgoing:
            self.flush()

    def _write(self, data: bytes | bytearray) -> int:
        """Write what the socket takes; that the daemon has gone is for the read to say."""
        try:
            # A command line that dies by SIGPIPE on its output must not do so on this.
            return self._socket.send(data, socket.MSG_NOSIGNAL)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return 0


def _connect_by(raw: socket.socket, path: str, deadline: float) -> None:
    """Connect a blocking socket; a daemon too stuck to accept is a TimeoutError.

    With a full backlog a non-blocking connect fails at once and gives nothing to poll for.
    A blocking one waits for room, as long as the send time-out of the socket allows.
    """
    while True:
        left_us = max(1, int((deadline - time.monotonic()) * 1e6))  # 0 would mean for ever
        time_out = _TIMEVAL.pack(*divmod(left_us, 10**6))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, time_out)
        try:
            raw.connect(path)
            # After a signal Python takes a Unix socket, wrongly, for connected.
            raw.getpeername()
        except BlockingIOError as full:
            raise TimeoutError("the daemon does not accept the connection") from full
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        else:
            return
