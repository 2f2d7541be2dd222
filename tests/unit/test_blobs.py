"""Files of large payloads: whole or not there, never changed, and never trusted blindly."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd import blobs as module
from jobd.blobs import MAP_BYTES, Blobs, Claim, remove_if_dead
from jobd.model import blob
from jobd.model.blob import Blob, Owner, Place
from jobd.model.errors import (
    DiskFull,
    PayloadLost,
    PayloadNotStored,
    PayloadTooLarge,
    PayloadUnreadable,
)

NAME = "r-7-1-abcd"
LARGE = bytes(range(256)) * (MAP_BYTES // 256)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return two directories."""
    for name in ("memory", "disk"):
        (tmp_path / name).mkdir()
    return Place(
        str(tmp_path / "memory"), str(tmp_path / "disk"), "memory", True, False, 2**30, 2**20
    )


def changed(place: Place, **fields: object) -> Blobs:
    """Return files under slightly different rules."""
    return Blobs(msgspec.structs.replace(place, **fields))


def test_what_was_written_is_read_back_piece_by_piece(place: Place) -> None:
    """The payload comes back in one piece, each buffer as it was, and the versions."""
    blobs = Blobs(place)
    reference = blobs.write(
        NAME, [b"pay", b"load"], [LARGE, b"", b"x" * 100], text="a thing", versions={"numpy": "2"}
    )
    content = blobs.read(reference)
    assert bytes(content.payload) == b"payload"
    assert content.buffers == [LARGE, b"", b"x" * 100]
    assert content.versions == {"numpy": "2"}
    assert blob.unpack(reference).text == "a thing"


@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    st.lists(st.binary(max_size=300), max_size=6),
)
def test_any_sizes_come_back(payload: list[bytes], buffers: list[bytes]) -> None:
    """No arrangement of sizes shifts a span."""
    pieces, size = module._pieces(payload, buffers, {})
    data = b"".join(pieces)
    assert len(data) == size
    content = module._parse(memoryview(data), size)
    assert bytes(content.payload) == b"".join(payload)
    assert content.buffers == buffers


def test_buffers_are_aligned(place: Place) -> None:
    """A buffer begins at a multiple of 64 bytes of the file, and so of memory."""
    blobs = Blobs(place)
    buffers = [b"a" * 65, b"b" * 64, b"c"]
    reference = blobs.write(NAME, [b"odd"], buffers)
    data = Path(place.memory, NAME).read_bytes()
    for buffer in buffers:
        assert data.index(buffer) % 64 == 0
    assert blobs.read(reference).buffers == buffers


def test_more_pieces_than_one_call_takes_are_all_written(place: Place) -> None:
    """Writev takes 1,024 pieces."""
    blobs = Blobs(place)
    buffers = [bytes([n % 256]) * (n % 7) for n in range(3000)]
    assert blobs.read(blobs.write(NAME, [b"p"], buffers)).buffers == buffers


def test_a_short_write_goes_on_where_it_stopped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may take less than it was given, in the middle of a piece."""
    real = os.writev

    def few(fd: int, pieces: list[memoryview]) -> int:
        return real(fd, [pieces[0][:1000]])

    monkeypatch.setattr(os, "writev", few)
    blobs = Blobs(place)
    reference = blobs.write(NAME, [b"payload"], [LARGE[:5000], b"tail"])
    assert blobs.read(reference).buffers == [LARGE[:5000], b"tail"]


@pytest.mark.parametrize("size", [10, MAP_BYTES])
def test_what_is_read_is_the_readers_own(place: Place, size: int) -> None:
    """Mapped or read: he may write to all of it, and neither the file nor another reader sees that."""
    blobs = Blobs(place)
    reference = blobs.write(NAME, [b"p"], [b"x" * size])
    stored = Path(place.memory, NAME).read_bytes()
    one, other = blobs.read(reference), blobs.read(reference)
    one.buffers[0][:] = b"y" * size
    one.payload[:] = b"q"
    assert other.buffers == blobs.read(reference).buffers == [b"x" * size]
    assert bytes(other.payload) == b"p"
    assert Path(place.memory, NAME).read_bytes() == stored
    other.buffers[0][0] = ord("z")
    assert bytes(one.buffers[0][:2]) == b"yy"


def test_where_private_memory_is_short_a_file_is_mapped_all_the_same(place: Place) -> None:
    """Read-only then: what is only read needs none."""
    reference = Blobs(place).write(NAME, [b"p"], [b"x" * (64 << 20)])
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(module.__file__).parents[1])!r})
from jobd.blobs import Blobs
from jobd.model.blob import Place
resource.setrlimit(resource.RLIMIT_DATA, (48 << 20, 48 << 20))
content = Blobs(Place(*{msgspec.structs.astuple(place)!r})).read({reference!r})
print(content.buffers[0].readonly, content.buffers[0].nbytes, content.buffers[0][-1:].tobytes())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout == f"True {64 << 20} b'x'\n", done.stderr


def test_a_mapping_outlives_its_file(place: Place) -> None:
    """Whoever has the value keeps it when the job's row goes."""
    blobs = Blobs(place)
    reference = blobs.write(NAME, [b"p"], [LARGE])
    content = blobs.read(reference)
    blobs.remove(reference)
    blobs.remove(reference)  # twice is no error
    assert content.buffers == [LARGE]
    assert os.listdir(place.memory) == []


def test_a_file_appears_whole_or_not_at_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is written it has another name, and a failure leaves none of the two."""
    seen: list[list[str]] = []

    def fail(*_: object) -> int:
        seen.append(os.listdir(place.disk))
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "writev", fail)
    with pytest.raises(PayloadNotStored, match="Input/output error"):
        changed(place, kind="disk").write(NAME, [b"p"], [])
    assert seen == [[NAME + blob.FRESH]]
    assert os.listdir(place.disk) == []


def test_what_does_not_fit_into_memory_spills_to_disk(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full memory is not an error where spilling is allowed."""
    monkeypatch.setattr(os, "writev", full_in(place.memory))
    blobs = Blobs(place)
    reference = blobs.write(NAME, [b"p"], [b"x"])
    assert os.listdir(place.memory) == []
    assert os.listdir(place.disk) == [NAME]
    assert blobs.read(reference).buffers == [b"x"]


def full_in(directory: str) -> Callable[[int, list[memoryview]], int]:
    """Return a ``writev`` that has no room in a directory."""
    real = os.writev

    def writev(fd: int, pieces: list[memoryview]) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(directory):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, pieces)

    return writev


def test_a_full_memory_is_a_clean_error_where_nothing_may_spill(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how much, where, and what to do; and leaves nothing behind."""
    monkeypatch.setattr(os, "writev", full_in(place.memory))
    with pytest.raises(DiskFull) as caught:
        changed(place, spill=False).write(NAME, [b"p"], [LARGE])
    assert place.memory in caught.value.message
    assert "payloads.spill" in caught.value.hint
    assert os.listdir(place.memory) == os.listdir(place.disk) == []


def test_a_full_disk_after_a_full_memory_is_a_clean_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last place decides."""
    monkeypatch.setattr(os, "writev", full_in(str(Path(place.disk).parent)))
    with pytest.raises(DiskFull, match="no room"):
        Blobs(place).write(NAME, [b"p"], [LARGE])
    assert os.listdir(place.memory) == os.listdir(place.disk) == []


def test_a_directory_in_memory_that_is_gone_spills_too(place: Place) -> None:
    """Somebody has removed it; the daemon will make it again."""
    os.rmdir(place.memory)
    Blobs(place).write(NAME, [b"p"], [])
    assert os.listdir(place.disk) == [NAME]


def test_the_machines_last_memory_is_not_taken(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system in memory may be larger than what there is: then the kernel would kill somebody."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 2000000 kB\nMemFree: 1 kB\nMemAvailable: 101000 kB\n")
    monkeypatch.setattr(module, "MEMINFO", str(meminfo))
    blobs = Blobs(place)
    blobs.write("r-1-1-ab", [b"p"], [bytes(1_020_000)])  # small: not looked at
    blobs.write("r-2-1-ab", [b"p"], [bytes(1024 * 1024)])
    assert os.listdir(place.disk) == ["r-2-1-ab"]
    with pytest.raises(DiskFull):
        changed(place, spill=False).write(NAME, [b"p"], [bytes(1024 * 1024)])
    meminfo.write_text("nothing of the sort")
    blobs.write("r-3-1-ab", [b"p"], [bytes(1024 * 1024)])
    assert sorted(os.listdir(place.memory)) == ["r-1-1-ab", "r-3-1-ab"]


def test_where_there_is_no_memory_the_disk_is_used(place: Place) -> None:
    """A machine without /dev/shm works all the same."""
    changed(place, memory="").write(NAME, [b"p"], [])
    assert os.listdir(place.disk) == [NAME]


def test_what_is_on_disk_is_synced_if_it_has_to_be(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file first, then the directory that names it; in memory there is nothing to sync."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    changed(place, sync=True).write(NAME, [b"p"], [])
    assert synced == []
    changed(place, sync=True, kind="disk").write(NAME, [b"p"], [])
    assert synced == [f"{place.disk}/{NAME}{blob.FRESH}", place.disk]


def test_more_than_the_limit_is_refused_before_anything_is_written(place: Place) -> None:
    """With the number, the limit and its name."""
    with pytest.raises(
        PayloadTooLarge, match=r"are over the limit of 1000 \(limits.max_blob_bytes\)"
    ):
        changed(place, max_bytes=1000).write(NAME, [b"p"], [b"x" * 1000])
    assert os.listdir(place.memory) == []


def test_a_file_that_is_gone_is_said_to_be_lost(place: Place) -> None:
    """Exit code 4, as for every result that is gone."""
    blobs = Blobs(place)
    reference = blobs.write(NAME, [b"p"], [])
    blobs.remove(reference)
    with pytest.raises(PayloadLost, match="is gone") as caught:
        blobs.read(reference)
    assert caught.value.code == 4
    assert "restart" in caught.value.hint


def spoil_truncate(path: Path) -> None:
    """Cut the end off."""
    os.truncate(path, path.stat().st_size - 1)


def spoil_foreign(path: Path) -> None:
    """Put something else of the same size there."""
    path.write_bytes(b"\x7fELF".ljust(path.stat().st_size, b"\0"))


def spoil_version(path: Path) -> None:
    """Let a later jobd have written it."""
    data = bytearray(path.read_bytes())
    data[8] = 99
    path.write_bytes(data)


def spoil_head(path: Path) -> None:
    """Garble the head."""
    data = bytearray(path.read_bytes())
    data[24:40] = b"\xff" * 16
    path.write_bytes(data)


def spoil_spans(path: Path) -> None:
    """Let the head name a span outside."""
    data = path.read_bytes()
    head = msgspec.msgpack.encode(module.Head([(0, 2**40)], {}))
    fresh = module._PREFIX.pack(module.MAGIC, module.VERSION, len(head), len(data)) + head
    path.write_bytes(fresh.ljust(len(data), b"\0"))


def spoil_directory(path: Path) -> None:
    """Put a directory there."""
    path.unlink()
    path.mkdir()


def spoil_fifo(path: Path) -> None:
    """Put a FIFO there, which a careless reader waits for."""
    path.unlink()
    os.mkfifo(path)


def spoil_link(path: Path) -> None:
    """Put a link to the file itself there."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("size", [10, MAP_BYTES])
@pytest.mark.parametrize(
    "spoil",
    [
        spoil_truncate,
        spoil_foreign,
        spoil_version,
        spoil_head,
        spoil_spans,
        spoil_directory,
        spoil_fifo,
        spoil_link,
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(
    place: Place, spoil: Callable[[Path], None], size: int
) -> None:
    """Never a SIGBUS, a crash, or bytes of something else."""
    blobs = Blobs(place)
    reference = blobs.write(NAME, [b"p"], [b"x" * size])
    spoil(Path(place.memory, NAME))
    with pytest.raises(PayloadUnreadable, match=NAME):
        blobs.read(reference)


@given(st.binary(max_size=60))
def test_no_bytes_crash_whoever_reads_a_reference(data: bytes) -> None:
    """A reference comes from a peer."""
    try:
        blob.unpack(blob.CODEC + data)
    except (ValueError, msgspec.MsgspecError):
        pass


@pytest.mark.parametrize(
    "name", ["../secret", "a-xyz-0", "r-7-1-abcd.new", "s-0011223344556677", "", "r-7-1-abcd\n"]
)
def test_a_reference_names_a_payload_and_nothing_else(place: Place, name: str) -> None:
    """Whatever a peer says, no other file is opened or removed."""
    reference = blob.pack(Blob(0, name, 10, ""))
    with pytest.raises(PayloadUnreadable, match="reference"):
        Blobs(place).read(reference)
    with pytest.raises(ValueError, match="name of a payload"):
        Blobs(place).remove(reference)


def test_a_name_tells_its_owner() -> None:
    """What was written for a submit, for an attempt, or by nobody that we know."""
    key = bytes(range(16))
    assert blob.owner_of(blob.argument_name(key, 3)) == Owner(key=key, index=3)
    assert blob.owner_of(blob.argument_name(key, 3) + ".new") == Owner(key=key, index=3)
    assert blob.owner_of(blob.result_name(7, 2, "0a1b")) == Owner(job=7, attempt=2)
    assert blob.owner_of(blob.item_name(7, 2, 9)) == Owner(job=7, attempt=2, seq=9)
    assert blob.owner_of("notes.txt") is None
    assert blob.is_session(blob.session_name(key[:8]))
    assert not blob.is_session("s-1")


def test_a_reference_says_what_people_are_shown_without_the_file(place: Place) -> None:
    """The daemon and the command line need not open it."""
    reference = Blobs(place).write(NAME, [b"p"], [], text="array([1])")
    assert blob.unpack(reference) == Blob(
        0, NAME, Path(place.memory, NAME).stat().st_size, "array([1])"
    )


def test_a_living_clients_mark_stays_and_a_dead_ones_goes(place: Place) -> None:
    """The kernel lets go of the lock with the process."""
    claim = Claim(place, bytes(8))
    (name,) = os.listdir(place.disk)
    path = os.path.join(place.disk, name)
    assert not remove_if_dead(path)
    assert claim.release.detach() is not None
    os.close(fd_of(path))  # as the kernel does at a process's end
    assert remove_if_dead(path)
    assert os.listdir(place.disk) == []
    assert remove_if_dead(path)


def fd_of(path: str) -> int:
    """Return the file descriptor under which this process has a file open."""
    (fd,) = [fd for fd in os.listdir("/proc/self/fd") if _opened(fd) == path]
    return int(fd)


def _opened(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""  # that of the listing itself


def test_a_mark_that_is_released_is_gone(place: Place) -> None:
    """A client that ends in order leaves nothing."""
    Claim(place, bytes(8)).release()
    assert os.listdir(place.disk) == []


def test_a_mark_is_set_again_when_a_sweep_was_faster(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the making of the file and its lock a sweep may have removed it."""
    real, swept = fcntl.flock, threading.Event()

    def flock(fd: int, how: int) -> None:
        if not swept.is_set():
            swept.set()
            os.unlink(os.path.join(place.disk, os.listdir(place.disk)[0]))
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    claim = Claim(place, bytes(8))
    assert os.listdir(place.disk) == [blob.session_name(bytes(8))]
    claim.release()
