"""Outcomes on their way to the daemon.

Each is *held* first, and put on the scoreboard, where it outlives this process: outcomes of
short jobs are sent together.  Then it is *sent*, in a numbered frame.  And once the daemon has
said that it is durable, it is forgotten.

Whoever calls has the worker's lock: its control thread may have to hand over everything at once.
"""

from __future__ import annotations

import time
from typing import cast

import msgspec

from jobd.model.job import Outcome, Verdict
from jobd.model.messages import encode
from jobd.model.orders import Outcomes, Produced, Task
from jobd.model.stretch import pack
from jobd.pool.scoreboard import MOST, MOST_ID, Scoreboard
from jobd.pool.streams import Stream

SMALL_BYTES = 4 * 1024
"""A larger value is not kept with those of other items."""

_IN_LINE = (b"j", b"J", b"p", b"P")
"""What values begin with that are all there, and not in a file."""

HELD_BYTES = 64 * 1024
"""An outcome with a larger value is sent at once: a frame holds one of those at most."""

_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
_decode_stream = msgspec.msgpack.Decoder(list[Produced | Outcomes]).decode


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A frame that was sent, and may have to be sent again."""

    data: bytes
    position: int
    """Up to where the scoreboard has nothing but it and older ones."""


class Delivery:
    """What a worker has to hand in."""

    def __init__(self, board: Scoreboard) -> None:
        self.stream: Stream | None = None
        """What the job at hand produces, until its outcome is on its way."""
        self._board = board
        self.is_urgent = False
        """What is held has to be sent before another job begins: it is large, or held only here."""
        self._held: list[bytes] = []
        self._held_to = 0
        """The scoreboard's position behind the last one that is held."""
        self._unrecorded: dict[int, Frame] = {}
        self._seq = 0
        self._piece: Outcome | None = None
        """Items of a stretch that have returned, one after the other; their values are apart."""
        self._values: list[bytes] = []
        self._began_s = 0.0
        """When the first of them began."""

    def add(self, item: Task, began_s: float, value: bytes) -> None:
        """Hold what an item of a stretch has returned that began then; there is no more to tell of it."""
        piece, number, attempt = self._piece, item.id, item.attempt
        if piece is None:
            for_us = round((time.perf_counter() - began_s) * 1e6)
            started_at = max(1, time.time_ns() // 1000 - for_us)
            piece = Outcome(number, attempt, Verdict.RETURNED, None, None, started_at, 0)
            self._piece, self._values, self._began_s = piece, [], began_s
        if not self._board.add(piece, value):
            self.close_piece()
            self.add(item, began_s, value)
            return
        self._values.append(value)
        if not self._board.has_ring:
            self.close_piece()  # it is sent at once, as it would die with this process

    def close_piece(self) -> None:
        """Hold the items that have returned as what they are together: one outcome."""
        piece = self._piece
        if piece is not None:
            self._piece = None
            piece.count = len(self._values)
            piece.duration_us = round((time.perf_counter() - self._began_s) * 1e6)
            piece.value = pack(self._values)
            self.keep(piece)
            self._board.close_piece()

    def keep(self, outcome: Outcome) -> None:
        """Hold what came of the attempt, which is over by that: whatever ends this process now."""
        encoded = record = encode(outcome)
        if self.stream is not None:  # its last items live and die with its outcome
            record = encode([*self.stream.unrecorded(), _outcomes(0, [encoded])])
        is_kept = self._board.end(record)
        self._held.append(encoded)
        self._held_to = self._board.position
        if not is_kept or (outcome.value is not None and len(outcome.value) > HELD_BYTES):
            self.is_urgent = True

    @property
    def has_held(self) -> bool:
        """Whether there is something to send."""
        return bool(self._held) or self._piece is not None

    @property
    def is_all_recorded(self) -> bool:
        """Whether all that was sent is durable."""
        return not self._unrecorded

    def take(self) -> bytes:
        """Return a frame of all that is held, to be sent now; b"": there is nothing."""
        self.close_piece()
        if not self._held:
            return b""
        seq = self._number()
        outcomes = _outcomes(seq, self._held)
        frame = again = encode([outcomes])
        self._held = []
        self.is_urgent = False
        # What a stream has sent is kept with its outcome, and recorded with it.
        produced = self.stream.unrecorded() if self.stream else []
        if produced:
            again = encode([*produced, outcomes])
        self._unrecorded[seq] = Frame(again, self._held_to)
        return frame

    def produce(self, message: Produced) -> bytes:
        """Number what the stream has produced, keep it, and return the frame to send."""
        assert self.stream is not None
        message.number = self._number()
        self.stream.keep(message)
        return encode([message])

    def recorded(self, seqs: list[int]) -> None:
        """Forget these frames: they are durable."""
        for seq in seqs:
            frame = self._unrecorded.pop(seq, None)
            if frame is not None and next(iter(self._unrecorded), seq) >= seq:
                self._board.free(frame.position)

    def unrecorded(self) -> list[bytes]:
        """Return the frames that the daemon has not said to be durable, in order."""
        produced = self.stream.unrecorded() if self.stream else ()
        frames = [frame.data for frame in self._unrecorded.values()]
        return [*frames, *(encode([message]) for message in produced)]

    def _number(self) -> int:
        self._seq += 1
        self._board.sent(self._seq)
        return self._seq


def is_small(value: bytes) -> bool:
    """Whether a value is kept with those of other items."""
    return len(value) <= SMALL_BYTES and value[:1] in _IN_LINE


def left_by(board: Scoreboard) -> list[Outcomes | Produced]:
    """Return what a dead worker has finished and nobody has called durable; some may be known."""
    left: list[Outcomes | Produced] = []
    outcomes: list[Outcome] = []
    try:
        for record in board.records():
            try:
                outcomes.append(_decode_outcome(record))
            except msgspec.ValidationError:
                left += _decode_stream(record)
    except msgspec.DecodeError:
        pass  # a job has written into the memory of its worker: the rest is lost
    piece = board.piece()
    if piece is not None:
        first, attempt, started_at, values = piece
        outcomes.append(
            Outcome(
                min(first, MOST_ID),
                attempt,
                Verdict.RETURNED,
                pack(values),
                None,
                min(started_at, MOST),
                0,
                count=len(values),
            )
        )
    return [*left, Outcomes(0, outcomes)] if outcomes else left


def _outcomes(seq: int, encoded: list[bytes]) -> Outcomes:
    """Return a message of outcomes that are encoded already."""
    together = b"\xdd" + len(encoded).to_bytes(4) + b"".join(encoded)  # a MessagePack array
    return Outcomes(seq, cast("list[Outcome]", msgspec.Raw(together)))
