"""The command line against a real daemon, each command a process of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import DaemonUnderTest, is_alive

Make = Callable[..., DaemonUnderTest]

MODULE = '''
"""Jobs for the tests of the command line."""

import dataclasses
import datetime
import decimal
import os
import signal


class Report:
    """A class whose method is a job."""

    @staticmethod
    def build(number, *, note="-"):
        """Return what was passed."""
        return f"{number!r} {note!r}"


async def double(n):
    """A coroutine."""
    return 2 * n


def a_complex():
    """What JSON cannot say."""
    return 1j


@dataclasses.dataclass
class Row:
    """What JSON says in its own way."""

    at: datetime.datetime
    price: decimal.Decimal
    tags: set[str]

    def cents(self):
        """Be more than data."""
        return int(100 * self.price)


def rows(count=1):
    """Return some."""
    at = datetime.datetime(2026, 12, 24, 12, tzinfo=datetime.timezone.utc)
    return {"rows": [Row(at, decimal.Decimal("1.50"), {"b", "a"}) for _ in range(count)], "raw": b"jobd"}


def cents(row):
    """Take the very object that another job has returned."""
    return row.cents()


def escapes():
    """What a terminal would obey."""
    return "\\x1b[2Jred"


def large(size):
    """A value that is not pushed but fetched."""
    return "x" * size


def write(*lines):
    """Write bytes that are no UTF-8, and a line for each argument."""
    os.write(1, b"\\xff\\n")
    for line in lines:
        print(line)


def die():
    """Take the worker along."""
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
'''


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon with two workers, for the tests that do it no harm."""
    with DaemonUnderTest(modules={"mytasks": MODULE}) as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Return a pipe by name: who reads it waits until a test writes to it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def ok(daemon: DaemonUnderTest, *words: str, **more: Any) -> str:
    """Run a command that succeeds and says nothing on stderr; return what it printed."""
    done = daemon.cli(*words, **more)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def as_json(daemon: DaemonUnderTest, *words: str, code: int = 0) -> Any:
    """Run a command with --json; return its one value."""
    done = daemon.cli(*words, "--json")
    assert (done.returncode, done.stderr) == (code, ""), done
    return json.loads(done.stdout)


def submit(daemon: DaemonUnderTest, *words: str) -> str:
    """Submit a job; return its id."""
    return ok(daemon, "submit", *words).strip()


def background(daemon: DaemonUnderTest, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    """Start a command that goes on beside the test."""
    more.setdefault("stdout", subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jobd", *words],
        cwd=daemon.work_dir,
        env=daemon.environ,
        stderr=subprocess.PIPE,
        **more,
    )


# -- the daemon ---------------------------------------------------------------


def test_a_day_with_jobd(make_daemon: Make) -> None:
    """Start, submit, wait, look and stop, as the README has it."""
    daemon = make_daemon()
    daemon.write_module("config", "def load():\n    return 'a user has a config too'\n")
    started = ok(daemon, "start")
    assert started.startswith("jobd ")
    assert started.endswith(", 2 workers, state in ~/state\n")
    assert ok(daemon, "submit", "math:factorial", "20") == "1\n"
    assert ok(daemon, "result", "--wait", "1") == "2432902008176640000\n"
    assert ok(daemon, "submit", "--wait", "os.path:join", "usr", "lib") == "usr/lib\n"
    # Found because `start` puts the current directory on the workers' path.
    assert ok(daemon, "submit", "--wait", "config:load") == "a user has a config too\n"
    assert ok(daemon, "ls", "-q") == "3\n2\n1\n"
    assert ok(daemon, "stop").startswith("jobd has stopped: pid ")


def test_start_says_which_daemon_holds_the_state_directory(make_daemon: Make) -> None:
    """A second start exits 75 and names the first one's pid; so in JSON."""
    daemon = make_daemon()
    first = as_json(daemon, "start")
    assert first["schema"] == "jobd.start/1"
    assert (first["workers"], first["socket"]) == (2, daemon.socket)
    second = daemon.cli("start")
    assert (second.returncode, second.stdout) == (75, "")
    assert f"pid {first['pid']}" in second.stderr
    error = as_json(daemon, "start", code=75)
    assert error["error"] == "already_running"
    assert error["hint"].startswith("use it, stop it with 'jobd stop'")
    assert str(first["pid"]) in error["message"]
    assert as_json(daemon, "stop") == {
        "schema": "jobd.stop/1",
        "pid": first["pid"],
        "stopped": True,
    }
    assert not is_alive(first["pid"])


def test_start_takes_paths_and_settings(make_daemon: Make, tmp_path: Path) -> None:
    """--path takes the place of the current directory, and can be repeated."""
    daemon = make_daemon()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"module_{name}.py").write_text(f"def f():\n    return {name!r}\n")
    words = ["--path", str(tmp_path / "one"), "--path", str(tmp_path / "two"), "--workers", "1"]
    assert ", 1 worker, " in ok(daemon, "start", *words, "--durability", "off")
    assert ok(daemon, "submit", "--wait", "module_one:f") == "one\n"
    assert ok(daemon, "submit", "--wait", "module_two:f") == "two\n"
    assert daemon.cli("submit", "work:nothing").returncode == 2
    assert as_json(daemon, "status")["durability"] == "off"
    assert ok(daemon, "stop", "--now", "-q") == ""


def test_a_daemon_that_cannot_start_tells_its_starter_why(make_daemon: Make) -> None:
    """Its own error, and not one that has the same exit code; whatever bytes are in a name."""
    daemon = make_daemon()
    odd = os.fsdecode(os.fsencode(daemon.root) + b"/\xff")
    os.makedirs(f"{odd}/jobd.db", mode=0o700)
    os.chmod(odd, 0o700)
    for state_dir in (odd, str(daemon.root / "plain")):
        os.makedirs(f"{state_dir}/jobd.db", mode=0o700, exist_ok=True)
        os.chmod(state_dir, 0o700)
        done = daemon.cli(
            "start", "--json", "--state-dir", state_dir, "--socket", f"{daemon.root}/s"
        )
        error = json.loads(done.stdout)
        assert done.returncode == error["code"]
        assert error["error"] in {"bad_configuration", "store_failed"}
        assert "jobd.db" in error["message"]
        assert "its log is" not in error["hint"]


def test_start_refuses_settings_that_cannot_be(make_daemon: Make) -> None:
    """Before any daemon is started: exit code 78."""
    done = make_daemon().cli("start", "--workers", "many")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("jobd: --workers must be a whole number")


def test_without_a_daemon(make_daemon: Make) -> None:
    """Exit code 69, and how to start one."""
    daemon = make_daemon()
    done = daemon.cli("submit", "math:factorial", "20")
    line = f"jobd: no daemon at {daemon.socket}: start one with 'jobd start'\n"
    assert (done.returncode, done.stdout, done.stderr) == (69, "", line)
    assert as_json(daemon, "ping", code=69)["error"] == "unreachable"


def test_ping_status_reload(shared: DaemonUnderTest) -> None:
    """For people and in JSON; nothing with --quiet."""
    assert f"pid {shared.pid}" in ok(shared, "ping")
    assert as_json(shared, "ping")["pid"] == shared.pid
    status = as_json(shared, "status")
    assert status["schema"] == "jobd.status/1"
    assert len(status["workers"]) == 2
    assert {"queued", "running", "succeeded"} <= status["jobs"].keys()
    assert f"state in\t{'~/state'}\n" in ok(shared, "status")
    assert "2 workers" in ok(shared, "reload")
    assert as_json(shared, "reload")["schema"] == "jobd.reload/1"
    for verb in ("ping", "status", "reload"):
        assert ok(shared, verb, "-q") == ""


# -- submitting ---------------------------------------------------------------


def test_arguments_arrive(shared: DaemonUnderTest) -> None:
    """Text, JSON, files and stdin, by position and by name; options before and after."""
    (shared.work_dir / "notes.txt").write_text("two\nlines\n")
    printed = ok(
        shared,
        *("submit", "--wait", "work:echo", "photo.jpg", "-5", "width:=640", "crop=false"),
        *('meta:={"a": [1, 2]}', "@notes.txt", "--raw", "007", "text=@-", "--", "--wait", "-x"),
        stdin="from stdin",
    )
    assert json.loads(printed) == [
        ["photo.jpg", "-5", "two\nlines\n", "007", "--wait", "-x"],
        {"width": 640, "crop": "false", "meta": {"a": [1, 2]}, "text": "from stdin"},
    ]


def test_negative_numbers_are_arguments(shared: DaemonUnderTest) -> None:
    """And the value of an option is not taken for one."""
    assert ok(shared, "submit", "mytasks:Report.build", "-5", "--wait", "note=-1.5") == "-5 -1.5\n"
    done = shared.cli("submit", "mytasks:Report.build", "1", "--wait-timeout", "-5")
    assert done.returncode == 2
    assert "'-5' is not a duration" in done.stderr


def test_arguments_as_json(shared: DaemonUnderTest) -> None:
    """For machines."""
    words = ["--args-json", "[[0, 0], [3, 4]]", "--wait"]
    assert ok(shared, "submit", "math:dist", *words) == "5.0\n"


def test_stdin_is_read_once(shared: DaemonUnderTest) -> None:
    """A second reader would get nothing, and not know why."""
    done = shared.cli("submit", "work:echo", "@-", "@-", stdin="x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "stdin can be read only once" in done.stderr


def test_bytes_that_are_no_text_are_refused(shared: DaemonUnderTest) -> None:
    """Nothing is pickled for them, and nothing breaks."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jobd", "submit", "work:echo", b"\xff"],
        env=shared.environ,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"jobd: an argument is not UTF-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mytasks:duoble", "1"], "mytasks has no function 'duoble' (did you mean 'double'?)"),
        (["nowhere:f"], "nowhere"),
        (["mytasks.double", "1"], "write 'mytasks:double'"),
        (["mytasks:double"], "mytasks:double does not take these arguments"),
        (["work:add", "1", "c=2"], "work:add does not take these arguments"),
    ],
)
def test_a_function_is_checked_at_submit(
    shared: DaemonUnderTest, words: list[str], message: str
) -> None:
    """Exit code 2, nothing queued, and a sentence that helps."""
    newest = ok(shared, "ls", "-q", "-n", "1")
    done = shared.cli("submit", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert ok(shared, "ls", "-q", "-n", "1") == newest


def test_no_check_queues_whatever_it_is(shared: DaemonUnderTest) -> None:
    """Then it is the job that fails."""
    done = shared.cli("submit", "--no-check", "--wait", "nowhere:f")
    assert done.returncode == 1
    assert "cannot import nowhere" in done.stderr


def test_submit_as_json_is_the_job(shared: DaemonUnderTest) -> None:
    """``jobd.job/1``, the same names as ``show`` has."""
    job = as_json(shared, "submit", "work:echo", "1", "k=v")
    assert (job["schema"], job["function"]) == ("jobd.job/1", "work:echo")
    assert (job["args"], job["kwargs"]) == ([1], {"k": "v"})
    ok(shared, "wait", str(job["id"]), "-q")
    shown = as_json(shared, "show", str(job["id"]))
    assert shown.keys() == job.keys()
    assert (shown["state"], shown["uid"], shown["attempts"]) == ("succeeded", job["uid"], 1)
    assert shown["created_at"] <= shown["started_at"] <= shown["ended_at"]
    assert shown["ended_at"].endswith("Z")


# -- results ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["mytasks:double", "21"], "42\n"),
        (["mytasks:escapes"], "\x1b[2Jred\n"),
        (["work:nothing"], "null\n"),
        (["work:echo"], "[[],{}]\n"),
        (["mytasks:large", "100000"], "x" * 100_000 + "\n"),
    ],
)
def test_a_result_is_printed(shared: DaemonUnderTest, words: list[str], printed: str) -> None:
    """A text raw, any other value as JSON; at once and again later."""
    number = submit(shared, *words)
    assert ok(shared, "result", "--wait", number) == printed
    assert ok(shared, "result", number) == printed
    assert ok(shared, "submit", "--wait", *words) == printed


def test_what_json_cannot_say_is_a_repr(shared: DaemonUnderTest) -> None:
    """With a note on stderr, and as ``repr`` in JSON."""
    done = shared.cli("submit", "--wait", "mytasks:a_complex")
    assert (done.returncode, done.stdout) == (0, "1j\n")
    assert "not JSON-able" in done.stderr
    result = as_json(shared, "result", "last")
    assert (result["value"], result["repr"]) == (None, "1j")


ROWS = '{"rows":[{"at":"2026-12-24T12:00:00Z","price":"1.50","tags":["a","b"]}],"raw":{"base64":"am9iZA=="}}'


def test_what_json_says_in_its_own_way_is_a_value(shared: DaemonUnderTest) -> None:
    """Whoever has submitted it; another job gets the object itself, and so does a Python client."""
    number = submit(shared, "mytasks:rows")
    by_python = shared.client().submit("mytasks:rows")
    for job in (number, str(by_python.id)):
        assert ok(shared, "result", "--wait", job) == ROWS + "\n"
        result = as_json(shared, "result", job)
        assert result["value"] == json.loads(ROWS)
        assert "repr" not in result
        words = ("submit", "--wait", "mytasks:cents", f"@job:{job}.rows[0]")
        assert ok(shared, *words) == "150\n"
    many = submit(shared, "mytasks:rows", "1000")
    assert len(as_json(shared, "result", "--wait", many)["value"]["rows"]) == 1000


def test_a_job_that_fails(shared: DaemonUnderTest) -> None:
    """Exit code 1 on every verb; the traceback only with --verbose."""
    done = shared.cli("submit", "--wait", "work:fail", "my mistake")
    assert (done.returncode, done.stdout) == (1, "")
    assert "failed: ValueError: my mistake (see 'jobd logs " in done.stderr
    assert "Traceback" not in done.stderr
    number = str(as_json(shared, "show", "last")["id"])
    for words in (["result"], ["wait"], ["logs", "-f"]):
        assert shared.cli(*words, number).returncode == 1
    assert "Traceback" in shared.cli("result", number, "--verbose").stderr
    assert "Traceback" in ok(shared, "show", number)
    result = as_json(shared, "result", number, code=1)
    assert (result["state"], result["value"]) == ("failed", None)
    assert result["error"]["message"] == "my mistake"


def test_a_job_that_crashes(shared: DaemonUnderTest) -> None:
    """Exit code 7, with the name of the signal."""
    done = shared.cli("submit", "--wait", "mytasks:die")
    assert (done.returncode, done.stdout) == (7, "")
    assert "SIGSEGV" in done.stderr
    shown = as_json(shared, "show", "last")
    assert (shown["state"], shown["crashes"]) == ("crashed", 2)
    assert "last words" in ok(shared, "logs", "last")


def test_no_result_yet(shared: DaemonUnderTest, gate: Path) -> None:
    """Exit code 3 at once, 124 after the command's own time, the job untouched."""
    number = ok(shared, "run", "cat", str(gate)).strip()
    done = shared.cli("result", number)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"'jobd result --wait {number}' waits for it" in done.stderr
    assert as_json(shared, "result", number, code=3)["error"] == "not_ready"
    for words in (["result", number], ["wait", number]):
        done = shared.cli(*words, "--timeout", "10ms")
        assert (done.returncode, done.stdout) == (124, "")
        assert done.stderr.startswith(f"jobd: job {number} has not ended within 10ms")
    assert as_json(shared, "wait", number, "--timeout", "10ms", code=124)["code"] == 124
    gate.write_text("through\n")
    assert ok(shared, "result", number, "--timeout", "20s") == "0\n"
    assert ok(shared, "logs", number) == "through\n"


@pytest.mark.parametrize("verb", ["result", "logs", "show", "wait", "cancel", "retry", "ls"])
def test_an_unknown_id(shared: DaemonUnderTest, verb: str) -> None:
    """Exit code 4, never a job that seems to wait."""
    done = shared.cli(verb, "999999")
    assert (done.returncode, done.stdout) == (4, "")
    assert as_json(shared, verb, "999999", code=4)["error"] == "not_found"


@pytest.mark.parametrize("verb", ["result", "logs"])
def test_a_command_for_one_job_takes_one(shared: DaemonUnderTest, verb: str) -> None:
    """A range is a slip there."""
    done = shared.cli(verb, "1-3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'1-3' is not one job" in done.stderr


# -- several jobs -------------------------------------------------------------


def test_wait_for_several(shared: DaemonUnderTest) -> None:
    """How each ended; the code they share, or 8."""
    good, bad = submit(shared, "work:nothing"), submit(shared, "work:fail")
    done = shared.cli("wait", good, bad)
    assert done.returncode == 8
    assert done.stdout == f"{good}\tsucceeded\n{bad}\tfailed\n"
    assert done.stderr.startswith(f"job {bad} failed: ValueError: no")
    assert ok(shared, "wait", good, "-q") == f"{good}\n"
    waited = as_json(shared, "wait", f"{good},{bad}", code=8)
    assert [job["state"] for job in waited["jobs"]] == ["succeeded", "failed"]


def test_wait_refuses_what_is_not_there(shared: DaemonUnderTest) -> None:
    """One name that does not exist is not waited for, whatever the others are."""
    good = submit(shared, "work:nothing")
    done = shared.cli("wait", good, "999999")
    assert (done.returncode, done.stdout) == (4, "")
    assert "there is no job 999999" in done.stderr


def test_cancel_and_retry(make_daemon: Make, tmp_path: Path) -> None:
    """What runs is stopped, what waits is cancelled, what has ended stays; and back again."""
    daemon = make_daemon(pool__workers=1).start()
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    running = submit(daemon, "work:mark_and_wait", str(mark), str(gate))
    waiting = submit(daemon, "work:nothing")
    assert ok(daemon, "cancel", waiting, "--reason", "no need") == f"{waiting}\tcancelled\n"
    assert ok(daemon, "cancel", waiting) == f"{waiting}\talready finished\n"
    done = daemon.cli("result", waiting)
    line = f"job {waiting} was cancelled: no need\n"
    assert (done.returncode, done.stdout, done.stderr) == (5, "", line)
    answer = as_json(daemon, "cancel", running)
    assert answer["schema"] == "jobd.cancel/1"
    assert answer["jobs"][0]["answer"] in {"stopping", "cancelled"}
    assert daemon.cli("wait", running, "-q").returncode == 5
    gate.touch()
    assert ok(daemon, "retry", running, "-q") == f"{running}\n"
    assert ok(daemon, "result", "--wait", running) == "through\n"
    assert ok(daemon, "retry", running) == f"{running}\talready succeeded\n"
    done = daemon.cli("retry", "1-2", "-s", "cancelled")
    assert (done.returncode, done.stdout) == (0, f"{waiting}\tqueued again\n")


def test_retry_of_a_job_that_has_not_ended(shared: DaemonUnderTest, gate: Path) -> None:
    """Exit code 3: there is nothing to repeat yet."""
    number = ok(shared, "run", "cat", str(gate)).strip()
    done = shared.cli("retry", number)
    assert (done.returncode, done.stdout) == (3, f"{number}\thas not ended\n")
    gate.write_text("")
    ok(shared, "wait", number)


def test_ls(make_daemon: Make) -> None:
    """The newest first, as many as were asked for, and how many more there are."""
    daemon = make_daemon().start()
    assert daemon.cli("ls").stderr == "no jobs\n"
    assert as_json(daemon, "ls") == {"schema": "jobd.jobs/1", "jobs": []}
    deferreds = daemon.client().submit_many("work:add", [(n,) for n in range(2500)])
    daemon.client().wait([deferreds[0].id, deferreds[-1].id], 20)
    done = daemon.cli("ls")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(n) for n in range(2500, 2480, -1)]
    assert rows[0][2] == "work:add"
    assert done.stderr == "… 2,480 older: -n 100, or --json\n"
    assert daemon.cli("ls", "-n", "1", "-q").stdout == "2500\n"
    assert len(ok(daemon, "ls", "-n", "0").splitlines()) == 2500
    listed = as_json(daemon, "ls")
    assert listed["schema"] == "jobd.jobs/1"
    assert [job["id"] for job in listed["jobs"]] == list(range(2500, 0, -1))
    assert len(as_json(daemon, "ls", "-n", "1001")["jobs"]) == 1001
    assert ok(daemon, "ls", "-q", "3,5-6") == "6\n5\n3\n"
    assert ok(daemon, "ls", "-q", "last:2") == "2500\n2499\n"
    assert daemon.cli("ls", "-s", "failed").stderr == "no jobs\n"


def test_show_takes_one_or_several(shared: DaemonUnderTest) -> None:
    """One job is an object, several are a list of them."""
    number = submit(shared, "work:echo", "a text")
    ok(shared, "wait", number)
    shown = ok(shared, "show", number)
    assert f"job\t{number}\n" in shown
    assert "call\twork:echo('a text')\n" in shown
    assert as_json(shared, "show", number)["schema"] == "jobd.job/1"
    assert as_json(shared, "show", f"{number}-{number},{number}")["schema"] == "jobd.jobs/1"
    assert ok(shared, "show", "last:2", "-q").splitlines()[-1] == number


# -- shell commands and output ------------------------------------------------


def test_a_shell_command_as_a_job(shared: DaemonUnderTest) -> None:
    """Its output is the job's; its exit code decides."""
    (shared.work_dir / "here").touch()
    done = shared.cli("run", "--wait", "--", "sh", "-c", "ls here; echo err >&2; exit 3")
    assert (done.returncode, done.stdout) == (1, "here\nerr\n")
    assert "exit code 3" in done.stderr
    assert ok(shared, "run", "--wait", "--wait-timeout", "20s", "--", "echo", "hi") == "hi\n"
    assert ok(shared, "run", "echo", "--wait", "-n").strip().isdigit()
    assert ok(shared, "logs", "-f", "last") == "--wait -n\n"
    assert as_json(shared, "result", "last")["value"] == 0
    number = ok(shared, "--json", "run", "--wait", "--", "true")
    assert json.loads(number)["schema"] == "jobd.result/1"


def test_logs_are_followed_while_the_job_runs(shared: DaemonUnderTest, gate: Path) -> None:
    """The first line comes before the last is written; the exit code is the job's."""
    script = f'echo first; read word < "{gate}"; echo "$word"; exit 1'
    number = ok(shared, "run", "--", "sh", "-c", script).strip()
    with background(shared, "logs", "-f", number) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"first\n"
        gate.write_text("second\n")
        assert follower.communicate(timeout=20)[0] == b"second\n"
        assert follower.returncode == 1
    assert ok(shared, "logs", number) == "first\nsecond\n"


def test_logs_in_a_pipe_are_the_bytes(shared: DaemonUnderTest) -> None:
    """In JSON they have to be text."""
    number = submit(shared, "mytasks:write", "a", "b")
    ok(shared, "wait", number)
    with background(shared, "logs", number) as copy:
        assert copy.communicate(timeout=20)[0] == b"\xff\na\nb\n"
    logs = as_json(shared, "logs", number)
    assert logs["schema"] == "jobd.logs/1"
    assert (logs["state"], logs["output"]) == ("succeeded", "\\xff\na\nb\n")


# -- the world around ---------------------------------------------------------


def test_ctrl_c_leaves_the_job_alone(shared: DaemonUnderTest, gate: Path) -> None:
    """Exit code 130, and a note that the job goes on."""
    number = ok(shared, "run", "--", "sh", "-c", f'echo first; cat "{gate}"').strip()
    with background(shared, "logs", "-f", number) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"first\n"
        follower.send_signal(signal.SIGINT)
        out, err = follower.communicate(timeout=20)
    assert (follower.returncode, out) == (130, b"")
    assert err.startswith(f"jobd: detached: job {number} goes on: ".encode())
    gate.write_text("")
    assert ok(shared, "result", "--wait", number) == "0\n"


def test_a_closed_pipe_ends_a_command_quietly(shared: DaemonUnderTest) -> None:
    """As in `jobd ls | head`."""
    ok(shared, "submit", "work:nothing")
    for words in (["ls"], ["ls", "--json"], ["--help"]):
        read_fd, write_fd = os.pipe()
        os.close(read_fd)
        with background(shared, *words, stdout=write_fd) as command:
            os.close(write_fd)
            _, err = command.communicate(timeout=20)
        assert (command.returncode, err) == (141, b"")


def test_a_full_disk_is_told(shared: DaemonUnderTest) -> None:
    """Not a value that looks whole and is not."""
    ok(shared, "submit", "work:nothing")
    for words in (["ls"], ["ls", "--json"]):
        with (
            Path("/dev/full").open("wb") as full,
            background(shared, *words, stdout=full) as command,
        ):
            _, err = command.communicate(timeout=20)
        assert (command.returncode, err) == (74, b"jobd: No space left on device\n")


def test_a_closed_stdout_is_not_mistaken_for_the_socket(shared: DaemonUnderTest) -> None:
    """As in `jobd submit … >&-`: the next file that is opened gets its number."""
    command = [sys.executable, "-P", "-m", "jobd", "submit", "--wait", "work:echo", "x"]
    script = f"{' '.join(command)} >&-"
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=shared.environ, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert as_json(shared, "show", "last")["state"] == "succeeded"


def on_terminal(daemon: DaemonUnderTest, *words: str, **environ: str) -> str:
    """Run a command on a terminal of its own; return what that shows."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "jobd", *words],
        env=daemon.environ | {"TERM": "xterm", "COLUMNS": "80"} | environ,
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    ):
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 65536):
                shown += piece
        except OSError:  # EIO: the other end is closed
            pass
        finally:
            os.close(leader)
    return shown.decode()


def test_on_a_terminal(shared: DaemonUnderTest) -> None:
    """Tables and colour, no colour on demand, and nothing that the terminal obeys."""
    ok(shared, "submit", "--wait", "mytasks:escapes")
    shown = on_terminal(shared, "ls", "-n", "1")
    assert "FUNCTION" in shown
    assert "\x1b[32msucceeded" in shown
    assert "\x1b[32m" not in on_terminal(shared, "ls", "-n", "1", NO_COLOR="1")
    assert on_terminal(shared, "result", "last") == "\\x1b[2Jred\r\n"
    assert on_terminal(shared, "submit", "--wait", "work:add", "1") == "2\r\n"


def test_options_of_a_job_are_shown_with_where_they_came_from(shared: DaemonUnderTest) -> None:
    """From the submit, or from the settings; a bad one changes nothing."""
    shown = as_json(shared, "submit", "--name", "my sum", "--bound", "7", "math:gcd", "12", "18")
    assert shown["name"] == "my sum"
    assert shown["policy"]["bound"] == {"value": 7, "origin": "submit"}
    assert shown["policy"]["queue"] == {"value": "default", "origin": "built in"}
    done = shared.cli("submit", "--bound", "-1", "math:gcd", "12", "18")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "jobd: --bound: -1 is out of range: give a number from 1 to 1000000\n"
    assert as_json(shared, "ls", "last")["jobs"][0]["id"] == shown["id"]


def test_options_have_defaults_in_the_settings(make_daemon: Make, tmp_path: Path) -> None:
    """For all jobs and for a function; an unknown one names the nearest."""
    file = tmp_path / "more.toml"
    file.write_text('[defaults]\nbound = 5\n[functions."math:gcd"]\nname = "x"\n')
    daemon = make_daemon()
    done = daemon.cli("config", "show", JOBD_CONFIG=str(file))
    assert done.returncode == 78
    assert "functions.math:gcd.name: 'name' cannot be a default" in done.stderr
    file.write_text('[defaults]\nbound = 5\n[functions."math:gcd"]\nboundd = 6\n')
    done = daemon.cli("config", "show", JOBD_CONFIG=str(file))
    assert "did you mean 'bound'?" in done.stderr
    file.write_text('[defaults]\nbound = 5\n[functions."math:gcd"]\nbound = 6\n')
    shown = daemon.cli("config", "show", JOBD_CONFIG=str(file)).stdout
    assert [line.split()[:2] for line in shown.splitlines()[-2:]] == [
        ["defaults.bound", "5"],
        ["functions.math:gcd.bound", "6"],
    ]


@pytest.mark.parametrize("depth", [600, 90_000])
def test_a_graph_that_is_nested_too_deeply_is_refused(
    shared: DaemonUnderTest, tmp_path: Path, depth: int
) -> None:
    """In a sentence, whether it is TOML's reader that gives up or ours."""
    graph = tmp_path / "deep.toml"
    nested = "[" * depth + "]" * depth
    graph.write_text(f'[jobs.a]\nfunction = "builtins:len"\nargs = [{nested}]\n', encoding="utf-8")
    done = shared.cli("apply", str(graph))
    assert (done.returncode, done.stdout) == (2, "")
    assert "nested too deeply" in done.stderr


@pytest.mark.parametrize(
    "words", [("submit", "builtins:len", "@/dev/zero"), ("apply", "/dev/zero")]
)
def test_a_file_without_an_end_is_refused(shared: DaemonUnderTest, words: tuple[str, ...]) -> None:
    """Before memory comes to one."""
    done = shared.cli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "/dev/zero has over 268435456 bytes" in done.stderr


def test_a_number_that_is_too_large_is_refused_at_once(shared: DaemonUnderTest) -> None:
    """By the daemon, which has read no request, and answers all the same."""
    number = str(shared.client().submit("work:nothing").id)
    for attempt in (2**63, 2**64):
        done = shared.cli("logs", number, "--attempt", str(attempt))
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
