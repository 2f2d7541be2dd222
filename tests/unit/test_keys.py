"""Jobs with keys: what is in the way of a new one, and what becomes of both."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from bench import KEY_ERROR, Bench

from jobd.daemon import keys
from jobd.daemon.keys import Keys
from jobd.daemon.predecessors import Predecessors
from jobd.daemon.view import View
from jobd.model.edges import When
from jobd.model.errors import DiskFull, DuplicateKey, UsageError
from jobd.model.job import Job
from jobd.model.lane import lane_of, parse_lane
from jobd.model.messages import Refused, Submit, Submitted, error_of, refusal
from jobd.model.options import Layers, Policy, decode_options, encode_options, parse_options
from jobd.model.states import State
from jobd.scheduler import Sources

FULL = DiskFull("disk full")


class Desk(Bench):
    """A scheduler with one worker, and what decides about keys."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Any] = []
        store: Any = self.store
        clients: Any = SimpleNamespace(reply=lambda _, reply: self.replies.append(reply))
        pool: Any = None
        self.view = View(self.scheduler, store, pool)
        self.keys = Keys(self.scheduler, store, self.view, clients, lambda *_: None)
        self._number = 0

    def job(self, number: int) -> Job | None:
        """Return a job as it is in memory, or else as it is stored."""
        return self.scheduler.window.jobs.get(number) or self.store.job(number)

    def ask(
        self,
        unique: str = "live",
        if_exists: str = "return",
        uid: bytes = b"",
        source: int = 0,
        **more: Any,
    ) -> int:
        """Submit a job with a key, the same for all; return its id, or 0 if another stands for it.

        Nothing is stored.  ``source``: a job that has not ended, whose result is its argument.
        """
        said = parse_options({"key": "k", "unique": unique, "if_exists": if_exists, **more})
        policy = Layers().policy("m:f", said)
        assert policy is not None
        self._number += 1
        uid = uid or b"session." + self._number.to_bytes(8, "big")
        request = Submit(self._number, uid, "m:f", [b"%d" % self._number], [(0, ())], watch=True)
        request.inputs = [[source]] if source else []
        sources = Sources({source: State.QUEUED}, {}) if source else None
        replaced = self.keys.claim(b"peer", request, policy)
        if replaced is None:
            return 0
        number = self.scheduler.ledger.next_id
        self.scheduler.intake.submit(b"peer", request, policy, sources)
        for job in replaced:
            self.scheduler.intake.replace(self.scheduler.window.load(job), uid)
        return number

    def new(self, unique: str = "live", if_exists: str = "return", **more: Any) -> int:
        """Submit a job with the key, and store it."""
        number = self.ask(unique, if_exists, **more)
        self.turn()
        return number

    def busy(self) -> None:
        """Give the worker something to do."""
        self.submit()

    def fail(self) -> None:
        """Find the disk full, in the midst of a commit."""
        self.scheduler.take_batch()
        self.lose()

    def lose(self) -> None:
        """The commit that is in flight fails."""
        self.scheduler.not_committed(FULL)

    def take(self) -> None:
        """Let the open batch be in flight."""
        self.scheduler.take_batch()

    def state(self, number: int) -> State:
        """Return the state in which a job is stored."""
        return self.row(number).state

    def heard(self) -> list[Any]:
        """Return what was told but of ends."""
        self.turn()
        replies = [*self.replies, *(told for told in self.told if not hasattr(told, "inline"))]
        self.replies.clear()
        self.told.clear()
        return replies


@pytest.fixture
def desk() -> Desk:
    """Return one whose worker is busy."""
    made = Desk()
    made.busy()
    made.heard()
    return made


# -- what is in the way --


def test_a_key_is_taken_until_its_job_has_ended(desk: Desk) -> None:
    """However it ends; and a job without a key, or with another one, is in nobody's way."""
    first = desk.new()
    desk.submit()
    desk.submit(key="other")
    assert desk.ask() == 0
    job = desk.scheduler.window.load(desk.row(first))
    desk.scheduler.control.cancel(job, "no")
    assert desk.ask() > first, "it is free before that end is stored"


def test_a_job_that_runs_is_in_the_way_of_a_live_key_only() -> None:
    """One may run, and one wait."""
    desk = Desk()
    first = desk.new("waiting")
    assert desk.runs(first)
    second = desk.new("waiting")
    assert second > first
    assert desk.ask("waiting") == 0
    assert desk.ask("live") == 0
    assert desk.ask("running") > second


@pytest.mark.parametrize("options", [{"hold": True}, {"in_": 60}])
def test_whatever_a_job_waits_for_it_waits(desk: Desk, options: dict[str, Any]) -> None:
    """Held or scheduled, in the store only."""
    first = desk.new("waiting", **options)
    assert first not in desk.scheduler.window.jobs
    assert desk.ask("waiting") == 0


def test_a_key_of_jobs_that_run_one_at_a_time_is_a_gate_of_their_lane() -> None:
    """And of no other kind of key."""
    policy = Policy(key="k", unique=["running"])
    assert [tuple(gate) for gate in parse_lane(lane_of(policy)).gates] == [("unique:k", 1)]
    assert lane_of(Policy(key="k")) == lane_of(Policy(key="k", unique=["waiting"])) == ""
    both = parse_lane(lane_of(Policy(key="k", unique=["running"], concurrency_key="k")))
    assert [gate.name for gate in both.gates] == ["key:k", "unique:k"]


def test_jobs_that_run_one_at_a_time_do() -> None:
    """In the order of their ids."""
    desk = Desk()
    first, second = desk.new("running"), desk.new("running")
    assert (desk.runs(first), desk.runs(second)) == (True, False)
    desk.end(first, None)
    assert desk.runs(second)


# -- what is answered --


def test_the_owner_stands_for_a_job_that_is_not_queued(desk: Desk) -> None:
    """At once, if it is on record."""
    first = desk.new()
    desk.heard()
    assert desk.ask() == 0
    assert desk.heard() == [Submitted(3 - 1, first, 1, existed=True)]


def test_who_is_not_on_record_yet_is_named_once_it_is(desk: Desk) -> None:
    """To those who get its id, and to those who are refused because of it; and never if it never is."""
    first = desk.ask()
    assert desk.ask() == desk.ask(if_exists="fail") == 0
    assert not desk.replies
    told = desk.heard()
    assert told[:2] == [Submitted(1, first, 1), Submitted(2, first, 1, existed=True)]
    assert (told[2].error, told[2].id) == ("duplicate_key", first)
    other = desk.ask("waiting", if_exists="replace")
    assert desk.ask() == desk.ask(if_exists="fail") == 0
    desk.fail()
    assert [reply.error for reply in desk.heard()] == ["disk_full"] * 3
    assert desk.job(other) is None


def test_a_retry_that_is_not_stored_yet_holds_back_the_answers_about_it(desk: Desk) -> None:
    """And they come before its end, which a client would else take for that of a job it does not know."""
    first = desk.new()
    desk.scheduler.control.cancel(desk.scheduler.window.load(desk.row(first)), "no")
    desk.heard()
    desk.scheduler.control.retry(desk.scheduler.window.load(desk.row(first)))
    assert desk.ask() == 0
    assert not desk.replies
    desk.scheduler.window.watch(b"peer", first)
    desk.scheduler.control.cancel(desk.scheduler.window.load(desk.row(first)), "no")
    desk.told.clear()
    desk.turn()
    assert [type(told).__name__ for told in desk.told] == ["Submitted", "Ended"]


def test_a_submit_that_comes_again_gets_the_same_answer(desk: Desk) -> None:
    """Even if that job has ended since; only so many are remembered."""
    first = desk.new()
    uid = b"session." + b"\0" * 8
    assert desk.ask(uid=uid) == 0
    desk.scheduler.control.cancel(desk.scheduler.window.load(desk.row(first)), "no")
    desk.turn()
    desk.heard()
    assert desk.ask(uid=uid) == 0
    assert [reply.first for reply in desk.heard()] == [first]
    assert desk.keys.owner_of(uid) == first
    assert desk.keys.owner_of(b"another") == 0


def test_only_the_last_answers_are_remembered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million submits of one key take no memory."""
    monkeypatch.setattr(keys, "REMEMBERED", 3)
    desk.new()
    for _ in range(9):
        desk.ask()
    assert len(desk.keys._owners) == 3


def test_a_refusal_names_the_job_and_says_what_to_do(desk: Desk) -> None:
    """Its id travels, to another process too."""
    first = desk.new()
    desk.heard()
    assert desk.ask(if_exists="fail") == 0
    (refused,) = desk.heard()
    assert isinstance(refused, Refused)
    assert (refused.error, refused.id) == ("duplicate_key", first)
    assert refused.message == f"job {first} has the key 'k' already, and waits"
    error = pickle.loads(pickle.dumps(error_of(refused)))  # noqa: S301  # our own
    assert isinstance(error, DuplicateKey)
    assert (error.id, error.code) == (first, 9)
    assert refusal(2, error) == Refused(2, "duplicate_key", error.message, error.hint, first)


# -- replacing --


def test_a_waiting_job_is_replaced_by_one_commit(desk: Desk) -> None:
    """It is cancelled, and the new one is there, both or neither."""
    first = desk.new()
    second = desk.ask(if_exists="replace")
    assert desk.state(first) is State.QUEUED
    desk.turn()
    assert (desk.state(first), desk.row(first).cause) == (
        State.CANCELLED,
        f"replaced by job {second}",
    )
    assert desk.state(second) is State.QUEUED
    assert not desk.scheduler.succession.pending


def test_a_job_that_runs_is_not_replaced() -> None:
    """The submit is refused as by fail, with another hint."""
    desk = Desk()
    first = desk.new()
    desk.heard()
    assert desk.ask(if_exists="replace") == 0
    (refused,) = desk.heard()
    assert (refused.error, refused.id) == ("duplicate_key", first)
    assert "only a job that waits is replaced" in refused.hint
    assert desk.runs(first)


def test_a_job_that_was_never_stored_is_replaced_too(desk: Desk) -> None:
    """It ends as it is stored."""
    first = desk.ask()
    second = desk.ask(if_exists="replace")
    desk.turn()
    assert (desk.state(first), desk.state(second)) == (State.CANCELLED, State.QUEUED)


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({}, State.QUEUED),
        ({"hold": True, "expires": 100}, State.HELD),
        ({"in_": 60}, State.SCHEDULED),
        ({"queue": "q", "priority": 5}, State.QUEUED),
    ],
)
def test_what_was_to_be_replaced_is_as_before_if_that_is_not_stored(
    desk: Desk, options: dict[str, Any], state: State
) -> None:
    """In every state in which a job waits; and it goes on from there."""
    first = desk.new(**options)
    before = desk.row(first)
    second = desk.ask(if_exists="replace")
    desk.fail()
    desk.turn(2.0)
    after = desk.row(first)
    assert after.state is state
    assert (after.due_at, after.cause, after.ended_at) == (before.due_at, "", 0)
    assert desk.job(second) is None
    assert desk.scheduler.ledger.counts[state] == (1 if state is not State.QUEUED else 2)
    assert desk.ask() == 0, "it has the key again"
    assert not desk.scheduler.succession.pending


def test_who_comes_after_a_job_that_is_being_replaced_waits_until_that_is_for_good(
    desk: Desk,
) -> None:
    """The commit may fail yet: then it was not cancelled, and who waits for its failure waits on."""
    store: Any = desk.store
    predecessors = Predecessors(
        desk.scheduler, store, desk.view, desk.keys, lambda _: False, lambda _: None
    )
    first = desk.new()
    desk.ask(if_exists="replace")
    desk.take()
    alarm = Submit(9, b"another." + bytes(8), "m:f", [b"1"], [(0, ())])
    alarm.after = [(first, When.FAILED)]
    number = desk.scheduler.ledger.next_id
    sources = predecessors.of(b"peer", alarm)
    desk.scheduler.intake.submit(b"peer", alarm, None, sources)
    desk.lose()
    desk.turn()
    assert (desk.state(first), desk.state(number)) == (State.QUEUED, State.BLOCKED)


def test_a_blocked_job_that_was_not_replaced_waits_again(desk: Desk) -> None:
    """It is found by the store's edges, since it is not resident any more."""
    first = desk.new(source=1)
    assert desk.state(first) is State.BLOCKED
    desk.ask(if_exists="replace")
    assert not desk.scheduler.blocked.missing
    desk.fail()
    assert desk.scheduler.blocked.spilled == 1
    assert first in desk.scheduler.blocked.fresh


def test_a_submit_that_came_after_a_lost_one_with_its_key_is_lost_too(desk: Desk) -> None:
    """Else two would have it: the one that was not replaced after all, and this one."""
    first = desk.new()
    second = desk.ask(if_exists="replace")
    desk.take()
    third = desk.ask(if_exists="replace")
    other = desk.ask(key="other")
    desk.lose()
    desk.turn(2.0)
    assert desk.state(first) is State.QUEUED
    assert desk.job(second) is None
    assert desk.job(third) is None
    assert desk.state(other) is State.QUEUED


def test_a_cancel_of_a_job_that_is_being_replaced_is_for_good(desk: Desk) -> None:
    """Whatever becomes of the successor; until then nobody holds it, nor releases it."""
    first = desk.new()
    desk.ask(if_exists="replace")
    desk.take()
    job = desk.scheduler.window.jobs[first]
    assert desk.scheduler.control.hold(job).startswith("replaced by")
    assert desk.scheduler.control.release(job).startswith("replaced by")
    assert desk.scheduler.control.cancel(job, "not wanted") == "cancelled"
    assert desk.scheduler.control.cancel(job, "again") == "already finished"
    desk.lose()
    desk.turn(2.0)
    assert (desk.state(first), desk.row(first).cause) == (State.CANCELLED, "not wanted")


def test_no_more_than_so_many_are_replaced_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is refused, since one submit must not cancel a million."""
    monkeypatch.setattr(keys, "MOST", 2)
    for _ in range(3):
        desk.new("running")
    assert desk.ask(if_exists="replace") == 0
    monkeypatch.setattr(keys, "MOST", 3)
    number = desk.new(if_exists="replace")
    assert desk.ask() == 0
    desk.heard()
    assert [desk.state(n) for n in range(number - 3, number)] == [State.CANCELLED] * 3


# -- another round --


def test_a_job_whose_key_another_has_is_not_retried() -> None:
    """By what it was submitted with; the answer says whose it is."""
    desk = Desk()
    first = desk.new()
    desk.end(first, KEY_ERROR)
    assert desk.keys.taken(desk.row(first)) == ""
    second = desk.new()
    taken = desk.keys.taken(desk.row(first))
    assert taken == f"its key is that of job {second}, which has not ended"
    assert desk.keys.taken(Job(99, b"", 1, "m:f", b"", 0)) == ""
    waits = desk.new("running")
    desk.scheduler.control.cancel(desk.scheduler.window.load(desk.row(waits)), "no")
    desk.turn()
    assert desk.keys.taken(desk.row(waits)) == "", "it runs when the other does not"


def test_while_a_key_changes_hands_nobody_else_gets_it_back(desk: Desk) -> None:
    """Should the commit fail, the one that is being replaced has it."""
    old = desk.new()
    desk.scheduler.control.cancel(desk.scheduler.window.load(desk.row(old)), "no")
    desk.turn()
    desk.new()
    desk.ask(if_exists="replace")
    assert desk.keys.taken(desk.row(old)) == "its key is about to change hands"


# -- what makes no sense --


def test_a_key_is_for_one_job() -> None:
    """Not for several, nor for a job of a graph."""
    many = Submit(1, b"", "m:f", [b"1", b"2"], [(0, ())])
    with pytest.raises(UsageError, match="this submit has 2"):
        keys.refuse_many(many, Policy(key="k"))
    keys.refuse_many(many, Policy())
    with pytest.raises(UsageError, match="a job of a graph has no key"):
        keys.refuse_any(Policy(key="k"))
    keys.refuse_any(None)


@pytest.mark.parametrize(
    "said",
    [
        {"key": ""},
        {"key": "x" * 201},
        {"key": "two\nlines"},
        {"key": "k", "unique": "always"},
        {"key": "k", "unique": ""},
        {"key": "k", "unique": ["live", 3]},
        {"key": "k", "if_exists": "ignore"},
        {"hold": "yes"},
    ],
)
def test_a_bad_value_is_refused(said: dict[str, object]) -> None:
    """With a sentence that names the option."""
    with pytest.raises(UsageError, match=f"^{list(said)[-1]}: "):
        parse_options(said)


def test_states_are_said_in_any_order_and_kept_in_one() -> None:
    """So that the same words are the same policy."""
    assert parse_options({"unique": "running, waiting"}) == {"unique": ["waiting", "running"]}
    assert parse_options({"unique": ["live"]}) == {"unique": ["live"]}


@pytest.mark.parametrize("name", ["unique", "if_exists"])
def test_to_be_unique_needs_a_key(name: str) -> None:
    """Else nothing could be in the way; as a default of the settings it may stand alone."""
    said = parse_options({name: "live" if name == "unique" else "fail"})
    with pytest.raises(UsageError, match=f"{name}: it is about jobs with one key"):
        decode_options(encode_options(said))
    layers = Layers(defaults=said)
    policy = layers.policy("m:f", {"key": "k"})
    assert policy is not None
    assert getattr(policy, name) == said[name]
