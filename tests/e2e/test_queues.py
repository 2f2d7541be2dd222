"""Queues, with the real daemon: made, limited, paused, asked about, removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, lines

import jobd
import jobd.testing
from jobd.client import Client
from jobd.model.errors import JobFailed, NotFound, QueueBusy, UsageError
from jobd.model.queues import QueueInfo


@pytest.fixture
def client(daemon: DaemonUnderTest) -> Client:
    """Return a client of a daemon for one test."""
    return daemon.client()


def with_settings(daemon: DaemonUnderTest, text: str) -> DaemonUnderTest:
    """Give a daemon a file of settings."""
    path = daemon.root / "jobd.toml"
    path.write_text(text, encoding="utf-8")
    daemon.environ["JOBD_CONFIG"] = str(path)
    return daemon


def queue(client: Client, name: str) -> QueueInfo:
    """Return how a queue is."""
    (info,) = client.queues(name)
    return info


# -- pause, slots, rate of plain jobs --


def test_jobs_that_name_no_queue_wait_while_default_is_paused(
    daemon: DaemonUnderTest, client: Client
) -> None:
    """The status says so; a restart changes nothing; resumed, they run."""
    assert client.pause("default").paused
    jobs = [client.submit("work:echo", number) for number in range(3)]
    client.flush()
    assert queue(client, "default").waiting == 3
    daemon.kill()
    daemon.start()
    client = daemon.client()
    assert client.status().trouble == [
        "the queue 'default' is paused, until 'jobd queue resume default'"
    ]
    assert queue(client, "default") == QueueInfo(
        *("default", 0, "", True, 0, 3),
        {"slots": "built in", "rate": "built in", "paused": "jobd queue set", "name": "built in"},
    )
    assert not client.resume("default").paused
    assert [client.result(job.id, 20) for job in jobs] == [[[0], {}], [[1], {}], [[2], {}]]
    assert client.status().trouble == []
    assert queue(client, "default").waiting == 0


def test_a_queue_with_one_slot_runs_its_jobs_one_after_the_other(
    client: Client, gate: Path, mark: Path
) -> None:
    """Though a second worker idles; more slots hold at once."""
    client.set_queue("default", slots=1)
    client.submit_many("work:mark_and_wait", [(str(mark), str(gate)) for _ in range(3)])
    client.flush()
    eventually(lambda: lines(mark))
    eventually(lambda: queue(client, "default").waiting == 2)
    info = queue(client, "default")
    assert (info.slots, info.running) == (1, 1)
    assert len(lines(mark)) == 1
    client.set_queue("default", slots=0)
    eventually(lambda: len(lines(mark)) == 2)


def test_a_rate_holds_jobs_back(client: Client) -> None:
    """The third of two in an hour waits; without the rate it starts at once."""
    client.set_queue("default", rate="2/h")
    jobs = [client.submit("work:echo", number) for number in range(3)]
    assert [job.result(20) for job in jobs[:2]] == [[[0], {}], [[1], {}]]
    assert queue(client, "default").waiting == 1
    assert client.set_queue("default", rate=0).rate == ""
    assert jobs[2].result(20) == [[2], {}]


def test_the_settings_may_limit_the_default_queue(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """From the first job of a new daemon on."""
    daemon = with_settings(make_daemon(), '[queues.default]\nrate = "2/h"\n').start()
    client = daemon.client()
    jobs = client.submit_many("work:echo", [(1,), (2,), (3,)])
    assert [job.result(20) for job in jobs[:2]] == [[[1], {}], [[2], {}]]
    info = queue(client, "default")
    assert (info.waiting, info.origins["rate"]) == (1, "[queues.default]")
    client.set_queue("default", rate=0)
    assert jobs[2].result(20) == [[3], {}]


# -- of jobs in queues with names --


@pytest.mark.parametrize("name", ["etl", "a b/ü:,%"])
def test_a_paused_queue_keeps_its_jobs_and_no_others(
    daemon: DaemonUnderTest, client: Client, name: str
) -> None:
    """Over a restart, and whatever the name is; resumed, they run."""
    client.set_queue(name)
    client.pause(name)
    jobs = client.options(queue=name).submit_many("work:echo", [(1,), (2,)])
    assert client.submit("work:echo", 3).result(20) == [[3], {}]
    daemon.kill()
    daemon.start()
    client = daemon.client()
    assert client.submit("work:echo", 4).result(20) == [[4], {}]
    info = queue(client, name)
    assert (info.paused, info.running, info.waiting) == (True, 0, 2)
    client.resume(name)
    assert [client.result(job.id, 20) for job in jobs] == [[[1], {}], [[2], {}]]


def test_a_queue_with_one_slot_leaves_the_other_workers_to_others(
    client: Client, gate: Path, mark: Path
) -> None:
    """One of its jobs runs, two wait, and a plain one does not wait behind them."""
    client.set_queue("etl", slots=1)
    calls = [(str(mark), str(gate)) for _ in range(3)]
    jobs = client.options(queue="etl").submit_many("work:mark_and_wait", calls)
    assert client.submit("work:echo", 1).result(20) == [[1], {}]
    eventually(lambda: lines(mark))
    eventually(lambda: queue(client, "etl").running == 1)
    assert queue(client, "etl").waiting == 2
    assert len(lines(mark)) == 1
    gate.touch()
    for job in jobs:
        job.result(20)
    assert queue(client, "etl").waiting == 0


def test_a_job_that_survives_its_daemon_keeps_the_slot_of_its_queue(
    daemon: DaemonUnderTest, client: Client, gate: Path, mark: Path
) -> None:
    """The next daemon counts it, and starts the second one only when it has ended."""
    client.set_queue("etl", slots=1)
    calls = [(str(mark), str(gate)) for _ in range(2)]
    first, second = client.options(queue="etl").submit_many("work:mark_and_wait", calls)
    numbers = first.id, second.id
    eventually(lambda: lines(mark))
    daemon.kill()
    daemon.start()
    client = daemon.client()
    assert client.submit("work:echo", 1).result(20) == [[1], {}]
    eventually(lambda: queue(client, "etl").running == 1)
    assert queue(client, "etl").waiting == 1
    assert len(lines(mark)) == 1
    gate.touch()
    for number in numbers:
        client.result(number, 20)
    assert len(lines(mark)) == 2


def test_a_queue_with_a_rate_holds_its_own_jobs_back(client: Client) -> None:
    """And no others; a job that is retried is a start again."""
    client.set_queue("mail", rate="2/h")
    mail = client.options(queue="mail")
    with pytest.raises(JobFailed):
        mail.options(retries=1, backoff="0").submit("work:fail").result(20)
    late = mail.submit("work:echo", 1)
    assert client.submit("work:echo", 2).result(20) == [[2], {}]
    assert queue(client, "mail").waiting == 1
    client.set_queue("mail", rate="3/h")
    assert late.result(20) == [[1], {}]


def test_a_job_that_waits_for_a_job_of_its_own_queue_lends_its_slot(client: Client) -> None:
    """Else a queue with one slot could have no such jobs."""
    client.set_queue("default", slots=1)
    assert client.submit("nested:nest", 3).result(20) == 3


# -- what is known --


def test_what_is_set_outranks_the_settings_over_restarts(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """Value by value, and each says where it comes from; a reset brings the settings back."""
    daemon = make_daemon()
    with_settings(daemon, '[queues.etl]\nslots = 3\nrate = "9/s"\nretries = 1\n').start()
    client = daemon.client()
    client.set_queue("etl", slots="1")
    client.set_queue("mail")
    client.set_queue("gone")
    client.remove_queue("gone")
    daemon.kill()
    daemon.start()
    client = daemon.client()
    assert [info.name for info in client.queues()] == ["default", "etl", "mail"]
    etl = queue(client, "etl")
    assert (etl.slots, etl.rate) == (1, "9/s")
    assert etl.origins == {
        "slots": "jobd queue set",
        "rate": "[queues.etl]",
        "paused": "built in",
        "name": "[queues.etl]",
    }
    client.pause("etl")
    etl = client.set_queue("etl", reset=True)
    assert (etl.slots, etl.rate, etl.paused) == (3, "9/s", True)


def test_a_submit_to_an_unknown_queue_is_refused(daemon: DaemonUnderTest, client: Client) -> None:
    """Nothing was changed, the nearest is named, and how to make it."""
    client.set_queue("etl")
    refused = daemon.cli("submit", "work:echo", "--queue", "etk", "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout) == {
        "schema": "jobd.error/1",
        "code": 2,
        "error": "usage",
        "message": "there is no queue 'etk'",
        "hint": "did you mean 'etl'? Else make it with 'jobd queue set etk', "
        "or as [queues.etk] in the settings",
    }
    with pytest.raises(UsageError, match="there is no queue 'a b'.*queue set 'a b'"):
        client.options(queue="a b").submit("work:echo").result(20)
    assert sum(client.status().jobs.values()) == 0
    client.set_queue("a b")
    assert client.options(queue="a b").submit("work:echo").result(20) == [[], {}]


def test_defaults_that_name_an_unknown_queue_are_no_settings(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """Every submit would be refused; a queue that was made by hand is known, too."""
    daemon = with_settings(make_daemon(), "")
    daemon.start().client().set_queue("etl")
    daemon.terminate()
    with_settings(daemon, '[defaults]\nqueue = "etl"\n').start()
    with pytest.raises(UsageError, match=r"\[defaults\] of the settings has the queue 'etl'"):
        daemon.client().remove_queue("etl")
    daemon.terminate()
    with_settings(daemon, '[functions."m:f"]\nqueue = "etk"\n').start(wait=False)
    assert daemon.wait() == 78
    assert "[functions.m:f] names a queue, and there is no queue 'etk'" in daemon.log


def test_jobs_of_a_queue_that_left_the_settings_still_run(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """The queue is listed as long as they wait, and the status says what happens to them."""
    daemon = with_settings(make_daemon(), "[queues.etl]\n").start()
    client = daemon.client()
    client.pause("default")
    job = client.options(queue="etl", in_="1h").submit("work:echo")
    number = job.id
    daemon.kill()
    with_settings(daemon, "").start()
    client = daemon.client()
    assert [info.name for info in client.queues()] == ["default", "etl"]
    assert queue(client, "etl").origins["name"] == "nowhere any more"
    assert any("its jobs run without limits" in text for text in client.status().trouble)
    client.cancel(number)
    eventually(lambda: [info.name for info in client.queues()] == ["default"])


# -- removing --


def test_a_queue_with_jobs_is_not_removed(client: Client) -> None:
    """Whatever they wait for; nor is one that is not there, or always there."""
    client.set_queue("etl")
    job = client.options(queue="etl", in_="1h").submit("work:echo")
    client.flush()
    with pytest.raises(QueueBusy, match="has 1 job that did not end"):
        client.remove_queue("etl")
    job.cancel()
    client.remove_queue("etl")
    for call in (client.remove_queue, client.pause, client.resume, client.queues):
        with pytest.raises(NotFound, match="there is no queue 'etl'"):
            call("etl")
    with pytest.raises(UsageError, match="always there"):
        client.remove_queue("default")
    with pytest.raises(UsageError, match="there is no queue 'etl'"):
        client.options(queue="etl").submit("work:echo").result(20)


def test_a_job_of_a_queue_that_was_removed_may_be_retried(client: Client) -> None:
    """It meets no limits then."""
    client.set_queue("etl", slots=1)
    job = client.options(queue="etl", in_="1h").submit("work:echo")
    job.cancel()
    client.remove_queue("etl")
    client.retry(job.id)
    assert client.result(job.id, 20) == [[], {}]


# -- the command line --


def test_the_command_line_has_a_noun_for_queues(daemon: DaemonUnderTest) -> None:
    """Make, look, pause, resume, remove; people get lines, programs JSON."""
    made = daemon.cli("queue", "set", "etl", "--slots", "2", "--rate", "10/s")
    assert made.stdout == "etl\topen\t2\t10/s\t0\t0\tjobd queue set\n"
    assert daemon.cli("queue", "pause", "etl", "-q").stdout == ""
    assert daemon.cli("queue", "ls", "-q").stdout == "default\netl\n"
    shown = json.loads(daemon.cli("queue", "ls", "etl", "--json").stdout)
    assert shown["schema"] == "jobd.queues/1"
    assert shown["queues"] == [
        {
            "schema": "jobd.queue/1",
            "name": "etl",
            "paused": True,
            "slots": 2,
            "rate": "10/s",
            "running": 0,
            "waiting": 0,
            "origins": dict.fromkeys(("slots", "rate", "paused", "name"), "jobd queue set"),
        }
    ]
    resumed = json.loads(daemon.cli("queue", "resume", "etl", "--json").stdout)
    assert (resumed["schema"], resumed["paused"]) == ("jobd.queue/1", False)
    assert daemon.cli("queue", "rm", "etl").stdout == "the queue etl is removed\n"
    assert daemon.cli("queue", "ls").stdout == "default\topen\t-\t-\t0\t0\tbuilt in\n"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("pause", "etl"), 4, "there is no queue 'etl': see 'jobd queue ls'"),
        (("resume", "etl"), 4, "there is no queue 'etl'"),
        (("ls", "default", "etl"), 4, "there is no queue 'etl'"),
        (("rm", "etl"), 4, "there is no queue 'etl'"),
        (("set", "etl", "--slots", "-1"), 2, "slots: -1 is out of range"),
        (("set", "etl", "--slots", "many"), 2, "slots: 'many' is not a whole number"),
        (("set", "etl", "--rate", "10"), 2, "rate: '10' is not a rate: write 10/s"),
        (("set", "etl", "--rate", "20000/s"), 2, "counts more than 10000 jobs"),
        (("set", ""), 2, "'' is no name here"),
        (("st", "etl"), 2, "jobd queue has no command 'st': did you mean 'set'?"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    shared: DaemonUnderTest, words: tuple[str, ...], code: int, sentence: str
) -> None:
    """One sentence, and the exit code of its kind."""
    done = shared.cli("queue", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert [info.name for info in shared.client().queues()] == ["default"]


# -- both clients, and tests of users --


def test_both_clients_make_and_pause_queues(
    shared: DaemonUnderTest, connect: Callable[..., Client]
) -> None:
    """By the same verbs."""
    with connect(shared.socket) as client:
        assert client.set_queue("both", slots=1, rate="5/m").rate == "5/m"
        assert client.pause("both").paused
        assert not client.resume("both").paused
        assert [info.name for info in client.queues()] == ["default", "both"]
        client.remove_queue("both")
        with pytest.raises(UsageError, match="rate: 'x' is not a rate"):
            client.set_queue("both", rate="x")


def test_the_daemon_of_a_test_has_the_queues_that_the_test_names() -> None:
    """``jobd.testing.daemon(queues=…)``; others are unknown there, as in production."""
    with jobd.testing.daemon(workers=1, queues=["etl"]), jobd.Client() as client:
        assert client.options(queue="etl").submit(len, [1]).result(timeout=20) == 1
        with pytest.raises(UsageError, match="did you mean 'etl'"):
            client.options(queue="etk").submit(len, [1]).result(timeout=20)


def test_jobs_that_run_inline_may_be_in_any_queue() -> None:
    """There is nothing to wait for; what a program says of queues at its start is taken note of."""
    with jobd.testing.inline(), jobd.Client() as client:
        assert client.options(queue="etl").submit(len, [1]).result() == 1
        assert client.set_queue("mail", slots=2).slots == 2
        assert client.pause("mail").paused
        assert [info.name for info in client.queues()] == ["default", "mail"]
        client.remove_queue("mail")
        assert [info.name for info in client.queues()] == ["default"]
