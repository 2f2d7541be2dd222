"""Processes that a job has started, and the little door of the worker on which they knock.

A job that waits lends its slot; so does one of whose processes one waits: a command, a pool's
worker, a forked child.  Such a process proves by what it has inherited (``JOBD_INSIDE``)
whose it is: the address of its worker's door, and a word that nobody can guess.  The
variable is set once for each worker, as that runs one job at a time.  A wait lasts as
long as its connection, so that the worker sees the end of a process that was killed.

All of it is harmless elsewhere: where nobody listens any more, a wait lends nothing.
"""

from __future__ import annotations

import _socket as socket  # the plain one: every command of the command line would load the other
import os
import threading
from collections.abc import Callable, Sequence

import msgspec

from jobd.credentials import credentials
from jobd.model.errors import BY_NAME, JobdError

VARIABLE = "JOBD_INSIDE"
"""Where to knock, and the word."""

KNOCK_S = 5.0
"""How long a worker may take to say what it runs."""

MOST_BYTES = 65_536

MOST_AWAITED = 100
"""Jobs that are named of those that one wait is for."""

Told = Callable[[JobdError | None], None]
"""Who is told whether a job may wait: None, or why not."""


class CurrentJob(msgspec.Struct, frozen=True):
    """The job that runs in this process.

    Attributes:
        id: the job's id.
        attempt: the number of this attempt, from 1 on.
        queue: the queue it came from.
    """

    id: int
    attempt: int
    queue: str


class Whose(msgspec.Struct, tag=1, array_like=True):
    """Asks which job runs."""

    word: str


class Wait(msgspec.Struct, tag=2, array_like=True):
    """Asks for the slot, until the connection ends; ``socket`` is that of these jobs' daemon."""

    word: str
    numbers: list[int]
    socket: str


class Answer(msgspec.Struct, array_like=True):
    """What the worker says."""

    job: CurrentJob | None = None
    error: str = ""
    """Why the wait may not be: the name of a public error; "": it may."""
    message: str = ""
    hint: str = ""


encode = msgspec.msgpack.encode
decode_request = msgspec.msgpack.Decoder(Whose | Wait).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


def refuse_strangers(connected: socket.socket) -> None:
    """See to it that the other end is of the same user: anybody may bind and see such a name.

    Raises:
        PermissionError: it is not.
    """
    if credentials(connected)[1] != os.geteuid():
        raise PermissionError("that is somebody else's")


class Kin:
    """The job's worker, as one of the job's processes may know it; any thread may call."""

    def __init__(self, proof: str) -> None:
        """``proof`` is what the variable says."""
        name, _, self._word = proof.partition(" ")
        self._address = f"\0{name}"
        self._open: set[socket.socket] = set()
        os.register_at_fork(after_in_child=self._forked)

    def current(self) -> CurrentJob | None:
        """Return the job that runs, if its worker says so in time."""
        try:
            door = self._knock(Whose(self._word))
        except OSError:
            return None
        try:
            door.settimeout(KNOCK_S)
            return _answer(door).job
        except (OSError, msgspec.DecodeError):
            return None
        finally:
            door.close()

    def wait_begins(self, numbers: Sequence[int], socket: str, told: Told) -> object | None:
        """Lend the job's slot while this process waits; returns what ``wait_ends`` takes.

        ``told`` is called once, by another thread: with None, or with why that may not be.
        """
        try:
            door = self._knock(
                Wait(self._word, [*numbers[:MOST_AWAITED]], os.path.realpath(socket))
            )
            self._open.add(door)
            threading.Thread(target=_listen, args=(door, told), daemon=True).start()
        except (OSError, RuntimeError):  # no worker, or no thread: the interpreter ends
            told(None)
            return None
        return door

    def wait_ends(self, token: object) -> None:
        """The process goes on."""
        if isinstance(token, socket.socket) and token in self._open:
            self._open.discard(token)
            try:
                token.shutdown(socket.SHUT_RDWR)  # also of the copies that forked children have
            except OSError:
                pass  # the worker was first
            token.close()

    def _knock(self, request: Whose | Wait) -> socket.socket:
        """Connect and ask."""
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            door.settimeout(KNOCK_S)
            door.connect(self._address)
            refuse_strangers(door)
            door.send(encode(request))
            door.settimeout(None)
        except BaseException:
            door.close()
            raise
        return door

    def _forked(self) -> None:
        """Waits are the parent's."""
        for door in self._open:
            door.close()
        self._open = set()


def _listen(door: socket.socket, told: Told) -> None:
    """Hand on the worker's word, or, if it says none, let the wait begin."""
    error: JobdError | None = None
    try:
        answer = _answer(door)
        if answer.error:
            error = BY_NAME.get(answer.error, JobdError)(answer.message, answer.hint)
    except (OSError, msgspec.DecodeError):
        pass  # the job is over, or the wait is
    try:
        told(error)
    except RuntimeError:
        pass  # its event loop is closed: nobody waits there any more


def _answer(door: socket.socket) -> Answer:
    return _decode_answer(door.recv(MOST_BYTES))


def inherited() -> Kin | None:
    """Return the worker whose job has started this process, if one has."""
    proof = os.environ.get(VARIABLE)
    return Kin(proof) if proof else None
