"""The value of an array: those of its items, in their order, as one list."""

from __future__ import annotations

import msgspec

from jobd.model.item import item_of, items_of
from jobd.model.job import EXPIRED, LIST, TAKEN, TOMBSTONES, Errors, Job
from jobd.model.messages import Piece
from jobd.model.states import NAMES, State
from jobd.model.stretch import pack, unpack
from jobd.store import Store


def array_value(store: Store, job: Job) -> bytes:
    """Return what an array that has succeeded hands on to jobs that have it as an argument.

    It is a tombstone where the value of an item is gone.
    """
    assert job.array is not None
    first, behind = items_of(job.id, job.array.items)
    values: list[bytes] = []
    while first < behind:
        pieces = store.arrays.ended(first, behind, 1 << 20, ordered=True)
        if not pieces:
            break
        for piece in pieces:
            number = item_of(job.id, piece.first)
            if piece.state is State.SUCCEEDED:
                found = unpack(piece.values)[max(0, first - number) :]
                gone = next(
                    (n for n, value in enumerate(found) if value.startswith(TOMBSTONES)), None
                )
                if gone is not None:
                    tombstone = TAKEN if found[gone].startswith(TAKEN) else EXPIRED
                    return b"%s %d" % (tombstone, max(first, number) + gone)
                values += found
            elif job.array.errors is Errors.KEEP:
                values += [_told(piece)] * piece.count
            first = number + piece.count
    return LIST + pack(values)


def _told(piece: Piece) -> bytes:
    """Return what stands in the place of an item that has not succeeded."""
    error = piece.error
    told = {
        "state": NAMES[piece.state],
        "type": error.type if error else "",
        "message": (error.message if error else "") or piece.cause,
    }
    return b"j" + msgspec.json.encode({"error": told})
