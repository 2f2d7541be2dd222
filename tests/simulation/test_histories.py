"""Thousands of random histories of a whole daemon; see tests/support/simulation.py.

SIMULATION_HISTORIES=50000 runs more of them.  A failure names its seed:
`python tests/support/simulation.py SEED` replays and tells that history.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fake_store
import pytest
import simulation
from fake_pool import FakePool
from simulation import Failed, Simulation

from jobd.daemon.dependencies import Dependencies
from jobd.daemon.keys import Keys
from jobd.daemon.workers import WorkerDesk
from jobd.model.edges import Standing, When, standing
from jobd.model.job import Job
from jobd.model.orders import Run
from jobd.model.states import ENDED, State
from jobd.scheduler import Death, Scheduler, Worker, again, blocked, dispatch, lending
from jobd.scheduler.again import Step, Then
from jobd.scheduler.batch import Keyed
from jobd.scheduler.blocked import Blocked
from jobd.scheduler.clocks import Clocks
from jobd.scheduler.dispatch import Dispatch
from jobd.scheduler.lanes import Lanes, Line, Node
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.queues import Override, Queues
from jobd.scheduler.staff import Staff
from jobd.scheduler.stops import Stops
from jobd.scheduler.succession import Succession
from jobd.scheduler.timers import Timers
from jobd.scheduler.window import Window
from jobd.scheduler.workforce import Workforce

HISTORIES = int(os.environ.get("SIMULATION_HISTORIES", "2000"))
PARTS = 30
TRIES = 800
"""Histories within which a fault of the scheduler has to show."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.timeout(60 + HISTORIES // 100)
def test_whatever_happens_every_promise_is_kept(part: int) -> None:
    """All invariants hold after every turn of the loop, and in the end all is done and told."""
    for seed in range(part * HISTORIES // PARTS, (part + 1) * HISTORIES // PARTS):
        Simulation(seed).run()


def test_every_kind_of_edge_lets_jobs_start() -> None:
    """With sources that have succeeded, and with others."""
    met: Counter[tuple[When, bool]] = Counter()
    kinds = [(When.SUCCEEDED, True), (When.ENDED, True), (When.ENDED, False), (When.FAILED, False)]
    for seed in range(150):
        history = Simulation(seed)
        history.run()
        met += history.truth.edges.met
        if all(met[kind] > 10 for kind in kinds):
            return
    pytest.fail(f"met were only {met}")


def test_the_same_events_give_the_same_effects() -> None:
    """A history that is run again sends the same bytes to everybody, in the same order."""
    for seed in range(40):
        assert Simulation(seed).run() == Simulation(seed).run(), f"seed {seed}"


def test_no_order_of_a_set_shows_in_the_effects() -> None:
    """Processes that hash differently go through the same history."""
    program = "from simulation import Simulation; print([Simulation(n).run() for n in range(25)])"
    support = Path(simulation.__file__).parent
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=support,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(support)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


# -- each of these faults must be found, or the histories above prove nothing --


def _forgets_a_job(window: Window, first: int, count: int) -> None:
    for number in range(first, first + count):
        window.jobs.pop(number, None)


def _never_asks_back(_: Dispatch) -> None:
    pass


def _leaves_it_on_deck(_: Dispatch, worker: Worker) -> bool:  # noqa: ARG001  # as it is called
    return False


def _takes_every_outcome(scheduler: Scheduler, job: Job) -> None:
    scheduler.aftermath.put_back(job)


def _leases_nothing(ledger: Ledger, worker: str, jobs: list[Job]) -> Any:
    lease = ledger_lease(ledger, worker, jobs)
    del ledger.batch.leases[lease.id]
    return lease


def _tells_at_once(scheduler: Scheduler, peer: bytes, reply: Any) -> None:
    scheduler._effects.replies.append((peer, reply))


def _blames_all(workforce: Workforce, uid: str, death: Death) -> None:
    worker_died(workforce, uid, Death(death.cause, unknown=True))


def _calls_it_off(workforce: Workforce, uid: str, death: Death) -> None:
    worker_died(workforce, uid, Death(death.cause))


def _finds_nothing(_: Workforce, uid: str, reports: object) -> None:
    """Do not look at what a dead worker has left."""


def _keeps_deadlines(dispatch: Dispatch, worker: Any, job: Job) -> None:
    del worker.assigned[job.id]
    worker.load_us = 0.0
    lease, job.lease = job.lease, None
    if lease is not None:
        dispatch._ledger.close_lease(lease)


def _starts_what_is_not_on_record(dispatch: Dispatch, uid: str, jobs: list[Job]) -> None:
    if jobs:
        ledger = dispatch._ledger
        taken, ledger.taken_high = ledger.taken_high, 0
        degraded, dispatch._is_degraded = dispatch._is_degraded, False
        dispatch_send(dispatch, uid, jobs)
        ledger.taken_high, dispatch._is_degraded = taken, degraded


def _buries_at_once(desk: WorkerDesk, dead: Any) -> None:
    desk_bury(desk, dead)
    desk.pool.forget_board(dead.uid)


def _lends_nothing(_: Iterable[Worker]) -> int:
    return 0


def _never_hastens(_: Window, number: int) -> None:
    pass


def _never_sheds(_: Staff, now_us: int) -> list[Any]:  # noqa: ARG001  # as it is called
    return []


def _takes_no_slot(_: Worker) -> bool:
    return False


def _lends_for_ever(dispatch: Dispatch, worker: Worker, job: Job) -> None:
    waiting = worker.waiting
    dispatch_take(dispatch, worker, job)
    worker.waiting = waiting


def _never_refills(_: Window, stored_high: int) -> bool:  # noqa: ARG001  # as it is called
    return False


def _revives_nobody(blocked: Blocked, number: int) -> None:
    pass


def _tells_only_residents(blocked: Blocked, job: Job) -> None:
    spilled, blocked.spilled = blocked.spilled, 0
    blocked_ended(blocked, job)
    blocked.spilled = spilled


def _waits_for_one_input(blocked: Blocked, dependant: int, job: Job) -> None:
    blocked.missing[dependant] = {job.id}
    blocked_tell(blocked, dependant, job)


def _takes_any_end(when: When, state: State) -> Standing:  # noqa: ARG001  # as it is called
    return Standing.MET if state >= ENDED else Standing.WAITS


def _takes_success_only(when: When, state: State) -> Standing:
    return standing(When.SUCCEEDED if when is When.FAILED else when, state)


def _waits_for_what_is_stored(dependencies: Dependencies, job: Job) -> bool:
    return dependencies._has_unmet(job.id)


def _forgets_its_siblings(sources: blocked.Sources, job: Job) -> None:
    sources.states[job.id] = State.SUCCEEDED


def _blames_the_nearest(failed: Job) -> int:
    return failed.id


def _lets_go_at_once(blocked: Blocked, job: Job) -> None:
    attempt, job.attempt = job.attempt, 1
    blocked_let_go(blocked, job)
    job.attempt = attempt


def _holds_in_name_only(_: Blocked, job: Job) -> None:
    pass


def _sees_only_what_is_stored(ledger: Ledger, key: str) -> set[int]:  # noqa: ARG001  # as it is called
    return set()


def _gives_every_round(keys: Keys, job: Job) -> str:  # noqa: ARG001  # as it is called
    return ""


def _restores_nobody(succession: Succession, successor: Keyed) -> None:
    for number in successor.replaces:
        succession.confirm(number)


def _gives_no_values(_: Dependencies, run: Run) -> None:
    for task in run.tasks:
        task.inputs = [b"" for _ in task.inputs]


def _reviews_nothing(_: Dependencies) -> Iterator[None]:
    yield from ()


def _never_wakes(_: Timers, job: Job) -> None:
    pass


def _never_strikes(_: Clocks, now_us: int) -> list[Any]:  # noqa: ARG001  # as it is called
    return []


def _strikes_early(clocks: Clocks, uid: str, job: Job, since_us: int) -> None:
    clocks_start(clocks, uid, job, since_us - 2_000)


def _keeps_clocks(_: Clocks, uid: str, job: Job) -> None:
    pass


def _uses_worn_workers(_: Any) -> bool:
    return False


def _overloads(_: Dispatch, worker: Worker) -> int:
    return dispatch.CREDIT - len(worker.assigned)


def _replaces_nobody(_: Scheduler, uid: str) -> None:
    pass


def _hurries(stops: Stops, job: Job) -> int:  # noqa: ARG001  # as it is called
    return 0


def _takes_its_time(stops: Stops, job: Job) -> int:  # noqa: ARG001  # as it is called
    return 10_000_000


def _kills_whatever_runs(pool: FakePool, uid: str, job: int, attempt: int) -> None:
    if job and uid in pool.processes:
        pool.machine.witness.killed(pool.processes[uid], job, attempt)
    pool_kill(pool, uid, 0, attempt)


def _never_gives_up(job: Job, raised: Any) -> Step:  # noqa: ARG001  # as it is called
    return Step(Then.AGAIN)


def _gives_up(job: Job, raised: Any) -> Step:  # noqa: ARG001  # as it is called
    return Step(Then.FAIL)


def _opens_every_queue(_: Queues, name: str, now_us: int) -> int:  # noqa: ARG001  # as it is called
    return 0


def _opens_by_no_clock(queues: Queues, name: str, now_us: int) -> int | None:
    return queues_opens_at(queues, name, now_us) or (0 if not queues.rules[name].limits else None)


def _counts_no_start(queues: Queues, name: str) -> None:
    queues.goes_on(name)


def _never_leaves(_: Queues, name: str, now_us: int) -> None:  # as it is called
    pass


def _counts_nobody_again(_: Queues, names: Iterable[str]) -> None:
    pass


def _stores_no_queue(scheduler: Scheduler, name: str, said: Override) -> None:
    before = dict(scheduler.ledger.batch.queues)
    scheduler_set_queue(scheduler, name, said)
    scheduler.ledger.batch.queues = before


def _sees_no_gate(_: Lanes, line: Line) -> None:  # noqa: ARG001  # as it is called
    return None


def _keeps_gates_taken(_: Lanes, lane: str) -> None:  # as it is called
    pass


def _wakes_nobody(_: Lanes, name: str) -> None:  # as it is called
    pass


def _serves_the_same_again(*_: object) -> None:
    pass


def _knows_one_priority(lanes: Lanes, priority: int, queue: str) -> Node:  # noqa: ARG001  # as it is called
    return lanes_node(lanes, 0, queue)


def _forgets_what_it_leaves(lanes: Lanes, line: Line, first: int, last: int) -> None:
    lanes_leave(lanes, line, first, last)
    line.has_more = False
    lanes._more.pop(line.key)


def _misses_lanes(_: Lanes, node: Node) -> None:  # as it is called
    pass


lanes_node = Lanes._node
lanes_leave = Lanes._leave
queues_opens_at = Queues.opens_at
scheduler_set_queue = Scheduler.set_queue
pool_kill = FakePool.kill
ledger_lease = Ledger.lease
clocks_start = Clocks.start
blocked_ended = Blocked.ended
blocked_tell = Blocked._tell
blocked_let_go = Blocked.let_go
dispatch_send = Dispatch._send
dispatch_take = Dispatch.take
desk_bury = WorkerDesk._bury
worker_died = Workforce.worker_died


FIRST: dict[object, int] = {
    _never_hastens: 41,
    _overloads: 41,
    _reviews_nothing: 48,
    _buries_at_once: 33,
    _lends_nothing: 55,
    _hurries: 509,
    _revives_nobody: 80,
    _restores_nobody: 86,
}
"""A history that has shown a fault which few show; the others are gone through if it does no longer."""


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (Window, "drop", _forgets_a_job),
        (Window, "wants_refill", _never_refills),
        (Dispatch, "ask_back", _never_asks_back),
        (Dispatch, "_is_wanted_from", _leaves_it_on_deck),
        (Dispatch, "_send", _starts_what_is_not_on_record),
        (Workforce, "worker_died", _blames_all),
        (Workforce, "worker_died", _calls_it_off),
        (Workforce, "left", _finds_nothing),
        (Dispatch, "take", _keeps_deadlines),
        (Scheduler, "answer", _tells_at_once),
        (Window, "hasten", _never_hastens),
        (lending, "lent", _lends_nothing),
        (Staff, "shed", _never_sheds),
        (Dispatch, "take", _lends_for_ever),
        (Worker, "is_active", property(_takes_no_slot)),
        (Ledger, "lease", _leases_nothing),
        (Timers, "add", _never_wakes),
        (Clocks, "take_over", _never_strikes),
        (Clocks, "start", _strikes_early),
        (Clocks, "stop", _keeps_clocks),
        (dispatch, "is_restricted", _uses_worn_workers),
        (Dispatch, "_room", _overloads),
        (Workforce, "retire", _replaces_nobody),
        (Stops, "_grace_us", _hurries),
        (Stops, "_grace_us", _takes_its_time),
        (FakePool, "kill", _kills_whatever_runs),
        (again, "after", _never_gives_up),
        (again, "after", _gives_up),
        (WorkerDesk, "_bury", _buries_at_once),
        (Blocked, "changed", _revives_nobody),
        (Blocked, "ended", _tells_only_residents),
        (Blocked, "_tell", _waits_for_one_input),
        (Blocked, "let_go", _lets_go_at_once),
        (Blocked, "hold", _holds_in_name_only),
        (Ledger, "unsettled_with", _sees_only_what_is_stored),
        (Keys, "taken", _gives_every_round),
        (Succession, "lost", _restores_nobody),
        (blocked, "standing", _takes_any_end),
        (blocked, "standing", _takes_success_only),
        (Dependencies, "_is_waiting", _waits_for_what_is_stored),
        (blocked.Sources, "add", _forgets_its_siblings),
        (blocked, "root_of", _blames_the_nearest),
        (Queues, "opens_at", _opens_every_queue),
        (Queues, "opens_at", _opens_by_no_clock),
        (Queues, "started", _counts_no_start),
        (Queues, "left", _never_leaves),
        (Queues, "recount", _counts_nobody_again),
        (Scheduler, "set_queue", _stores_no_queue),
        (Lanes, "_closed_gate", _sees_no_gate),
        (Lanes, "ended", _keeps_gates_taken),
        (Lanes, "_wake", _wakes_nobody),
        (Lanes, "_turn", _serves_the_same_again),
        (Lanes, "_node", _knows_one_priority),
        (Lanes, "_leave", _forgets_what_it_leaves),
        (Lanes, "_miss", _misses_lanes),
        (Dependencies, "feed", _gives_no_values),
        (Dependencies, "_reviewing", _reviews_nothing),
    ],
    ids=lambda value: getattr(getattr(value, "fget", value), "__name__", str(value)),
)
def test_a_fault_of_the_daemon_does_not_stay_hidden(
    owner: object, name: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one rule broken, a few hundred histories are enough to find it."""
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(Failed, match=r"seed \d+, step \d+"):
        for seed in (FIRST.get(fault, 0), *range(TRIES)):
            Simulation(seed).run()


def test_a_fault_of_the_store_does_not_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is not written is missed."""
    put_row = fake_store.FakeStore._put_row

    def forgets(store: fake_store.FakeStore, job: Job, *, had_row: bool) -> Job | None:
        old = put_row(store, job, had_row=had_row)
        if job.id % 7 == 0:
            store.rows.pop(job.id)
        return old

    monkeypatch.setattr(fake_store.FakeStore, "_put_row", forgets)
    with pytest.raises(Failed):
        for seed in range(TRIES):
            Simulation(seed).run()
