"""Retries and times of start with a real daemon."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually

from jobd.client import Client
from jobd.model.errors import JobCancelled, JobCrashed, JobExpired, JobFailed, UsageError
from jobd.model.job import JobInfo
from jobd.model.selector import Selector, one
from jobd.model.states import State


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon that the tests of this module share which do not end it."""
    with DaemonUnderTest() as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture(scope="module")
def client(shared: DaemonUnderTest) -> Client:
    """Return its client."""
    return shared.client()


def info_of(client: Client, number: int) -> JobInfo:
    """Return a job with its earlier attempts."""
    (info,) = client.find(one(number))
    return info


def is_in(client: Client, number: int, state: State) -> bool:
    """Whether a job is in this state."""
    return info_of(client, number).state is state


def test_a_job_that_fails_is_run_again_and_every_attempt_is_kept(
    client: Client, shared: DaemonUnderTest, tmp_path: Path
) -> None:
    """A base of its exception is enough; each attempt has its error, its times and its output."""
    retrying = client.options(retries=3, backoff="fixed:20ms", retry_on="OSError")
    job = retrying.submit("again:fail_until", str(tmp_path / "runs"), 2)
    assert job.result(timeout=20) == 3
    info = info_of(client, job.id)
    assert [a.error and a.error.message for a in info.earlier] == ["run 1", "run 2"]
    assert all(a.state is State.FAILED and a.pid and a.started_at for a in info.earlier)
    for attempt in (1, 2, 3):
        assert b"".join(client.logs(job.id, attempt=attempt)) == b"run %d\n" % attempt
    shown = shared.cli("show", str(job.id)).stdout
    assert "attempt 1" in shown
    assert "again.Flaky: run 2" in shown


def test_what_is_not_named_is_not_run_again(client: Client, tmp_path: Path) -> None:
    """And what is excluded neither."""
    retrying = client.options(retries=3, backoff="0")
    for number, some in enumerate(
        [retrying.options(retry_on="ValueError"), retrying.options(no_retry_on="again.Flaky")]
    ):
        job = some.submit("again:fail_until", str(tmp_path / str(number)), 9)
        with pytest.raises(JobFailed, match="run 1"):
            job.result(timeout=20)


def test_a_job_says_by_itself_what_is_to_follow(client: Client, tmp_path: Path) -> None:
    """A retry uses one up, a snooze does not, a cancel has its reason."""
    asks = client.options(retries=1).submit("again:ask_until", str(tmp_path / "a"), 1, 0.01)
    assert asks.result(timeout=20) == 2
    spent = client.options(retries=1).submit("again:ask_until", str(tmp_path / "b"), 2, 0.01)
    with pytest.raises(JobFailed, match="jobd.Retry"):
        spent.result(timeout=20)
    snoozes = client.submit("again:snooze_until", str(tmp_path / "c"), 3)
    assert snoozes.result(timeout=20) == 4
    assert [a.cause for a in info_of(client, snoozes.id).earlier] == ["too early"] * 3
    with pytest.raises(JobCancelled, match="no such user"):
        client.submit("again:cancel", "no such user").result(timeout=20)


def test_a_job_has_its_own_crash_budget(client: Client, tmp_path: Path) -> None:
    """Whatever the setting says, which is one."""
    often = client.options(max_crashes=2).submit("again:crash_until", str(tmp_path / "a"), 2)
    assert often.result(timeout=20) == 3
    never = client.options(max_crashes=0).submit("again:crash_until", str(tmp_path / "b"), 2)
    with pytest.raises(JobCrashed, match="SIGABRT"):
        never.result(timeout=20)


def test_a_job_starts_when_it_was_said(shared: DaemonUnderTest) -> None:
    """The command line tells the instant, and the job is scheduled until then."""
    before = time.time()
    done = shared.cli("submit", "--in", "300ms", "--wait", "again:start_time")
    assert float(done.stdout) >= before + 0.3
    assert "starts at " in done.stderr
    late = shared.cli("submit", "--at", "2100-01-01T12:00Z", "--json", "again:start_time")
    told = json.loads(late.stdout)
    assert (told["state"], told["due_at"]) == ("scheduled", "2100-01-01T12:00:00Z")
    number = str(told["id"])
    assert shared.cli("result", number).returncode == 3
    assert "2100-01-01T12:00:00Z" in shared.cli("show", number).stdout
    assert shared.cli("cancel", number).stdout.split() == [number, "cancelled"]


@pytest.mark.parametrize(
    ("at", "starts", "sentence"),
    [
        ("2099-03-29T02:30", "2099-03-29T01:00:00Z", "there is no 02:30 on 2099-03-29"),
        ("2099-10-25T02:30", "2099-10-25T00:30:00Z", "this is the first, 02:30 CEST (00:30 UTC)"),
    ],
)
def test_a_start_is_told_where_clocks_are_changed(
    shared: DaemonUnderTest, at: str, starts: str, sentence: str
) -> None:
    """Moved to the end of the gap, or the first of the two; in a graph as well."""
    done = shared.cli("submit", "--at", at, "again:start_time", TZ="Europe/Berlin")
    assert sentence in done.stderr
    assert json.loads(shared.cli("show", "--json", "last").stdout)["due_at"] == starts
    graph = f'[jobs.late]\nfunction = "again:start_time"\nat = {at}:00\n'
    done = shared.cli("apply", "-q", "-", stdin=graph, TZ="Europe/Berlin")
    assert json.loads(shared.cli("show", "--json", "last").stdout)["due_at"] == starts
    done = shared.cli("apply", "--dry-run", "-", stdin=graph, TZ="Europe/Berlin")
    assert "jobd: jobs.late: " in done.stderr
    assert sentence in done.stderr
    assert shared.cli("cancel", "-s", "scheduled", "all").returncode == 0


def test_a_job_that_could_not_start_in_time_has_expired(shared: DaemonUnderTest) -> None:
    """Who waits for it is told, with exit code 5; a retry runs it all the same."""
    client = shared.client()
    job = client.options(in_=60, expires=0.05).submit("again:start_time")
    with pytest.raises(JobExpired, match="has expired"):
        job.result(timeout=20)
    gone = shared.cli("result", str(job.id))
    assert (gone.returncode, "has expired" in gone.stderr) == (5, True)
    shared.cli("retry", str(job.id))
    again = client.attach(job.id)
    assert again.result(timeout=20) > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--retries", "-1"), "--retries: -1 is out of range"),
        (("--backoff", "soon"), "--backoff: 'soon' is not a backoff"),
        (("--jitter", "2"), "--jitter: '2' is no number here"),
        (("--at", "whenever"), "--at: 'whenever' is not an instant"),
        (("--at", "9999-12-31T23:59"), "--at: 9999-12-31T23:59:00 is too far away"),
        (("--in", "1s", "--at", "tomorrow 09:00"), "exclude each other"),
        (("--retry-on", "not a name"), "--retry-on: 'not a name' are no names"),
        (("--max-crashes", "many"), "--max-crashes: 'many' is not a whole number"),
    ],
)
def test_a_bad_value_is_one_sentence_and_changes_nothing(
    shared: DaemonUnderTest, words: tuple[str, ...], sentence: str
) -> None:
    """Exit 2, and there is no new job."""
    before = shared.cli("ls", "-q", "-n", "1").stdout
    done = shared.cli("submit", *words, "again:start_time")
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert shared.cli("ls", "-q", "-n", "1").stdout == before


def test_a_retry_outlives_the_daemon(tmp_path: Path) -> None:
    """Killed while a job waits for its next attempt, the next daemon runs it, and counts on."""
    with DaemonUnderTest(pool__workers=1) as daemon:
        client = daemon.write_jobs().start().client()
        path = tmp_path / "runs"
        retrying = client.options(retries=1, backoff="fixed:1s", jitter=0)
        number = retrying.submit("again:fail_until", str(path), 9).id
        eventually(lambda: is_in(client, number, State.SCHEDULED))
        daemon.kill()
        daemon.start()
        with pytest.raises(JobFailed, match="run 2"):
            daemon.client().attach(number).result(timeout=20)
        first, second = map(float, path.read_text().split())
        assert second - first >= 0.9


def test_the_dead_are_grouped_by_what_they_died_of(tmp_path: Path) -> None:
    """The most frequent one first, each with its newest job."""
    with DaemonUnderTest() as daemon:
        daemon.write_jobs().start()
        assert daemon.cli("failed").stderr == "jobd: no jobs have failed\n"
        client = daemon.client()
        jobs = [client.submit("work:fail", f"no {n}") for n in range(3)]
        crashed = client.options(max_crashes=0).submit("again:crash_until", str(tmp_path / "x"), 9)
        client.wait([job.id for job in (*jobs, crashed)], timeout_s=20)
        told = json.loads(daemon.cli("failed", "--json").stdout)
        assert told["schema"] == "jobd.failed/1"
        assert [(g["error"], g["count"], g["newest"]) for g in told["groups"]] == [
            ("ValueError", 3, jobs[-1].id),
            ("crashed (SIGABRT)", 1, crashed.id),
        ]
        first = daemon.cli("failed").stdout.splitlines()[0].split("\t")
        assert first == ["3", "ValueError", str(jobs[-1].id), "work:fail", "no 2"]
        assert daemon.cli("failed", "-q").stdout.split() == [str(jobs[-1].id), str(crashed.id)]


EDITOR = """\
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    call = json.load(file)
assert call == {"args": ["no"], "kwargs": {}}, call
with open(sys.argv[1], "w", encoding="utf-8") as file:
    file.write(%r)
"""


def editor(path: Path, saves: str) -> str:
    """Return an editor that replaces what it is given."""
    path.write_text(EDITOR % saves, encoding="utf-8")
    return f"{sys.executable} {path}"


def test_a_call_can_be_edited_before_it_is_retried(shared: DaemonUnderTest, tmp_path: Path) -> None:
    """The id stays, the earlier attempt stays, and the next one gets what was saved."""
    number = shared.cli("submit", "work:fail", "no").stdout.strip()
    assert shared.cli("wait", number).returncode == 1
    saves = editor(tmp_path / "editor.py", '{"args": ["yes"], "kwargs": {}}')
    done = shared.cli("retry", number, "--edit", EDITOR=saves)
    assert done.stdout.split("\t") == [number, "queued again\n"]
    assert "ValueError: yes" in shared.cli("result", number, "--wait").stderr
    told = json.loads(shared.cli("show", number, "--json").stdout)
    assert (told["args"], told["attempts"]) == (["yes"], 2)
    assert [attempt["error"]["message"] for attempt in told["earlier"]] == ["no"]


@pytest.mark.parametrize(
    ("saves", "sentence"),
    [("{", "is no call"), ('{"args": 1}', "is no call"), ('{"argv": []}', "is no call")],
)
def test_what_is_no_call_is_refused_and_nothing_is_run(
    shared: DaemonUnderTest, tmp_path: Path, saves: str, sentence: str
) -> None:
    """Exit 2, and the job stays as it is."""
    number = shared.cli("submit", "work:fail", "no").stdout.strip()
    shared.cli("wait", number)
    done = shared.cli("retry", number, "--edit", EDITOR=editor(tmp_path / "editor.py", saves))
    assert (done.returncode, sentence in done.stderr) == (2, True)
    assert json.loads(shared.cli("show", number, "--json").stdout)["attempts"] == 1


def test_only_one_job_and_only_plain_json_can_be_edited(
    shared: DaemonUnderTest, client: Client, tmp_path: Path
) -> None:
    """Anything else is refused, by the command line and by the daemon."""
    several = shared.cli("retry", "1-2", "--edit")
    assert (several.returncode, "one job" in several.stderr) == (2, True)
    with pytest.raises(UsageError, match="for one job"):
        client.retry(Selector([(1, 2)]), b"j[[],{}]")
    pickled = client.submit("work:fail", {1})
    pickled.exception(timeout=20)
    with pytest.raises(UsageError, match="not plain JSON"):
        client.retry(one(pickled.id), b"j[[],{}]")
    failed = shared.cli("retry", str(pickled.id), "--edit", EDITOR=str(tmp_path))
    assert (failed.returncode, "not plain JSON" in failed.stderr) == (2, True)
