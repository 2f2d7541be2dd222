"""Several values in one: the calls of an array's items, and what these have returned.

A *chunk* of calls begins with a byte that says how they are encoded: ``j`` or ``J``, and one JSON array of
arrays of positional arguments follows (``jobd.payload`` says what the two letters mean of a single call),
or ``m``, and a MessagePack array of calls that are encoded one by one.  JSON in one piece costs a
fraction of what as many pieces cost, to whoever writes it and to whoever reads it.
"""

from functools import lru_cache

import msgspec

pack = msgspec.msgpack.Encoder().encode
"""Make one of encoded values, each bytes."""

unpack = msgspec.msgpack.Decoder(list[bytes]).decode
"""Return them; raises ``msgspec.MsgspecError`` if it is none."""

_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode

_JSON = (b"j", b"J")


def mixed(calls: list[bytes]) -> bytes:
    """Return a chunk of calls that are encoded one by one."""
    return b"m" + pack(calls)


@lru_cache(maxsize=16)
def calls_in(chunk: bytes) -> list[bytes]:
    """Return the calls of a chunk, each encoded by itself; the list is not the caller's to change.

    Raises:
        msgspec.MsgspecError: it is no chunk.
    """
    kind = chunk[:1]
    if kind in _JSON:
        return [b"%s[%s,{}]" % (kind, each) for each in _raw(memoryview(chunk)[1:])]
    return unpack(memoryview(chunk)[1:])


def count_in(chunk: bytes) -> int:
    """Return how many calls a chunk has; raises as ``calls_in``."""
    if chunk[:1] in _JSON:
        return len(_raw(memoryview(chunk)[1:]))
    return len(unpack(memoryview(chunk)[1:]))


def is_plain(chunk: bytes) -> bool:
    """Whether all calls of a chunk are JSON, together."""
    return chunk[:1] in _JSON


class Stretch(msgspec.Struct, gc=False):
    """Items of an array that follow on each other, none of which has started or has a row."""

    first: int
    """The number of the first one."""
    count: int
    chunk: bytes
    """In which their calls are, ..."""
    at: int = 0
    """... from this place on."""

    @property
    def behind(self) -> int:
        """The number of the first item behind them."""
        return self.first + self.count

    def part(self, first: int, behind: int) -> "Stretch":
        """Return those of them from one number on, up to another."""
        return Stretch(first, behind - first, self.chunk, self.at + first - self.first)

    def call(self) -> bytes:
        """Return the call of the first one, encoded by itself."""
        return calls_in(self.chunk)[self.at]
