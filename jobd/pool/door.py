"""The worker's door: processes that its job has started ask here to lend the job's slot.

A socket in the abstract namespace, so that nothing has to be cleared away; whoever knocks
must be of the same user and know the word.  The control thread serves it.  What they wait
for joins the waits of the job itself (``inside``), so the daemon need not know who waits.
"""

from __future__ import annotations

import os
import select
import socket
import time

import msgspec

from jobd import context
from jobd.kin import MOST_BYTES, Answer, Wait, Whose, decode_request, encode, refuse_strangers
from jobd.model.errors import JobdError

BACKLOG = 128
NO_FILES_S = 0.01
"""Before somebody is let in again when the job has used up all file descriptors."""


class Door:
    """Where the job's processes knock; for one thread, but for what ``told`` sends."""

    def __init__(self) -> None:
        self._word = os.urandom(16).hex()
        name = f"jobd-{os.getpid()}-{os.urandom(8).hex()}"
        self.proof = f"{name} {self._word}"
        """What they inherit."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(f"\0{name}")
        self._listener.listen(BACKLOG)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._guests: dict[int, tuple[socket.socket, list[object | None]]] = {}
        """By file descriptor: the connection, and what its wait's end takes, if it waits."""
        self.fd = self._epoll.fileno()
        """Readable when somebody wants something; -1: the door is shut."""

    def serve(self) -> None:
        """Let in who knocks, and hear who is in; never waits."""
        try:
            ready = self._epoll.poll(0)
        except (OSError, ValueError):
            self._abandon()
            return
        for fd, _ in ready:
            guest = self._guests.get(fd)
            if guest is None:
                self._let_in()
            else:
                self._hear(fd, *guest)

    def fds(self) -> list[int]:
        """Return the sockets of those who listen and of those who are in."""
        return [self._listener.fileno(), *self._guests]

    def shut(self) -> None:
        """Let nobody in any more, and end the waits."""
        self.fd = -1
        for fd in [*self._guests]:
            self._see_off(fd)
        self._listener.close()
        self._epoll.close()

    def _abandon(self) -> None:
        """The job has closed all files, and may have others of these numbers by now."""
        self.fd = -1
        self._listener.detach()
        for guest, waits in self._guests.values():
            guest.detach()
            for token in waits:
                context.end_wait(token)
        self._guests = {}

    def forked(self) -> None:
        """A forked child has no door: let go of the copies."""
        self.fd = -1
        for guest, _ in self._guests.values():
            guest.close()
        self._guests = {}
        self._listener.close()
        self._epoll.close()

    def _let_in(self) -> None:
        try:
            guest, _ = self._listener.accept()
        except BlockingIOError:
            return  # it has gone again
        except OSError:
            time.sleep(NO_FILES_S)
            return
        guest.setblocking(False)
        try:
            refuse_strangers(guest)
        except PermissionError:
            guest.close()
            return
        self._guests[guest.fileno()] = guest, []
        self._epoll.register(guest, select.EPOLLIN)

    def _hear(self, fd: int, guest: socket.socket, waits: list[object | None]) -> None:
        """Answer, or take note that it has gone."""
        try:
            packet = guest.recv(MOST_BYTES)
            request = decode_request(packet) if packet else None
        except BlockingIOError:
            return
        except (OSError, msgspec.DecodeError):
            request = None
        if request is None or request.word != self._word:
            self._see_off(fd)
        elif isinstance(request, Whose):
            _say(guest, Answer(context.current_job()))
        elif not waits:
            self._lend(guest, waits, request)

    @staticmethod
    def _lend(guest: socket.socket, waits: list[object | None], request: Wait) -> None:
        def told(error: JobdError | None) -> None:
            _say(guest, _answer(error))

        try:
            waits.append(context.begin_wait(request.numbers, request.socket, told))
        except JobdError as error:
            told(error)

    def _see_off(self, fd: int) -> None:
        guest, waits = self._guests.pop(fd)
        for token in waits:
            context.end_wait(token)
        guest.close()


def _answer(error: JobdError | None) -> Answer:
    return Answer(None, error.error, error.message, error.hint) if error else Answer()


def _say(guest: socket.socket, answer: Answer) -> None:
    try:
        guest.send(encode(answer))
    except OSError:
        pass  # it has gone
