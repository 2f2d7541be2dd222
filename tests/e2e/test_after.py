"""Jobs that come after others without their results, over the command line and both clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually

import jobd
from jobd.client import Client
from jobd.inputs import JobResult
from jobd.model.errors import JobAborted, NotFound, UsageError
from jobd.model.selector import one
from jobd.model.states import State

MakeDaemon = Callable[..., DaemonUnderTest]
Connect = Callable[..., Client]


def state_of(client: Client, number: int) -> State:
    """Return a job's state."""
    (info,) = client.find(one(number))
    return info.state


def lines(path: Path) -> list[str]:
    """Return what jobs have written to a file."""
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def test_a_job_starts_after_others_have_succeeded(
    shared: DaemonUnderTest, connect: Connect, gate: Path, mark: Path
) -> None:
    """It takes none of their results, is blocked until then, and runs once."""
    with connect(shared.socket) as client:
        held = client.submit("work:mark_and_wait", str(mark), str(gate))
        other = client.submit("work:nothing")
        last = client.options(after=[held, other]).submit("work:append", str(mark), "after")
        assert state_of(client, last.id) is State.BLOCKED
        other.result(20)
        assert state_of(client, last.id) is State.BLOCKED
        gate.touch()
        assert last.result(20) is None
        assert lines(mark)[1:] == ["after"]


def test_every_end_but_success_lets_the_alarm_run(daemon: DaemonUnderTest, gate: Path) -> None:
    """And the clean-up runs whatever the end was; who needs a success is aborted."""
    with daemon.client() as client:
        roots = [
            client.submit("work:fail", "bad"),
            client.options(timeout=0.05, kill_grace=0.05).submit("work:sleep", 30),
            client.options(max_crashes=0).submit("os:_exit", 3),
            client.options(expires=0.01, in_=30).submit("work:nothing"),
        ]
        client.cancel(one(client.submit("work:mark_and_wait", "/dev/null", str(gate)).id))
        roots.append(client.attach(roots[-1].id + 1))
        roots.append(client.options(after=roots[0]).submit("work:nothing"))
        for root in roots:
            alarm = client.options(after_fail=root).submit("work:echo", "alarm")
            clean_up = client.options(after_any=[root]).submit("work:echo", "clean")
            needs = client.options(after=root.id).submit("work:echo", "needs")
            assert alarm.result(20) == [["alarm"], {}]
            assert clean_up.result(20) == [["clean"], {}]
            with pytest.raises(JobAborted, match=f"job {needs.id} was aborted: job "):
                needs.result(20)


def test_an_alarm_for_a_job_that_succeeds_never_runs(daemon: DaemonUnderTest, mark: Path) -> None:
    """It says why, all who come after it too, and no retry changes that."""
    with daemon.client() as client:
        good = client.submit("work:nothing")
        alarm = client.options(after_fail=good).submit("work:append", str(mark), "alarm")
        below = client.options(after=alarm).submit("work:append", str(mark), "below")
        for job in (alarm, below):
            with pytest.raises(JobAborted) as caught:
                job.result(20)
            assert caught.value.message.endswith(f"was aborted: job {good.id} succeeded")
            assert caught.value.root == good.id
            assert "retry" not in caught.value.hint
        done = daemon.cli("result", str(alarm.id))
        assert done.returncode == 5
        assert done.stderr == f"job {alarm.id} was aborted: job {good.id} succeeded\n"
        answer = f"it waits for a failure of job {good.id}, which has succeeded"
        assert client.retry(one(alarm.id)) == [(alarm.id, answer)]
        assert daemon.cli("retry", str(below.id)).returncode == 5
    daemon.kill()
    with daemon.start().client() as client:
        assert client.submit("work:add", 1).result(20) == 2  # it has looked through those by now
        assert state_of(client, alarm.id) is State.ABORTED
    assert lines(mark) == []


def test_the_flags_say_the_same_and_show_tells(shared: DaemonUnderTest, gate: Path) -> None:
    """Lists, several flags, and ``last``; JSON has each edge once."""

    def submit(*words: str) -> int:
        done = shared.cli("submit", *words)
        assert done.returncode == 0, done
        return int(done.stdout)

    a = submit("work:mark_and_wait", "/dev/null", str(gate))
    b, c = submit("work:nothing"), submit("work:nothing")
    after = ("--after", f"{a},{b}", "--after", "last", "--after-any", str(b))
    d = submit("work:echo", f"@job:{b}", *after)
    e = submit("work:nothing", "--after-fail", "last", "--after-any", f"{a}, {b}")
    told = json.loads(shared.cli("show", str(d), "--json").stdout)
    assert sorted(told["after"], key=lambda edge: edge["id"]) == [
        {"id": a, "when": "succeeded", "value": False},
        {"id": b, "when": "succeeded", "value": True},
        {"id": c, "when": "succeeded", "value": False},
    ]
    shown = shared.cli("show", str(e)).stdout.splitlines()
    assert f"after any\t{a}, {b}" in shown
    assert f"after fail\t{d}" in shown
    assert f"after\t{b} (value), {a}, {c}" in shared.cli("show", str(d)).stdout.splitlines()
    gate.touch()
    assert shared.cli("wait", str(d)).returncode == 0
    assert shared.cli("wait", str(e)).returncode == 5
    assert f"root\t{d}" in shared.cli("show", str(e)).stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--after", "999999"], 4, "there is no job 999999 to come after"),
        (["--after-any", "x"], 2, "--after-any: 'x' is no id of a job"),
        (["--after-fail", "1,"], 2, "--after-fail: '' is no id of a job"),
        (["--after", "1", "--after-fail", "1"], 2, "job 1 cannot both succeed and fail"),
        (["@job:1", "--after-fail", "1"], 2, "job 1 cannot both succeed and fail"),
    ],
)
def test_what_makes_no_sense_is_refused(
    shared: DaemonUnderTest, words: list[str], code: int, sentence: str
) -> None:
    """In one sentence; nothing is queued."""
    with shared.client() as client:
        before = client.submit("work:nothing").id
        done = shared.cli("submit", "work:echo", *words)
        assert (done.returncode, done.stdout) == (code, "")
        assert sentence in done.stderr
        assert client.submit("work:nothing").id == before + 1


def test_python_refuses_what_names_no_job(shared: DaemonUnderTest, connect: Connect) -> None:
    """At once, or once the daemon has looked."""
    with connect(shared.socket) as client:
        with pytest.raises(UsageError, match="is a part of a result"):
            client.options(after=JobResult(1, ("rows",)))  # type: ignore[arg-type]  # that is the point
        with pytest.raises(UsageError, match="names no jobs"):
            client.options(after_any=[])
        with pytest.raises(NotFound, match="no job 999999"):
            client.options(after=999999).submit("work:nothing").result(20)


def test_a_job_waits_for_the_retry_of_a_job_that_had_failed(
    daemon: DaemonUnderTest, gate: Path, mark: Path
) -> None:
    """As long as it has not started: the clean-up comes last."""
    with daemon.client() as client:
        source = "import os, time\ndef run(gate, mark):\n"
        source += "    assert os.path.exists(mark)\n"
        source += "    while not os.path.exists(gate):\n        time.sleep(0.01)\n"
        daemon.write_module("second", source)
        fragile = client.submit("second:run", str(gate), str(mark))
        fragile.exception(20)
        held = client.submit("work:mark_and_wait", str(mark), str(gate) + "2")
        clean_up = client.options(after_any=[fragile, held]).submit("work:nothing")
        eventually(mark.exists)
        assert client.retry(one(fragile.id)) == [(fragile.id, "queued again")]
        Path(str(gate) + "2").touch()
        held.result(20)
        eventually(lambda: state_of(client, fragile.id) is State.RUNNING)
        assert state_of(client, clean_up.id) is State.BLOCKED
        gate.touch()
        assert clean_up.result(20) is None


def test_time_and_order_go_together(shared: DaemonUnderTest, gate: Path) -> None:
    """What waits for both starts when both are there; what is blocked expires."""
    with shared.client() as client:
        held = client.submit("work:mark_and_wait", "/dev/null", str(gate))
        late = client.options(after=held, in_=0.05).submit("work:add", 1)
        much_later = client.options(after=held, in_=3600).submit("work:add", 1)
        useless = client.options(after=held, expires=0.05).submit("work:add", 1)
        alarm = client.options(after_fail=useless).submit("work:add", 2)
        with pytest.raises(jobd.JobExpired):
            useless.result(20)
        assert alarm.result(20) == 3
        assert state_of(client, late.id) is State.BLOCKED
        gate.touch()
        assert late.result(20) == 2
        eventually(lambda: state_of(client, much_later.id) is State.SCHEDULED)
        much_later.cancel()


def test_edges_outlive_the_daemon(make_daemon: MakeDaemon, gate: Path, mark: Path) -> None:
    """Who waits for what is kept, and what ended before still counts."""
    daemon = make_daemon().start()
    with daemon.client() as client:
        failed = client.submit("work:fail")
        held = client.submit("work:mark_and_wait", str(mark), str(gate))
        jobs = [
            client.options(after=held, after_fail=failed).submit("work:add", 1),
            client.options(after_any=[held, failed]).submit("work:add", 2),
            client.options(after_fail=[held, failed]).submit("work:add", 3),
        ]
        numbers = [job.id for job in jobs]
        eventually(mark.exists)
    daemon.kill()
    with daemon.start().client() as client:
        assert [state_of(client, number) for number in numbers] == [State.BLOCKED] * 3
        gate.touch()
        assert [client.result(number, 20) for number in numbers[:2]] == [2, 3]
        with pytest.raises(JobAborted, match="succeeded"):
            client.result(numbers[2], 20)


def test_a_job_that_waits_for_one_that_comes_after_it_is_told(daemon: DaemonUnderTest) -> None:
    """It would wait for ever; the error spells the circle out."""
    source = "import jobd\ndef run():\n    me = jobd.current_job().id\n"
    source += "    client = jobd.Client()\n"
    source += "    return client.options(after_any=me).submit('work:nothing').result()\n"
    daemon.write_module("selfish", source)
    with daemon.client() as client:
        job = client.submit("selfish:run")
        with pytest.raises(
            jobd.JobFailed, match=f"job {job.id} would wait for job {job.id + 1}, which"
        ):
            job.result(20)
        assert client.result(job.id + 1, 20) is None
