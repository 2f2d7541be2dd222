"""Results as arguments of other jobs, over the command line and the client, with a real daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually

from jobd.client import Client
from jobd.inputs import JobResult
from jobd.model.errors import JobAborted, JobFailed, NotFound
from jobd.model.job import JobInfo
from jobd.model.messages import Submit
from jobd.model.selector import one
from jobd.model.states import State
from jobd.payload import encode_call

MakeDaemon = Callable[..., DaemonUnderTest]


@pytest.fixture
def client(daemon: DaemonUnderTest) -> Client:
    """Return a client of the daemon."""
    return daemon.client()


def info_of(client: Client, number: int) -> JobInfo:
    """Return a job as the daemon shows it."""
    (info,) = client.find(one(number))
    return info


def state_of(client: Client, number: int) -> State:
    """Return a job's state."""
    return info_of(client, number).state


def test_a_chain_and_a_fan_in_from_the_command_line(daemon: DaemonUnderTest) -> None:
    """Whole results, parts of them, nested ones, and a text that only looks like one."""

    def submit(*words: str) -> str:
        done = daemon.cli("submit", *words)
        assert done.returncode == 0, done
        return done.stdout.strip()

    a = submit("work:echo", "7", 'x:={"rows": [{"name": "first"}]}')
    b = submit("work:add", f"@job:{a}[0][0]", f"b=@job:{a}[0][0]")
    parts = f'["@job:{b}", {{"k": "@job:{a}[1].x.rows[0].name"}}]'
    assert daemon.cli("submit", "--wait", "work:echo", f"parts:={parts}").stdout == (
        '[[],{"parts":[14,{"k":"first"}]}]\n'
    )
    assert daemon.cli("submit", "--wait", "--raw", "work:echo", f"@job:{a}").stdout == (
        f'[["@job:{a}"],{{}}]\n'
    )
    shown = json.loads(daemon.cli("show", b, "--json").stdout)
    assert shown["inputs"] == [int(a)]
    assert shown["args"] == [f"@job:{a}[0][0]"]


def test_a_job_takes_no_worker_until_its_inputs_are_there(
    daemon: DaemonUnderTest, client: Client, tmp_path: Path
) -> None:
    """It is blocked, and says so; others run meanwhile."""
    gate = tmp_path / "gate"
    held = client.submit("work:mark_and_wait", str(tmp_path / "mark"), str(gate))
    waits = client.submit("work:echo", held)
    assert state_of(client, waits.id) is State.BLOCKED
    done = daemon.cli("result", str(waits.id))
    assert (done.returncode, "is blocked" in done.stderr) == (3, True)
    assert client.submit("work:add", 1).result(20) == 2
    gate.touch()
    assert waits.result(20) == [["through"], {}]


def test_an_input_that_does_not_exist_is_refused(daemon: DaemonUnderTest, client: Client) -> None:
    """At submit; nothing is queued."""
    done = daemon.cli("submit", "work:add", "@job:99")
    assert done.returncode == 4
    assert "there is no job 99" in done.stderr
    with pytest.raises(NotFound, match="no job 98"):
        _ = client.submit("work:add", JobResult(98)).id


def test_a_job_cannot_wait_for_itself(client: Client) -> None:
    """An input has an id, or a key that came before: so there is no cycle."""
    before = client.submit("work:nothing")
    key = before.input_of()
    assert isinstance(key, bytes)
    key = key[:8] + (int.from_bytes(key[8:16], "big") + 1).to_bytes(8, "big")
    call, _ = encode_call((JobResult(1),), {})
    own = Submit(0, b"", "work:add", [call], [(1, ())], inputs=[[key + bytes(8)]])
    (deferred,) = client._submit(own)
    with pytest.raises(NotFound, match="nobody knows"):
        _ = deferred.id


def test_a_part_that_is_missing_fails_the_job(client: Client) -> None:
    """In one sentence that says what is there instead."""
    first = client.submit("work:echo", 1, 2)
    second = client.submit("work:echo", JobResult(first.id, (0, 5)))
    with pytest.raises(JobFailed, match=r"an input has no \[0\]\[5\]: \[0\] is a list of 2 items"):
        second.result(20)


def test_inputs_are_found_that_have_no_ids_yet(client: Client) -> None:
    """A chain is submitted in one go: the first answers come when it runs already."""
    last = client.submit("work:add", 0)
    for _ in range(300):
        last = client.submit("work:add", last)
    assert last.result(30) == 301


def test_a_job_waits_for_the_check_of_its_inputs_submit(
    daemon: DaemonUnderTest, client: Client
) -> None:
    """What is known to be right does not overtake what is not; and is refused if that is."""
    assert client.submit("work:add", 1).result(20) == 2  # known from now on
    daemon.write_module("fresh", "def seven():\n    return 7\n")
    assert client.submit("work:add", client.submit("fresh:seven")).result(20) == 8
    missing = client.submit("fresh:eight")
    orphan = client.submit("work:add", client.submit("work:add", missing))
    with pytest.raises(NotFound, match="a submit that nobody knows"):
        orphan.result(20)


@pytest.mark.parametrize(
    ("call", "state", "cause"),
    [
        (("work:fail", "bad"), State.FAILED, "failed: ValueError: bad"),
        (("faults:segfault",), State.CRASHED, "crashed (SIGSEGV)"),
        (("work:sleep", 60), State.CANCELLED, "was cancelled: no need"),
    ],
)
def test_an_input_that_fails_aborts_all_the_way_down(
    make_daemon: MakeDaemon, call: tuple[str, object], state: State, cause: str
) -> None:
    """Everybody names the job that was to blame, and its error."""
    daemon = make_daemon(jobs__max_crashes=0).start()
    client = daemon.client()
    root = client.submit(*call)
    middle = client.submit("work:add", root)
    leaf = client.submit("work:echo", [middle, middle])
    if state is State.CANCELLED:
        eventually(lambda: state_of(client, root.id) is State.RUNNING)
        client.cancel(one(root.id), "no need")
    with pytest.raises(JobAborted) as caught:
        leaf.result(20)
    assert caught.value.root == root.id
    assert caught.value.message == f"job {leaf.id} was aborted: job {root.id} {cause}"
    assert state_of(client, root.id) is state
    told = json.loads(daemon.cli("result", str(middle.id), "--json").stdout)
    assert (told["state"], told["root"]) == ("aborted", root.id)
    assert daemon.cli("result", str(leaf.id)).returncode == 5
    late = client.submit("work:add", leaf)  # what is submitted now is aborted at once
    with pytest.raises(JobAborted, match=f"job {root.id} "):
        late.result(20)


def test_a_retry_of_the_root_revives_those_who_wait_for_it(
    daemon: DaemonUnderTest, client: Client, tmp_path: Path
) -> None:
    """All the way down; an aborted job itself is not retried."""
    gate = tmp_path / "gate"
    daemon.write_module(
        "fragile",
        f"import os\ndef run():\n    assert os.path.exists({str(gate)!r})\n    return 1\n",
    )
    root = client.submit("fragile:run")
    middle = client.submit("work:add", root)
    leaf = client.submit("work:add", middle, root)
    with pytest.raises(JobAborted):
        leaf.result(20)
    (answer,) = client.retry(one(leaf.id))
    assert answer == (leaf.id, f"it comes after job {root.id}, which has failed: retry that")
    assert daemon.cli("retry", str(middle.id)).returncode == 3
    later = client.options(in_="1h").submit("work:nothing")
    after = client.submit("work:add", later)
    client.cancel([later.id])
    client.wait([after.id], 20)
    (answer,) = client.retry(one(after.id))
    assert answer == (after.id, f"it comes after job {later.id}, which was cancelled: retry that")
    gate.touch()
    assert client.retry(one(root.id)) == [(root.id, "queued again")]
    assert client.result(leaf.id, 20) == 3


def test_a_chain_goes_on_after_the_daemon_was_killed(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """What was acknowledged is kept, who waits for whom too, and what failed before still counts."""
    daemon = make_daemon().start()
    client = daemon.client()
    gate = tmp_path / "gate"
    held = client.submit("work:mark_and_wait", str(tmp_path / "mark"), str(gate))
    second = client.submit("work:echo", held)
    third = client.submit("work:echo", second, 3)
    failed = client.submit("work:fail")
    doomed = client.submit("work:echo", held, failed)
    with pytest.raises(JobAborted):
        doomed.result(20)
    eventually((tmp_path / "mark").exists)
    numbers = [third.id, doomed.id]
    daemon.kill()
    daemon.start()
    with daemon.client() as later:
        assert state_of(later, numbers[0]) is State.BLOCKED
        gate.touch()
        assert later.result(numbers[0], 20) == [[[["through"], {}], 3], {}]
        assert state_of(later, numbers[1]) is State.ABORTED


def test_the_chain_completes_without_its_submitter(
    daemon: DaemonUnderTest, client: Client, tmp_path: Path
) -> None:
    """Whoever knows the id may have the result."""
    gate = tmp_path / "gate"
    program = f"""
import os, jobd
client = jobd.Client({daemon.socket!r})
last = client.submit("work:mark_and_wait", {str(tmp_path / "mark")!r}, {str(gate)!r})
for _ in range(20):
    last = client.submit("work:echo", last)
print(last.id, flush=True)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    number = int(done.stdout)
    assert state_of(client, number) is State.BLOCKED
    gate.touch()
    assert "through" in str(client.result(number, 20))


def test_five_thousand_inputs(client: Client) -> None:
    """Of one job, and one input of as many: neither is quadratic."""
    ones = client.submit_many("work:add", [(0,)] * 5_000)
    total = client.submit("builtins:sum", [*ones])
    assert total.result(40) == 5_000
    fan = client.submit_many("work:add", [(total,)] * 5_000)
    assert {deferred.result(40) for deferred in fan} == {5_001}


def test_who_waits_for_a_cancelled_job_waits_again_once_that_is_retried(
    client: Client, tmp_path: Path
) -> None:
    """A job that was cancelled while it was blocked is blocked again, and not just queued."""
    gate = tmp_path / "gate"
    held = client.submit("work:mark_and_wait", str(tmp_path / "mark"), str(gate))
    middle = client.submit("work:echo", held)
    leaf = client.submit("work:echo", middle)
    client.cancel(one(middle.id))
    with pytest.raises(JobAborted, match=f"job {middle.id} was cancelled"):
        leaf.result(20)
    assert client.retry(one(middle.id)) == [(middle.id, "queued again")]
    assert state_of(client, middle.id) is State.BLOCKED
    eventually(lambda: state_of(client, leaf.id) is State.BLOCKED)
    gate.touch()
    assert "through" in str(client.result(leaf.id, 20))
