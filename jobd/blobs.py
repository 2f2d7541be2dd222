"""Files of large payloads: written once, mapped by everybody who reads them, and never changed.

A file holds an encoded payload (``jobd.payload`` knows what it says) and its
*buffers*, the large blocks of memory that a pickle was told to leave out::

    8 bytes  magic
    u32      the version of this format
    u32      how many bytes the head has
    u64      how many bytes the file has
    head     msgpack: spans (offset, size), the payload's first, and versions of modules
    ...      what the spans tell, each aligned to 64 bytes

It is written with ``writev`` from where the bytes are, under another name, and
renamed: a reader sees all of it or nothing.  Measured on tmpfs with 100 MB:
``writev`` 38 ms, the same through a mapping 138 ms (a fault for each page, which
is cleared before it is overwritten), ``fallocate`` and then writing 53 ms, two
threads no faster than one.  Writing over the pages of an old file takes 18 ms, but
nobody can tell whether a reader still maps it.

A reader maps it, in 0.02 ms whatever its size, and gets views of the mapping, which
keep it for as long as they live, though the file may be gone by then.  The mapping is
private and writable: a page that the reader writes to becomes a copy of his own, and
neither the file nor another reader sees it.  Read-only views would be no cheaper, and
much code writes to its arguments; in C it often does so without asking, and dies of it.
Only pages that are written to take memory, but some kernels (``vm.overcommit_memory=2``)
and limits (RLIMIT_DATA) count all of them.  Where that is refused, the mapping is
read-only, as most arguments are only read.  No ``MAP_POPULATE``: it takes 8 ms for 100 MB
before anything is read, and saves no more than that later.  Small files are read
instead: a mapping costs a file descriptor.  A file that has not the size that it tells is
refused, for to read beyond the end of a mapped file is a SIGBUS.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
import weakref
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from jobd.model.blob import FRESH, INLINE, Blob, Place, pack, session_name, unpack
from jobd.model.errors import (
    DiskFull,
    JobdError,
    PayloadLost,
    PayloadNotStored,
    PayloadTooLarge,
    PayloadUnreadable,
)

Buffer = bytes | bytearray | memoryview

MAGIC = b"jobdblob"
VERSION = 1
_PREFIX = struct.Struct("<8sIIQ")
ALIGN = 64
"""A cache line, and what vector instructions want."""

MAP_BYTES = 256 * 1024
"""From this size on a file is mapped, not read."""

SHM = "/dev/shm"  # noqa: S108  # in it the directory is ours alone, or is not used
IOV_MAX = 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_SPILLS = (*_NO_ROOM, errno.ENOENT)
"""Also where somebody has removed the directory; the daemon will make it again."""

MEMINFO = "/proc/meminfo"
RESERVE = 20
"""One part in so many of the machine's memory is left free: /dev/shm may be as large as all of it."""

LARGE_BYTES = 1024 * 1024
"""A file under this size is not worth a look at how much memory there is."""

make_room: Callable[[int], None] | None = None
"""Set while this process's private memory is limited: called with the size of each file before it is
mapped, as the kernel counts all of a mapping that may be written to, though hardly any of it is."""


class Head(msgspec.Struct, array_like=True):
    """What a file tells of itself."""

    spans: list[tuple[int, int]]
    """(offset, size) of the payload and of each buffer; offsets count from the first multiple of
    ``ALIGN`` after the head."""
    versions: dict[str, str]
    """The modules whose objects own the buffers, and their versions."""


class Content(msgspec.Struct):
    """What a file holds."""

    payload: memoryview
    buffers: list[memoryview]
    versions: dict[str, str]


_decode_head = msgspec.msgpack.Decoder(Head).decode
_encode_head = msgspec.msgpack.Encoder().encode


class Blobs:
    """The files of one daemon's payloads, as a process sees them that writes or reads some."""

    def __init__(self, place: Place) -> None:
        self.place = place

    # -- writing --

    def write(
        self,
        name: str,
        payload: Sequence[Buffer],
        buffers: Sequence[Buffer],
        *,
        text: str = "",
        is_json: bool = False,
        versions: dict[str, str] | None = None,
    ) -> bytes:
        """Store a payload (in pieces that follow on each other) and its buffers; return the reference.

        ``text`` is what people are shown of it: JSON, or its repr.

        Raises:
            PayloadTooLarge: it has more bytes than the settings allow.
            DiskFull: there is no room for it.
            PayloadNotStored: it cannot be written.
        """
        pieces, size = _pieces(payload, buffers, versions or {})
        place = self.place
        if size > place.max_bytes:
            raise PayloadTooLarge(
                f"{size} bytes are over the limit of {place.max_bytes} (limits.max_blob_bytes)",
                "pass the name of a file, or raise the limit",
            )
        in_memory = place.kind == "memory" and place.memory != ""
        numbers = [0, 1] if in_memory and place.spill else [0] if in_memory else [1]
        for number in numbers:
            directory = place.directories[number]
            try:
                if number == 0 and size >= LARGE_BYTES:
                    _refuse_last_memory(size)
                _write(directory, name, pieces, size, sync=place.sync and number == 1)
            except OSError as error:
                if error.errno in _SPILLS and number != numbers[-1]:
                    continue
                raise _not_written(directory, size, error, spills=number == 1) from error
            return pack(Blob(number, name, size, text, is_json))
        raise AssertionError("the last directory is written or raises")

    # -- reading --

    def read(self, reference: bytes) -> Content:
        """Return what a reference refers to, as views that belong to the caller alone.

        Raises:
            PayloadLost: there is no such file any more.
            PayloadUnreadable: what is there cannot be read, or is damaged.
        """
        try:
            blob = unpack(reference)
        except (ValueError, msgspec.MsgspecError) as error:
            raise PayloadUnreadable(f"a reference to a large payload is damaged: {error}") from None
        path = os.path.join(self.place.directories[blob.directory], blob.name)
        try:
            data = _load(path, blob.size)
        except FileNotFoundError:
            raise PayloadLost(
                f"the file {path} of a large payload is gone",
                "files in memory do not survive a restart of the machine; submit the job again"
                if blob.directory == 0
                else "submit the job again",
            ) from None
        except OSError as error:
            why = error.strerror or str(error)
            raise PayloadUnreadable(
                f"the file {path} of a large payload cannot be read: {why}",
                "let go of some results, or raise 'ulimit -n'"
                if error.errno in (errno.EMFILE, errno.ENFILE)
                else "submit the job again",
            ) from error
        except _Damaged as damage:
            raise PayloadUnreadable(
                f"the file {path} of a large payload is damaged: {damage}", "submit the job again"
            ) from None
        return data

    def remove(self, reference: bytes) -> None:
        """Remove the file, if it is still there."""
        blob = unpack(reference)
        unlink(os.path.join(self.place.directories[blob.directory], blob.name))


def inlined(place: Place, reference: bytes) -> bytes:
    """Return what stands in place of a reference for who cannot map the file.

    Raises:
        PayloadLost, PayloadUnreadable: as for ``Blobs.read``.
    """
    blob = unpack(reference)
    content = Blobs(place).read(reference)  # which makes sure that it is whole
    whole = content.payload.obj
    head = INLINE + len(reference).to_bytes(4, "big") + reference
    return b"".join((head, memoryview(whole)[: blob.size]))


def unfolded(data: bytes) -> Content:
    """Return what a payload that came in line holds, as views of a copy that belongs to the caller.

    Raises:
        PayloadUnreadable: it is damaged.
    """
    start = 5 + int.from_bytes(data[1:5], "big")
    copied = bytearray(memoryview(data)[start:])
    try:
        return _parse(memoryview(copied), len(copied))
    except _Damaged as damage:
        raise PayloadUnreadable(f"a large payload is damaged: {damage}", "fetch it again") from None


class Spot:
    """Where one payload goes if it is too large for a row: a name among the files.

    Every result gets one, and hardly any needs it: the name is made when it is asked for.
    """

    __slots__ = ("_make_name", "_parts", "blobs")

    def __init__(self, blobs: Blobs, name: Callable[..., str], *parts: object) -> None:
        self.blobs = blobs
        self._make_name = name
        self._parts = parts

    @property
    def name(self) -> str:
        """The name of its file."""
        return self._make_name(*self._parts)

    @property
    def row_bytes(self) -> int:
        """What a row takes, at most."""
        return self.blobs.place.row_bytes

    def write(
        self,
        payload: Sequence[Buffer],
        buffers: Sequence[Buffer],
        *,
        text: str = "",
        is_json: bool = False,
        versions: dict[str, str] | None = None,
    ) -> bytes:
        """Store the payload there; as ``Blobs.write``."""
        return self.blobs.write(
            self.name, payload, buffers, text=text, is_json=is_json, versions=versions
        )


MARK = ".owner"
"""What the name of the file ends with that lies beside a directory in memory and tells whose that is."""


def memory_directory(state_dir: str) -> str:
    """Return where in memory the payloads of the daemon with this state directory are."""
    import hashlib  # noqa: PLC0415  # a millisecond that only a daemon has to pay

    digest = hashlib.sha256(os.fsencode(os.path.realpath(state_dir))).hexdigest()[:16]
    return f"{SHM}/jobd-{os.geteuid()}/{digest}"


def remove_memory(state_dir: str) -> None:
    """Remove whatever a daemon that is gone, and its state directory too, has left in memory."""
    import shutil  # noqa: PLC0415  # as above

    directory = memory_directory(state_dir)
    shutil.rmtree(directory, ignore_errors=True)
    unlink(directory + MARK)


def unlink(path: str) -> None:
    """Remove a file; one that is gone already, or cannot be removed, is left to the daemon's sweep."""
    try:
        os.unlink(path)
    except OSError:
        pass


class Claim:
    """A client's mark: while its process lives, no file of its submits is removed as ownerless."""

    def __init__(self, place: Place, session: bytes) -> None:
        """Set the mark; raises PayloadNotStored."""
        self._path = os.path.join(place.disk, session_name(session))
        try:
            fd = self._take()
        except OSError as error:
            raise PayloadNotStored(
                f"cannot write to {place.disk}: {error.strerror}",
                "may this user write to the daemon's state directory?",
            ) from error
        self.release = weakref.finalize(self, _release, self._path, fd, os.getpid())
        """Take the mark away; done at the end of this object or process too."""

    def _take(self) -> int:
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                if os.fstat(fd).st_nlink:
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # a sweep removed it between the two calls


def _release(path: str, fd: int, pid: int) -> None:
    if os.getpid() == pid:  # in a forked child it is still the parent's
        unlink(path)
    os.close(fd)


def remove_if_dead(path: str) -> bool:
    """Remove a client's mark if that client lives no more; return whether it does not."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlink(path)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


# -- writing ------------------------------------------------------------------


def _pieces(
    payload: Sequence[Buffer], buffers: Sequence[Buffer], versions: dict[str, str]
) -> tuple[list[Buffer], int]:
    """Return what a file consists of, from its first byte to its last, and its size."""
    sizes = [sum(map(_size, payload)), *map(_size, buffers)]
    spans, offset = [], 0
    for size in sizes:
        spans.append((offset, size))
        offset = _aligned(offset + size)
    head = _encode_head(Head(spans, versions))
    start = _aligned(_PREFIX.size + len(head))
    total = start + sum(spans[-1])
    first = (_PREFIX.pack(MAGIC, VERSION, len(head), total) + head).ljust(start, b"\0")
    pieces: list[Buffer] = [first, *payload]
    for (before, after), buffer in zip(pairwise(spans), buffers, strict=True):
        pieces += [bytes(after[0] - sum(before)), buffer]
    return pieces, total


def _size(piece: Buffer) -> int:
    return memoryview(piece).nbytes


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


def _refuse_last_memory(size: int) -> None:
    """Raise ENOSPC if so many bytes would take the memory that the machine needs to go on."""
    try:
        with open(MEMINFO, "rb") as file:
            lines = dict(line.split(b":", 1) for line in file)
        total, free = (int(lines[key].split()[0]) * 1024 for key in (b"MemTotal", b"MemAvailable"))
    except (OSError, ValueError, KeyError):
        return  # then it is only the file system that says no
    if free - size < total // RESERVE:
        raise _no_room()


def _no_room() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write(directory: str, name: str, pieces: list[Buffer], size: int, *, sync: bool) -> None:
    """Write a file and give it its name."""
    room = os.statvfs(directory)
    if room.f_blocks and room.f_bavail * room.f_frsize < size:
        raise _no_room()  # without having tried for seconds
    path = os.path.join(directory, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path + FRESH, flags, 0o600)
    try:
        try:
            if os.geteuid() == 0:
                owner = os.stat(directory)
                os.fchown(
                    fd, owner.st_uid, owner.st_gid
                )  # so that the daemon's workers can read it
            _write_all(fd, pieces)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(path + FRESH, path)
    except BaseException:
        unlink(path + FRESH)
        raise
    if sync:
        _sync_directory(directory)


def _write_all(fd: int, pieces: list[Buffer]) -> None:
    left = [memoryview(piece) for piece in pieces if _size(piece)]
    while left:
        written = os.writev(fd, left[:IOV_MAX])
        while left and written >= left[0].nbytes:
            written -= left.pop(0).nbytes
        if written:
            left[0] = left[0][written:]


def _sync_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _not_written(directory: str, size: int, error: OSError, *, spills: bool) -> JobdError:
    if error.errno in _NO_ROOM:
        hint = "free some space" if spills else "free some memory, or set payloads.spill"
        return DiskFull(f"there is no room for {size} bytes in {directory}", hint)
    return PayloadNotStored(
        f"{size} bytes cannot be written to {directory}: {error.strerror}",
        "may this user write there?",
    )


# -- reading ------------------------------------------------------------------


class _Damaged(Exception):
    """This is no file of ours, or not all of it."""


def _load(path: str, size: int) -> Content:
    """Return a file's content; raises OSError or _Damaged."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would wait
    fd = os.open(path, flags)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _Damaged("it is not a file")
        if found.st_size != size:
            raise _Damaged(f"it has {found.st_size} bytes, and should have {size}")
        data = _mapped(fd, size) if size >= MAP_BYTES else _read(fd, size)
    finally:
        os.close(fd)
    return _parse(data, size)


def _read(fd: int, size: int) -> memoryview:
    data = bytearray(size)
    return memoryview(data)[: os.readv(fd, [data])]


def _mapped(fd: int, size: int) -> memoryview:
    import mmap  # noqa: PLC0415  # half a millisecond that a small command must not pay

    # Where Python lets us, without the file descriptor that a mapping would keep.
    options: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    if make_room is not None:
        make_room(size)
    # Where Python knows it: a file may be larger than all memory.
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        found = mmap.mmap(fd, size, flags, mmap.PROT_READ | mmap.PROT_WRITE, **options)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        found = mmap.mmap(fd, size, flags, mmap.PROT_READ, **options)
    return memoryview(found)


def _parse(data: memoryview, size: int) -> Content:
    if len(data) < _PREFIX.size:
        raise _Damaged(f"it has {len(data)} bytes only")
    magic, version, head_size, total = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise _Damaged("it is no payload of jobd")
    if version != VERSION:
        raise _Damaged(f"its format has version {version}, and this jobd knows {VERSION}")
    if total != size or len(data) != size or _PREFIX.size + head_size > size:
        raise _Damaged("it tells another size than it has")
    try:
        head = _decode_head(data[_PREFIX.size : _PREFIX.size + head_size])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _Damaged(f"its head makes no sense: {error}") from None
    start = _aligned(_PREFIX.size + head_size)
    views = [_span(data, start + offset, length) for offset, length in head.spans]
    if not views:
        raise _Damaged("it holds nothing")
    return Content(views[0], views[1:], head.versions)


def _span(data: memoryview, start: int, length: int) -> memoryview:
    if start < 0 or length < 0 or start + length > len(data):
        raise _Damaged("a part of it lies outside")
    return data[start : start + length]
