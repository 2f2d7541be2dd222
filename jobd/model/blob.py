"""Large payloads are files, and this is what is said of them: where, under which name, whose.

A file's name tells its owner, so that a file without one can be found:

===========================  ========================================================
``a-KEY-INDEX``              what the client wrote before submit ``KEY`` (hex): the
                             arguments of its call number ``INDEX``, or a put value
``r-JOB-ATTEMPT-BOOT``       the result of an attempt, written by its worker
``i-JOB-ATTEMPT-SEQ``        an item of a stream, written by its worker
``s-SESSION``                empty and locked by a living client: its files whose
                             submits are not answered yet are in use
``….new``                    the same, while it is being written
===========================  ========================================================

In a message and in a job's row stands only a *reference*: the codec byte ``F``
and msgpack.
"""

import re
from typing import Literal

import msgspec

CODEC = b"F"
INLINE = b"B"
"""What a file holds, for who cannot map it: 4 bytes length, so many of the reference, the file's bytes."""

BY_VALUE = b"v"
"""A call of a function that travels by value: 4 bytes length, so many of the function, the call."""

FRESH = ".new"


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a daemon, its workers and its clients keep large payloads."""

    memory: str
    """A directory in memory, or "" where there is none."""
    disk: str
    kind: Literal["memory", "disk"]
    spill: bool
    """When the memory is full, go on on disk."""
    sync: bool
    """What is on disk has to survive a power cut."""
    max_bytes: int
    """The size of one file, at most."""
    row_bytes: int
    """What may stand in a row instead, at most."""

    @property
    def directories(self) -> tuple[str, str]:
        """All directories; a reference has the number of one of them."""
        return self.memory, self.disk


class Blob(msgspec.Struct, frozen=True, array_like=True):
    """A reference to a file."""

    directory: int
    name: str
    size: int
    text: str
    """What people are shown of the value."""
    is_json: bool = False
    """Whether that is JSON."""


class Owner(msgspec.Struct, frozen=True):
    """Whose a file is, by its name: a call of a submit, an attempt of a job, or an item of its stream."""

    key: bytes = b""
    index: int = 0
    job: int = 0
    attempt: int = 0
    seq: int = 0
    """The number of an item; 0: it is a result."""


_decode = msgspec.msgpack.Decoder(Blob).decode
# Compiled where they are used, which `re` remembers: most commands need neither.
_NAME = (
    r"a-(?P<key>[0-9a-f]{32})-(?P<index>\d{1,9})"
    r"|r-(?P<job>\d{1,19})-(?P<attempt>\d{1,9})-[0-9a-f]{1,16}"
    r"|i-(?P<stream>\d{1,19})-(?P<by>\d{1,9})-(?P<seq>\d{1,19})"
)
_SESSION = r"s-([0-9a-f]{16})"


def argument_name(key: bytes, index: int) -> str:
    """Return the name of the arguments of one call; ``key`` is its submit's, 16 bytes."""
    return f"a-{key.hex()}-{index}"


def result_name(job: int, attempt: int, boot: str) -> str:
    """Return the name of what an attempt returned."""
    return f"r-{job}-{attempt}-{boot}"


def item_name(job: int, attempt: int, seq: int) -> str:
    """Return the name of an item of a stream."""
    return f"i-{job}-{attempt}-{seq}"


def session_name(session: bytes) -> str:
    """Return the name of a client's mark; ``session`` are the first 8 bytes of its keys."""
    return f"s-{session.hex()}"


def owner_of(name: str) -> Owner | None:
    """Return whose file it is, finished or not; None: that is no payload of ours."""
    found = re.fullmatch(_NAME, name.removesuffix(FRESH), re.ASCII)
    if found is None:
        return None
    if found["key"]:
        return Owner(key=bytes.fromhex(found["key"]), index=int(found["index"]))
    if found["stream"]:
        numbers = [int(found[name]) for name in ("stream", "by", "seq")]
        return Owner(job=numbers[0], attempt=numbers[1], seq=numbers[2])
    return Owner(job=int(found["job"]), attempt=int(found["attempt"]))


def is_session(name: str) -> bool:
    """Whether this is a client's mark."""
    return re.fullmatch(_SESSION, name, re.ASCII) is not None


def reference_in(data: bytes | None) -> bytes:
    """Return the reference that a payload is, or that a call by value ends with; empty if there is none."""
    if data is None:
        return b""
    if data[:1] == BY_VALUE:
        data = data[5 + int.from_bytes(data[1:5], "big") :]
    return data if data[:1] == CODEC else b""


def pack(blob: Blob) -> bytes:
    """Turn a reference into what stands in place of the payload."""
    return CODEC + msgspec.msgpack.encode(blob)


def unpack(data: bytes) -> Blob:
    """Return the reference.

    Raises:
        ValueError: that is none, or one with a name that a payload never has.
    """
    if data[:1] != CODEC:
        raise ValueError("no reference to a file")
    blob = _decode(memoryview(data)[1:])
    if blob.directory not in (0, 1) or not re.fullmatch(_NAME, blob.name, re.ASCII):
        raise ValueError("not the name of a payload")
    return blob
