"""What goes out to peers: gathered during a turn of the loop, one frame for each peer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from jobd.daemon.remote import BothRouters, ByWire
from jobd.model.messages import Message, encode
from jobd.wire.router import Router

SILENT_S = 60.0
"""A client that has not been heard for so long is forgotten; those that wait send a ping every few seconds."""


UNREAD_BYTES = 4 * 1024 * 1024
"""A client with more than this on its way gets no further answers until it has read some of it."""


class Sends(Protocol):
    """A router, as far as it sends."""

    def send(self, identity: bytes, frame: bytes, /) -> bool:
        """Send a frame; return False if the peer is gone or does not keep up."""

    def reaches(self, identity: bytes, frame: bytes, /) -> tuple[bool, bool]:
        """Send a frame; return whether the peer is connected, and whether it gets the frame."""


class Outbox:
    """Messages for the peers of one socket."""

    def __init__(self, router: Sends, keeps: Callable[[bytes], bool] = lambda _: False) -> None:
        """``keeps`` tells for which peers messages wait until the peer has connected."""
        self.router = router
        self._keeps = keeps
        self._waiting: dict[bytes, list[Message]] = {}
        self._put_off: dict[bytes, list[Message]] = {}

    def put(self, peer: bytes, message: Message) -> None:
        """Send this with the next flush."""
        waiting = self._waiting.get(peer)
        if waiting is None:
            waiting = self._waiting[peer] = self._put_off.pop(peer, [])
        waiting.append(message)

    def put_all(self, messages: Iterable[tuple[bytes, Message]]) -> None:
        """Send these with the next flush, each to its peer."""
        gathered = self._waiting
        for peer, message in messages:
            waiting = gathered.get(peer)
            if waiting is None:
                self.put(peer, message)
            else:
                waiting.append(message)

    def put_off(self, peer: bytes, message: Message) -> None:
        """Send this with whatever is sent to the peer next, before it: nobody is woken for it."""
        self._put_off.setdefault(peer, []).append(message)

    def put_off_no_more(self) -> None:
        """Send with the next flush what was put off."""
        put_off, self._put_off = self._put_off, {}
        for peer, messages in put_off.items():
            self._waiting[peer] = [*self._waiting.get(peer, ()), *messages]

    def reaches(self, peer: bytes) -> tuple[bool, bool]:
        """Return whether the peer is connected, and whether it was sent a frame of nothing for that."""
        if peer in self._waiting:
            return True, False  # the next flush will tell
        return self.router.reaches(peer, encode([]))

    def flush(self) -> list[bytes]:
        """Send everything; return the peers that could not be reached."""
        if not self._waiting:
            return []
        waiting, self._waiting = self._waiting, {}
        send = self.router.send
        gone = [peer for peer, messages in waiting.items() if not send(peer, encode(messages))]
        if gone:
            self._waiting = {peer: waiting[peer] for peer in gone if self._keeps(peer)}
        return gone


class Clients:
    """Who has been heard of, when, and how many frames went to each."""

    def __init__(self, router: Router | BothRouters, by_wire: ByWire | None = None) -> None:
        self.outbox = Outbox(router)
        self.by_wire: set[bytes] = set()
        """Those who cannot map our files."""
        self._by_wire = by_wire
        self._heard_at: dict[bytes, float] = {}
        self._sent: dict[bytes, int] = {}
        self._gathered: dict[bytes, int] = {}
        """Bytes of large answers that go out with the next flush."""
        self._unsent = router.unsent
        self.lagging = router.lagging
        """Empty as long as nobody is behind."""
        self.pause, self.resume = router.pause, router.resume
        """Read no more from a client, or again."""

    def heard(self, peer: bytes, now_s: float) -> None:
        """A frame of this client has arrived."""
        self._heard_at[peer] = now_s

    def sent(self, peer: bytes) -> int:
        """Return how many frames went to this client, the next one included."""
        return self._sent.get(peer, 0) + 1

    def reply(self, peer: bytes, message: Message, size: int = 0) -> None:
        """Send this with the next flush; ``size`` is given if it may be large."""
        self.outbox.put(peer, message)
        if size:
            self._gathered[peer] = self._gathered.get(peer, 0) + size

    def reaches(self, peer: bytes) -> bool:
        """Whether this client is connected, be it slow or stopped."""
        connected, delivered = self.outbox.reaches(peer)
        if delivered:
            self._sent[peer] = self._sent.get(peer, 0) + 1
        return connected

    def is_behind(self, peer: bytes) -> bool:
        """Whether this client has to read before it gets more."""
        return self._unsent(peer) + self._gathered.get(peer, 0) > UNREAD_BYTES

    def flush(self) -> list[bytes]:
        """Send everything; return the clients that are gone."""
        waiting = self.outbox._waiting  # noqa: SLF001  # one class in two halves: sending and counting
        if self.by_wire and self._by_wire is not None:
            for peer in self.by_wire.intersection(waiting):
                waiting[peer] = [*map(self._by_wire.changed, waiting[peer])]
        for peer in waiting:
            self._sent[peer] = self._sent.get(peer, 0) + 1
        self._gathered.clear()
        return self.outbox.flush()

    def silent(self, now_s: float) -> list[bytes]:
        """Forget and return the clients that have not been heard of for long."""
        gone = [peer for peer, at in self._heard_at.items() if now_s - at > SILENT_S]
        for peer in gone:
            self._heard_at.pop(peer, None)
            self._sent.pop(peer, None)
        return gone
