"""Graphs of jobs, submitted whole and drawn, with a real daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually

import jobd
import jobd.testing
from jobd.client import Client
from jobd.client.calls import graph_call
from jobd.client.graphs import plan_of
from jobd.model.errors import BadFunction, NotFound, QueueFull, UsageError
from jobd.model.selector import one
from jobd.model.states import State

MakeDaemon = Callable[..., DaemonUnderTest]
Connect = Callable[..., Client]

GRAPH = """
[jobs.report]
function = "work:add"
args = ["@job:sum"]
kwargs = {b = "@job:load[0][1]"}
after = "clean"
retries = 2

[jobs.load]
function = "work:echo"
args = [20, 3]

[jobs.sum]
function = "work:add"
args = ["@job:load[0][0]", 7]

[jobs.clean]
run = ["sh", "-c", "echo cleaned"]
after_any = ["sum"]

[jobs.alarm]
run = ["sh", "-c", "echo alarm"]
after_fail = ["report"]
"""
ORDER = ["load", "sum", "clean", "report", "alarm"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a file with a graph."""
    path = tmp_path / "graph.toml"
    path.write_text(GRAPH, encoding="utf-8")
    return path


def newest(daemon: DaemonUnderTest) -> int:
    """Return the highest id that was given so far."""
    with daemon.client() as client:
        return client.submit("work:nothing").id


def state_of(client: Client, number: int) -> State:
    """Return a job's state."""
    (info,) = client.find(one(number))
    return info.state


def test_a_graph_from_a_file_runs_in_its_order(shared: DaemonUnderTest, file: Path) -> None:
    """The ids are printed by name; an alarm that was not needed does not spoil the exit code."""
    before = newest(shared)
    done = shared.cli("apply", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ORDER
    assert [int(row[1]) for row in rows] == list(range(before + 1, before + 6))
    report = rows[3][1]
    assert shared.cli("result", "--wait", report).stdout == "30\n"
    told = json.loads(shared.cli("show", report, "--json").stdout)
    assert told["policy"]["retries"] == {"value": 2, "origin": "submit"}
    assert told["name"] == "report"
    waited = shared.cli("apply", "--wait", "--json", "-", stdin=GRAPH)
    assert waited.returncode == 0
    jobs = json.loads(waited.stdout)["jobs"]
    assert [(job["name"], job["state"]) for job in jobs] == [
        *((name, "succeeded") for name in ORDER[:4]),
        ("alarm", "aborted"),
    ]
    assert jobs[4]["root"] == jobs[3]["id"]
    ids = shared.cli("apply", "-q", str(file)).stdout.split()
    assert len(ids) == 5


def test_a_graph_that_fails_exits_as_wait_does(shared: DaemonUnderTest) -> None:
    """And then the alarm runs."""
    graph = GRAPH.replace('["@job:load[0][0]", 7]', '["x", 7]').replace("after = ", "after_fail = ")
    done = shared.cli("apply", "--wait", "-", stdin=graph)
    assert done.returncode == 8
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    states = {row[0]: row[2] for row in rows}
    assert states == {
        "load": "succeeded",
        "sum": "failed",
        "clean": "succeeded",
        "report": "aborted",
        "alarm": "succeeded",
    }
    late = shared.cli("apply", "--wait-timeout", "0s", "-", stdin=GRAPH)
    assert late.returncode == 124


def test_a_dry_run_checks_and_draws_and_submits_nothing(
    shared: DaemonUnderTest, file: Path
) -> None:
    """Plain in a pipe; as JSON too; and without a daemon if nothing is to be checked."""
    before = newest(shared)
    done = shared.cli("apply", "--dry-run", str(file))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "load\twork:echo\t",
        "└─ sum\twork:add\tload (value)",
        "   └─ clean\tjobd.shell:run\tany sum",
        "      └─ report\twork:add\tsum (value), load (value), clean",
        "         └─ alarm\tjobd.shell:run\tfail report",
    ]
    told = json.loads(shared.cli("apply", "--dry-run", "--json", str(file)).stdout)
    assert [job["name"] for job in told["jobs"]] == ORDER
    assert {"from": "sum", "to": "clean", "when": "ended", "value": False} in told["edges"]
    alone = shared.cli("--socket", "/nonexistent/s", "apply", "--dry-run", "--no-check", str(file))
    assert alone.stdout == done.stdout
    wrong = shared.cli("apply", "--dry-run", "-", stdin=GRAPH.replace("work:echo", "work:ehco"))
    assert wrong.returncode == 2
    assert "ehco" in wrong.stderr
    assert newest(shared) == before + 1


@pytest.mark.parametrize(
    ("old", "new", "code", "sentence"),
    [
        ("work:echo", "work:ehco", 2, "work has no function 'ehco' (did you mean 'echo'?)"),
        ("args = [20, 3]", "args = [20, 3]\nqueue = 'nowhere'", 2, "job load: "),
        ("retries = 2", "retries = -2", 2, "jobs.report: retries: -2 is out of range"),
        ("retries = 2", "retires = 2", 2, "jobs.report has no 'retires': did you mean 'retries'?"),
        ("{b = ", "{c = ", 2, "unexpected keyword argument 'c'"),
        ('after_any = ["sum"]', 'after_any = ["report"]', 2, "in a circle: "),
        ('after_any = ["sum"]', "after_any = [99999]", 4, "there is no job 99999 to come after"),
        ('after = "clean"', "after = clean", 2, "is no TOML"),
    ],
)
def test_one_fault_refuses_the_whole_graph(
    shared: DaemonUnderTest, old: str, new: str, code: int, sentence: str
) -> None:
    """In one sentence; nothing is queued."""
    before = newest(shared)
    assert old in GRAPH
    done = shared.cli("apply", "-", stdin=GRAPH.replace(old, new))
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr
    assert newest(shared) == before + 1


def test_python_submits_a_graph(shared: DaemonUnderTest, connect: Connect, file: Path) -> None:
    """From a dictionary or a file; functions, deferred results and options of the client among it."""
    with connect(shared.socket) as client:
        before = client.submit("work:add", 40)
        found = client.options(name="all").apply(
            {
                "jobs": {
                    "b": {"function": sum, "args": [["@job:a", before]], "after": ["a"]},
                    "a": {"function": "work:add", "args": [1], "kwargs": {"b": 0}},
                }
            }
        )
        assert list(found) == ["a", "b"]
        assert found["b"].result(20) == 42
        assert found["a"].result(20) == 1
        assert client.apply(file)["report"].result(20) == 30
        with pytest.raises(UsageError, match="in a circle: a -> b -> a"):
            client.apply({"jobs": {n: {"function": "m:f", "after": o} for n, o in ("ab", "ba")}})
        bad = client.apply({"jobs": {"a": {"function": "work:nothing", "args": [1]}}})
        with pytest.raises(BadFunction, match="nothing"):
            _ = bad["a"].id
        lost = client.apply({"jobs": {"a": {"function": "work:nothing", "after": 99_999}}})
        with pytest.raises(NotFound):
            lost["a"].result(20)


def test_large_arguments_of_a_graph_are_files(shared: DaemonUnderTest) -> None:
    """Each job has its own."""
    with shared.client() as client:
        jobs = {n: {"function": len, "args": [bytearray(200_000 + i)]} for i, n in enumerate("ab")}
        found = client.apply({"jobs": jobs})
        assert [found[name].result(20) for name in "ab"] == [200_000, 200_001]


def test_a_full_queue_takes_none_of_a_graph(make_daemon: MakeDaemon, gate: Path) -> None:
    """And a graph that has been taken in is known by its key."""
    daemon = make_daemon(limits__max_queued=4).start()
    with daemon.client() as client:
        held = [client.submit("work:mark_and_wait", "/dev/null", str(gate)) for _ in range(2)]
        graph = {"jobs": {name: {"function": "work:nothing"} for name in "abcd"}}
        eventually(lambda: state_of(client, held[1].id) is State.RUNNING)
        with pytest.raises(QueueFull):
            _ = client.apply(graph)["a"].id
        request = graph_call(plan_of({"jobs": {"a": graph["jobs"]["a"]}}), None, None)
        request.uid = client._core.files.next_key()
        (first,) = client.submit_graph(request)
        assert first.id == held[1].id + 1
        (again,) = client.submit_graph(request)
        assert again.id == first.id
        gate.touch()
        assert again.result(20) is None


def test_a_graph_outlives_the_daemon(make_daemon: MakeDaemon, gate: Path, mark: Path) -> None:
    """All of it, in its order."""
    daemon = make_daemon().start()
    with daemon.client() as client:
        found = client.apply(
            {
                "jobs": {
                    "last": {"function": "work:add", "args": ["@job:middle"]},
                    "middle": {"function": "work:add", "args": [1], "after": "held"},
                    "held": {"function": "work:mark_and_wait", "args": [str(mark), str(gate)]},
                }
            }
        )
        last = found["last"].id
        eventually(mark.exists)
    daemon.kill()
    with daemon.start().client() as client:
        assert state_of(client, last) is State.BLOCKED
        gate.touch()
        assert client.result(last, 20) == 3


def test_the_graph_of_a_job_has_both_directions(
    shared: DaemonUnderTest, connect: Connect, gate: Path
) -> None:
    """With states, for jobs that have ended too, and for those that came later."""
    with connect(shared.socket) as client:
        a = client.submit("work:add", 1)
        a.result(20)
        b = client.submit("work:mark_and_wait", "/dev/null", str(gate))
        c = client.options(after=b, name="c").submit("work:echo", a)
        d = client.options(after_any=c).submit("work:nothing")
        e = client.options(after_fail=c).submit("work:nothing")
        aside = client.submit("work:echo", a)
        numbers = [job.id for job in (a, b, c, d, e)]
        aside.result(20)
        eventually(lambda: state_of(client, b.id) is State.RUNNING)
        found = client.graph(c.id)
        assert [info.id for info in found.jobs] == [c.id, a.id, b.id, d.id, e.id]
        assert (found.before, found.after, found.whole) == (0, 0, True)
        drawn = shared.cli("graph", str(c.id)).stdout.splitlines()
        assert drawn == [
            f"{a.id}\tsucceeded\twork:add\t",
            f"└─ {c.id} *\tblocked\tc\t{a.id} (value), {b.id}",
            f"   ├─ {d.id}\tblocked\twork:nothing\tany {c.id}",
            f"   └─ {e.id}\tblocked\twork:nothing\tfail {c.id}",
            f"{b.id}\trunning\twork:mark_and_wait\t",
        ]
        gate.touch()
        d.result(20)
        told = json.loads(shared.cli("graph", str(c.id), "--json").stdout)
        assert sorted(job["id"] for job in told["jobs"]) == numbers
        assert {job["state"] for job in told["jobs"]} == {"succeeded", "aborted"}
        assert {"from": b.id, "to": c.id, "when": "succeeded", "value": False} in told["edges"]
        assert {"from": c.id, "to": e.id, "when": "not_succeeded", "value": False} in told["edges"]
        of_a = client.graph(a.id)
        assert {info.id for info in of_a.jobs} == {a.id, c.id, d.id, e.id, aside.id}


def test_a_large_graph_is_cut_and_says_so(shared: DaemonUnderTest) -> None:
    """The nearest jobs are shown, and the others counted."""
    with shared.client() as client:
        root = client.submit("work:nothing")
        fan = client.options(after=root).submit_many("work:nothing", [()] * 2_100)
        last = client.options(after=fan[:60]).submit("work:nothing")
        last.result(30)
        fan[-1].result(30)
        few = shared.cli("graph", str(last.id), "-n", "10")
        assert len(few.stdout.splitlines()) == 11
        assert "51 more jobs before these" in few.stderr
        many = shared.cli("graph", str(root.id))
        assert len(many.stdout.splitlines()) == 51
        assert "at least 1,950 more jobs after these" in many.stderr
    missing = shared.cli("graph", "99999")
    assert missing.returncode == 4


def test_inline_jobs_come_after_each_other_too() -> None:
    """As far as they can: each has ended before the next is submitted."""
    with jobd.testing.inline(), jobd.Client() as client:
        good = client.submit(len, "abc")
        assert client.options(after=good).submit(len, "ab").result(5) == 2
        alarm = client.options(after_fail=good).submit(len, "a")
        with pytest.raises(jobd.JobAborted, match=f"job {good.id} succeeded"):
            alarm.result(5)
        assert client.options(after_any=alarm).submit(len, "abcd").result(5) == 4
        with pytest.raises(NotFound):
            client.options(after=99).submit(len, "").result(5)
        jobs = {
            "b": {"function": "builtins:sum", "args": [["@job:a", good]]},
            "a": {"function": len, "args": ["abcd"]},
            "c": {"function": len, "args": ["x"], "after_fail": "a"},
        }
        found = client.apply({"jobs": jobs})
        assert (found["a"].result(5), found["b"].result(5)) == (4, 7)
        with pytest.raises(jobd.JobAborted):
            found["c"].result(5)
        with pytest.raises(BadFunction):
            client.apply({"jobs": {"a": {"function": "builtins:nothing"}}})["a"].result(5)


def test_the_list_of_what_may_run_holds_for_graphs(make_daemon: MakeDaemon) -> None:
    """One function that is not on it refuses them all."""
    daemon = make_daemon(security__allow="work:*").start()
    assert daemon.cli("apply", "-", stdin=GRAPH).returncode == 77  # jobd.shell:run
    work_only = GRAPH.partition("[jobs.clean]")[0].replace('after = "clean"', "")
    assert daemon.cli("apply", "--wait", "-", stdin=work_only).returncode == 0
