"""What has become of the items of an array, as a client reads it."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import msgspec

from jobd.client.asking import Steps, identify
from jobd.client.core import Core
from jobd.client.deferred import DeferredBase, error_of, value_of
from jobd.client.waiting import Pending, seconds
from jobd.inputs import refuse_gone
from jobd.model.errors import JobError, WaitTimeout
from jobd.model.item import LAST_INDEX, item_of, shown
from jobd.model.job import ArrayInfo
from jobd.model.messages import Ended, Gather, Piece, Pieces, encode
from jobd.model.selector import Selector
from jobd.model.states import BY_NAME, ENDED, State
from jobd.model.stretch import unpack

MOST_SPANS = 100
"""Of items that have not ended between others that have, as many are asked for at a time."""

_decode_list = msgspec.json.Decoder(list[Any]).decode


class Progress(NamedTuple):
    """How far an array is."""

    total: int
    """How many items it has."""
    done: int
    """How many have ended."""
    states: dict[str, int]
    """How many are in each state, by its name."""

    @classmethod
    def of(cls, info: ArrayInfo) -> Progress:
        """Return how far the array is that the daemon tells of."""
        done = sum(n for name, n in info.states.items() if BY_NAME[name] >= ENDED)
        return cls(info.spec.items, done, info.states)


class Gathering(Pending):
    """A request for items as they end."""

    __slots__ = ("_what",)

    def __init__(self, request: Gather) -> None:
        super().__init__(request.rid, encode([request]), patient=True, awaited=[request.id])
        wanted = request.wanted
        self._what = shown(item_of(request.id, wanted[0][0])) if wanted else str(request.id)

    def late(self, timeout_s: float | None) -> WaitTimeout:
        """Return the error that says that none of them has ended."""
        kind = "item" if "/" in self._what else "array"
        problem = f"{kind} {self._what} has not ended within {seconds(timeout_s)} s"
        return WaitTimeout(problem, "it goes on; ask again later")


def gather(
    core: Core[Any], number: int, wanted: list[tuple[int, int]], *, ordered: bool
) -> Steps[Pieces]:
    """Return what has ended of an array, once there is something; nothing is ``wanted``: once all has."""
    pending = Gathering(Gather(core.next_rid(), number, wanted, ordered))
    yield pending
    if pending.error is not None:
        raise pending.error
    (reply,) = pending.replies
    assert isinstance(reply, Pieces)
    return reply


def await_end(core: Core[Any], deferred: DeferredBase[Any]) -> Steps[None]:
    """Return once an array has ended, as it is now: it may have ended before, and been retried since."""
    number = yield from identify(deferred)
    yield from gather(core, number, [], ordered=True)


class Reader:
    """Reads what has become of an array's items: in their order, or as they end."""

    def __init__(
        self, core: Core[Any], deferred: DeferredBase[Any], *, ordered: bool = True
    ) -> None:
        self._core = core
        self._deferred = deferred
        self._ordered = ordered
        self._missing: list[tuple[int, int]] = [(0, 2**32 - 1)]
        self._encoded = False
        self.ready: deque[tuple[int, Any]] = deque()
        """What has come and was not taken."""
        self.over = False
        """There is no more to come."""

    def fill(self, *, encoded: bool = False) -> Steps[bool]:
        """Have something ``ready``, once more has ended; False: there is nothing more.

        Each is an index and a value, or one of ``FAILURES``; ``encoded``: and how the item has ended.
        """
        self._encoded = encoded
        while not (self.ready or self.over):
            yield from self._more()
        return bool(self.ready)

    def drain(self) -> Steps[None]:
        """Have all that is left ready, once the array has ended; as ``fill`` with ``encoded``."""
        self._encoded = True
        while not self.over:
            yield from self._more()

    def values(self) -> Steps[list[Any]]:
        """Return the values of all items, in their order; those that have not succeeded are left out."""
        found: list[Any] = []
        while (yield from self.fill()):
            for _, value in self.ready:
                if type(value) is Broken:
                    raise value.error()
                if type(value) is not Failure:
                    found.append(value)
            self.ready.clear()
        return found

    def _more(self) -> Steps[None]:
        number = yield from identify(self._deferred)
        wanted = self._missing[:MOST_SPANS]
        reply = yield from gather(self._core, number, wanted, ordered=self._ordered)
        for piece in reply.pieces:
            self._take(number, piece)
        self._missing = [(low, min(high, reply.items - 1)) for low, high in self._missing]
        self._missing = [(low, high) for low, high in self._missing if low <= high]
        self.over = reply.over or not self._missing

    def _take(self, number: int, piece: Piece) -> None:
        """Take in what is new of a piece."""
        first, behind = piece.first, piece.first + piece.count
        missing = []
        for low, high in self._missing:
            a, b = max(low, first), min(high + 1, behind)
            if a >= b:
                missing.append((low, high))
                continue
            self.ready += zip(range(a, b), self._outcomes(number, piece, a, b), strict=True)
            if low < a:
                missing.append((low, a - 1))
            if b <= high:
                missing.append((b, high))
        self._missing = missing

    def _outcomes(self, number: int, piece: Piece, low: int, behind: int) -> list[Any]:
        if self._encoded:
            return _ends(number, piece, low, behind)
        if piece.state is State.SUCCEEDED:
            values = unpack(piece.values)[low - piece.first : behind - piece.first]
            return decoded(number, low, values, self._core)
        return [Failure(ended) for ended in _ends(number, piece, low, behind)]


def _ends(number: int, piece: Piece, low: int, behind: int) -> list[Ended]:
    """Return how these items of a piece have ended."""
    has_values = piece.state is State.SUCCEEDED
    values = unpack(piece.values) if has_values else [None] * piece.count
    return [
        Ended(item_of(number, n), piece.state, values[n - piece.first], piece.error, piece.cause)
        for n in range(low, behind)
    ]


class Failure:
    """In the place of a value: how the item has ended instead."""

    def __init__(self, ended: Ended) -> None:
        self.ended = ended

    def error(self) -> JobError:
        """Return the exception that says so."""
        return error_of(self.ended)


def decoded(number: int, first: int, values: list[bytes], core: Core[Any]) -> list[Any]:
    """Return the values of items, the first of which has this index."""
    if all(value[:1] in (b"j", b"J") for value in values):
        text = b",".join([value[1:] for value in values])
        return _decode_list(b"[" + text + b"]")
    blobs = core.files.blobs
    found = []
    for index, value in enumerate(values, first):
        ended = Ended(item_of(number, index), State.SUCCEEDED, value)
        try:
            refuse_gone(value, ended.id)
            found.append(value_of(ended, blobs))
        except Exception as error:  # noqa: BLE001  # this item's alone: whoever takes it is told
            found.append(Broken(error))
    return found


class Broken:
    """In the place of a value that cannot be read here."""

    def __init__(self, why: Exception) -> None:
        self._why = why

    def error(self) -> Exception:
        """Return why."""
        return self._why


FAILURES = frozenset((Failure, Broken))
"""What stands in the place of values that are none."""


def unsuccessful(number: int) -> Selector:
    """Select the items of an array that have ended without a result."""
    states = [state for state in State if state > State.SUCCEEDED]
    return Selector([(item_of(number, 0), item_of(number, LAST_INDEX))], states=states)
