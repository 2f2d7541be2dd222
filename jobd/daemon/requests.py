"""The one place where requests of clients come in: decoded, and each given to the desk that answers it.

Desks do not know each other, nor this: they offer handlers by the type of a request.  What
may take long (a million jobs to cancel) is a generator: the loop lets it do one page in
each turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec

from jobd.daemon.outbox import Clients
from jobd.daemon.turns import QUESTIONS, Handlers, Steps, Turns
from jobd.model.errors import JobdError, StoreFailed
from jobd.model.messages import PROTOCOL, FrameError, Refused, Request, numbers_in, refusal

MOST_IN_A_FRAME = 10_000
"""A frame of millions of the smallest requests would be gigabytes once it is decoded."""

decode = msgspec.msgpack.Decoder(
    Annotated[list[Request], msgspec.Meta(max_length=MOST_IN_A_FRAME)]
).decode

_decode_few = msgspec.msgpack.Decoder(
    Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MOST_IN_A_FRAME)]
).decode


class Requests:
    """The daemon's ear for clients."""

    def __init__(self, clients: Clients, tasks: deque[Steps]) -> None:
        self._clients = clients
        self.handlers: Handlers = {}
        self.farewells: list[Callable[[bytes], None]] = []
        """Who is told that a client is gone: nobody is to be answered any more."""
        self.refuse: Callable[[bytes, Any], None] | None = None
        """Raises Denied for what a client's key may not ask; None: everybody may ask everything."""
        self.turns = Turns(clients, tasks, self._handle)

    def hear(self, frames: Iterable[tuple[bytes, bytes]], now_s: float) -> None:
        """Handle what clients have sent."""
        heard, take = self._clients.heard, self.take
        for peer, frame in frames:
            heard(peer, now_s)
            take(peer, frame)

    def gone(self, peer: bytes) -> None:
        """A client has hung up: nothing is kept for it any longer."""
        self.turns.gone(peer)
        self.forget(peer)

    def forget(self, peer: bytes) -> None:
        """A client is gone, or has been silent for long."""
        for farewell in self.farewells:
            farewell(peer)

    def forget_silent(self, now_s: float) -> None:
        """Forget the clients that have not been heard of for long."""
        for peer in self._clients.silent(now_s):
            self.forget(peer)

    def flush(self) -> None:
        """Send clients what was gathered for them."""
        for peer in self._clients.flush():
            self.forget(peer)

    def take(self, peer: bytes, frame: bytes) -> None:
        """Handle all requests of one frame."""
        try:
            requests = decode(frame)
        except FrameError as error:
            text = f"that is no request of jobd's protocol {PROTOCOL}: {error}"
            for rid in numbers_in(frame) if _has_few(frame) else [0]:
                refused = Refused(rid, "usage", text, "is the client of another version?")
                self._clients.reply(peer, refused)
            return
        self.turns.take(peer, requests)

    def _handle(self, peer: bytes, request: Any) -> None:
        try:
            if self.refuse is not None:
                self.refuse(peer, request)
            steps = self.handlers[type(request)](peer, request)
        except StoreFailed:
            raise  # not the client's affair alone: the daemon ends
        except JobdError as error:
            self._clients.reply(peer, refusal(request.rid, error))
        else:
            if steps is not None:
                guarded = self._guarded(peer, request.rid, steps)
                self.turns.begin(peer, guarded, is_question=type(request) in QUESTIONS)

    def _guarded(self, peer: bytes, rid: int, steps: Steps) -> Steps:
        try:
            yield from steps
        except StoreFailed:
            raise
        except JobdError as error:
            self._clients.reply(peer, refusal(rid, error))


def _has_few(frame: bytes) -> bool:
    """Whether a frame is a list of no more than may be in it, whatever they are."""
    try:
        _decode_few(frame)
    except (*FrameError, RecursionError):
        return False
    return True
