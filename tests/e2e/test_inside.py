"""Jobs that know that they are jobs: they wait for others and lend their slot, and tell how far they are."""

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
from harness import DaemonUnderTest, eventually, is_alive

import jobd
from jobd.client import Client
from jobd.model.errors import JobCancelled, JobCrashed, JobFailed
from jobd.model.job import JobInfo, Progress
from jobd.model.selector import Selector, one
from jobd.model.states import State

Make = Callable[..., DaemonUnderTest]


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon with one worker, which all tests of this module share that end none."""
    with DaemonUnderTest(pool__workers=1) as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture(scope="module")
def client(shared: DaemonUnderTest) -> Client:
    """Return its client."""
    return shared.client()


@pytest.fixture
def make_daemon() -> Iterator[Make]:
    """Return what makes a daemon with one worker that may be killed."""
    made: list[DaemonUnderTest] = []

    def make(**settings: Any) -> DaemonUnderTest:
        made.append(DaemonUnderTest(pool__workers=1, **settings).write_jobs())
        return made[-1].start()

    yield make
    for daemon in made:
        daemon.close()


def only(client: Client, number: int) -> JobInfo:
    """Return one job with all its details."""
    (info,) = client.find(one(number))
    return info


def workers(client: Client) -> list[str]:
    """Return what the workers do."""
    return sorted(worker.state for worker in client.status().workers)


def lines(path: Path) -> list[str]:
    """Return the lines of a file that may not be there yet."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


class Family:
    """A job that waits for another, which waits for a file."""

    def __init__(self, client: Client, directory: Path) -> None:
        """Submit the parent, and return once both run."""
        self.mark, self.gate = directory / "mark", directory / "gate"
        self.parent = client.submit("nested:parent", str(self.mark), str(self.gate))
        eventually(lambda: lines(Path(f"{self.mark}.child")))

    @property
    def pid(self) -> int:
        """The worker of the parent."""
        return int(lines(self.mark)[-1])


# -- who am I


@pytest.mark.parametrize("function", ["me", "me_later", "me_in_a_thread"])
def test_a_job_knows_which_one_it_is(client: Client, function: str) -> None:
    """In its function, in a coroutine, and in its threads."""
    job = client.submit(f"nested:{function}")
    assert job.result(20) == [job.id, 1, "default"]


def test_outside_of_a_job_there_is_none() -> None:
    """And progress is told to nobody."""
    assert jobd.current_job() is None
    jobd.progress(1, 2, "nothing")


def test_a_child_that_a_job_has_forked_is_not_the_job(client: Client) -> None:
    """What it has inherited of the worker it leaves alone."""
    assert client.submit("nested:me_in_a_fork").result(20) == 7
    assert client.submit("nested:me").result(20)


# -- waiting for other jobs


def test_with_one_worker_jobs_wait_for_jobs_fifty_deep(client: Client) -> None:
    """Each lends its slot to the next; then the workers are as many as they should be."""
    assert client.submit("nested:nest", 50).result(40) == 50
    eventually(lambda: workers(client) == ["idle"])


def test_a_thread_of_a_job_lends_its_slot_too(client: Client) -> None:
    """The job may be waiting for the thread: nobody can know."""
    assert client.submit("nested:nest_in_a_thread").result(20) == 1


def test_coroutines_of_a_job_wait_at_the_same_time(client: Client) -> None:
    """The first that waits lends the slot, and the last takes it back."""
    assert client.submit("nested:gather", 4).result(20) == [0, 1, 2, 3]
    eventually(lambda: workers(client) == ["idle"])


def test_a_producer_that_has_to_wait_lends_its_slot_to_its_consumer(client: Client) -> None:
    """With one worker: the one is ahead as far as it may be, the other consumes as a job."""
    producer = client.options(bound=3).submit("nested:endless")
    consumer = client.submit("nested:consume", producer.id, 20)
    assert consumer.result(20) == list(range(20))
    with pytest.raises(JobCancelled, match="consumer"):
        producer.result(20)
    eventually(lambda: workers(client) == ["idle"])


def test_too_deep_a_nest_is_an_error_that_names_the_setting(make_daemon: Make) -> None:
    """It is raised where the wait is, and goes up from there."""
    client = make_daemon(pool__max_lent=2).client()
    job = client.submit("nested:nest", 3)
    with pytest.raises(JobFailed, match=r"2 jobs wait for others already.*pool\.max_lent"):
        job.result(20)
    assert client.submit("nested:nest", 2).result(20) == 2


def test_many_jobs_that_wait_for_one_each_stay_under_the_cap(make_daemon: Make) -> None:
    """What is waited for runs before the next one that waits begins."""
    client = make_daemon(pool__max_lent=2).client()
    jobs = client.submit_many("nested:nest", [[1]] * 30)
    assert [job.result(20) for job in jobs] == [1] * 30


def test_a_job_that_waits_for_itself_is_told(client: Client) -> None:
    """Nothing in it could ever hear of its end."""
    job = client.submit("nested:itself")
    with pytest.raises(JobFailed, match=f"job {job.id} waits for its own result"):
        job.result(20)


def test_a_job_that_waits_for_one_that_needs_its_result_is_told(client: Client) -> None:
    """Inputs are waits like any other."""
    job = client.submit("nested:feed_on_itself")
    circle = f"job {job.id} would wait for job {job.id + 1}, which waits for job {job.id}"
    with pytest.raises(JobFailed, match=circle):
        job.result(20)
    with pytest.raises(jobd.JobAborted):
        client.result(job.id + 1, 20)


def test_jobs_that_would_wait_for_each_other_are_told(client: Client, tmp_path: Path) -> None:
    """The last one to close the circle gets an error that spells it out; the others hear of that."""
    gate = tmp_path / "gate"
    first = client.submit("nested:pass_on", str(gate))
    second = client.submit("nested:ask", first.id)
    gate.write_text(str(second.id))
    with pytest.raises(JobFailed, match="none of them could ever end"):
        second.result(20)
    with pytest.raises(JobFailed, match=f"job {second.id} failed"):
        first.result(20)


def test_every_wait_of_a_job_is_seen(mark: Path, gate: Path) -> None:
    """The second one closes a cycle, while the first goes on."""
    with DaemonUnderTest(pool__workers=2) as daemon:
        client = daemon.write_jobs().start().client()
        told = client.submit("nested:wait_for_two", str(mark), str(gate)).result(20)
    assert "none of them could ever end" in told


def test_a_job_that_gives_up_waiting_has_its_slot_again(client: Client, tmp_path: Path) -> None:
    """The child goes on beside it, and is the one that a person ends."""
    job = client.submit("nested:late", str(tmp_path / "gate"))
    assert job.result(20) == "gave up"
    assert client.cancel(one(job.id + 1)) == [(job.id + 1, "stopping")]
    eventually(lambda: workers(client) == ["idle"])


def test_a_command_that_is_a_job_finds_its_daemon(shared: DaemonUnderTest) -> None:
    """Whoever starts processes in a job hands the daemon's address on to them."""
    program = f"{sys.executable} -P -m jobd submit work:echo inner"
    done = shared.cli("run", "--wait", "--", "env", "-u", "JOBD_STATE_DIR", *program.split())
    assert done.returncode == 0, done
    info = only(shared.client(), max(i.id for i in shared.client().find(Selector(last=1))))
    assert info.function == "work:echo"


def test_a_waiting_job_is_shown_to_wait(make_daemon: Make, tmp_path: Path) -> None:
    """Its worker counts as waiting, and the other one as busy."""
    client = make_daemon().client()
    family = Family(client, tmp_path)
    assert workers(client) == ["busy", "waiting"]
    family.gate.touch()
    assert family.parent.result(20) == "through"


def test_a_waiting_job_can_be_cancelled(make_daemon: Make, tmp_path: Path) -> None:
    """Its ``finally`` runs, and its slot is not lent any more: the child has it."""
    client = make_daemon().client()
    family = Family(client, tmp_path)
    client.cancel(one(family.parent.id))
    with pytest.raises(JobCancelled):
        family.parent.result(20)
    assert lines(Path(f"{family.mark}.end")) == ["end"]
    eventually(lambda: workers(client) == ["busy"])
    family.gate.touch()
    eventually(lambda: workers(client) == ["idle"])


def test_a_waiting_job_whose_worker_dies_runs_again(make_daemon: Make, tmp_path: Path) -> None:
    """And waits again; the second death is its end."""
    client = make_daemon().client()
    family = Family(client, tmp_path)
    first = family.pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(lines(family.mark)) == 1 and not is_alive(first))
    family.gate.touch()
    assert family.parent.result(20) == "through"
    assert len(lines(family.mark)) == 2
    assert only(client, family.parent.id).crashes == 1


def test_a_reload_lets_a_waiting_job_end(make_daemon: Make, tmp_path: Path) -> None:
    """Its worker is replaced when it is done, and what it waits for is served by whoever is there."""
    client = make_daemon().client()
    family = Family(client, tmp_path)
    client.reload()
    assert client.submit("nested:me").done() is False
    family.gate.touch()
    assert family.parent.result(20) == "through"
    assert len(lines(family.mark)) == 1


def test_a_daemon_that_ends_puts_a_waiting_job_back(make_daemon: Make, tmp_path: Path) -> None:
    """The time to drain is the most that it gets; at the next start it runs again."""
    daemon = make_daemon(daemon__drain_s=0.2)
    family = Family(daemon.client(), tmp_path)
    number = family.parent.id
    assert daemon.terminate() == 0
    family.gate.touch()
    client = daemon.start().client()
    assert client.result(number, 20) == "through"
    assert len(lines(family.mark)) == 2


def test_a_daemon_that_ends_does_not_wait_for_what_waits_in_vain(make_daemon: Make) -> None:
    """What it waits for starts no more, so it is put back at once; at the next start it waits again."""
    daemon = make_daemon(daemon__drain_s=600)
    client = daemon.client()
    later = client.options(in_="1h").submit("work:nothing")
    blocked = client.submit("work:echo", later)
    parents = [client.submit("nested:ask", child.id) for child in (later, blocked)]
    eventually(lambda: workers(client).count("waiting") == 2)
    assert daemon.terminate() == 0
    assert "waits for jobs that do not start any more" in daemon.log
    client = daemon.start().client()
    eventually(lambda: workers(client).count("waiting") == 2)
    client.cancel([later.id])
    ends = client.wait([parent.id for parent in parents], 20)
    assert {ended.state for ended in ends.values()} == {State.FAILED}


def test_a_job_goes_on_waiting_when_the_daemon_is_killed(make_daemon: Make, tmp_path: Path) -> None:
    """The next daemon adopts both workers, and lends the slot again: the third job runs beside them."""
    daemon = make_daemon()
    family = Family(daemon.client(), tmp_path)
    number, child = family.parent.id, family.parent.id + 1
    daemon.kill()
    client = daemon.start().client()
    eventually(lambda: "waiting" in workers(client))
    family.gate.touch()
    assert client.result(child, 20) == "through"
    assert client.result(number, 20) == "through"
    assert len(lines(family.mark)) == 1, "it ran once"
    eventually(lambda: workers(client) == ["idle"])


# -- progress


def test_progress_in_a_tight_loop_is_few_messages(client: Client) -> None:
    """A hundred thousand words a second are no hundred thousand messages."""
    told: list[Progress] = []
    job = client.submit("nested:count", 200_000)
    assert client.wait([job.id], 20, progress=lambda _, progress: told.append(progress))
    assert job.result(0) > 0
    assert 0 < len(told) < 200
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)


def test_progress_is_shown_while_the_job_runs(shared: DaemonUnderTest, tmp_path: Path) -> None:
    """In ``show``, in ``ls``, as JSON; and when it has ended, there is none."""
    client = shared.client()
    gate = tmp_path / "gate"
    number = client.submit("nested:advance", str(gate)).id
    told = Progress(3.0, 10.0, "\x1b[2J lines")
    eventually(lambda: only(client, number).progress == told)
    assert client.page(one(number), 1)[0][0].progress == told
    for words in (("show", str(number)), ("ls", str(number))):
        assert "30% (3 of 10) \\x1b[2J lines" in shared.cli(*words).stdout
    shown: Any = json.loads(shared.cli("show", str(number), "--json").stdout)
    assert shown["progress"] == {"done": 3.0, "total": 10.0, "text": "\x1b[2J lines"}
    heard: list[tuple[int, Progress]] = []
    with shared.client() as late:
        gate.touch()
        late.wait([number], 20, progress=lambda *what: heard.append(what))
    assert set(heard) <= {(number, told)}, "whoever comes late hears the latest at once"
    assert only(client, number).progress is None


def test_on_a_terminal_there_is_a_bar_until_the_job_has_ended(
    shared: DaemonUnderTest, tmp_path: Path
) -> None:
    """What the job says is shown, and not obeyed; the value comes last."""
    gate = tmp_path / "gate"
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "jobd", "submit", "--wait", "nested:advance", str(gate)],
        env=shared.environ | {"TERM": "xterm", "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    ) as command:
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 65536):
                shown += piece
                if b"lines" in shown:
                    gate.touch()
        except OSError:  # EIO: the other end is closed
            pass
        finally:
            os.close(leader)
    assert command.returncode == 0
    text = shown.decode()
    assert "30%" in text
    assert "\\x1b[2J lines" in text
    assert "\x1b[2J" not in text
    assert text.rstrip().endswith("null")


def test_no_bar_is_drawn_where_nobody_looks(shared: DaemonUnderTest, tmp_path: Path) -> None:
    """In a pipe there is the value and nothing else."""
    gate = tmp_path / "gate"
    gate.touch()
    done = shared.cli("submit", "--wait", "nested:advance", str(gate))
    assert (done.returncode, done.stdout, done.stderr) == (0, "null\n", "")


def test_progress_that_is_no_number_is_refused(client: Client) -> None:
    """In the job, where it was said; a worker's own thread has not to judge it."""
    with pytest.raises(JobFailed, match="both must be finite"):
        client.submit("jobd:progress", "nan").result(20)
    with pytest.raises((JobFailed, JobCrashed), match="both must be numbers"):
        client.submit("jobd:progress", "many").result(20)
