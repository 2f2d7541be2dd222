"""A disk that is full, that fails, and files that vanish: nothing that was promised is broken."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from harness import DaemonUnderTest, eventually
from keeper import connect, kept, workers_of
from oracle import Oracle

from jobd.client import Deferred
from jobd.model.errors import DiskFull, JobdError, StoreBusy
from jobd.model.selector import Selector, one

MakeDaemon = Callable[..., DaemonUnderTest]

STORE_CALLS = "pwrite64,fdatasync,fsync,ftruncate,rename,unlink"
"""What SQLite's file operations are made of, here."""


class Disk:
    """A file system of two megabytes that only the daemon and its children see."""

    def __init__(self, root: Path, mount_point: Path) -> None:
        """Mount it in a namespace of its own; skip the test where that is not allowed."""
        self._root = root
        flags = ["-m"] if os.geteuid() == 0 else ["-Urm"]
        options = "size=2m,nr_inodes=60,mode=700"
        script = f'mount -t tmpfs -o {options} jobd "$0" && echo mounted && exec sleep 3600'
        mount_point.mkdir(exist_ok=True)
        self._holder = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", script, str(mount_point)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            self.close()
            pytest.skip("a file system can be mounted neither as root nor in a user namespace")
        user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        self.wrapper = ["nsenter", "-t", str(self._holder.pid), *user, "-m", "--"]
        self.path = Path(f"/proc/{self._holder.pid}/root{mount_point}")
        """The same from outside."""

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.path / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def fill_inodes(self) -> None:
        """Leave no room for another file."""
        with contextlib.suppress(OSError):
            for number in count():
                (self.path / f"filler{number}").touch()

    def free(self) -> None:
        """Make room again."""
        for filler in self.path.glob("filler*"):
            filler.unlink()

    def close(self) -> None:
        """Let go of it; it goes with the last process that sees it."""
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


@pytest.fixture
def small(make_daemon: MakeDaemon) -> Iterator[tuple[DaemonUnderTest, Disk, Oracle]]:
    """Return a daemon, not started yet, whose state is on a small disk; the sockets are not."""
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("needs unshare and nsenter (util-linux)")
    daemon = make_daemon(daemon__drain_s=0.2)
    daemon.socket = str(daemon.root / "client.sock")
    daemon.environ["JOBD_SOCKET"] = daemon.socket
    disk = Disk(daemon.root, daemon.state_dir)
    oracle = Oracle(daemon)
    oracle.database = disk.path / "jobd.db"
    try:
        yield daemon, disk, oracle
        daemon.close()
    finally:
        disk.close()


def limit_files(daemon: DaemonUnderTest, size: int) -> None:
    """Let the daemon write no file beyond a size, as RLIMIT_FSIZE does."""
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def refusal_of(deferred: Deferred[Any]) -> JobdError:
    """Return the error that a submit ends with."""
    with pytest.raises(DiskFull) as caught:
        _ = deferred.id
    return caught.value


class TestFullDisk:
    """No room: submits are refused, and all else waits until there is some."""

    def test_a_submit_is_refused_and_it_heals(
        self, small: tuple[DaemonUnderTest, Disk, Oracle]
    ) -> None:
        """A sentence and exit code 74; what ended meanwhile is recorded once there is room again."""
        daemon, disk, oracle = small
        client = daemon.start(wrapper=disk.wrapper).client()
        gate = daemon.root / "gate"
        (running,) = oracle.submit(client, "mark_and_wait", str(gate))
        oracle.submit(client)[0].result(20)
        client.flush()
        disk.fill()
        error = refusal_of(oracle.submit(client, count=100)[0])
        assert (error.code, error.error) == (74, "disk_full")
        assert "disk full" in error.message
        ran = daemon.cli("submit", "work:nothing")
        assert (ran.returncode, ran.stdout) == (74, "")
        assert "disk full" in ran.stderr
        gate.touch()
        eventually(lambda: any("disk full" in text for text in client.status().trouble))
        assert client.ping() >= 0
        assert not running.done()
        assert [info.id for info in client.find(Selector(all=True))] == [2, 1]
        disk.free()
        assert running.result(20)
        assert client.status().trouble == []
        assert oracle.submit(client)[0].result(20)
        counts = oracle.judge()
        assert (counts.refused, counts.acknowledged) == (100, 3)
        assert oracle.runs([running]) == [1]

    def test_a_submit_that_does_not_fit_leaves_nothing_behind(
        self, small: tuple[DaemonUnderTest, Disk, Oracle]
    ) -> None:
        """All its jobs are refused or none; a small one still has room."""
        daemon, disk, oracle = small
        client = daemon.start(wrapper=disk.wrapper).client()
        calls = [["x" * 1000]] * 4000
        refusal_of(client.submit_many("work:echo", calls)[0])
        assert client.find(Selector(all=True)) == []
        assert oracle.submit(client)[0].result(20)
        assert len(client.find(Selector(all=True))) == 1
        oracle.judge()

    def test_a_daemon_that_has_to_end_does_not_wait_for_room(
        self, small: tuple[DaemonUnderTest, Disk, Oracle]
    ) -> None:
        """It ends with 74 when the time to drain is over; the worker keeps the result for the next."""
        daemon, disk, oracle = small
        client = daemon.start(wrapper=disk.wrapper).client()
        gate = daemon.root / "gate"
        (running,) = oracle.submit(client, "mark_and_wait", str(gate))
        oracle.wait_for_runs(running)
        client.flush()
        disk.fill()
        gate.touch()
        eventually(lambda: any("disk full" in text for text in client.status().trouble))
        oracle.fault()
        assert daemon.terminate() == 74
        disk.free()
        daemon.start(wrapper=disk.wrapper)
        assert running.result(20)
        oracle.judge()
        assert oracle.runs([running]) == [1]

    def test_a_daemon_cannot_start_on_a_full_disk(
        self, small: tuple[DaemonUnderTest, Disk, Oracle]
    ) -> None:
        """It says so, with exit code 74, whether there is a database already or not."""
        daemon, disk, oracle = small
        disk.fill()
        daemon.start(wrapper=disk.wrapper, wait=False)
        assert daemon.wait() == 74
        disk.free()
        client = daemon.start(wrapper=disk.wrapper).client()
        oracle.submit(client)[0].result(20)
        assert daemon.terminate() == 0
        disk.fill()
        daemon.start(wrapper=disk.wrapper, wait=False)
        assert daemon.wait() == 74
        assert daemon.log.count("disk full") == 2
        assert "Traceback" not in daemon.log
        disk.free()
        daemon.start(wrapper=disk.wrapper)
        oracle.judge()

    def test_a_worker_that_cannot_start_is_tried_again(
        self, small: tuple[DaemonUnderTest, Disk, Oracle]
    ) -> None:
        """It needs files of its own, for which there is no room; `status` says so until there is."""
        daemon, disk, oracle = small
        client = daemon.start(wrapper=disk.wrapper).client()
        oracle.submit(client)[0].result(20)
        disk.fill_inodes()
        os.kill(workers_of(daemon)[0], signal.SIGKILL)
        eventually(lambda: any("have died" in text for text in client.status().trouble))
        assert oracle.submit(client)[0].result(20)
        disk.free()
        eventually(lambda: client.status().trouble == [])
        oracle.judge()

    def test_a_limit_on_the_size_of_files_is_a_full_disk_too(self, make_daemon: MakeDaemon) -> None:
        """RLIMIT_FSIZE gives another error, and means the same: refused, and healed when it is raised."""
        daemon = make_daemon().start()
        oracle, client = Oracle(daemon), daemon.client()
        gate = daemon.root / "gate"
        (running,) = oracle.submit(client, "mark_and_wait", str(gate))
        client.flush()
        limit_files(daemon, (daemon.state_dir / "jobd.db-wal").stat().st_size)
        refusal_of(oracle.submit(client)[0])
        gate.touch()
        eventually(lambda: client.status().trouble != [])
        assert not running.done()
        limit_files(daemon, resource.RLIM_INFINITY)
        assert running.result(20)
        oracle.judge()
        assert oracle.runs([running]) == [1]


class Tracer:
    """strace, attached to the daemon, failing one of its system calls."""

    def __init__(self, daemon: DaemonUnderTest, inject: str, calls: str = STORE_CALLS) -> None:
        """Attach; ``inject`` is what strace's option of that name takes after the calls."""
        self._strace = subprocess.Popen(
            [
                *("strace", "-f", "-p", str(daemon.pid), "-o", "/dev/null"),
                *("-e", f"trace={calls}", "-e", f"inject={calls}:{inject}"),
            ],
            stderr=subprocess.PIPE,
        )
        assert self._strace.stderr is not None
        said = self._strace.stderr.readline()
        if b"attached" not in said:
            self.close()
            pytest.skip(f"strace cannot attach: {said.decode().strip()}")

    def close(self) -> None:
        """Detach."""
        self._strace.terminate()
        self._strace.wait()
        assert self._strace.stderr is not None
        self._strace.stderr.close()


@pytest.fixture
def trace() -> Iterator[Callable[..., Tracer]]:
    """Return what attaches tracers, all detached after the test."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    made: list[Tracer] = []

    def make(daemon: DaemonUnderTest, inject: str, calls: str = STORE_CALLS) -> Tracer:
        made.append(Tracer(daemon, inject, calls))
        return made[-1]

    yield make
    for tracer in made:
        tracer.close()


@contextlib.contextmanager
def lock_on(database: Path) -> Iterator[None]:
    """Lock the database as a shell does in which somebody has begun to write."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as shell:
        shell.execute("BEGIN EXCLUSIVE")
        yield
        shell.execute("ROLLBACK")


class TestLockedStore:
    """Another process writes to the database: that passes, and is no reason to end."""

    def test_a_submit_waits_for_the_lock(self, make_daemon: MakeDaemon) -> None:
        """Meanwhile the daemon answers; then all is as if nothing had been."""
        daemon = make_daemon().start()
        oracle, client = Oracle(daemon), daemon.client()
        gate = daemon.root / "gate"
        (running,) = oracle.submit(client, "mark_and_wait", str(gate))
        oracle.wait_for_runs(running)
        with lock_on(daemon.state_dir / "jobd.db"):
            (waiting,) = oracle.submit(client)
            gate.touch()
            assert client.ping() < 2, "the loop waits for nobody"
            assert [info.id for info in client.find(Selector(all=True))] == [running.id]
            assert not waiting.done()
            assert not running.done()
        assert waiting.result(20)
        assert running.result(20)
        oracle.judge()
        assert oracle.runs([running]) == [1]

    def test_a_lock_that_stays_is_told_and_heals(self, make_daemon: MakeDaemon) -> None:
        """Submits are refused after a while; a daemon can start and stop beside it."""
        daemon = make_daemon(daemon__drain_s=0.2).start()
        oracle, client = Oracle(daemon), daemon.client()
        gate = daemon.root / "gate"
        (running,) = oracle.submit(client, "mark_and_wait", str(gate))
        oracle.wait_for_runs(running)
        with lock_on(daemon.state_dir / "jobd.db"):
            with pytest.raises(
                StoreBusy, match="another process has locked the job store"
            ) as caught:
                _ = oracle.submit(client)[0].id
            assert caught.value.code == 75
            ran = daemon.cli("submit", "work:nothing")
            assert (ran.returncode, ran.stdout) == (75, "")
            assert "fuser" in ran.stderr
            assert any("locked" in text for text in client.status().trouble)
            gate.touch()
            eventually(lambda: all(worker.job == 0 for worker in client.status().workers))
            oracle.fault()
            assert daemon.terminate() == 74, "it cannot record what has ended; its worker keeps it"
            daemon.start()
            client = daemon.client()
            assert client.find(Selector(all=True))
        assert running.result(20)
        assert oracle.submit(client)[0].result(20)
        assert client.status().trouble == []
        oracle.judge()
        assert oracle.runs([running]) == [1]


class TestFailingDisk:
    """An I/O error: nothing is known any more, so the daemon ends, and the next one reads what is there."""

    # The second is that of the directory, whose error SQLite does not tell.
    @pytest.mark.parametrize("nth", [1, 3, 6])
    def test_after_an_error_of_fsync_nothing_is_acknowledged(
        self, nth: int, make_daemon: MakeDaemon, trace: Callable[..., Tracer]
    ) -> None:
        """SQLite's next commit would seem to succeed; the daemon ends with 74 instead."""
        oracle = Oracle(make_daemon())
        tracers: list[Tracer] = []

        def fail_first(daemon: DaemonUnderTest) -> None:
            if not tracers:
                tracers.append(trace(daemon, f"error=EIO:when={nth}", "fdatasync"))

        with kept(oracle, [], fail_first) as keeper:
            client = connect(oracle.daemon)
            for _ in range(10):
                oracle.submit(client)[0].result(20)
            assert keeper.deaths == [74]
            assert "the job store failed: disk I/O error SQLITE_IOERR_FSYNC" in oracle.daemon.log

    def test_an_error_while_reading_ends_the_daemon_too(
        self, make_daemon: MakeDaemon, trace: Callable[..., Tracer]
    ) -> None:
        """It is not just an answer to the one who has asked."""
        daemon = make_daemon().start()
        oracle, client = Oracle(daemon), daemon.client()
        oracle.submit(client, count=2000)[-1].result(20)
        oracle.listen()
        assert daemon.terminate() == 0
        client = daemon.start().client(timeout_s=1.0)
        trace(daemon, "error=EIO", "pread64")
        with pytest.raises(JobdError):
            client.find(Selector(all=True))
        assert daemon.wait() == 74
        oracle.fault()
        daemon.start()
        oracle.judge()

    def test_a_slow_disk_only_slows(
        self, make_daemon: MakeDaemon, trace: Callable[..., Tracer]
    ) -> None:
        """With 50 ms for each fsync the daemon answers at once, and loses nothing."""
        daemon = make_daemon().start()
        oracle, client = Oracle(daemon), daemon.client()
        tracer = trace(daemon, "delay_exit=50000", "fdatasync")
        deferreds = [oracle.submit(client)[0] for _ in range(30)]
        assert client.ping() < 5
        assert all(deferred.result(20) for deferred in deferreds)
        tracer.close()
        oracle.judge()


class TestKilledInACall:
    """SIGKILL at the n-th system call that the store makes, for a sample of n."""

    def test_at_each_of_some_writes_and_syncs(
        self, make_daemon: MakeDaemon, trace: Callable[..., Tracer]
    ) -> None:
        """One state directory lives through all of them; every other death is at an orderly end."""
        seed = 7
        numbers = random.Random(seed).sample(range(1, 40), 12)
        print(f"seed {seed}: {numbers}")
        oracle = Oracle(make_daemon())
        left = iter(numbers)

        def on_start(daemon: DaemonUnderTest) -> None:
            number = next(left, None)
            if number is not None:
                trace(daemon, f"signal=KILL:when={number}")

        with kept(oracle, [], on_start) as keeper:
            client = connect(oracle.daemon)
            while len(keeper.deaths) < len(numbers):
                seen = len(keeper.deaths)
                if seen % 2:
                    keeper.signal(signal.SIGTERM)
                    client = connect(oracle.daemon)
                while len(keeper.deaths) == seen:
                    deferreds = oracle.submit(client, count=3)
                    client.wait([deferred.id for deferred in deferreds], 20)
            assert keeper.kills > len(numbers) / 2, keeper.deaths

    @pytest.mark.parametrize("number", [1, 2, 4, 7, 11, 16])
    def test_while_the_database_is_made(self, number: int, make_daemon: MakeDaemon) -> None:
        """There is no database afterwards, or a whole one."""
        if not shutil.which("strace"):
            pytest.skip("needs strace")
        daemon = make_daemon()
        wrapper = [
            *("strace", "-D", "-f", "-qq", "-o", "/dev/null"),
            *(
                "-e",
                f"trace={STORE_CALLS}",
                "-e",
                f"inject={STORE_CALLS}:signal=KILL:when={number}",
            ),
        ]
        daemon.start(wrapper=wrapper, wait=False)
        assert daemon.wait() == -signal.SIGKILL
        oracle = Oracle(daemon)
        client = daemon.start().client()
        assert oracle.submit(client)[0].result(20)
        oracle.judge()


class TestVanishedFiles:
    """Files that are deleted or replaced under the live daemon: SQLite itself would not notice."""

    def test_the_log_is_deleted(self, make_daemon: MakeDaemon) -> None:
        """What it held is folded into the database before the daemon ends: nothing is lost."""
        daemon = make_daemon(pool__orphan_s=0.2).start()
        client = daemon.client()
        first = client.submit("work:add", 1)
        assert first.result(20) == 2
        (daemon.state_dir / "jobd.db-wal").unlink()
        assert daemon.wait() == 74
        assert "jobd.db-wal is gone: somebody deleted it" in daemon.log
        assert "nothing is lost" in daemon.log
        client = daemon.start().client()
        assert client.attach(first.id).result(20) == 2
        assert client.submit("work:add", 2).id == first.id + 1

    def test_the_database_is_deleted(self, make_daemon: MakeDaemon) -> None:
        """All that it held is in a copy, without which the next daemon does not start."""
        daemon = make_daemon(pool__orphan_s=0.2).start()
        first = daemon.client().submit("work:add", 1)
        assert first.result(20) == 2
        database = daemon.state_dir / "jobd.db"
        database.unlink()
        assert daemon.wait() == 74
        assert "jobd.db is gone: somebody deleted it" in daemon.log
        (saved,) = daemon.state_dir.glob("jobd.db.backup-saved-*")
        daemon.start(wait=False)
        assert daemon.wait() == 78
        assert f"what it held is in {saved}" in daemon.log
        assert f"'mv {saved} {database}'" in daemon.log
        saved.rename(database)
        client = daemon.start().client()
        assert client.attach(first.id).result(20) == 2
        assert client.submit("work:add", 2).id == first.id + 1

    def test_the_log_is_deleted_while_no_daemon_runs(self, make_daemon: MakeDaemon) -> None:
        """The next one does not start: it would give ids that were given already."""
        daemon = make_daemon(pool__orphan_s=0.2).start()
        daemon.client().submit("work:nothing").result(20)
        daemon.kill()
        (daemon.state_dir / "jobd.db-wal").unlink()
        daemon.start(wait=False)
        assert daemon.wait() == 78
        assert "jobd.db-wal is gone, and with it what jobd has stored last" in daemon.log
        (daemon.state_dir / "jobd.db-shm").unlink()
        assert daemon.start().client().status().jobs["succeeded"] == 0

    def test_the_database_is_replaced(self, make_daemon: MakeDaemon) -> None:
        """The daemon ends with 74 and says so."""
        daemon = make_daemon(pool__orphan_s=0.2).start()
        other = daemon.root / "other.db"
        with contextlib.closing(sqlite3.connect(other)) as connection:
            connection.execute("CREATE TABLE t (x)")
        other.replace(daemon.state_dir / "jobd.db")
        assert daemon.wait() == 74
        assert "jobd.db was replaced while in use" in daemon.log
        assert [*daemon.state_dir.glob("jobd.db.backup-saved-*")]


def overwrite(database: Path, page: int, content: bytes) -> None:
    """Write over a page of a database, from 1 on."""
    with database.open("r+b") as file:
        size = int.from_bytes(file.read(18)[16:], "big")
        file.seek((page - 1) * size)
        file.write((content * size)[:size])


class TestDamage:
    """Pages that hold something else than what was written there."""

    @pytest.mark.parametrize("content", [b"\0", b"noise\xff"], ids=["zeroed", "noise"])
    def test_no_page_that_is_damaged_lets_a_daemon_start(
        self, content: bytes, make_daemon: MakeDaemon
    ) -> None:
        """Exit code 78, which systemd does not repeat; the file is kept, and the sentence is one."""
        daemon = make_daemon()
        client = daemon.start().client()
        # Not as one array: its items' values share long rows, and of what is in a value that is
        # longer than a page SQLite has no check.
        for job in client.submit_many("work:echo", [(number,) for number in range(2_000)]):
            assert job.result(20)
        assert daemon.terminate() == 0
        database = daemon.state_dir / "jobd.db"
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("VACUUM")  # what a page that is free holds is no damage
        whole = database.read_bytes()
        pages = len(whole) // int.from_bytes(whole[16:18], "big")
        for page in {2, 3, pages // 2, pages - 1}:
            overwrite(database, page, content)
            damaged = database.read_bytes()
            daemon.start(wait=False)
            assert daemon.wait() == 78, page
            assert database.read_bytes() == damaged
            checked = daemon.cli("db", "check")
            assert checked.returncode == 78
            assert "is damaged; there is no backup" in checked.stderr
            assert "Traceback" not in daemon.log
            database.write_bytes(whole)
        assert daemon.cli("db", "check").stdout == "ok\n"

    def test_damage_that_shows_later_ends_the_daemon_for_good(
        self, make_daemon: MakeDaemon
    ) -> None:
        """Not with the code after which systemd would start it again and again."""
        daemon = make_daemon()
        client = daemon.start().client()
        number = client.submit("work:echo", "x" * 100).id
        client.attach(number).result(20)
        assert daemon.terminate() == 0
        with contextlib.closing(sqlite3.connect(daemon.state_dir / "jobd.db")) as connection:
            connection.execute("UPDATE jobs SET detail = x'c1c1'")
            connection.commit()
        with daemon.start().client(timeout_s=1.0) as client, pytest.raises(JobdError):
            client.find(one(number))
        assert daemon.wait() == 78
        assert "a record in it makes no sense" in daemon.log
