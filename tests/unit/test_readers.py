"""A reader of the store that does not end: it is told, with its pid, and no more when it has gone."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobd.daemon.readers import LOOK_S, Readers, holders
from jobd.store import files
from jobd.store.ahead import WriteAheadLog

MOST = 200_000

READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM t").fetchall()
print("reads", flush=True)
sys.stdin.read()
"""


class Written:
    """A database, its writer, and who looks after its log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = files.connect(path)
        self.writer.execute("PRAGMA journal_mode = WAL")
        self.writer.execute("PRAGMA busy_timeout = 0")
        self.writer.execute("PRAGMA journal_size_limit = 100000")
        self.writer.execute("PRAGMA wal_autocheckpoint = 10")
        self.writer.execute("CREATE TABLE t (data)")
        self.ahead = WriteAheadLog(path, self.writer)
        self.is_free = True
        self.readers = Readers(self.ahead, lambda: self.is_free, MOST)
        self._now_s = 0.0

    def write(self) -> None:
        """Commit more than may be in the log, bit by bit."""
        for _ in range(40):
            self.writer.execute("INSERT INTO t VALUES (zeroblob(10000))")

    def look(self, after_s: float = LOOK_S) -> str:
        """What is wrong, some time after the last look."""
        self._now_s += after_s
        self.readers.look(self._now_s)
        return self.readers.trouble


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    """Return an empty database."""
    made = Written(tmp_path / "store.db")
    with closing(made.writer):
        yield made


@pytest.fixture
def reader(written: Written) -> Iterator[subprocess.Popen[str]]:
    """Return a process in the midst of reading it; it ends when its stdin does."""
    words = [sys.executable, "-P", "-c", READER, str(written.path)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reads\n"
        yield process
        process.kill()


def test_without_a_reader_the_log_is_folded_in_by_the_commits(written: Written) -> None:
    """And nothing is wrong."""
    for _ in range(5):
        written.write()
        assert written.look() == ""


def test_a_reader_that_does_not_end_is_told_with_its_pid(
    written: Written, reader: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    """In the log once; when it has gone the next commits fold the log in, and all is well."""
    caplog.set_level(logging.WARNING, "jobd")
    assert written.look() == ""
    written.write()
    assert written.look() == "", "it may be a short look only"
    trouble = written.look()
    assert trouble.startswith("the write-ahead log of the job store has 1 MiB, because process ")
    assert f"process {reader.pid} (" in trouble
    written.write()
    assert written.look()
    assert [record.message for record in caplog.records] == [trouble]
    reader.communicate("")
    for _ in range(3):
        written.write()
        trouble = written.look()
    assert trouble == ""


def test_where_nothing_is_written_any_more_the_daemon_folds_it_in(
    written: Written, reader: subprocess.Popen[str]
) -> None:
    """Or it would say for ever what is over; but not in the midst of a commit."""
    written.write()
    written.look()
    assert written.look()
    reader.communicate("")
    written.is_free = False
    assert written.look()
    written.is_free = True
    written.writer.execute("BEGIN IMMEDIATE")
    assert written.look()
    written.writer.execute("ROLLBACK")
    assert written.look(LOOK_S / 2), "too soon for another look"
    assert written.look(LOOK_S / 2) == ""
    assert written.ahead.size() == 0
    assert written.writer.execute("SELECT count(*) FROM t").fetchone() == (40,)


def test_a_reader_that_cannot_be_seen_is_said_to_be_one(written: Written) -> None:
    """Of another user, or in another container: root can find it."""
    with closing(sqlite3.connect(written.path, isolation_level=None)) as own:
        own.execute("BEGIN")
        own.execute("SELECT count(*) FROM t").fetchall()
        written.write()
        written.look()
        trouble = written.look()
    assert "cannot be seen from here" in trouble
    assert f"'fuser {written.path}'" in trouble


def test_one_large_commit_is_no_trouble(written: Written) -> None:
    """The log was folded in, and its file is cut."""
    written.writer.execute(f"INSERT INTO t VALUES (zeroblob({2 * MOST}))")
    assert written.ahead.size() > MOST
    assert written.look() == ""
    assert written.ahead.size() == 0


def test_a_log_that_is_gone_is_no_trouble_here(tmp_path: Path) -> None:
    """The store tells of that itself."""
    with closing(sqlite3.connect(":memory:")) as connection:
        ahead = WriteAheadLog(tmp_path / "none.db", connection)
        assert ahead.size() == 0


def test_holders_are_other_processes_only(written: Written) -> None:
    """This one has the files open, and is none."""
    assert holders(written.ahead.paths) == []
    assert holders(["/nowhere"]) == []
