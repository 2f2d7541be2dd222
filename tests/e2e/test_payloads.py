"""Large arguments and results travel as files: stored once, never changed, removed when nobody needs them."""

from __future__ import annotations

import asyncio
import operator
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import DaemonUnderTest, eventually

import jobd
from jobd.blobs import memory_directory
from jobd.client import Client
from jobd.model.errors import (
    AlreadyTaken,
    BadFunction,
    DiskFull,
    JobFailed,
    PayloadLost,
    PayloadTooLarge,
    PayloadUnreadable,
    UsageError,
)
from jobd.model.selector import one

MIB = 1024 * 1024
SIZE = 4 * MIB
ARRAY = np.arange(SIZE // 8, dtype=np.int64)
TOTAL = int(ARRAY.sum())

Make = Callable[..., DaemonUnderTest]


def files(daemon: DaemonUnderTest) -> list[str]:
    """Return the paths of all files of payloads."""
    places = (memory_directory(str(daemon.state_dir)), str(daemon.state_dir / "blobs"))
    return [
        str(path)
        for place in map(Path, places)
        for path in place.iterdir()
        if not path.name.startswith("s-")
    ]


def memory_of(pid: int) -> int:
    """Return the memory of a process that no file backs, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


# -- once, and nobody writes to it ------------------------------------------------------


def test_an_array_handed_to_four_jobs_is_stored_once(daemon: DaemonUnderTest) -> None:
    """``put`` stores it, and each job maps what is there."""
    client = daemon.client()
    array = client.put(ARRAY)
    jobs = [client.submit("arrays:total", array) for _ in range(4)]
    assert [job.result(20) for job in jobs] == [TOTAL] * 4
    assert len(files(daemon)) == 1
    assert (array.result(20) == ARRAY).all()
    assert array.state == "succeeded"


def test_what_is_put_can_be_had_by_somebody_else(daemon: DaemonUnderTest) -> None:
    """It is a job like any other that has succeeded: large or small, its value is the daemon's."""
    with Client(daemon.socket) as client:
        large, small = client.put(ARRAY).id, client.put({"a": 1}).id
    other = daemon.client()
    assert (other.result(large, 20) == ARRAY).all()
    assert other.result(small, 20) == {"a": 1}
    (info,) = other.find(one(small))
    assert info.function == "jobd:put"
    daemon.kill()
    daemon.start()
    assert daemon.client().result(small, 20) == {"a": 1}
    assert (daemon.client().result(large, 20) == ARRAY).all()


def test_a_result_that_is_passed_on_moves_a_reference(daemon: DaemonUnderTest) -> None:
    """The first job's file is what the next ones map; nothing is copied."""
    client = daemon.client()
    made = client.submit("arrays:make", SIZE)
    jobs = [client.submit("arrays:total", made) for _ in range(3)]
    assert [job.result(20) for job in jobs] == [TOTAL] * 3
    (path,) = files(daemon)
    assert Path(path).name.startswith(f"r-{made.id}-1-")


def test_what_one_writes_into_nobody_else_sees(daemon: DaemonUnderTest) -> None:
    """In the jobs that get it, at each attempt, and in the client that gets it back."""
    client = daemon.client()
    value = client.put(ARRAY)
    jobs = [client.submit("arrays:scribble", value) for _ in range(3)]
    assert [job.result(20) for job in jobs] == [(0, -TOTAL)] * 3
    found, again = value.result(20), daemon.client().result(value.id, 20)
    found[:] = 0
    assert (again == ARRAY).all()
    assert client.submit("arrays:total", value).result(20) == TOTAL
    back = client.submit("arrays:doubled", ARRAY).result(20)
    back -= ARRAY
    assert (back == ARRAY).all()


def test_what_is_mapped_does_not_count_as_a_jobs_own_memory(make_daemon: Make) -> None:
    """With a limit under the argument's size it may be read and changed; what the job adds is limited."""
    daemon = make_daemon(pool__workers=1, pool__cgroup="off").write_jobs().start()
    client = daemon.client()
    limited = client.options(mem="400M")
    large = client.put(np.ones(500_000_000, np.uint8))
    assert limited.submit("arrays:total", large).result(30) == 500_000_000
    assert limited.submit("arrays:scribble", large).result(30)[0] == 1
    with pytest.raises(JobFailed, match="MemoryError"):
        limited.submit("arrays:more", large, 500_000_000).result(30)
    assert client.submit("arrays:more", large, 500_000_000).result(30) == 500_000_000


def test_asyncio_and_the_executor_do_the_same(daemon: DaemonUnderTest) -> None:
    """Files go both ways, and a value that is put there is stored once too."""

    async def run() -> None:
        async with jobd.AsyncClient(daemon.socket) as client:
            value = client.put(ARRAY)
            totals = [client.submit("arrays:total", value) for _ in range(2)]
            assert [await total for total in totals] == [TOTAL] * 2
            assert len(files(daemon)) == 1
            found = await client.submit("arrays:doubled", ARRAY)
            assert (found == 2 * ARRAY).all()

    asyncio.run(run())
    with jobd.Executor(socket=daemon.socket) as executor:
        found = executor.submit(operator.neg, ARRAY).result(20)
        assert (found == -ARRAY).all()
        found[0] = 1


def test_the_daemons_memory_does_not_see_payloads(daemon: DaemonUnderTest) -> None:
    """A hundred and fifty megabytes pass, and it has not grown by five."""
    client = daemon.client()
    client.submit("arrays:echo", ARRAY).result(20)
    before = memory_of(daemon.pid)
    for _ in range(4):
        job = client.submit("arrays:echo", np.ones(20 * MIB // 8))
        assert job.result(20).sum() == 20 * MIB // 8
    assert memory_of(daemon.pid) - before < 5 * MIB


def test_the_command_line_shows_what_is_in_a_file(daemon: DaemonUnderTest) -> None:
    """Its repr, which it need not open the file for; and a job's call without its arguments."""
    number = daemon.client().submit("arrays:echo", ARRAY).id
    shown = daemon.cli("result", "--wait", str(number))
    assert shown.returncode == 0
    assert shown.stdout.startswith("array([")
    assert "arrays:echo(…)" in daemon.cli("show", str(number)).stdout


# -- whose a file is ----------------------------------------------------------


def test_arguments_go_when_their_job_has_succeeded(daemon: DaemonUnderTest) -> None:
    """A call consumes them; a job that failed keeps them, for it may be retried."""
    client = daemon.client()
    gate = daemon.root / "gate"
    job = client.submit("arrays:fail_unless", ARRAY, str(gate))
    with pytest.raises(JobFailed):
        job.result(20)
    assert len(files(daemon)) == 1
    gate.touch()
    assert client.retry(one(job.id)) == [(job.id, "queued again")]
    assert client.attach(job.id).result(20) == len(ARRAY)
    eventually(lambda: not files(daemon))


def test_a_value_that_is_taken_takes_its_file_with_it(daemon: DaemonUnderTest) -> None:
    """Whoever has it in hand keeps it: what is mapped outlives its name."""
    client = daemon.client()
    for deferred in (client.put(ARRAY), client.submit("arrays:make", SIZE)):
        kept = deferred.result(20)
        taken = client.take(deferred.id, 20)
        eventually(lambda: not files(daemon))
        assert (kept == ARRAY).all()
        assert (taken == ARRAY).all()
        with pytest.raises(AlreadyTaken):
            daemon.client().result(deferred.id, 20)


def test_many_calls_of_one_submit_have_a_file_each(daemon: DaemonUnderTest) -> None:
    """Named after the submit's key and the call's index."""
    client = daemon.client()
    arrays = [np.full(SIZE // 64, n) for n in range(4)]
    assert list(client.map("arrays:total", arrays)) == [n * SIZE // 64 for n in range(4)]
    eventually(lambda: not files(daemon))


def test_a_refused_submit_leaves_no_file(daemon: DaemonUnderTest) -> None:
    """The client takes back what it has written."""
    client = daemon.client()
    with pytest.raises(BadFunction):
        client.submit("arrays:no_such_function", ARRAY).result(20)
    assert files(daemon) == []
    with pytest.raises(UsageError, match="cannot travel"):
        client.submit_many("arrays:total", [(ARRAY,), (threading.Lock(),)])
    assert files(daemon) == []


def test_a_client_that_ends_leaves_no_mark(daemon: DaemonUnderTest) -> None:
    """It marks that it lives as long as its files are not a job's."""
    with Client(daemon.socket) as client:
        client.submit("arrays:total", ARRAY).result(20)
        assert marks(daemon)
    assert not marks(daemon)


def marks(daemon: DaemonUnderTest) -> list[Path]:
    """Return the marks of living clients."""
    return list((daemon.state_dir / "blobs").glob("s-*"))


VICTIM = """
import os, signal, sys
import numpy as np
from jobd.client import Client
client = Client(sys.argv[1])
draft = client._core.files.draft()
from jobd.payload import encode_call
encode_call((np.zeros(1_000_000),), {}, spot=draft.spot(0))
print("written", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_of_everything_leaves_no_file_without_an_owner(make_daemon: Make) -> None:
    """A client between file and submit, a worker between file and outcome, then the daemon itself."""
    daemon = make_daemon(jobs__max_crashes=1).start(failpoint="job.ended:kill")
    client = daemon.client()
    kept = client.put(ARRAY).id
    crashed = client.submit("arrays:make", SIZE).id  # its workers die after they have written
    eventually(lambda: client.find(one(crashed))[0].state == 12)
    victim = subprocess.run(
        [sys.executable, "-P", "-c", VICTIM, daemon.socket],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (victim.stdout, victim.returncode) == ("written\n", -signal.SIGKILL)
    Path(memory_directory(str(daemon.state_dir)), "r-99-1-ab.new").write_bytes(b"half of it")
    assert len(files(daemon)) == 5
    daemon.kill()
    for pid in daemon.processes():
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not daemon.processes())
    daemon.start()
    eventually(lambda: len(files(daemon)) == 1)
    assert (daemon.client().result(kept, 20) == ARRAY).all()
    assert len(marks(daemon)) == 1  # of the client that lives


def test_a_daemon_that_is_killed_loses_no_file(make_daemon: Make) -> None:
    """A running job's arguments, its result, and what a client has written meanwhile."""
    daemon = make_daemon().start()
    client = daemon.client()
    gate = daemon.root / "gate"
    running = client.submit("arrays:make_and_wait", SIZE, str(gate))
    done = client.submit("arrays:make", SIZE)
    assert running.id
    done.result(20)
    daemon.kill()
    late = eventually(lambda: write_without_a_daemon(client))
    daemon.start()
    eventually(lambda: "took over" in daemon.log)
    gate.touch()
    assert (running.result(20) == ARRAY).all()
    assert (daemon.client().result(done.id, 20) == ARRAY).all()
    assert os.path.exists(late)


def write_without_a_daemon(client: Client) -> str:
    """Write the arguments of a submit that is never made; return the file's path."""
    draft = client._core.files.draft()
    assert draft is not None
    draft.spot(0).write([b"p"], [b"x" * 100_000])
    blobs = client._core.files.blobs
    assert blobs is not None
    return os.path.join(blobs.place.memory, f"a-{draft.key.hex()}-0")


def test_on_disk_files_are_where_the_jobs_are(make_daemon: Make) -> None:
    """``payloads.place = "disk"``: nothing in memory, and all survives."""
    daemon = make_daemon(payloads__place="disk").start()
    client = daemon.client()
    number = client.submit("arrays:echo", ARRAY).id
    client.wait([number], 20)
    assert all(path.startswith(str(daemon.state_dir)) for path in files(daemon))
    assert daemon.terminate() == 0
    assert not os.path.exists(memory_directory(str(daemon.state_dir)))
    daemon.start()
    assert (daemon.client().result(number, 20) == ARRAY).all()


def test_what_a_deleted_state_directory_has_left_in_memory_goes_with_the_next_start(
    make_daemon: Make,
) -> None:
    """Of any daemon of the user."""
    lost, other = make_daemon(pool__orphan_s=0.1), make_daemon()
    client = lost.start().client()
    number = client.submit("arrays:echo", ARRAY).id
    client.wait([number], 20)
    directory = Path(memory_directory(str(lost.state_dir)))
    lost.kill()
    eventually(lambda: not lost.processes())
    shutil.rmtree(lost.state_dir)
    assert any(directory.iterdir())
    other.start()
    assert not directory.exists()


def test_a_start_that_is_refused_leaves_nothing_in_memory(make_daemon: Make) -> None:
    """Its database is none."""
    daemon = make_daemon()
    daemon.state_dir.mkdir(mode=0o700)
    (daemon.state_dir / "jobd.db").write_bytes(b"this is no database" * 100)
    daemon.start(wait=False)
    assert daemon.wait() == 78
    assert not os.path.exists(memory_directory(str(daemon.state_dir)))


# -- what goes wrong ----------------------------------------------------------


@contextmanager
def small_memory(daemon: DaemonUnderTest) -> Iterator[str]:
    """Give a daemon that is not started yet two megabytes for its payloads."""
    directory = memory_directory(str(daemon.state_dir))
    os.makedirs(directory, mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", directory]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_a_full_memory_is_a_clean_error_where_nothing_may_spill(make_daemon: Make) -> None:
    """At the submit, and as the end of the job whose result has no room; both say what to do."""
    daemon = make_daemon(payloads__spill="false")
    with small_memory(daemon) as directory:
        client = daemon.start().client()
        with pytest.raises(DiskFull, match="no room for") as full:
            client.submit("arrays:total", ARRAY)
        assert directory in full.value.message
        assert "payloads.spill" in full.value.hint
        with pytest.raises(JobFailed, match="its result cannot be stored") as failed:
            client.submit("arrays:make", SIZE).result(20)
        assert failed.value.type.endswith("ResultNotStored")
        assert files(daemon) == []
        fitting = client.submit("arrays:echo", ARRAY[: MIB // 8 // 2])
        assert len(fitting.result(20)) == MIB // 8 // 2
        trouble = eventually(lambda: client.status().trouble)
        assert any("hardly any room for large payloads" in sentence for sentence in trouble)
        assert daemon.terminate() == 0


def test_a_full_memory_spills_to_disk_where_it_may(make_daemon: Make) -> None:
    """Arguments and results find their way all the same."""
    daemon = make_daemon()
    with small_memory(daemon):
        client = daemon.start().client()
        assert (client.submit("arrays:echo", ARRAY).result(20) == ARRAY).all()
        assert all(path.startswith(str(daemon.state_dir)) for path in files(daemon))
        assert daemon.terminate() == 0


def test_a_result_over_the_limit_is_a_failed_job_that_says_so(make_daemon: Make) -> None:
    """And arguments over it are refused before they are sent."""
    daemon = make_daemon(limits__max_blob_bytes=MIB).start()
    client = daemon.client()
    with pytest.raises(
        JobFailed, match=r"over the limit of 1048576 \(limits.max_blob_bytes\)"
    ) as e:
        client.submit("arrays:make", SIZE).result(20)
    assert e.value.type.endswith("ResultTooLarge")
    with pytest.raises(PayloadTooLarge, match=r"limits.max_blob_bytes"):
        client.submit("arrays:total", ARRAY)
    assert files(daemon) == []


def test_a_damaged_file_is_an_error_and_nobody_dies(daemon: DaemonUnderTest) -> None:
    """Cut short, replaced, gone: the client says so, and so does a job that has it as an argument."""
    client = daemon.client()
    made = client.submit("arrays:make", SIZE)
    made.id  # noqa: B018  # asking for it waits
    client.wait([made.id], 20)
    (path,) = files(daemon)
    workers = {worker.pid for worker in client.status().workers}
    os.truncate(path, SIZE // 2)
    with pytest.raises(PayloadUnreadable, match="is damaged: it has 2097152 bytes"):
        made.result(20)
    Path(path).write_bytes(b"#!/bin/sh\n".ljust(ARRAY.nbytes, b"\n"))
    with pytest.raises(PayloadUnreadable, match="is damaged"):
        made.result(20)
    with pytest.raises(JobFailed, match="is damaged"):
        client.submit("arrays:total", made).result(20)
    os.unlink(path)
    with pytest.raises(PayloadLost, match="is gone"):
        made.result(20)
    with pytest.raises(JobFailed, match="is gone"):
        client.submit("arrays:total", made).result(20)
    assert {worker.pid for worker in client.status().workers} == workers


HERE = """
import numpy as np
__version__ = "{version}"
class Frame:
    def __init__(self, data):
        self.data = data
    def __reduce_ex__(self, protocol):
        return {builder}, (self.data,)
def {builder}(data):
    return Frame(data)
def size(frame):
    return len(frame.data)
"""


def test_a_skew_of_versions_between_client_and_worker_is_a_clear_error(
    make_daemon: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job fails, and says what is missing and what to do; the worker goes on."""
    daemon = make_daemon(modules={"frames": HERE.format(version="1.0", builder="old")}).start()
    (tmp_path / "frames.py").write_text(HERE.format(version="2.0", builder="new"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    frames: Any = __import__("frames")
    client = daemon.client()
    try:
        with pytest.raises(JobFailed, match="cannot be unpickled here: AttributeError") as failed:
            client.submit("frames:size", frames.Frame(ARRAY)).result(20)
        assert "same versions" in failed.value.message
        with pytest.raises(JobFailed, match="cannot be unpickled here"):
            client.submit("frames:size", frames.Frame([1])).result(20)
    finally:
        del sys.modules["frames"]
    assert client.submit("arrays:total", ARRAY).result(20) == TOTAL
