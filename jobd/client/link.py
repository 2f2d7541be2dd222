"""Connecting to the daemon: a transport that has shaken hands, or the reason why there is none."""

from __future__ import annotations

import os
import time

from jobd._version import __version__
from jobd.model.errors import (
    BY_NAME,
    ConfigError,
    DaemonUnreachable,
    Denied,
    JobdError,
    TooManyClients,
)
from jobd.model.messages import PROTOCOL, Hello, Refused, Welcome, decode_replies, encode
from jobd.wire.channel import Channel
from jobd.wire.zmtp import Disconnected, ProtocolError, Transport

MAX_ANSWER_BYTES = 512 * 1024 * 1024
RECONNECT_S = 0.05
"""Between two attempts to find a daemon that has gone away."""


def connect(socket: str, timeout_s: float, *, errand: bool = False) -> tuple[Channel, Welcome]:
    """Connect to the daemon at ``socket`` and greet it, once; ``errand`` as in ``Hello``.

    Raises:
        DaemonUnreachable: nobody answers there within ``timeout_s``, or it is no jobd.
        Denied: the socket is somebody else's.
        ConfigError: it cannot be a socket.
        TooManyClients: it serves no more of them.
        ProtocolMismatch: client and daemon do not speak the same version.
    """
    deadline = time.monotonic() + max(0.05, timeout_s)
    try:
        transport = _reach(socket, deadline)
        by_wire = "://" in socket
        try:
            return transport, _greet(transport, deadline, errand=errand, by_wire=by_wire)
        except BaseException:
            transport.close()
            raise
    except (OSError, ProtocolError) as error:
        raise _explain(socket, error) from None


def _reach(socket: str, deadline: float) -> Channel:
    """Return a connection that has shaken hands, whatever it goes over."""
    if "://" in socket:
        from jobd.client.elsewhere import reach  # noqa: PLC0415  # most daemons are on this machine

        return reach(socket, deadline, MAX_ANSWER_BYTES)
    return Transport.connect(
        socket, timeout_s=deadline - time.monotonic(), max_message_bytes=MAX_ANSWER_BYTES
    )


def _greet(transport: Channel, deadline: float, *, errand: bool, by_wire: bool) -> Welcome:
    hello = Hello(0, PROTOCOL, PROTOCOL, __version__, errand, by_wire)
    transport.send(encode([hello]), deadline)
    while True:
        left = deadline - time.monotonic()
        for frame in transport.receive(max(0.0, left)):
            for reply in decode_replies(frame):
                if isinstance(reply, Welcome):
                    return reply
                if isinstance(reply, Refused):
                    raise BY_NAME.get(reply.error, JobdError)(reply.message, reply.hint)
        if left <= 0:
            raise TimeoutError


def _explain(socket: str, error: Exception) -> JobdError:
    """Turn the reason why there is no connection into a sentence, and what to do about it."""
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return DaemonUnreachable(f"no daemon at {socket}", "start one with 'jobd start'")
        case PermissionError():
            return Denied(f"no permission for {socket}", "only the daemon's own user may use it")
        case TimeoutError():
            busy = "is it stopped, or very busy?"
            return DaemonUnreachable(f"the daemon at {socket} does not answer", busy)
        case Disconnected():
            hint = "see its log, or start it with 'jobd start'"
            return DaemonUnreachable(f"the daemon at {socket} went away", hint)
        case OSError():
            why = error.strerror or error
            return ConfigError(f"{socket} cannot be a socket: {why}", "choose another --socket")
    return DaemonUnreachable(f"what answers at {socket} is no jobd: {error}", "is the path right?")


def gone(socket: str, timeout_s: float, error: Exception | None = None) -> JobdError:
    """Return the error that tells that a daemon has not come back in time, or has no room for us since."""
    if isinstance(error, TooManyClients):
        return error
    return DaemonUnreachable(
        f"the daemon at {socket} went away and did not come back within {timeout_s:g} s",
        "start it with 'jobd start'",
    )


def deadline_of(timeout_s: float | None) -> float | None:
    """Return when a time is up that begins now, on the monotonic clock; None: never."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def left_of(deadline: float | None) -> float | None:
    """Return how many seconds are left until then, at least 0."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def default_socket() -> str:
    """Return the socket that the settings name (``JOBD_SOCKET``, the settings file, …)."""
    from jobd.config import load  # noqa: PLC0415  # the command line has loaded them already, and passes a socket

    return load(config_file=None, flags={}, environ=os.environ).settings.socket
