"""The store's promises, without a daemon: what is written is whole, and what is not ours is left alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobd.model.edges import When, success_of
from jobd.model.errors import ConfigError, DiskFull, StoreBusy, StoreFailed
from jobd.model.job import Attempt, ErrorInfo, Job, Lease, LogSpan
from jobd.model.lane import lane_of
from jobd.model.options import Policy
from jobd.model.selector import MAX_ID, Selector
from jobd.model.states import ENDED, WIDTH, Event, State
from jobd.scheduler.batch import Batch, Change, Submission
from jobd.store import Store, check, files, questions, sqlite
from jobd.store.questions import walk

SESSION = b"session!"
ENDS = [
    State.SUCCEEDED,
    State.FAILED,
    State.CRASHED,
    State.TIMED_OUT,
    State.CANCELLED,
    State.ABORTED,
    State.EXPIRED,
]


def key(number: int, session: bytes = SESSION) -> bytes:
    """Return the key of a client's submit."""
    return session + number.to_bytes(8, "big")


class Writer:
    """Makes batches as the scheduler would, and stores them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.next_id = 1
        self.batch = Batch()
        self.counts = [0] * WIDTH

    def submit(
        self,
        count: int = 1,
        *,
        uid: bytes = b"",
        function: str = "m:f",
        policy: Policy | None = None,
    ) -> list[Job]:
        """Add jobs to the open batch; return them as they will be read."""
        first, uid = self.next_id, uid or key(self.next_id)
        args = [b"j[%d]" % number for number in range(first, first + count)]
        self.next_id += count
        lane = lane_of(policy)
        self.batch.pack(first, uid, count, function, 1_000, args, policy, lane)
        self.batch.submissions.append(Submission(uid, first, count, []))
        self.counts[State.QUEUED] += count
        jobs = [
            Job(first + i, uid, 0 if i else count, function, args[i], 1_000, policy)
            for i in range(count)
        ]
        for job in jobs:
            job.lane = lane
        return jobs

    def change(self, *jobs: Job) -> None:
        """Add rows for these jobs to the open batch."""
        for job in jobs:
            self.batch.changes.append(Change(job, job.row, job.stored, None))
            self.batch.retold += [job] if job.earlier else []
            self.counts[job.stored] -= 1
            self.counts[job.state] += 1
            job.stored, job.row = job.state, True

    def write(self) -> None:
        """Execute the open batch, and open the next one."""
        batch, self.batch = self.batch, Batch()
        batch.counts, batch.next_id = list(self.counts), self.next_id
        self.store.begin()
        self.store.write(batch)

    def commit(self) -> None:
        """Store the open batch."""
        self.write()
        self.store.commit()


def end(job: Job, state: State = State.SUCCEEDED) -> Job:
    """Give a job an end."""
    job.state, job.attempt = state, 1
    job.started_at, job.ended_at, job.pid = 2_000, 3_000, 7
    job.value = b"j%d" % job.id if state is State.SUCCEEDED else None
    return job


def picture(job: Job | None) -> dict[str, Any]:
    """Return all of a job that is stored."""
    assert job is not None
    memory_only = ("row", "stored", "record", "lease", "cost_us", "watchers", "earlier", "void")
    found = msgspec.structs.asdict(job)
    return {name: value for name, value in found.items() if name not in memory_only}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database is to be."""
    return tmp_path / "jobd.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Return an open, empty store; without waiting for the disk."""
    opened = Store(path, "off")
    yield opened
    opened.close()


@pytest.fixture
def writer(store: Store) -> Writer:
    """Return what fills the store."""
    return Writer(store)


def contents(directory: Path) -> dict[str, str]:
    """Return a hash of each file but SQLite's shared memory, which holds no data, and empty logs."""
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.rglob("*")
        if file.is_file() and not file.name.endswith("-shm") and not is_empty_log(file)
    }


def is_empty_log(file: Path) -> bool:
    """Whether this is a write-ahead log in which nothing is."""
    return file.name.endswith("-wal") and not file.stat().st_size


def run_sql(path: Path, script: str) -> None:
    """Change a database behind the store's back."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(script)


class TestMaking:
    """A new database."""

    def test_it_is_made_whole(self, path: Path) -> None:
        """It has our mark, our version and our tables, it is empty, and nothing else is left there."""
        store = Store(path)
        assert (store.next_id(), store.counts(), store.leases()) == (1, {}, [])
        store.close()
        assert [file.name for file in path.parent.iterdir()] == ["jobd.db"]
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA application_id").fetchone() == (files.APPLICATION_ID,)
            assert connection.execute("PRAGMA user_version").fetchone() == (files.VERSION,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def test_it_is_opened_again(self, path: Path) -> None:
        """What was stored is there."""
        store = Store(path)
        writer = Writer(store)
        (job,) = writer.submit()
        writer.commit()
        store.close()
        again = Store(path)
        assert picture(again.job(1)) == picture(job)
        assert again.next_id() == 2
        again.close()

    @pytest.mark.parametrize("durability", ["full", "normal", "off"])
    def test_it_is_as_durable_as_asked_for(self, durability: str, path: Path) -> None:
        """Each durability is SQLite's mode of that name; the log is written ahead."""
        store = Store(path, durability)
        (mode,) = store._writer.execute("PRAGMA synchronous").fetchone()
        assert mode == {"off": 0, "normal": 1, "full": 2}[durability]
        assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        store.close()

    def test_making_it_is_interrupted(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """There is no half of a database; the next attempt makes a whole one."""
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", interrupt)
            with pytest.raises(KeyboardInterrupt):
                Store(path)
        assert not path.exists()
        assert path.with_suffix(".new").exists()
        Store(path).close()
        assert [file.name for file in path.parent.iterdir()] == ["jobd.db"]

    def test_a_stray_log_is_not_played_into_a_new_database(self, path: Path) -> None:
        """The database is gone and its log is not: SQLite would mix the two."""
        (path.parent / "jobd.db-wal").write_bytes(b"log of another")
        before = contents(path.parent)
        with pytest.raises(ConfigError) as caught:
            Store(path)
        assert caught.value.code == 78
        assert "is gone, but its write-ahead log" in caught.value.message
        assert contents(path.parent) == before

    def test_an_empty_log_is_no_stray_log(self, path: Path) -> None:
        """Nothing is in it that could be lost or mixed."""
        (path.parent / "jobd.db-wal").touch()
        Store(path).close()


def interrupt(*_: object) -> None:
    """Stand in for a function in which the process is interrupted."""
    raise KeyboardInterrupt


def make_directory(path: Path) -> None:
    """Put a directory there."""
    path.mkdir()


def make_fifo(path: Path) -> None:
    """Put a pipe there, at which a reader would wait for ever."""
    os.mkfifo(path)


def make_empty(path: Path) -> None:
    """Put an empty file there, which SQLite would take for a new database."""
    path.touch()


def make_noise(path: Path) -> None:
    """Put something there that is no database."""
    path.write_bytes(bytes(range(256)) * 64)


def make_text(path: Path) -> None:
    """Put a short text there."""
    path.write_text("hello")


def make_ours(path: Path) -> None:
    """Make a database of ours with something in it."""
    store = Store(path)
    writer = Writer(store)
    writer.submit(500)
    writer.commit()
    store.close()


def make_truncated(path: Path) -> None:
    """Make one of ours that has lost its second half."""
    make_ours(path)
    os.truncate(path, path.stat().st_size // 8192 * 4096)


def make_stump(path: Path) -> None:
    """Make one of ours of which not even the header is left."""
    make_ours(path)
    os.truncate(path, 60)


def make_first_page(path: Path) -> None:
    """Make one of ours of which half a page is left."""
    make_ours(path)
    os.truncate(path, 2000)


def make_foreign(path: Path) -> None:
    """Make somebody else's database."""
    run_sql(path, "CREATE TABLE jobs (x); PRAGMA application_id = 4711;")


def make_foreign_with_log(path: Path) -> None:
    """Make somebody else's database whose log holds what its file does not yet."""
    keep_log(path, "CREATE TABLE jobs (x); INSERT INTO jobs VALUES (1);")


def make_newer(path: Path) -> None:
    """Make a database of a version to come."""
    make_ours(path)
    run_sql(path, f"PRAGMA user_version = {files.VERSION + 1};")


def make_newer_in_log(path: Path) -> None:
    """Make a database of a version to come, of which only the log tells."""
    make_ours(path)
    keep_log(path, f"PRAGMA user_version = {files.VERSION + 1};")


def make_ancient(path: Path) -> None:
    """Make a database of a version that nobody knows any more."""
    make_ours(path)
    run_sql(path, "PRAGMA user_version = 0;")


def make_incomplete(path: Path) -> None:
    """Make one of ours without two of its tables."""
    make_ours(path)
    run_sql(path, "DROP TABLE leases; DROP TABLE meta;")


def keep_log(path: Path, script: str) -> None:
    """Change a database as a process that is killed before it folds in the log."""
    scratch = path.with_name("scratch.db")
    if path.exists():
        path.rename(scratch)
    with contextlib.closing(sqlite3.connect(scratch, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(script)
        for suffix in ("", "-wal"):
            copy = path.with_name(path.name + suffix)
            copy.write_bytes(scratch.with_name(scratch.name + suffix).read_bytes())
    scratch.unlink()


class TestRefusing:
    """A file that must not be used is left exactly as it is."""

    @pytest.mark.parametrize(
        ("make", "sentence"),
        [
            (make_directory, "is not a file"),
            (make_fifo, "is not a file"),
            (make_empty, "cannot be used: it is empty"),
            (make_noise, "cannot be used: it is no SQLite database"),
            (make_text, "cannot be used: it is no SQLite database"),
            (make_truncated, "cannot be used: it is truncated"),
            (make_stump, "cannot be used: it is truncated"),
            (make_first_page, "cannot be used: "),
            (make_foreign, "is not a database of jobd (application id 0x1267)"),
            (make_foreign_with_log, "is not a database of jobd (application id 0x0)"),
            (
                make_newer,
                "was made by a newer jobd (its schema is version {newer}, this jobd knows {ours})",
            ),
            (make_newer_in_log, "was made by a newer jobd"),
            (make_ancient, "has a schema of version 0, and nothing leads from there to {ours}"),
            (make_incomplete, "cannot be used: it has no table leases, meta"),
        ],
    )
    def test_what_is_not_ours_or_not_whole(
        self, make: Callable[[Path], None], sentence: str, path: Path
    ) -> None:
        """Exit code 78, and a sentence that names the file and the reason."""
        make(path)
        before = contents(path.parent)
        with pytest.raises(ConfigError) as caught:
            Store(path)
        assert caught.value.code == 78
        assert caught.value.message.startswith(str(path))
        sentence = sentence.format(ours=files.VERSION, newer=files.VERSION + 1)
        assert sentence in caught.value.message
        assert caught.value.hint
        assert contents(path.parent) == before

    def test_the_newest_backup_is_named(self, path: Path) -> None:
        """Whoever has lost the database is told where to find most of it."""
        make_noise(path)
        for number, name in enumerate(["backup-v2", "backup-v1"]):
            backup = path.with_name(f"jobd.db.{name}")
            backup.touch()
            os.utime(backup, (number, number))
        with pytest.raises(ConfigError) as caught:
            Store(path)
        assert "the newest backup is" in caught.value.hint
        assert "jobd.db.backup-v1" in caught.value.hint

    @pytest.mark.parametrize("kind", sorted(files.NETWORK))
    def test_a_network_file_system(
        self, kind: str, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SQLite cannot keep its promises there: nothing is made."""
        monkeypatch.setattr(files, "filesystem_of", lambda _: kind)
        with pytest.raises(ConfigError) as caught:
            Store(path)
        assert (caught.value.code, kind in caught.value.message) == (78, True)
        assert not list(path.parent.iterdir())


OLD = Path(__file__).parents[1] / "support/jobd-0.1.0.sql"


class TestMigrating:
    """A database of the first release."""

    @pytest.fixture
    def older(self, path: Path) -> Path:
        """Return a database that jobd 0.1.0 has made."""
        run_sql(path, OLD.read_text(encoding="utf-8"))
        run_sql(path, f"PRAGMA application_id = {files.APPLICATION_ID}; PRAGMA user_version = 1;")
        return path

    def version_of(self, path: Path) -> int:
        """Return the version of the schema, and make sure that the file is whole."""
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            return version

    def test_its_jobs_are_kept(self, older: Path) -> None:
        """Results, errors, earlier attempts, what was queued, and the count of all."""
        store = Store(older)
        ended = [store.job(number) for number in (1, 2, 3, 10)]
        assert all(ended)
        added, failed, died, cancelled = (job for job in ended if job)
        assert (added.state, added.value) == (State.SUCCEEDED, b"j5")
        assert failed.error is not None
        assert (failed.state, failed.error.message) == (State.FAILED, "boo")
        assert (died.state, died.cause) == (State.CRASHED, "exit code 3")
        assert [past.state for past in store.attempts(3)] == [State.CRASHED]
        assert cancelled.state is State.CANCELLED
        parcels, rows, reached = store.backlog(0, 56, 1_000)
        packed = [(r.function, len(r.args), r.policy) for p in parcels for r in p.records]
        assert ("olds:noop", 50, None) in packed
        assert reached == 56
        assert [n for n, job in rows.items() if job] == [6]  # it was running when all was stopped
        assert store.next_id() == 57
        counts = {state: count for state, count in store.counts().items() if count}
        assert counts == {
            State.QUEUED: 50,
            State.SUCCEEDED: 3,
            State.FAILED: 1,
            State.CRASHED: 1,
            State.CANCELLED: 1,
        }
        store.close()

    def test_it_has_the_present_tables_and_leaves_a_backup(self, older: Path, path: Path) -> None:
        """It cannot be told from one that is made now; what was before lies beside it."""
        Store(older).close()
        fresh = path.with_name("fresh.db")
        Store(fresh).close()
        assert schema_of(older) == schema_of(fresh)
        backup = older.with_name("jobd.db.backup-v1")
        assert (self.version_of(older), self.version_of(backup)) == (files.VERSION, 1)
        left = {"jobd.db", "jobd.db.backup-v1", "fresh.db"}
        assert {f.name for f in older.parent.iterdir()} == left

    def test_it_is_done_once(self, older: Path) -> None:
        """Opened again it is as it is, and so is the backup."""
        Store(older).close()
        before = contents(older.parent)
        Store(older).close()
        assert contents(older.parent) == before

    def test_it_fails(self, older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The old schema is intact; the next start does it from the beginning."""
        before = schema_of(older)
        with monkeypatch.context() as patch:
            patch.setitem(files.OLDER, 1, "INSERT INTO nowhere VALUES (1);")
            with pytest.raises(ConfigError):
                Store(older)
        assert (self.version_of(older), schema_of(older)) == (1, before)
        store = Store(older)
        assert store.job(1) is not None
        store.close()

    def test_a_version_that_was_never_released_is_refused(self, older: Path) -> None:
        """Nothing leads from there, and nothing is changed."""
        run_sql(older, "PRAGMA user_version = 2;")
        before = contents(older.parent)
        with pytest.raises(ConfigError) as caught:
            Store(older)
        assert "has a schema of version 2, and nothing leads from there" in caught.value.message
        assert contents(older.parent) == before

    def test_the_backup_is_interrupted(self, older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Half of a backup is not taken for one: the next start makes it anew."""
        with monkeypatch.context() as patch:
            patch.setattr(files, "_sync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                Store(older)
        assert self.version_of(older) == 1
        assert not older.with_name("jobd.db.backup-v1").exists()
        Store(older).close()
        assert self.version_of(older.with_name("jobd.db.backup-v1")) == 1
        assert sorted(f.name for f in older.parent.iterdir()) == ["jobd.db", "jobd.db.backup-v1"]


def schema_of(path: Path) -> set[str]:
    """Return the statements that would make these tables and indexes."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
        return {row[0] for row in found}


class TestEdges:
    """Who waits for whom."""

    def test_an_edge_is_found_from_both_sides(self, store: Store, writer: Writer) -> None:
        """A page at a time, and what it means for the job depends on the source."""
        jobs = writer.submit(4)
        edges = [(1, 3), (1, 4), (2, 4)]
        writer.batch.edges += [(*edge, When.SUCCEEDED, True) for edge in edges]
        end(jobs[1], State.FAILED)
        writer.change(jobs[1])
        writer.commit()
        assert store.dependants(1, 0, 1) == [(3, When.SUCCEEDED)]
        assert store.dependants(1, 3, 9) == [(4, When.SUCCEEDED)]
        assert store.unmet(4, 9) == [1]
        assert store.never(4, 9) == [2]
        assert store.never(3, 9) == []

    def test_what_an_end_means_depends_on_the_kind_of_the_edge(
        self, store: Store, writer: Writer
    ) -> None:
        """Any end will do for one of them, and a success keeps another from ever starting."""
        jobs = writer.submit(5)
        kinds = {3: When.SUCCEEDED, 4: When.ENDED, 5: When.FAILED}
        for source in (1, 2):
            writer.batch.edges += [(source, job, when, True) for job, when in kinds.items()]
        end(jobs[0], State.FAILED)
        end(jobs[1])
        writer.change(jobs[0], jobs[1])
        writer.commit()
        assert [store.never(job, 9) for job in kinds] == [[1], [], [2]]
        assert [store.unmet(job, 9) for job in kinds] == [[], [], []]

    def test_a_success_closes_the_edges_that_it_meets(self, store: Store, writer: Writer) -> None:
        """They still tell who came after whom; who had to wait for a failure never starts."""
        jobs = writer.submit(4)
        kinds = {2: When.SUCCEEDED, 3: When.ENDED, 4: When.FAILED}
        writer.batch.edges += [(1, job, when, True) for job, when in kinds.items()]
        writer.batch.settled.append(1)
        end(jobs[0])
        writer.change(jobs[0])
        writer.commit()
        assert dict(store.dependants(1, 0, 9)) == kinds
        assert [store.never(job, 9) for job in kinds] == [[], [], [1]]
        with contextlib.closing(sqlite3.connect(store.path)) as connection:
            open_ones = connection.execute("SELECT job FROM edges WHERE open = 1").fetchall()
        assert open_ones == [(4,)]

    def test_states_and_values_of_many_at_once(self, store: Store, writer: Writer) -> None:
        """Of jobs with rows of their own and of those in parcels; others are left out."""
        jobs = writer.submit(3)
        end(jobs[1])
        writer.change(jobs[1])
        writer.commit()
        states = store.states([1, 2, 3, 4])
        assert states == {1: State.QUEUED, 2: State.SUCCEEDED, 3: State.QUEUED}
        assert store.values([2, 3]) == {2: jobs[1].value}
        assert store.own_rows([1, 2, 3, 4]) == {2: store.job(2)}
        assert store.own_rows([]) == {}

    def test_the_inputs_of_jobs_that_have_not_ended_are_listed(
        self, store: Store, writer: Writer
    ) -> None:
        """Page by page, by an index of their own."""
        waiting, over, running, _ = writer.submit(4)
        for job in (waiting, over, running):
            job.inputs = [job.id + 10]
        waiting.state = State.BLOCKED
        writer.change(waiting, end(over, State.FAILED), running)
        writer.commit()
        assert store.inputs_in_use(0, 9) == [(1, [11]), (3, [13])]
        assert store.inputs_in_use(1, 9) == [(3, [13])]
        assert store.inputs_in_use(0, 1) == [(1, [11])]

    def test_blocked_and_aborted_jobs_are_listed(self, store: Store, writer: Writer) -> None:
        """The aborted ones with the job that is to blame, if it can be mended; a blocked one is no backlog."""
        blocked, aborted, for_good = writer.submit(3)
        blocked.state = State.BLOCKED
        blocked.inputs, blocked.after = [7, 8], [(9, When.FAILED)]
        end(aborted, State.ABORTED)
        aborted.root, aborted.cause = 7, "job 7 failed: E"
        end(for_good, State.ABORTED)
        for_good.root, for_good.cause = 6, success_of(6)
        writer.change(blocked, aborted, for_good)
        writer.commit()
        assert store.blocked(0, 9) == [1]
        assert store.aborted(0, 9) == [(2, 7), (3, 0)]
        assert store.backlog(0, 3, 9).rows == {1: None, 2: None, 3: None}
        found = store.job(1)
        assert found is not None
        assert (found.inputs, found.after) == ([7, 8], [(9, When.FAILED)])


class TestWriting:
    """A batch is stored whole or not at all, and shows only once it is."""

    def test_a_batch_shows_when_it_is_committed(self, store: Store, writer: Writer) -> None:
        """Until then a reader sees what was before, in every respect."""
        (job,) = writer.submit()
        writer.batch.leases[1] = Lease(1, "w", [(1, 1)], 1)
        writer.write()
        assert (store.job(1), store.next_id(), store.counts(), store.leases()) == (None, 1, {}, [])
        assert (store.submit_of(job.uid), store.session_high(SESSION)) == (None, b"")
        store.commit()
        assert picture(store.job(1)) == picture(job)
        assert (store.next_id(), store.counts()[State.QUEUED], len(store.leases())) == (2, 1, 1)
        assert (store.submit_of(job.uid), store.session_high(SESSION)) == ((1, 1), job.uid[8:])

    def test_a_transaction_may_be_opened_ahead(
        self, path: Path, store: Store, writer: Writer
    ) -> None:
        """Whoever looks meanwhile sees what was before; what is written then goes into that one."""
        store.begin()
        assert store.page(Selector(all=True), MAX_ID, 10) == ([], 0)
        (job,) = writer.submit()
        writer.commit()
        assert picture(store.job(1)) == picture(job)
        with contextlib.closing(
            sqlite3.connect(path, timeout=0)
        ) as other:  # nobody is kept out afterwards
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusy):
                store.begin()

    def test_a_batch_is_rolled_back(self, store: Store, writer: Writer) -> None:
        """It leaves nothing, and the next one is stored."""
        writer.submit(2000)
        writer.write()
        store.rollback()
        store.rollback()  # does no harm
        assert store.page(Selector(all=True), MAX_ID, 10) == ([], 0)
        (job,) = writer.submit()
        writer.commit()
        assert [j.id for j in store.page(Selector(all=True), MAX_ID, 10)[0]] == [job.id]

    def test_a_batch_that_does_not_fit_is_rolled_back(self, store: Store, writer: Writer) -> None:
        """It says that the disk is full, and with more room the same is stored."""
        (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
        store._writer.execute(f"PRAGMA max_page_count = {pages + 1}")
        writer.submit(5000)
        with pytest.raises(DiskFull) as caught:
            writer.commit()
        store.rollback()
        assert (caught.value.code, "disk full" in caught.value.message) == (74, True)
        assert store.page(Selector(all=True), MAX_ID, 10) == ([], 0)
        store._writer.execute(f"PRAGMA max_page_count = {2**31}")
        writer.submit(5000)
        writer.commit()
        assert store.next_id() == 10_001

    def test_variables_come_back_by_their_digest_and_are_kept_once(
        self, store: Store, writer: Writer
    ) -> None:
        """Jobs that have the same are submitted again and again."""
        for more in ({b"1": b"one"}, {b"1": b"one", b"2": b"two"}):
            writer.batch.environments.update(more)
            writer.commit()
        assert [store.environment(digest) for digest in (b"1", b"2", b"3")] == [
            b"one",
            b"two",
            None,
        ]

    def test_a_policy_comes_back_from_a_parcel_and_from_a_row(
        self, store: Store, writer: Writer
    ) -> None:
        """They belong to the whole submit; a job that ends takes them along."""
        policy = Policy(queue="etl", retries=3)
        writer.batch.pack(1, key(1), 2, "m:f", 1_000, [b"j[1]", b"j[2]"], policy)
        writer.next_id = 3
        writer.commit()
        found = store.job(1)
        assert found is not None
        assert found.policy == policy
        end(found)
        found.row, found.stored = False, State.QUEUED
        writer.change(found)
        writer.commit()
        assert [job.policy for job in store.page(Selector(all=True), MAX_ID, 9)[0]] == [policy] * 2

    def test_every_field_comes_back(self, store: Store, writer: Writer) -> None:
        """A row holds all that is known of a job."""
        jobs = writer.submit(4)
        failed, stopping, succeeded, plain = jobs
        end(failed, State.FAILED)
        failed.error = ErrorInfo("ValueError", "no", "Traceback …")
        failed.log = LogSpan("w.1.log", 5, 10, 3)
        failed.crashes, failed.cause = 2, "SIGKILL"
        stopping.stop, stopping.attempt, stopping.cause = Event.CANCEL, 3, "by hand"
        end(succeeded)
        end(plain, State.CANCELLED)
        writer.change(*jobs)
        writer.commit()
        assert [picture(store.job(job.id)) for job in jobs] == [picture(job) for job in jobs]
        found = store.job(stopping.id)
        assert found is not None
        assert (found.row, found.stored) == (True, State.QUEUED)

    def test_many_jobs_come_back_plain_ones_and_others(self, store: Store, writer: Writer) -> None:
        """Rows that are written by the dozen are the same as those that are written one by one.

        They come in the order in which the jobs have ended: the first of a submit is anywhere.
        """
        one, other = writer.submit(3 * sqlite.ROWS), writer.submit(2 * sqlite.ROWS + 7)
        alone = [writer.submit()[0] for _ in range(sqlite.ROWS + 1)]
        one.insert(65, one.pop(0))
        jobs = [end(job) for job in (*one[:70], *other[:60], *alone, *one[70:], *other[60:])]
        for number, job in enumerate(jobs):
            job.value, job.pid = b"j%d" % (number * number), 7 + number % 2
            job.started_at += number
            job.ended_at += 3 * number
        odd = jobs[10::30]
        for number, job in enumerate(odd):
            job.attempt += number % 2
            job.crashes += number % 3
            job.log = LogSpan("w.1.log", number, 9) if number % 4 else None
            if number % 5 == 1:
                job.value, job.state, job.error = None, State.FAILED, ErrorInfo("E", "why", "")
        writer.change(*jobs)
        writer.commit()
        assert [picture(store.job(job.id)) for job in jobs] == [picture(job) for job in jobs]
        assert store.counts()[State.FAILED] == sum(job.state is State.FAILED for job in odd) > 0
        assert store.submit_of(key(1)) == (1, 3 * sqlite.ROWS)

    def test_a_job_keeps_what_it_came_after(self, store: Store, writer: Writer) -> None:
        """Also one that had not to wait, and has ended before it was stored."""
        source, job = end(writer.submit()[0]), end(writer.submit()[0])
        source.value = job.value = b"j1"
        job.after = [(source.id, When.SUCCEEDED)]
        writer.change(source, job)
        writer.commit()
        assert picture(store.job(job.id)) == picture(job)

    def test_a_row_is_changed(self, store: Store, writer: Writer) -> None:
        """Job and submit stay what they were; the counts follow."""
        (job,) = writer.submit()
        job.attempt = job.crashes = 1
        writer.change(job)
        writer.commit()
        assert picture(store.job(1)) == picture(job)
        writer.change(end(job))
        writer.commit()
        assert picture(store.job(1)) == picture(job)
        assert store.counts() == dict.fromkeys(State, 0) | {State.SUCCEEDED: 1}

    def test_a_call_is_changed(self, store: Store, writer: Writer) -> None:
        """And the call of no other job."""
        jobs = writer.submit(2)
        for job in jobs:
            end(job, State.FAILED)
        writer.change(*jobs)
        writer.commit()
        writer.batch.edited[jobs[0].id] = b"j[[1],{}]"
        writer.commit()
        found = [store.job(job.id) for job in jobs]
        assert [job and job.args for job in found] == [b"j[[1],{}]", jobs[1].args]

    def test_earlier_attempts_are_kept_in_order(self, store: Store, writer: Writer) -> None:
        """Written twice they are there once."""
        (job,) = writer.submit()
        attempts = [
            Attempt(1, n, State.CRASHED, n, n + 1, 7, "SIGKILL", None, None) for n in (2, 1, 10)
        ]
        job.earlier = attempts
        writer.change(job)
        writer.commit()
        writer.change(end(job))
        writer.commit()
        assert [a.number for a in store.attempts(1)] == [1, 2, 10]
        assert store.attempts(1)[0] == attempts[1]
        assert store.attempts(2) == []

    def test_notes_are_kept_with_the_attempt(self, store: Store, writer: Writer) -> None:
        """Of the last one with the job, of the others on their own records."""
        (job,) = writer.submit()
        note = ("it left a thread",)
        job.earlier = [Attempt(1, 1, State.FAILED, 1, 2, 7, "", None, None, notes=note)]
        job.notes = ("one", "two")
        writer.change(end(job))
        writer.commit()
        found = store.job(job.id)
        assert found is not None
        assert found.notes == ("one", "two")
        assert [a.notes for a in store.attempts(1)] == [note]

    def test_leases_come_and_go(self, store: Store, writer: Writer) -> None:
        """The newest comes first, and is as open as it has attempts."""
        writer.batch.leases |= {n: Lease(n, f"w{n}", [(n, 1), (n + 1, 2)], 1) for n in (1, 2, 3)}
        writer.commit()
        writer.batch.ended_leases.append(2)
        writer.commit()
        leases = [(x.id, x.worker, x.attempts, x.open, x.stored) for x in store.leases()]
        assert leases == [
            (3, "w3", [(3, 1), (4, 2)], 2, True),
            (1, "w1", [(1, 1), (2, 2)], 2, True),
        ]

    def test_a_job_in_a_parcel_and_in_a_row(self, store: Store, writer: Writer) -> None:
        """The row counts; without the parcel the others are gone, and only they."""
        jobs = writer.submit(3)
        writer.commit()
        writer.change(end(jobs[1]))
        writer.commit()
        states = [store.job(n).state for n in (1, 2, 3)]  # type: ignore[union-attr]  # they exist
        assert states == [State.QUEUED, State.SUCCEEDED, State.QUEUED]
        writer.batch.ended_parcels.append(1)
        writer.commit()
        assert [store.job(n) is not None for n in (1, 2, 3)] == [False, True, False]


class TestKeys:
    """A key leads to the jobs of its submit, wherever they are."""

    def test_a_key_is_found_in_parcels_and_rows(self, store: Store, writer: Writer) -> None:
        """First id and count; another key, or a piece of one, leads nowhere."""
        small = writer.submit(2, uid=key(5))
        large = writer.submit(2500, uid=key(6))
        writer.commit()
        assert store.submit_of(key(5)) == (1, 2)
        assert store.submit_of(key(6)) == (3, 2500)
        assert store.submit_of(key(7)) is None
        assert store.submit_of(key(5)[4:] + key(6)[:4]) is None
        writer.change(*map(end, [*small, *large[:1500]]))
        writer.batch.ended_parcels.append(1)
        writer.commit()
        assert store.submit_of(key(5)) == (1, 2)
        assert store.submit_of(key(6)) == (3, 2500)

    def test_the_highest_key_of_a_session(self, store: Store, writer: Writer) -> None:
        """It may be in a parcel or a row; sessions that look alike are apart."""
        other = b"session\xff"
        writer.submit(uid=key(300))
        writer.submit(uid=key(1, other))
        writer.commit()
        assert store.session_high(SESSION) == key(300)[8:]
        (job,) = writer.submit(uid=key(2**63))
        writer.batch.parcels.clear()  # it ended before it was stored
        writer.change(end(job))
        writer.commit()
        assert store.session_high(SESSION) == key(2**63)[8:]
        assert store.session_high(other) == key(1)[8:]
        assert store.session_high(b"session ") == b""

    def test_a_key_belongs_to_one_submit(self, writer: Writer) -> None:
        """The database itself refuses a second one."""
        writer.change(*map(end, [writer.submit(uid=key(1))[0], writer.submit(uid=key(1))[0]]))
        with pytest.raises(StoreFailed, match="UNIQUE"):
            writer.commit()


class TestBetweenTwoLooks:
    """A commit may come to its end while a question is being answered."""

    @pytest.fixture
    def moving(self, store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> Store:
        """Return a store in which a job gets its row, and loses its parcel, right after the first look."""
        (job,) = writer.submit(uid=key(1))
        writer.commit()
        writer.change(end(job))
        writer.batch.ended_parcels.append(1)
        writer.write()
        look = store._all
        waiting = [True]

        def look_and_commit(sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
            rows = look(sql, parameters)
            if waiting and " jobs " in sql:
                waiting.clear()
                store.commit()
            return rows

        monkeypatch.setattr(store, "_all", look_and_commit)
        return store

    def test_a_job_is_not_overlooked(self, moving: Store) -> None:
        """It was there all the time."""
        assert moving.job(1) is not None

    def test_a_key_is_not_overlooked(self, moving: Store) -> None:
        """Else its submit would be taken for a new one."""
        assert moving.submit_of(key(1)) == (1, 1)

    def test_a_listing_does_not_leave_it_out(self, moving: Store) -> None:
        """It is listed once, in one state or the other."""
        assert [job.id for job in moving.page(Selector(all=True), MAX_ID, 10)[0]] == [1]


class TestRules:
    """What the schema refuses, whoever writes it."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"state": 10},
            {"state": 3, "ended_at": 5},
            {"state": 11, "ended_at": 5, "value": b"j1"},
            {"value": b"j1"},
            {"state": None},
            {"created_at": "yesterday"},
            {"args": None},
        ],
    )
    def test_an_illegal_row(self, changes: dict[str, object], store: Store) -> None:
        """An end has its time, only an end has one, and only a success has a value."""
        row: dict[str, object] = {
            "id": 1, "uid": key(1), "batch": 1, "state": 3, "function": "m:f", "args": b"", "created_at": 1,
            "attempt": 0, "crashes": 0, "started_at": 0, "ended_at": 0, "pid": 0,
        }  # fmt: skip
        row |= changes
        sql = f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        with pytest.raises(sqlite3.IntegrityError):
            store._writer.execute(sql, list(row.values()))

    def test_odd_times_are_listed(self, store: Store, writer: Writer) -> None:
        """A clock that was wrong is no reason to refuse an answer."""
        jobs = writer.submit(3)
        for job, odd in zip(jobs, (-1, -(2**63), 2**63 - 1), strict=True):
            end(job).created_at = job.started_at = odd
            job.ended_at = 2**63 - 1
        writer.change(*jobs)
        writer.commit()
        found = store.page(Selector(all=True), MAX_ID, 10)[0]
        assert [picture(store.job(job.id)) for job in found] == [picture(j) for j in reversed(jobs)]


class TestLook:
    """The quick look that every start takes, as it is at a database that is too large to be read whole."""

    @pytest.fixture
    def large(self, store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return a database of which only some parts are read."""
        monkeypatch.setattr(check, "WHOLE_BYTES", 0)
        for _ in range(20):
            writer.change(*(end(job) for job in writer.submit(100)))
            writer.commit()
        store.close()
        return store.path

    def test_a_whole_one_passes(self, large: Path) -> None:
        """With all its tables and indexes."""
        check.quick(large)
        assert check.whole(large) == []

    @pytest.mark.parametrize("name", ["meta", "leases", "jobs", "sessions", "submits"])
    def test_a_root_that_is_damaged_is_found(self, large: Path, name: str) -> None:
        """Of a small table, of a large one, of an index."""
        overwrite(large, root_of(large, name))
        with pytest.raises(sqlite3.DatabaseError):
            check.quick(large)

    @pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
    def test_the_ends_of_a_table_are_read(self, large: Path, *, last: bool) -> None:
        """They are where rows come and go."""
        overwrite(large, leaf_of(large, root_of(large, "jobs"), last=last))
        with pytest.raises(sqlite3.DatabaseError):
            check.quick(large)

    def test_a_long_look_is_given_up_in_time(
        self, large: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who has to end does not wait for it."""
        monkeypatch.setattr(check, "STEPS", 1)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            check.whole(large, within_s=-1.0)


def root_of(path: Path, name: str) -> int:
    """Return the page at which a table or an index begins."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        return int(connection.execute(sql, (name,)).fetchone()[0])


def page_size(path: Path) -> int:
    """Return how many bytes a page has, as the file says."""
    return int.from_bytes(path.read_bytes()[16:18], "big")


def leaf_of(path: Path, page: int, *, last: bool) -> int:
    """Return the first or last leaf of a table's tree (sqlite.org/fileformat.html, 1.6)."""
    size, data = page_size(path), path.read_bytes()
    while data[(page - 1) * size] == 5:  # an inner page
        inner = data[(page - 1) * size : page * size]
        at = 8 if last else int.from_bytes(inner[12:14], "big")
        page = int.from_bytes(inner[at : at + 4], "big")
    return page


def overwrite(path: Path, page: int) -> None:
    """Write noise over a page."""
    size = page_size(path)
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write((b"noise\xff" * size)[:size])


class TestIdentity:
    """The files are looked at now and then: SQLite would not notice that they are gone."""

    def test_all_is_well(self, store: Store, writer: Writer) -> None:
        """Nothing is said, neither at once nor after a commit."""
        store.check_identity()
        writer.submit()
        writer.commit()
        store.check_identity()

    @pytest.mark.parametrize("name", ["jobd.db", "jobd.db-wal"])
    def test_a_file_is_deleted(self, name: str, store: Store) -> None:
        """The store has failed, and names it."""
        store.path.with_name(name).unlink()
        with pytest.raises(StoreFailed, match=f"{name} is gone"):
            store.check_identity()

    def test_what_a_deleted_log_holds_is_saved(self, store: Store, writer: Writer) -> None:
        """It is folded into the database."""
        writer.submit(3)
        writer.commit()
        store.path.with_name("jobd.db-wal").unlink()
        assert "nothing is lost" in store.save()
        again = Store(store.path)
        assert (again.next_id(), len(again.page(Selector(all=True), MAX_ID, 10)[0])) == (4, 3)
        again.close()

    def test_what_a_deleted_database_holds_is_saved(self, store: Store, writer: Writer) -> None:
        """In a copy, and no new one is made as long as that is there."""
        writer.submit(3)
        writer.commit()
        writer.submit(1)
        writer.write()  # what is not committed is nobody's loss
        store.path.unlink()
        store.save()
        (saved,) = store.path.parent.glob("jobd.db.backup-saved-*")
        with pytest.raises(ConfigError, match="was deleted while jobd used it"):
            Store(store.path)
        saved.rename(store.path)
        again = Store(store.path)
        assert again.next_id() == 4
        again.close()

    def test_the_file_is_replaced(self, store: Store, tmp_path: Path) -> None:
        """The store has failed."""
        other = tmp_path / "other"
        other.write_bytes(store.path.read_bytes())
        other.replace(store.path)
        with pytest.raises(StoreFailed, match="was replaced"):
            store.check_identity()


Contents = list[tuple[int, list[State | None], bool]]
"""Submits: what the function is called, the state of each job (None: no row), and whether a commit follows."""

STATES = st.sampled_from([None, None, State.QUEUED, *ENDS])
SUBMITS = st.tuples(st.integers(0, 3), st.lists(STATES, min_size=1, max_size=12), st.booleans())
CONTENTS: st.SearchStrategy[Contents] = st.lists(SUBMITS, max_size=8)
RANGES = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 60)).map(lambda r: (r[0], r[0] + r[1])), max_size=4
)
CHOSEN = st.lists(st.sampled_from([State.QUEUED, *ENDS]), max_size=3, unique=True)
SELECTORS: st.SearchStrategy[Selector] = st.one_of(
    st.builds(Selector, ranges=RANGES.filter(bool), states=CHOSEN),
    st.builds(Selector, last=st.integers(1, 30), states=CHOSEN),
    st.builds(Selector, all=st.just(value=True), states=CHOSEN),
)


def fill(store: Store, contents: Contents) -> dict[int, State]:
    """Store these submits, and return the state of each job."""
    writer, states = Writer(store), {}
    for name, wanted, commits in contents:
        jobs = writer.submit(len(wanted), function=f"m:f{name}")
        for job, state in zip(jobs, wanted, strict=True):
            states[job.id] = state or State.QUEUED
            if state is not None:
                writer.change(job if state is State.QUEUED else end(job, state))
        if commits:
            writer.commit()
    writer.commit()
    return states


class TestListing:
    """Pages: everything that was asked for, once, the newest first."""

    SETTINGS = settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        print_blob=True,
    )

    @SETTINGS
    @given(contents=CONTENTS, selector=SELECTORS, size=st.integers(1, 9), scan=st.integers(1, 20))
    def test_nothing_is_skipped_or_doubled(
        self, contents: Contents, selector: Selector, size: int, scan: int
    ) -> None:
        """Whatever is selected, however long a page is, and however far one look goes."""
        with emptied() as store, pytest.MonkeyPatch.context() as patch:
            patch.setattr(questions, "SCAN", scan)
            states = fill(store, contents)
            pages = list(islice(walk(store, selector, size), 1000))  # an end it must have
            found = [job.id for page in pages for job in page]
            assert found == expected(states, selector)
            assert all(len(page) <= size for page in pages)
            assert all(job.state is states[job.id] for page in pages for job in page)
            assert all(job.value is None for page in pages for job in page)

    @SETTINGS
    @given(contents=CONTENTS, wanted=st.integers(1, 30), cursor=st.integers(0, 40))
    def test_the_backlog_is_complete(self, contents: Contents, wanted: int, cursor: int) -> None:
        """Read piece by piece, it has every queued job beyond the cursor, and no other."""
        with emptied() as store:
            states = fill(store, contents)
            high = store.next_id() - 1
            queued: list[int] = []
            reached = [cursor]
            while reached[-1] < high:
                parcels, rows, upto = store.backlog(reached[-1], high, wanted)
                numbers = {
                    record.first + i
                    for parcel in parcels
                    for record in parcel.records
                    for i in range(len(record.args))
                }
                numbers = {n for n in numbers if n not in rows}
                numbers |= {n for n, job in rows.items() if job is not None}
                queued += [n for n in sorted(numbers) if n > reached[-1]]
                assert all(n <= upto for n in numbers)
                reached.append(upto)
            assert all(a < b for a, b in pairwise(reached))
            assert queued == [n for n, s in states.items() if s is State.QUEUED and n > cursor]

    def test_each_lane_has_its_own_backlog(self, store: Store, writer: Writer) -> None:
        """In parcels or in rows; nothing of it is in the one of plain jobs, nor that in it."""
        high, low = Policy(priority=1), Policy(queue="q", fair_key="t")
        plain = writer.submit(3)
        packed = writer.submit(3, policy=high)
        writer.submit(2)
        rows = writer.submit(3, policy=low)
        writer.change(*rows)
        writer.change(end(packed[1]), end(rows[0]))
        writer.commit()
        found = {
            lane: store.backlog(0, 11, 100, lane)
            for lane in ("", packed[0].lane, rows[0].lane, "0999\tnone\t")
        }
        queued = {
            lane: sorted(
                {r.first + i for p in parcels for r in p.records for i in range(len(r.args))}
                - own.keys()
                | {n for n, job in own.items() if job}
            )
            for lane, (parcels, own, _) in found.items()
        }
        assert list(queued.values()) == [[1, 2, 3, 7, 8], [4, 6], [10, 11], []]
        assert {reached for *_, reached in found.values()} == {11}
        job = store.job(6)
        assert job is not None
        assert (job.lane, plain[0].lane) == (lane_of(high), "")

    def test_the_lanes_in_which_jobs_wait_are_found_in_order(
        self, store: Store, writer: Writer
    ) -> None:
        """Each once, however many wait in it, and none in which nobody waits."""
        said = [{"priority": 5}, {"fair_key": "b"}, {"fair_key": "a"}, {"queue": "q"}]
        policies = [Policy(**options) for options in said]  # type: ignore[arg-type]  # by name
        jobs = [job for policy in policies for job in writer.submit(3, policy=policy)]
        writer.submit(3)
        writer.change(*jobs[3:9])
        writer.change(*(end(job) for job in jobs[3:6]))
        writer.batch.ended_parcels += [4, 7]
        writer.commit()
        every = store.lanes("", ":", 10)
        assert every == [lane_of(policies[n]) for n in (0, 2, 3)]
        assert store.lanes("", ":", 2) == every[:2]
        assert store.lanes(every[0], every[2], 10) == every[1:2]

    @pytest.mark.parametrize(
        ("sql", "index"),
        [
            (
                "SELECT id FROM jobs WHERE state = 3 AND lane IS NULL AND id > 5 ORDER BY id",
                "queued",
            ),
            ("SELECT id FROM jobs WHERE state = 3 AND lane = 'x' AND id > 5 ORDER BY id", "lanes"),
            (f"{questions._NEXT_LANE[0]}", "lanes"),
            (f"{questions._NEXT_LANE[1]}", "lane_parcels"),
        ],
    )
    def test_what_waits_is_found_by_an_index(self, store: Store, sql: str, index: str) -> None:
        """Ten million jobs that wait are not looked through for one lane."""
        parameters = ("a", "b") if "?" in sql else ()
        (plan,) = store._all(f"EXPLAIN QUERY PLAN {sql}", parameters)
        assert f"INDEX {index} " in plan[3]

    def test_many_jobs_are_looked_at_in_slices(
        self, store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A page may be empty, and the next one goes on; what is rare is found at once, by its index."""
        monkeypatch.setattr(questions, "SCAN", 100)
        jobs = writer.submit(1000)
        writer.change(*(end(job) for job in jobs[1:]), end(jobs[0], State.FAILED))
        writer.commit()
        assert store.page(Selector(ranges=[(1, 1000)], states=[State.QUEUED]), MAX_ID, 10) == (
            [],
            901,
        )
        assert len(list(walk(store, Selector(all=True, states=[State.QUEUED])))) == 10
        (found,), before = store.page(Selector(all=True, states=[State.FAILED]), MAX_ID, 10)
        assert (found.id, before) == (1, 0)

    def test_an_empty_store(self, store: Store) -> None:
        """There is one page, and nothing on it."""
        assert list(walk(store, Selector(last=3))) == [[]]


@contextlib.contextmanager
def emptied() -> Iterator[Store]:
    """Make a store that lives in memory only, so that hundreds of them cost nothing."""
    store = Store.__new__(Store)
    store._writer = files.connect(Path("file::memory:"))
    schema = Path(files.__file__).with_name("schema.sql").read_text(encoding="utf-8")
    store._writer.executescript(schema)
    store._reader = store._writer
    try:
        yield store
    finally:
        store._writer.close()


def expected(states: dict[int, State], selector: Selector) -> list[int]:
    """Return the ids that a selector means, the newest first."""
    ranges = [(1, MAX_ID)] if selector.all or selector.last else selector.ranges
    wanted = [
        number
        for number, state in states.items()
        if any(low <= number <= high for low, high in ranges)
        and (not selector.states or state in selector.states)
    ]
    return sorted(wanted, reverse=True)[: selector.last or None]


def test_only_ends_have_numbers_from_ten_on() -> None:
    """The schema's rules count on it."""
    assert [state for state in State if state >= ENDED] == ENDS
