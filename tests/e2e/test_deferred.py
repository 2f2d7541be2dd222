"""Deferred results as values, from Python: functions themselves, options, ends as they come."""

from __future__ import annotations

import functools
import math
import operator
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually

from jobd.client import Client
from jobd.inputs import JobResult
from jobd.model.errors import (
    BadFunction,
    JobAborted,
    JobCancelled,
    JobdError,
    JobFailed,
    NotAllowed,
    NotFound,
    UsageError,
    WaitTimeout,
)
from jobd.model.selector import one

MIB = 1024 * 1024

Make = Callable[..., DaemonUnderTest]
Connect = Callable[..., Client]


@pytest.fixture
def client(shared: DaemonUnderTest, connect: Connect) -> Iterator[Client]:
    """Return a client of the shared daemon."""
    with connect(shared.socket) as client:
        yield client


# --- functions


def test_a_function_is_submitted_by_its_name_where_that_leads_back_to_it(client: Client) -> None:
    """As it is imported in a worker; every way of submitting takes the function itself."""
    deferred = client.submit(math.factorial, 20)
    assert deferred.result(20) == math.factorial(20)
    assert client.find(one(deferred.id))[0].function == "math:factorial"
    several = client.submit_many(operator.add, [(1, 2), (3, 4)])
    assert [one.result(20) for one in several] == [3, 7]
    assert list(client.map(len, ["", "a", "ab"])) == [0, 1, 2]
    assert client.submit(dict.fromkeys, [1]).result(20) == {1: None}


def test_what_no_name_leads_to_goes_by_value(client: Client) -> None:
    """Lambdas, closures, partial functions and bound methods, with what they hold."""
    base = 40

    def add(number: int) -> int:
        return base + number

    deferred = client.submit(add, 2)
    assert deferred.result(20) == 42
    assert client.find(one(deferred.id))[0].function.endswith("<locals>.add")
    assert list(client.map(lambda n: n * base, range(3))) == [0, 40, 80]
    assert client.submit(functools.partial(add, number=1)).result(20) == 41
    assert client.submit([3, 4].index, 4).result(20) == 1
    with pytest.raises(JobFailed, match="ZeroDivisionError"):
        client.submit(lambda: 1 / 0).result(20)


def test_what_a_function_by_value_is_passed_and_returns_may_be_by_value_too(
    client: Client,
) -> None:
    """Functions among the arguments, and functions as results."""
    twice: Callable[[int], int]
    twice = client.submit(lambda f: lambda x: f(f(x)), lambda x: x + 1).result(20)
    assert twice(40) == 42
    assert client.submit(functools.reduce, lambda a, b: a * b, [6, 7]).result(20) == 42


def test_a_script_submits_what_it_has_defined(shared: DaemonUnderTest, tmp_path: Path) -> None:
    """Functions and classes of ``__main__``, which no worker could import."""
    script = tmp_path / "script.py"
    script.write_text(
        "import dataclasses, sys, jobd\n"
        "@dataclasses.dataclass\n"
        "class Point:\n"
        "    x: int\n"
        "    y: int\n"
        "def mirrored(point):\n"
        "    return Point(point.y, point.x)\n"
        "with jobd.Client(sys.argv[1]) as client:\n"
        "    print(client.submit(mirrored, Point(1, 2)).result(20))\n"
        "    print(client.submit('work:echo', Point(3, 4)).result(20))\n",
        encoding="ascii",
    )
    done = subprocess.run(
        [sys.executable, "-P", str(script), shared.socket],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "Point(x=2, y=1)\n[[Point(x=3, y=4)], {}]\n", done.stderr


def test_a_function_by_value_is_checked_where_it_is_submitted(client: Client) -> None:
    """The daemon cannot: it does not unpickle."""
    with pytest.raises(BadFunction, match=r"<lambda>: missing a required argument: 'y'"):
        client.submit(lambda x, y: x + y, 1)
    with pytest.raises(UsageError, match="3 is no function"):
        client.submit(3, 1)  # type: ignore[call-overload]  # what it is about


def test_a_retried_job_has_its_function_still(client: Client, tmp_path: Path) -> None:
    """It is stored with the job."""
    flag = tmp_path / "flag"

    def flaky() -> str:
        assert flag.exists()
        return "well"

    deferred = client.submit(flaky)
    with pytest.raises(JobFailed, match="AssertionError"):
        deferred.result(20)
    flag.touch()
    assert client.retry(one(deferred.id)) == [(deferred.id, "queued again")]
    assert client.result(deferred.id, 20) == "well"


class Holder:
    """Holds something that cannot travel, two levels down."""

    def __init__(self) -> None:
        self.parts = {"fine": 1, "bad": threading.Lock()}


def test_what_cannot_travel_is_refused_with_the_place_where_it_is(client: Client) -> None:
    """In arguments, in what a function uses, in its defaults."""
    lock = threading.Lock()
    for submit, place in (
        (lambda: client.submit("work:echo", 1, lock), r"argument 2 \(_thread\.lock\)"),
        (lambda: client.submit("work:echo", key=[1, lock]), r"argument key\[1\] \(_thread\.lock\)"),
        (
            lambda: client.submit("work:echo", Holder()),
            r"argument 1\.parts\['bad'\] \(_thread\.lock\)",
        ),
        (lambda: client.submit(lambda: lock), r"lock, which the function uses \(_thread\.lock\)"),
        (lambda: client.submit(lambda x=lock: x), r"default 0 of the function \(_thread\.lock\)"),
        (
            lambda: client.submit("work:echo", (n for n in "ab")),
            r"argument 1 \(generator\)",
        ),
    ):
        with pytest.raises(UsageError, match=place + " cannot travel to the worker: TypeError"):
            submit()


# --- the allow-list


def test_with_an_allow_list_only_its_functions_run_and_nothing_is_unpickled(
    make_daemon: Make, connect: Connect
) -> None:
    """By name and with plain data; all else is refused, by every door."""
    daemon = make_daemon(security__allow="work:a*,math:*").start()
    with connect(daemon.socket) as client:
        assert client.submit("work:add", 20, 22).result(20) == 42
        assert client.submit(math.factorial, 3).result(20) == 6
        for bad, sentence in (
            (client.submit("work:echo", 1), "work:echo may not be run .*security.allow"),
            (client.submit("os:system", "true"), "os:system may not be run"),
            (client.submit(lambda: 1), "travels by value"),
            (client.submit("work:add", {1}), "an argument of work:add is a pickle"),
        ):
            with pytest.raises(NotAllowed, match=sentence):
                bad.result(20)
        assert sum(client.status().jobs.values()) == 2
    refused = daemon.cli("submit", "os:system", "true")
    assert refused.returncode == 77, refused.stderr


def test_the_list_holds_in_the_workers_too(make_daemon: Make, connect: Connect) -> None:
    """For what nobody has checked, and for what was queued before there was a list."""
    daemon = make_daemon()
    daemon.start()
    with connect(daemon.socket) as client:
        old = [
            client.options(hold=True).submit(*call)
            for call in (("os:getcwd",), ("work:echo", {1}), (lambda: 1,), ("work:add", 1))
        ]
        ids = [deferred.id for deferred in old]
    daemon.terminate()
    daemon.environ["JOBD_SECURITY_ALLOW"] = "work:*,imports:*"
    daemon.start()
    with connect(daemon.socket) as client:
        client.release(ids)
        for number in ids[:3]:
            with pytest.raises(JobFailed, match="security.allow"):
                client.attach(number).result(20)
        assert client.attach(ids[3]).result(20) == 2
        with pytest.raises(NotAllowed, match="neither defines put_together nor lists it"):
            client.submit("imports:put_together", "a", "b").result(20)
        sneaky = daemon.cli("submit", "--no-check", "--wait", "imports:put_together", "a", "b")
        assert sneaky.returncode == 1
        assert "neither defines put_together" in sneaky.stderr
        part = daemon.cli("submit", "--wait", "work:echo", f"@job:{ids[3]}.__class__")
        assert part.returncode == 1
        assert "a path leads to data only" in part.stderr


# --- options


def test_what_concerns_the_job_goes_through_options(client: Client) -> None:
    """And what concerns the function never does; views are made of views."""
    client.set_queue("etl")
    view = client.options(queue="etl")
    named = view.options(name="clean")
    deferreds = [
        named.submit("work:echo", queue="mine"),
        *view.submit_many("work:add", [(1, 2)]),
        client.submit("work:add", 1),
    ]
    assert deferreds[0].result(20) == [[], {"queue": "mine"}]
    assert list(view.map("work:add", [1])) == [2]
    infos = [client.find(one(deferred.id))[0] for deferred in deferreds]
    assert [(i.queue, i.name) for i in infos] == [("etl", "clean"), ("etl", ""), ("default", "")]
    with pytest.raises(UsageError, match="no option 'quue'"):
        client.options(quue="etl")  # type: ignore[call-arg]  # what it is about
    with pytest.raises(UsageError, match="name: 7 is no name"):
        client.options(name=7)  # type: ignore[arg-type]  # what it is about


# --- one deferred result


def test_a_deferred_tells_the_state_of_its_job(client: Client, tmp_path: Path, gate: Path) -> None:
    """As the daemon knows it, whoever submitted it."""
    mark = tmp_path / "mark"
    deferred = client.submit("faults:wait_at", str(mark), str(gate))
    attached = client.attach(deferred.id)
    eventually(mark.exists)
    assert [deferred.state, attached.state, deferred.done()] == ["running", "running", False]
    gate.touch()
    assert deferred.result(20) == "through"
    assert [deferred.state, attached.state, deferred.done()] == ["succeeded", "succeeded", True]


def test_an_attached_deferred_is_told_of_its_end(
    client: Client, shared: DaemonUnderTest, connect: Connect, tmp_path: Path, gate: Path
) -> None:
    """Whether that is still to come, or long past."""
    deferred = client.submit("faults:wait_at", str(tmp_path / "mark"), str(gate))
    with connect(shared.socket) as other:
        attached = other.attach(deferred.id)
        with pytest.raises(WaitTimeout, match=f"job {deferred.id} has not ended within 0.01 s"):
            attached.result(0.01)
        gate.touch()
        assert attached.result(20) == "through"
    with connect(shared.socket) as other:
        assert other.attach(deferred.id).result(20) == "through"
        with pytest.raises(NotFound, match="there is no job 987654321"):
            other.attach(987_654_321).result(20)


def test_an_exception_is_a_value_too(client: Client) -> None:
    """None for a success; that of a refused submit is raised, because there is no job."""
    assert client.submit("work:add", 1, 2).exception(20) is None
    error = client.submit("work:fail").exception(20)
    assert isinstance(error, JobFailed)
    assert error.type == "ValueError"
    with pytest.raises(BadFunction):
        client.submit("work:nothing_of_that_name").exception(20)


def test_a_deferred_is_cancelled(client: Client, tmp_path: Path, gate: Path) -> None:
    """Once; afterwards there is nothing to cancel."""
    deferred = client.submit("faults:wait_at", str(tmp_path / "mark"), str(gate))
    assert deferred.cancel("not needed") is True
    with pytest.raises(JobCancelled, match="was cancelled: not needed"):
        deferred.result(20)
    assert deferred.cancel() is False
    assert isinstance(deferred.exception(), JobCancelled)


def test_a_repr_tells_what_is_known(client: Client) -> None:
    """The job, its function, and how it ended."""
    good, bad = client.submit("work:add", 1, 2), client.submit("work:fail")
    refused = client.submit("work:nothing_of_that_name")
    assert good.result(20) == 3
    assert isinstance(bad.exception(20), JobFailed)
    with pytest.raises(BadFunction):
        refused.result(20)
    assert repr(good).endswith(f"Deferred {good.id} work:add succeeded>")
    assert f"{bad.id} work:fail failed: ValueError: " in repr(bad)
    assert "(not acknowledged) work:nothing_of_that_name refused: " in repr(refused)
    assert repr(client.attach(good.id)).endswith(f"Deferred {good.id}>")


# --- several


def test_deferreds_come_as_they_get_done(
    client: Client, shared: DaemonUnderTest, connect: Connect, tmp_path: Path, gate: Path
) -> None:
    """Attached, failed and refused ones among them; each once, however often it was passed."""
    slow = client.submit("faults:wait_at", str(tmp_path / "mark"), str(gate))
    quick, bad = client.submit("work:add", 1, 2), client.submit("work:fail")
    refused = client.submit("work:nothing_of_that_name")
    found = []
    with connect(shared.socket) as other:
        others = [other.attach(slow.id), other.attach(quick.id)]
        arriving = other.as_completed(others)
        assert next(arriving) == others[1]
        for deferred in client.as_completed([slow, quick, bad, refused, quick], timeout=20):
            found.append(deferred)
            if len(found) == 3:
                assert set(found) == {quick, bad, refused}
                gate.touch()
        assert found[3:] == [slow]
        assert list(arriving) == [others[0]]
    assert list(client.as_completed([])) == []
    with pytest.raises(BadFunction):
        refused.result()


def test_waiting_for_the_next_one_has_a_timeout(client: Client, tmp_path: Path, gate: Path) -> None:
    """For the whole; those that are done come before it."""
    slow = client.submit("faults:wait_at", str(tmp_path / "mark"), str(gate))
    quick = client.submit("work:add", 1, 2)
    assert quick.result(20) == 3
    arriving = client.as_completed([slow, quick], timeout=0.02)
    assert next(arriving) == quick
    with pytest.raises(WaitTimeout, match=r"have not ended within 0\.02 s"):
        next(arriving)
    with pytest.raises(NotFound, match="there is no job 987654321"):
        next(client.as_completed([client.attach(987_654_321)]))


# --- results as arguments


def test_a_deferred_is_an_argument_at_any_depth(
    client: Client, shared: DaemonUnderTest, connect: Connect
) -> None:
    """Alone, in containers, in objects, as an item of a bulk; known by key or id."""
    first = client.submit("work:add", 20, 22)
    listed = client.submit("work:echo", [first, {"a": [first]}], key=first)
    assert listed.result(20) == [[[42, {"a": [42]}]], {"key": 42}]
    assert client.submit("work:echo", {1: (first,)}).result(20) == [[{1: (42,)}], {}]
    assert client.submit(lambda o: o.rows + 1, types.SimpleNamespace(rows=first)).result(20) == 43
    assert [d.result(20) for d in client.submit_many("work:add", [(first, 1), (1, first)])] == [
        43
    ] * 2
    assert list(client.map("work:add", [first, 1])) == [43, 2]
    with connect(shared.socket) as other:
        assert other.submit("work:add", other.attach(first.id), 8).result(20) == 50


def test_a_chain_is_submitted_up_front(client: Client, gate: Path) -> None:
    """None of it is waited for, not even its ids."""
    head = client.submit("faults:wait_at", str(gate.with_name("mark")), str(gate))
    last = client.submit(len, head)
    for _ in range(50):
        last = client.submit("work:add", last)
    assert last.state == "blocked"
    gate.touch()
    assert last.result(20) == len("through") + 50


def test_a_failed_input_is_told_by_its_dependants(client: Client) -> None:
    """With the job that is to blame, all the way down; also where its submit was refused."""
    bad = client.submit("work:fail", "bad input")
    last = client.submit("work:add", client.submit("work:add", bad))
    error = last.exception(20)
    assert isinstance(error, JobAborted)
    assert error.root == bad.id
    assert "bad input" in str(error)
    assert f"{last.id} work:add aborted: " in repr(last)
    refused = client.submit("work:nothing_of_that_name")
    with pytest.raises(JobdError):
        client.submit("work:add", refused).result(20)
    with pytest.raises(BadFunction):
        refused.result()


def test_a_deferred_that_is_refused_as_an_argument_is_told(client: Client) -> None:
    """An id that nobody has; and a pickle of one elsewhere would mean nothing."""
    with pytest.raises(NotFound):
        client.submit("work:add", client.attach(987_654_321)).result(20)
    with pytest.raises(TypeError, match="only as an argument of a job"):
        pickle.dumps(JobResult(3))


# --- taking


def test_a_result_is_taken_once(client: Client, shared: DaemonUnderTest, connect: Connect) -> None:
    """Whoever comes later, by whatever door, is told."""
    deferred = client.submit("work:add", 20, 22)
    large = client.submit("faults:give_bytes", MIB)
    assert client.take(deferred.id, timeout=20) == 42
    assert client.take(large.id, timeout=20) == b"x" * MIB
    with connect(shared.socket) as other:
        for ask in (
            other.take,
            other.result,
            lambda n: other.submit("work:add", other.attach(n)).result(20),
        ):
            with pytest.raises(JobdError, match=f"job {deferred.id} was taken already"):
                ask(deferred.id)
    bad = client.submit("work:fail")
    with pytest.raises(JobFailed):
        client.take(bad.id)
    with pytest.raises(NotFound):
        client.take(987_654_321)
