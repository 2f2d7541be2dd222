"""A client's connection to another machine by way of ``ssh``, which needs no port and no key of ours.

On the other machine ``jobd --stdio`` joins the standard streams to the daemon's socket there; the
protocol is the same as over a local one, from end to end.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
from typing import IO

from jobd.wire.zmtp import Disconnected, ProtocolError, Transport

COMMAND = ("jobd", "--stdio")
SAID_BYTES = 4096
ENDS_S = 2.0
"""How long ssh may take to end when its streams are closed."""


class SshFailed(Exception):
    """ssh has ended before there was a daemon; the text is what it said."""


class SshChannel(Transport):
    """A transport whose socket is the standard streams of an ``ssh``."""

    __slots__ = ("_process",)

    _process: subprocess.Popen[bytes]

    def close(self) -> None:
        """Close the streams, and wait for ssh, in a thread if it takes long."""
        super().close()
        if self._process.poll() is None:
            threading.Thread(target=_reap, args=(self._process,), daemon=True).start()


def connect(endpoint: str, *, deadline: float, max_message_bytes: int) -> SshChannel:
    """Connect to ``ssh://[user@]host[:port]`` and shake hands by a time on the monotonic clock.

    Raises:
        SshFailed: ssh, or jobd there, has ended.
        OSError: there is no ssh; TimeoutError: there is no answer in time.
    """
    ours, theirs = socket.socketpair()
    with theirs, tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(
                [*_words(endpoint), *COMMAND],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for us to deal with
            )
        except BaseException:
            ours.close()
            raise
        theirs.close()  # so that the end of ssh is the end of the stream
        try:
            channel = SshChannel.shake_hands(ours, deadline, max_message_bytes=max_message_bytes)
        except BaseException as error:
            said = _end(process, stderr)
            if isinstance(error, Disconnected | ProtocolError):
                raise SshFailed(said or f"it ended with exit code {process.returncode}") from None
            raise
    assert isinstance(channel, SshChannel)
    channel._process = process  # noqa: SLF001  # ours
    return channel


def _words(endpoint: str) -> list[str]:
    host = endpoint.removeprefix("ssh://").rstrip("/")
    host, _, port = host.partition(":")
    if not host or host.startswith("-") or (port and not port.isdecimal()):
        raise OSError(None, "it has to be ssh://[USER@]HOST[:PORT]")
    return ["ssh", "-T", *(["-p", port] if port else []), "--", host]


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> str:
    """End ssh; return the last line that it said."""
    _reap(process)
    said = os.pread(stderr.fileno(), SAID_BYTES, 0).decode(errors="replace").strip()
    return said.rpartition("\n")[2]


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(ENDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
