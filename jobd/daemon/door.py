"""Who is let in: so many clients as the settings allow, and as there are file descriptors for.

The pool, the store and the answers need files of their own: some are kept back from
clients.  Who comes when there is no room is told so in a sentence and sent away, but for
those few who only ask how the daemon is, or end it: an overcrowded daemon can be looked at.
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterable

from jobd.daemon.remote import BothRouters
from jobd.daemon.requests import decode
from jobd.model.errors import TooManyClients
from jobd.model.messages import (
    FrameError,
    Hello,
    Ping,
    Reload,
    Request,
    Status,
    Stop,
    encode,
    refusal,
)
from jobd.wire.router import HASTE_S, NEWCOMERS_IN_NEED, Router

log = logging.getLogger("jobd")

DRAIN = 100
"""Frames taken from clients in one turn, about a millisecond's worth: workers must not wait for more."""

ERRANDS = (Ping, Reload, Status, Stop)
"""What somebody may ask who is not admitted."""

FOR_A_WORKER = 4
"""Files that a worker costs: its pidfd, its scoreboard, two connections."""

FOR_THE_HOUSE = 16 + NEWCOMERS_IN_NEED
"""Files that are opened for a moment: logs, directories, what SQLite sorts; and those who are told."""

MORE_FILES = "raise LimitNOFILE, or 'ulimit -n'"

SAID_FOR_S = 60.0
"""How long it counts as a trouble that somebody was sent away."""


def raise_limit() -> int:
    """Allow as many files as we may, one for each client.  Returns the old limit, which jobs get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


class Door:
    """The entrance of clients; ``workers`` is how many there are to be, ``lent`` how many more there may be.

    It is at the local socket, ``router``; those who come another way are among ``clients``, and it lets them
    in, or sends them away, as well.
    """

    def __init__(
        self,
        router: Router,
        clients: Router | BothRouters,
        max_clients: int,
        workers: int,
        lent: int,
    ) -> None:
        self._router = router
        self._clients = clients
        self._max_clients = max_clients
        self._workers, self._lent = workers, lent
        self._limit = 0
        self._refused_at = 0.0
        self._said = ""
        self.look(0)

    @property
    def fd(self) -> int:
        """What is readable when somebody has come, has said something, or has left."""
        return self._router.fd

    @property
    def is_ready(self) -> bool:
        """Whether there are frames of which ``fd`` does not tell."""
        return self._router.is_ready

    def frames(self, now_s: float) -> list[tuple[bytes, bytes]]:
        """Return what clients who are let in have sent."""
        found = self._router.drain(DRAIN)
        return self.let_in(found, now_s) if self._router.has_strangers else found

    def take_gone(self) -> list[bytes]:
        """Return the clients that have hung up since the last time."""
        return self._router.take_gone()

    def relieve(self) -> None:
        """Send away who takes the room of those that wait, in every turn."""
        self._router.relieve()

    def look(self, processes: int) -> None:
        """Keep files back for the workers that are missing; called about once a second."""
        self._limit = limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        missing = max(0, self._workers - processes) * FOR_A_WORKER
        more = min((self._workers + self._lent) * FOR_A_WORKER, limit // 4)
        self._router.most_files = limit - FOR_THE_HOUSE - missing - more
        self._router.farewell = encode([refusal(0, self._why())])

    def let_in(
        self, frames: Iterable[tuple[bytes, bytes]], now_s: float
    ) -> list[tuple[bytes, bytes]]:
        """Return the frames of those who are heard; the others are told why not, and sent away."""
        heard: list[tuple[bytes, bytes]] = []
        away: set[bytes] = set()
        for peer, frame in frames:
            if peer in away:
                continue
            if self._clients.admits(peer) or self._may_stay(peer, frame):
                heard.append((peer, frame))
            else:
                self._send_away(peer, frame, now_s)
                away.add(peer)
        return heard

    def wake_at_s(self, now_s: float) -> float | None:
        """Return when there may be room for those who wait to be accepted, or None."""
        return now_s + HASTE_S if self._router.is_pressed else None

    def trouble(self, now_s: float) -> str:
        """Return a sentence if somebody was sent away lately, or ""."""
        if self._router.is_short:
            return f"no file descriptors are left for clients (the limit is {self._limit}): {MORE_FILES}"
        if not self._refused_at or now_s - self._refused_at > SAID_FOR_S:
            return ""
        return self._said

    # -- inside --

    def _may_stay(self, peer: bytes, frame: bytes) -> bool:
        requests = _requests_of(frame)
        return all(map(_is_errand, requests)) and self._clients.stays(peer)

    def _send_away(self, peer: bytes, frame: bytes, now_s: float) -> None:
        why = self._why()
        self._said = f"clients were sent away: {why}"
        if not self._refused_at or now_s - self._refused_at > SAID_FOR_S:
            log.warning("%s", self._said)
        self._refused_at = now_s
        answers = [refusal(request.rid, why) for request in _requests_of(frame)]
        self._clients.send(peer, encode(answers))
        self._clients.dismiss(peer)

    def _why(self) -> TooManyClients:
        admitted = self._clients.admitted
        are = "client is" if admitted == 1 else "clients are"
        if admitted >= self._max_clients:
            return TooManyClients(
                f"{admitted} {are} connected, as many as this daemon serves",
                "try again later, or raise limits.max_clients",
            )
        return TooManyClients(
            f"{admitted} {are} connected, as many as this daemon has file descriptors for "
            f"(the limit is {self._limit})",
            f"try again later, or {MORE_FILES}",
        )


def _requests_of(frame: bytes) -> list[Request]:
    try:
        return decode(frame)
    except FrameError:
        return []


def _is_errand(request: Request) -> bool:
    return isinstance(request, ERRANDS) or (isinstance(request, Hello) and request.errand)
