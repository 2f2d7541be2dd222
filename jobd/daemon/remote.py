"""Clients that cannot map our files: those on other machines, over TCP or by way of ssh.

What each of their keys may do is decided here, by one table, for every request; and what
they get has no references to files, but what the files hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jobd.blobs import inlined
from jobd.config.settings import Settings
from jobd.model.blob import CODEC, Place
from jobd.model.errors import ConfigError, Denied, JobdError
from jobd.model.messages import (
    Apply,
    Cancel,
    Ended,
    Fetch,
    Fetched,
    Find,
    Follow,
    Gather,
    Graph,
    Hello,
    Hold,
    Items,
    List,
    Logs,
    Message,
    More,
    Offered,
    Piece,
    Pieces,
    Ping,
    Put,
    Queues,
    Release,
    Reload,
    RemoveQueue,
    Retry,
    SetArray,
    SetQueue,
    Status,
    Stop,
    Submit,
    Take,
    Taken,
    Unfollow,
    Watch,
)
from jobd.model.stretch import pack, unpack
from jobd.wire.keys import RIGHTS, SERVER_NAME, Allowed, read_allowed, read_key
from jobd.wire.router import Router
from jobd.wire.tcp_router import TcpRouter

READ, SUBMIT, CONTROL = RIGHTS

DRAIN = 100
"""Frames taken in one turn, as from clients on this machine."""

NEEDS: dict[type, tuple[str, ...]] = {
    Hello: RIGHTS,
    Ping: RIGHTS,
    Status: RIGHTS,
    Find: (READ,),
    List: (READ,),
    Graph: (READ,),
    Queues: (READ,),
    Logs: (READ,),
    Fetch: (READ, SUBMIT),
    Gather: (READ, SUBMIT),
    Watch: (READ, SUBMIT),
    Submit: (SUBMIT,),
    Put: (SUBMIT,),
    Apply: (SUBMIT,),
    Take: (SUBMIT,),
    Taken: (SUBMIT,),
    Follow: (SUBMIT,),
    More: (SUBMIT,),
    Unfollow: (SUBMIT,),
    Cancel: (CONTROL,),
    Retry: (CONTROL,),
    Hold: (CONTROL,),
    Release: (CONTROL,),
    SetQueue: (CONTROL,),
    SetArray: (CONTROL,),
    RemoveQueue: (CONTROL,),
    Reload: (CONTROL,),
    Stop: (CONTROL,),
}
"""For each request the rights of which one is enough.  Consuming takes from others: so it is no reading."""


LetIn = Callable[[list[tuple[bytes, bytes]], float], list[tuple[bytes, bytes]]]


class Remote:
    """The socket for other machines, and what its peers may do."""

    def __init__(self, router: TcpRouter, allowed: Sequence[Allowed]) -> None:
        self.router = router
        self._allowed = allowed
        self.reaches: Callable[[bytes], bool] = lambda _peer: True
        """Whether a client is still connected; whoever counts what is sent to clients asks."""
        self.let_in: LetIn = lambda frames, _now_s: frames
        """Returns the frames of those for whom there is room, and sends the others away."""

    @classmethod
    def listen(cls, settings: Settings) -> Remote | None:
        """Return the socket that the settings ask for; None: they ask for none.

        Raises:
            ConfigError: there is no key, nobody is allowed, or it cannot be bound.
        """
        endpoint = settings.remote.listen
        if not endpoint:
            return None
        allowed = read_allowed(settings.remote.allow)
        if not allowed:
            raise ConfigError(
                f"nobody is allowed to use {endpoint}, so the daemon does not listen there",
                "make a key with 'jobd key new NAME', and name it with --allow NAME.pub",
            )
        own = read_key(os.path.join(settings.state_dir, SERVER_NAME))
        keys, limits = [one.public for one in allowed], settings.limits
        router = TcpRouter(endpoint, limits.max_message_bytes, own.secret, keys, limits.max_clients)
        return cls(router, allowed)

    @property
    def fd(self) -> int:
        """What becomes readable when something may have come; see ``is_ready``."""
        return self.router.fd

    @property
    def is_ready(self) -> bool:
        """Whether there are frames, or somebody has left, whatever ``fd`` says."""
        return self.router.is_ready

    def frames(self, now_s: float) -> list[tuple[bytes, bytes]]:
        """Return what clients who are let in have sent."""
        found = self.router.drain(DRAIN)
        return self.let_in(found, now_s) if self.router.has_strangers else found

    def take_gone(self) -> list[bytes]:
        """Return the clients that have hung up, or are silent, since the last time."""
        return [peer for peer in self.router.take_suspects() if not self.reaches(peer)]

    def relieve(self) -> None:
        """Nobody waits in front of this door."""

    def wake_at_s(self, _now_s: float) -> float | None:
        """Return None: as above."""
        return None

    def is_peer(self, peer: bytes) -> bool:
        """Whether this peer is one of this socket's."""
        return peer.startswith(TcpRouter.PREFIX)

    def refuse(self, peer: bytes, request: Message) -> None:
        """Raise Denied if this peer's key has not the right that a request needs."""
        if not self.is_peer(peer):
            return
        key, needed = self._allowed[self.router.key_of(peer)], NEEDS.get(type(request), ())
        if not key.rights.intersection(needed):
            what = type(request).__name__.lower()
            raise Denied(
                f"the key {key.name!r} may not ask for {what!r}: that needs the right "
                f"{' or '.join(map(repr, needed))}",
                "[remote] allow of the daemon says what each key may",
            )


class BothRouters:
    """The routers of all clients as one: in answering them, and in the bound on how many there are."""

    def __init__(self, local: Router, remote: TcpRouter) -> None:
        self._local, self._remote = local, remote
        self.lagging = local.lagging
        local.elsewhere, remote.elsewhere = lambda: remote.admitted, lambda: local.admitted

    def _of(self, peer: bytes) -> Router | TcpRouter:
        return self._remote if peer.startswith(TcpRouter.PREFIX) else self._local

    def send(self, peer: bytes, frame: bytes) -> bool:
        """As ``Router.send``."""
        return self._of(peer).send(peer, frame)

    def reaches(self, peer: bytes, frame: bytes) -> tuple[bool, bool]:
        """As ``Router.reaches``."""
        return self._of(peer).reaches(peer, frame)

    def unsent(self, peer: bytes) -> int:
        """As ``Router.unsent``."""
        return self._of(peer).unsent(peer)

    def pause(self, peer: bytes) -> None:
        """As ``Router.pause``."""
        self._of(peer).pause(peer)

    def resume(self, peer: bytes) -> None:
        """As ``Router.resume``."""
        self._of(peer).resume(peer)

    @property
    def admitted(self) -> int:
        """How many clients are admitted, wherever they come from."""
        return self._local.admitted + self._remote.admitted

    def admits(self, peer: bytes) -> bool:
        """As ``Router.admits``."""
        return self._of(peer).admits(peer)

    def stays(self, peer: bytes) -> bool:
        """As ``Router.stays``."""
        return self._of(peer).stays(peer)

    def dismiss(self, peer: bytes) -> None:
        """As ``Router.dismiss``."""
        self._of(peer).dismiss(peer)


class ByWire:
    """Puts what files hold in the place of the references to them."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def changed(self, message: Any) -> Message:
        """Return a message as a client gets it that cannot map our files."""
        changed: dict[str, Any] = {}
        match message:
            case Ended(value=bytes(value)) if value[:1] == CODEC:
                changed = {"inline": False, "value": None}  # it is fetched if it is wanted
            case Fetched(value=bytes(value)) | Offered(value=bytes(value)):
                changed = {"value": self._data(value)}
            case Pieces(pieces=pieces):
                changed = {"pieces": [self._piece(piece) for piece in pieces]}
            case Items(values=values):
                changed = {"values": [self._data(value) for value in values]}
        # A new one: the same end may be told to others too.
        found: Message = msgspec.structs.replace(message, **changed) if changed else message
        return found

    def _piece(self, piece: Piece) -> Piece:
        """Return items as above; those of which there are several have no files."""
        if piece.count > 1 or not piece.values:
            return piece
        values = [self._data(value) for value in unpack(piece.values)]
        return msgspec.structs.replace(piece, values=pack(values))

    def _data(self, value: bytes) -> bytes:
        if value[:1] != CODEC:
            return value
        try:
            return inlined(self._place, value)
        except JobdError:
            return value  # who decodes it is told that there is no such file
