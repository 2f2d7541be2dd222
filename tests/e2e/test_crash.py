"""Whatever dies, and whenever: what was acknowledged is kept, ends once, and nothing lives on."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import DaemonUnderTest, eventually, is_alive
from keeper import connect, kept, workers_of
from oracle import Oracle

from jobd.client import Client, Deferred
from jobd.failpoints import NAMES, WORKER_NAMES
from jobd.model.job import JobInfo
from jobd.model.selector import Selector, one
from jobd.model.states import State
from jobd.pool import linux
from jobd.pool.scoreboard import Scoreboard

MakeDaemon = Callable[..., DaemonUnderTest]

LATER = {"start.locked": 1, "start.recovered": 1, "stop.draining": 1, "stop.closed": 1}
"""The hit at which the second daemon dies, where it is not ``SECOND_HIT``."""

SECOND_HIT = 2
ROUNDS = 8


def info_of(client: Client, number: int) -> JobInfo:
    """Return a job as the daemon shows it."""
    (info,) = client.find(one(number))
    return info


def is_at_rest(pid: int) -> bool:
    """Whether all threads of a process sleep."""
    stats = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.read_text().rpartition(")")[2].split()[0] == "S" for stat in stats)


def kill_all(daemon: DaemonUnderTest, oracle: Oracle) -> None:
    """``kill -9`` everything at once, as when the machine goes down."""
    oracle.fault()
    pids = daemon.processes()
    for pid in pids:
        with suppress(ProcessLookupError):  # the death of another was its end too
            os.kill(pid, signal.SIGKILL)
    daemon.kill()
    eventually(lambda: not any(is_alive(pid) for pid in pids))


def in_stopped_hands(
    daemon: DaemonUnderTest, oracle: Oracle, client: Client, count: int = 5
) -> tuple[int, list[Deferred[Any]]]:
    """Stop the only worker and have jobs handed to it; return its pid, and the jobs, not one started."""
    for deferred in oracle.submit(client, count=20):
        deferred.result(20)  # now the daemon knows that these are short
    (worker,) = workers_of(daemon)
    os.kill(worker, signal.SIGSTOP)
    deferreds = oracle.submit(client, count=count)
    client.flush()
    return worker, deferreds


def go_through(client: Client, oracle: Oracle) -> None:
    """Have jobs of every kind: short ones, one that kills its worker, one that is cancelled."""
    deferreds = oracle.submit(client, count=20)
    deferreds += oracle.submit(client, "mark_and_die")
    (waits,) = oracle.submit(client, "mark_and_wait", str(oracle.daemon.root / "never"))
    client.flush()
    oracle.wait_for_runs(waits)
    ((number, answer),) = client.cancel(one(waits.id))
    assert number == waits.id
    # One that was carried out, and whose answer was lost, finds the job cancelled already.
    assert answer in ("stopping", "cancelled", "already finished")
    ends = client.wait([h.id for h in [*deferreds, waits]], 20)
    assert ends[deferreds[-1].id].state is State.CRASHED
    assert ends[waits.id].state is State.CANCELLED


class TestFailpoints:
    """Death at each edge in the life of a job that has a name."""

    @pytest.mark.parametrize("name", NAMES)
    def test_the_daemon_is_killed_at_a_failpoint(self, name: str, make_daemon: MakeDaemon) -> None:
        """Killed at a first and at a later hit, and started again, it loses and doubles nothing."""
        oracle = Oracle(make_daemon())
        failpoints = [f"{name}:kill:1", f"{name}:kill:{LATER.get(name, SECOND_HIT)}"]
        with kept(oracle, failpoints) as keeper:
            client = connect(oracle.daemon)
            for _ in range(ROUNDS):
                seen = len(keeper.deaths)
                go_through(client, oracle)
                if keeper.kills == len(failpoints):
                    break
                if len(keeper.deaths) == seen:
                    keeper.signal(signal.SIGTERM)
            assert keeper.kills == len(failpoints), f"{name} is not hit: {keeper.deaths}"

    @pytest.mark.parametrize("hit", [1, 2])
    @pytest.mark.parametrize("name", [n for n in WORKER_NAMES if n != "worker.started"])
    def test_each_worker_is_killed_at_a_failpoint(
        self, name: str, hit: int, make_daemon: MakeDaemon
    ) -> None:
        """A job whose workers die every time uses up its crash budget: nothing runs for ever."""
        daemon = make_daemon().start(failpoint=f"{name}:kill:{hit}")
        oracle = Oracle(daemon)
        client = daemon.client()
        deferreds = oracle.submit(client, count=6)
        ends = client.wait([h.id for h in deferreds], 20)
        states = [end.state for end in ends.values()]
        assert set(states) <= {State.SUCCEEDED, State.CRASHED}
        if name.startswith("outcome"):  # what a worker has done is done
            assert set(states) == {State.SUCCEEDED}
            assert all(info_of(client, n).attempt == 1 for n in ends)
        elif hit == 1:
            assert set(states) == {State.CRASHED}
            assert all(info_of(client, n).crashes == 2 for n in ends)
        oracle.judge()

    def test_workers_that_die_at_birth_take_no_job_with_them(self, make_daemon: MakeDaemon) -> None:
        """The jobs wait, the daemon answers and says what is wrong; a good start runs them."""
        daemon = make_daemon().start(failpoint="worker.started:kill")
        oracle = Oracle(daemon)
        client = daemon.client()
        (deferred,) = oracle.submit(client)
        eventually(lambda: any("have died" in text for text in client.status().trouble))
        info = info_of(client, deferred.id)
        assert (info.state, info.attempt, info.crashes) == (State.QUEUED, 0, 0)
        assert daemon.terminate() == 0
        daemon.start()
        oracle.judge()


class TestKilledDaemon:
    """``kill -9`` of the daemon alone: its workers go on, and the next daemon takes over from them."""

    def test_what_runs_and_what_waits_goes_on(self, make_daemon: MakeDaemon) -> None:
        """Running jobs are run once, by the same process; queued ones are all there."""
        daemon = make_daemon().start()
        oracle, client = Oracle(daemon), daemon.client()
        gate = daemon.root / "gate"
        running = oracle.submit(client, "mark_and_wait", str(gate), count=2)
        queued = oracle.submit(client, count=50)
        for deferred in running:
            oracle.wait_for_runs(deferred)
        client.flush()
        daemon.kill()
        oracle.fault()
        daemon.start()
        gate.touch()
        oracle.judge()
        assert oracle.runs(running + queued) == [1] * 52

    def test_a_job_that_ends_while_there_is_no_daemon(self, make_daemon: MakeDaemon) -> None:
        """Its worker keeps the result, hands it to the next daemon, and then makes room for a new one."""
        daemon = make_daemon().start()
        oracle, client = Oracle(daemon), daemon.client()
        old = workers_of(daemon)
        gate = daemon.root / "gate"
        (deferred,) = oracle.submit(client, "mark_and_wait", str(gate))
        oracle.wait_for_runs(deferred)
        client.flush()
        daemon.kill()
        oracle.fault()
        gate.touch()
        daemon.start()
        assert deferred.result(20)
        eventually(lambda: not any(is_alive(pid) for pid in old))
        assert len(workers_of(daemon)) == 2
        oracle.judge()
        assert oracle.runs([deferred]) == [1]

    def test_outcomes_that_were_received_and_not_recorded(self, make_daemon: MakeDaemon) -> None:
        """A worker keeps what it has sent until that is on record, and sends it again."""
        daemon = make_daemon().start(failpoint="outcomes.received:kill")
        oracle, client = Oracle(daemon), daemon.client()
        gate = daemon.root / "gate"
        (deferred,) = oracle.submit(client, "mark_and_wait", str(gate))
        client.flush()
        oracle.fault()
        gate.touch()
        assert daemon.wait() == -signal.SIGKILL
        daemon.start()
        assert deferred.result(20)
        assert info_of(client, deferred.id).attempt == 1
        oracle.judge()
        assert oracle.runs([deferred]) == [1]

    def test_short_jobs_that_were_handed_out_ahead_of_time(self, make_daemon: MakeDaemon) -> None:
        """Every one of them runs once, wherever it was when the daemon died."""
        daemon = make_daemon().start()
        oracle, client = Oracle(daemon), daemon.client()
        deferreds = oracle.submit(client, count=3000)
        eventually(lambda: client.ping() and sum(h.done() for h in deferreds) > 500)
        daemon.kill()
        oracle.fault()
        daemon.start()
        oracle.judge()
        assert oracle.runs(deferreds) == [1] * 3000

    def test_a_submit_is_stored_and_its_answer_is_lost(self, make_daemon: MakeDaemon) -> None:
        """The client sends it again with its key, and gets the ids that it had."""
        daemon = make_daemon(pool__workers=1).start(failpoint="batch.committed:kill")
        oracle, client = Oracle(daemon), daemon.client()
        deferreds = oracle.submit(client, count=5)
        assert daemon.wait() == -signal.SIGKILL
        oracle.fault()
        daemon.start()
        assert [deferred.id for deferred in deferreds] == [1, 2, 3, 4, 5]
        assert oracle.submit(client)[0].id == 6
        oracle.judge()

    def test_a_submit_that_was_not_stored_leaves_nothing_behind(
        self, make_daemon: MakeDaemon
    ) -> None:
        """A worker has run what nobody knows of any more: it is told so, and ends."""
        daemon = make_daemon(pool__orphan_s=3600).start(failpoint="batch.written:kill")
        oracle, client = Oracle(daemon), daemon.client()
        old = workers_of(daemon)
        (deferred,) = oracle.submit(client)
        assert daemon.wait() == -signal.SIGKILL
        oracle.fault()
        daemon.start()
        assert deferred.result(20)
        eventually(lambda: not any(is_alive(pid) for pid in old))
        oracle.judge()

    def test_a_cancelled_job_that_does_not_stop(self, make_daemon: MakeDaemon) -> None:
        """The request outlives the daemon: the next one stops the job, by force if it must."""
        daemon = make_daemon().start()
        oracle, client = Oracle(daemon), daemon.client()
        (deferred,) = oracle.submit(client, "mark_and_ignore_stop")
        oracle.wait_for_runs(deferred)
        assert client.cancel(one(deferred.id), "not needed") == [(deferred.id, "stopping")]
        daemon.kill()
        oracle.fault()
        daemon.start()
        end = client.wait([deferred.id], 20)[deferred.id]
        assert (end.state, end.cause) == (State.CANCELLED, "not needed")
        oracle.judge()
        assert oracle.runs([deferred]) == [1]

    def test_a_cancelled_job_that_had_not_started(self, make_daemon: MakeDaemon) -> None:
        """It was in the hands of a worker that died with the daemon, and never runs."""
        daemon = make_daemon(pool__workers=1).start()
        oracle, client = Oracle(daemon), daemon.client()
        _, (first, second) = in_stopped_hands(daemon, oracle, client, count=2)
        answer = client.cancel(one(second.id))
        kill_all(daemon, oracle)
        daemon.start()
        client.wait([first.id, second.id], 20)
        assert answer == [(second.id, "stopping")]
        assert info_of(client, second.id).state is State.CANCELLED
        oracle.judge()
        assert oracle.runs([second]) == [0]

    def test_idle_workers_are_replaced(self, make_daemon: MakeDaemon) -> None:
        """Workers of a dead daemon are told to end by the next one, and so are zygote and checker."""
        daemon = make_daemon(pool__orphan_s=3600).start()
        oracle = Oracle(daemon)
        oracle.submit(daemon.client())[0].result(20)
        old = daemon.processes()
        daemon.kill()
        oracle.fault()
        daemon.start()
        eventually(lambda: not any(is_alive(pid) for pid in old))
        assert len(workers_of(daemon)) == 2
        oracle.judge()

    def test_without_another_daemon_nothing_lives_on(self, make_daemon: MakeDaemon) -> None:
        """Workers that nobody answers end by themselves after ``orphan_s``, and all else with them."""
        daemon = make_daemon(pool__orphan_s=0.5).start()
        oracle = Oracle(daemon)
        oracle.submit(daemon.client())[0].result(20)
        daemon.kill()
        oracle.fault()
        eventually(lambda: not daemon.processes())
        daemon.start()
        oracle.judge()

    def test_a_worker_that_cannot_reconnect(self, make_daemon: MakeDaemon) -> None:
        """It finishes its job, waits for ``orphan_s``, ends; what it has done is found, and not done again."""
        daemon = make_daemon(pool__orphan_s=0.5).start()
        oracle, client = Oracle(daemon), daemon.client()
        gate = daemon.root / "gate"
        (deferred,) = oracle.submit(client, "mark_and_wait", str(gate))
        oracle.wait_for_runs(deferred)
        client.flush()
        number = deferred.id
        daemon.kill()
        oracle.fault()
        daemon.socket = str(daemon.root / "elsewhere.sock")
        daemon.environ["JOBD_SOCKET"] = daemon.socket
        daemon.start()
        gate.touch()
        client = daemon.client()
        assert client.result(number, 20)
        assert (info_of(client, number).attempt, info_of(client, number).crashes) == (1, 0)
        assert oracle.runs([deferred]) == [1]


class TestEverythingKilled:
    """``kill -9`` of the daemon and all its workers at once."""

    def test_a_job_uses_up_its_crash_budget(self, make_daemon: MakeDaemon) -> None:
        """What ran each time is run again ``max_crashes`` times, and then it has crashed."""
        daemon = make_daemon(pool__workers=1, jobs__max_crashes=2).start()
        oracle, client = Oracle(daemon), daemon.client()
        (running,) = oracle.submit(client, "mark_and_wait", str(daemon.root / "never"))
        waiting: list[Deferred[Any]] = []
        for times in (1, 2, 3):
            oracle.wait_for_runs(running, times)
            waiting = oracle.submit(client, count=2)
            client.flush()
            oracle.look(client)
            kill_all(daemon, oracle)
            daemon.start()
        end = client.wait([running.id], 20)[running.id]
        assert (end.state, end.cause) == (State.CRASHED, "it ended while no daemon watched")
        assert all(deferred.result(20) for deferred in waiting)
        info = info_of(client, running.id)
        assert (info.attempt, info.crashes) == (3, 3)
        assert [(a.number, a.state) for a in info.earlier] == [
            (1, State.CRASHED),
            (2, State.CRASHED),
        ]
        assert all(i.crashes == 0 for i in client.find(Selector([(2, 99)])))
        oracle.judge()

    def test_a_start_that_fails_blames_nobody(self, make_daemon: MakeDaemon) -> None:
        """A daemon that is killed as it recovers leaves everything for the next to find."""
        daemon = make_daemon(pool__workers=1).start()
        oracle, client = Oracle(daemon), daemon.client()
        _, deferreds = in_stopped_hands(daemon, oracle, client)
        kill_all(daemon, oracle)
        for _ in range(3):
            daemon.start(failpoint="start.recovered:kill", wait=False)
            assert daemon.wait() == -signal.SIGKILL
        daemon.start()
        assert all(deferred.result(20) for deferred in deferreds)
        assert all(info_of(client, deferred.id).crashes == 0 for deferred in deferreds)
        oracle.judge()

    def test_a_death_that_could_not_be_recorded_blames_nobody(
        self, make_daemon: MakeDaemon
    ) -> None:
        """A worker dies, and then the daemon before that is stored: what had not started has no crash."""
        daemon = make_daemon(pool__workers=1).start()
        oracle, client = Oracle(daemon), daemon.client()
        worker, deferreds = in_stopped_hands(daemon, oracle, client)
        # As on a full disk: from now on the daemon can write nothing.
        size = (daemon.state_dir / "jobd.db-wal").stat().st_size
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: "ended: SIGKILL" in daemon.log)
        oracle.fault()
        daemon.kill()
        daemon.start()
        assert all(deferred.result(20) for deferred in deferreds)
        assert all(info_of(client, deferred.id).crashes == 0 for deferred in deferreds)
        oracle.judge()


class TestInnocents:
    """Who dies takes the job with it that it ran, and no other one."""

    @pytest.mark.timeout(300)
    def test_of_ten_thousand_jobs_a_thousand_end_their_worker(
        self, make_daemon: MakeDaemon
    ) -> None:
        """By exiting, by a segmentation fault, by a kill from outside; each of the others runs once."""
        daemon = make_daemon(jobs__max_crashes=0).start()
        tally = daemon.root / "tally"
        os.mkfifo(daemon.root / "victims")
        # Open for writing, too: then there is no end of file between two victims.
        fifo = os.open(daemon.root / "victims", os.O_RDWR)

        def kill() -> None:
            with open(fifo, encoding="ascii") as victims:
                while pid := int(victims.readline()):
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            client = daemon.client()
            calls = [(str(tally), number) for number in range(10_000)]
            deferreds = client.submit_many("lethal:tally", calls)
            ends = client.wait([deferred.id for deferred in deferreds], 240)
        finally:
            (daemon.root / "victims").write_text("0\n", encoding="ascii")
            killer.join()
        states = [ends[deferred.id].state for deferred in deferreds]
        assert all(
            state is (State.CRASHED if number % 10 == 9 else State.SUCCEEDED)
            for number, state in enumerate(states)
        )
        runs = Counter(map(int, tally.read_text(encoding="ascii").split()))
        assert runs == Counter(range(10_000))

    def test_daemon_and_worker_die_before_a_word_is_said(self, make_daemon: MakeDaemon) -> None:
        """What had ended is found by the next daemon, and does not run again."""
        before = 20
        failpoint = f"outcomes.received:stop:{before + 1}"
        daemon = make_daemon(pool__workers=1).start(failpoint=failpoint)
        oracle, client = Oracle(daemon), daemon.client()
        for _ in range(before):
            oracle.submit(client)[0].result(20)  # each for itself, so each in a frame of its own
        (worker,) = workers_of(daemon)
        client.pause("default")  # so that they are on record before the first one starts
        deferreds = oracle.submit(client, count=5)
        client.flush()
        client.resume("default")
        eventually(lambda: linux.state(daemon.pid) == b"T")
        (path,) = (daemon.state_dir / "workers").iterdir()
        board = Scoreboard.open(str(path))
        # As many as it has in hand: on a busy machine they are not all taken for short.
        eventually(lambda: board.now.job == 0 and is_at_rest(worker))
        done = oracle.runs(deferreds)
        assert any(done)
        kill_all(daemon, oracle)
        board.close()
        daemon.start()
        assert all(deferred.result(20) for deferred in deferreds)
        infos = [info_of(client, deferred.id) for deferred in deferreds]
        assert {(info.attempt, info.crashes) for info in infos} == {(1, 0)}
        assert [info.pid == worker for info in infos] == [bool(count) for count in done]
        assert oracle.runs(deferreds) == [1] * len(deferreds)
        oracle.judge()


class TestManyKills:
    """No order of events was chosen here: only a seed."""

    @pytest.mark.parametrize("seed", [1])
    def test_twenty_kills_at_random_moments_under_load(
        self, seed: int, make_daemon: MakeDaemon
    ) -> None:
        """Submits go on through twenty deaths of the daemon; every one is acknowledged, and ends once."""
        rng = random.Random(seed)
        oracle = Oracle(make_daemon())
        over = threading.Event()
        with kept(oracle, []) as keeper:
            client = connect(oracle.daemon)

            def kill() -> None:
                for _ in range(20):
                    over.wait(rng.uniform(0.01, 0.4))
                    keeper.signal(signal.SIGKILL)
                over.set()

            killer = threading.Thread(target=kill)
            killer.start()
            window: deque[Deferred[Any]] = deque()
            while not over.is_set():
                window += oracle.submit(client, count=rng.choice([1, 1, 1, 10]))
                while len(window) > 50:
                    window.popleft().result(20)
            killer.join()
            print(f"seed {seed}")
