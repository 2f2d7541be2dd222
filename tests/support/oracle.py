"""What must hold after any fault, whatever it was.

A test submits its jobs through an `Oracle`, which remembers what the daemon has
promised (an id for a submit, an end for a job) at the moment it was heard.  Each
job leaves a mark in a file when it runs and returns a value that no other run
returns, so a job that was lost, ran once too often, or changed its result shows.
After the fault, `judge` lets all jobs end, stops the daemon and looks into the
database.  It asserts:

1. every acknowledged submit is there, with the arguments that were submitted;
2. every one of them has one end, and an end that was told is the one on record;
3. the number of a job's attempt has never fallen, and no attempt ran twice;
4. a key stands for one submit, and an id for one job;
5. nothing of the daemon lives on;
6. SQLite finds nothing wrong with the file;
7. the daemon answers a ping within five seconds.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import DaemonUnderTest, eventually

from jobd import payload
from jobd.client import Client, Deferred
from jobd.model.errors import DaemonUnreachable, JobdError, WaitTimeout
from jobd.model.selector import Selector
from jobd.model.states import ENDED, State

ANSWER_S = 5.0

End = tuple[State, object]


@dataclass
class Counts:
    """What came of a test's jobs."""

    attempted: int = 0
    acknowledged: int = 0
    refused: int = 0
    ok: int = 0
    lost: int = 0
    duplicated: int = 0
    recovered: int = 0
    """Ended well although an attempt was lost, or the submit had to be sent again."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        numbers = {k: v for k, v in vars(self).items() if isinstance(v, int)}
        return ", ".join(f"{name} {number}" for name, number in numbers.items())


class Oracle:
    """Submits jobs to a daemon, remembers what it promised, and judges it."""

    def __init__(self, daemon: DaemonUnderTest) -> None:
        self.daemon = daemon
        self.marks = daemon.root / "marks"
        self.database = daemon.state_dir / "jobd.db"
        self._tags: list[str] = []
        self._deferreds: dict[str, Deferred[Any]] = {}
        self._acknowledged: dict[str, int] = {}
        self._told: dict[str, End] = {}
        self._refused: dict[str, JobdError] = {}
        self._attempts: dict[int, int] = {}
        self._spare: Counter[str] = Counter()
        """Runs that are allowed beside the attempts on record: the submit was not acknowledged yet."""

    # -- before and during the fault --

    def submit(
        self, client: Client, function: str = "mark", *more: object, count: int = 1
    ) -> list[Deferred[Any]]:
        """Submit jobs of a function of ``marks``, in one message; returns at once."""
        tags = [f"job{len(self._tags) + i}" for i in range(count)]
        self._tags += tags  # before they are sent: the daemon may die before we go on
        calls: list[list[Any]] = [[str(self.marks), tag, *more] for tag in tags]
        deferreds = client.submit_many(f"marks:{function}", calls)
        self._deferreds.update(zip(tags, deferreds, strict=True))
        return deferreds

    def adopt(self, tag: str, number: int) -> None:
        """Take over a job that another process has submitted, and was told the id of."""
        self._tags.append(tag)
        self._acknowledged[tag] = number

    def listen(self) -> None:
        """Take note of what has been heard up to now; waits for nothing."""
        for tag, deferred in list(self._deferreds.items()):
            if deferred._id:
                self._acknowledged.setdefault(tag, deferred._id)
            if deferred._ended is not None and tag not in self._told:
                self._told[tag] = (deferred._ended.state, _value(deferred._ended.value))

    def fault(self) -> None:
        """Take note that the daemon dies now: a submit that it has not acknowledged may run again."""
        self.listen()
        self._spare.update(tag for tag in list(self._tags) if tag not in self._acknowledged)

    def look(self, client: Client) -> None:
        """Take note of the attempts as the daemon shows them; none may have a lower number than before."""
        for info in client.find(Selector(all=True)):
            before = self._attempts.get(info.id, 0)
            assert info.attempt >= before, f"job {info.id}: attempt {before} became {info.attempt}"
            self._attempts[info.id] = info.attempt

    def runs(self, deferreds: list[Deferred[Any]]) -> list[int]:
        """Return how often each of these jobs has run."""
        tags = {id(deferred): tag for tag, deferred in self._deferreds.items()}
        marked = self._marked()
        return [len(marked[tags[id(deferred)]]) for deferred in deferreds]

    def wait_for_runs(self, deferred: Deferred[Any], count: int = 1) -> None:
        """Wait until a job has begun for the ``count``-th time."""
        eventually(lambda: self.runs([deferred]) >= [count])

    # -- after it --

    def judge(self, *, within_s: float = 30.0) -> Counts:
        """Let all jobs end, stop the daemon, and assert all that the docstring of this module lists."""
        self.listen()
        client = self.daemon.client(timeout_s=ANSWER_S)
        client.ping()
        ends = self._all_ends(client, within_s)
        self.look(client)
        client.close()
        assert self.daemon.terminate() == 0, self.daemon.log
        eventually(lambda: not self.daemon.processes())
        counts = self._compare(ends)
        print(f"\n{counts}")
        assert not counts.wrong, f"{counts}\n" + "\n".join(counts.wrong) + f"\n{self.daemon.log}"
        return counts

    def _all_ends(self, client: Client, within_s: float) -> dict[str, End]:
        for tag, deferred in self._deferreds.items():
            try:
                self._acknowledged.setdefault(tag, deferred.id)
            except (WaitTimeout, DaemonUnreachable):
                raise
            except JobdError as error:
                self._refused[tag] = error
        ids = list(self._acknowledged.values())
        found = client.wait(ids, within_s) if ids else {}
        self.listen()
        return {
            tag: (found[number].state, _value(found[number].value))
            for tag, number in self._acknowledged.items()
        }

    def _compare(self, ends: dict[str, End]) -> Counts:
        copy = self.daemon.root / "copy.db"  # the original may be where SQLite cannot follow
        shutil.copy(self.database, copy)
        rows, wrong = read_jobs(copy)
        counts = Counts(
            attempted=len(self._tags),
            acknowledged=len(self._acknowledged),
            refused=len(self._refused),
            wrong=wrong,
        )
        marked = self._marked()
        owners = Counter(self._acknowledged.values())
        for tag, number in self._acknowledged.items():
            row = rows.get(number)
            if row is None or row.tag != tag:
                counts.lost += 1
                counts.wrong.append(f"{tag}: job {number} is lost; in its place: {row}")
                continue
            problems = self._problems(row, ends[tag], marked[tag])
            if owners[number] > 1:
                problems.append(f"its id is shared by {owners[number]} acknowledged jobs")
            counts.duplicated += bool(owners[number] > 1 or self._runs_too_many(row, marked[tag]))
            counts.ok += not problems
            counts.recovered += row.attempt > 1 or row.crashes > 0 or self._spare[tag] > 0
            counts.wrong += [f"{tag}: job {number}: {problem}: {row}" for problem in problems]
        return counts

    def _problems(self, row: Row, end: End, values: list[str]) -> list[str]:
        """Return what is wrong with a job."""
        problems = []
        if row.state < ENDED:
            problems.append("it has no end")
        if (row.state, row.value) != end:
            problems.append(f"its end is not the one that was told at the end, {end}")
        told = self._told.get(row.tag)
        if told is not None and told != end:
            problems.append(f"its end is not the one that was told, {told}")
        if row.state is State.SUCCEEDED and row.value not in values:
            problems.append(f"its value is that of no run: {values}")
        if self._runs_too_many(row, values):
            problems.append(f"it ran {len(values)} times")
        return problems

    def _runs_too_many(self, row: Row, values: list[str]) -> bool:
        return len(values) > row.attempt + self._spare[row.tag]

    def _marked(self) -> defaultdict[str, list[str]]:
        marked: defaultdict[str, list[str]] = defaultdict(list)
        if self.marks.exists():
            for line in self.marks.read_text(encoding="utf-8").splitlines():
                tag, _, value = line.partition(" ")
                marked[tag].append(value)
        return marked


@dataclass
class Row:
    """A job as the database has it."""

    id: int
    tag: str
    state: State
    attempt: int
    crashes: int
    value: object


def read_jobs(database: Path) -> tuple[dict[int, Row], list[str]]:
    """Return the jobs in the database of a daemon that has ended, and what is wrong with the file."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        wrong = [] if verdict == "ok" else [f"integrity_check: {verdict}"]
        columns = "id, args, state, attempt, crashes, value"
        found: Iterable[tuple[Any, ...]] = connection.execute(f"SELECT {columns} FROM jobs")
        rows = {
            row[0]: Row(row[0], _tag(row[1]), State(row[2]), row[3], row[4], _value(row[5]))
            for row in found
        }
        twice = "SELECT uid FROM jobs WHERE batch > 0 GROUP BY uid HAVING count(*) > 1"
        wrong += [f"key {uid.hex()} has several submits" for (uid,) in connection.execute(twice)]
        (leases,) = connection.execute("SELECT count(*) FROM leases").fetchone()
        wrong += [f"{leases} leases are left"] if leases else []
    return rows, wrong


def _tag(args: bytes) -> str:
    positional, _, _ = payload.decode_call(args)
    return str(positional[1]) if len(positional) > 1 else ""


def _value(data: bytes | None) -> object:
    return None if data is None else payload.decode(data)
