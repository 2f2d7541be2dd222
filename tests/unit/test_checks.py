"""The checker as the daemon sees it: one question at a time, and never a wait without an end."""

from __future__ import annotations

import pytest

from jobd.daemon import checks
from jobd.daemon.checks import Checks, Shape
from jobd.model.environment import encoded
from jobd.model.errors import JobdError
from jobd.model.messages import Apply, Submit
from jobd.model.orders import Check, Checked, Order, Surroundings

ONE: Shape = (1, ())
TWO: Shape = (2, ())
NAMED: Shape = (0, ("x",))


class Desk:
    """Checks, with a pool and requests that only take notes."""

    def __init__(self) -> None:
        self.spawned: list[str] = []
        self.sent: list[tuple[str, Check]] = []
        self.killed: list[str] = []
        self.accepted: list[bytes] = []
        self.refused: list[tuple[bytes, JobdError]] = []
        self.checks = Checks(
            "boot",
            10.0,
            spawn=self.spawned.append,
            send=self._send,
            kill=self.killed.append,
            accept=lambda peer, _: self.accepted.append(peer),
            refuse=lambda peer, _, error: self.refused.append((peer, error)),
        )

    def _send(self, uid: str, order: Order) -> None:
        assert isinstance(order, Check)
        self.sent.append((uid, order))

    def ask(self, peer: bytes, function: str = "m:f", *shapes: Shape, key: bytes = b"") -> bool:
        """Do what the daemon does with a submit; return whether it went straight through."""
        request = Submit(1, key or peer * 16, function, [b"j"], list(shapes or (ONE,)))
        if self.checks.passes(request):
            return True
        if not self.checks.is_waiting(peer, request):
            self.checks.ask(peer, request)
        return False

    @property
    def uid(self) -> str:
        """The checker that was started last."""
        return self.spawned[-1]

    def ready(self) -> None:
        """Let the checker report."""
        self.checks.ready(self.uid)

    def answer(self, message: str = "") -> None:
        """Let the checker answer what it was asked last."""
        uid, order = self.sent[-1]
        self.checks.checked(uid, Checked(order.number, message, "a hint" if message else ""))

    def asked(self) -> list[str]:
        """Return the functions that were asked about."""
        return [order.function for _, order in self.sent]

    def why(self) -> list[str]:
        """Return the reasons of all refusals."""
        return [error.message for _, error in self.refused]


@pytest.fixture
def desk() -> Desk:
    """Return a desk without a checker."""
    return Desk()


def test_no_checker_is_started_before_it_is_needed(desk: Desk) -> None:
    """The first submit starts it, and waits for it."""
    assert desk.spawned == []
    assert not desk.ask(b"a")
    assert len(desk.spawned) == 1
    assert desk.sent == []
    desk.ready()
    assert desk.sent == [(desk.uid, Check(1, "m:f", [ONE]))]
    desk.answer()
    assert desk.accepted == [b"a"]


def test_a_job_with_variables_is_checked_with_them(desk: Desk) -> None:
    """Its module may need them to be imported; who has others waits for another check."""
    around = Surroundings(encoded({"FOO": "bar"}))
    for peer, given in ((b"a", None), (b"b", around), (b"c", around)):
        desk.checks.ask(peer, Submit(1, peer * 16, "m:f", [b"j"], [ONE]), None, given)
    desk.ready()
    desk.answer()
    assert desk.sent[-1] == (desk.uid, Check(2, "m:f", [ONE], around))
    desk.answer()
    assert desk.accepted == [b"a", b"b", b"c"]


def test_a_yes_is_remembered_for_its_function_and_shape(desk: Desk) -> None:
    """The next submit of the same kind does not wait; one of another shape does."""
    desk.ask(b"a")
    desk.ready()
    desk.answer()
    assert desk.ask(b"b")
    assert not desk.ask(b"c", "m:f", TWO)
    assert not desk.ask(b"d", "m:g")
    assert desk.asked() == ["m:f", "m:f"]


def test_only_what_is_not_known_is_asked(desk: Desk) -> None:
    """Of several shapes, those that have passed are left out."""
    desk.ask(b"a", "m:f", ONE)
    desk.ready()
    desk.answer()
    desk.ask(b"b", "m:f", ONE, TWO, NAMED)
    assert desk.sent[-1][1].shapes == [TWO, NAMED]


def test_the_checker_has_one_question_at_a_time(desk: Desk) -> None:
    """So its death is put down to the right one."""
    desk.ask(b"a", "m:f")
    desk.ask(b"b", "m:g")
    desk.ready()
    assert desk.asked() == ["m:f"]
    desk.answer()
    assert desk.asked() == ["m:f", "m:g"]
    desk.answer()
    assert desk.accepted == [b"a", b"b"]
    assert len(desk.spawned) == 1


def test_submits_that_ask_the_same_are_answered_together(desk: Desk) -> None:
    """A thousand clients of one function are one question."""
    for peer in (b"a", b"b", b"c"):
        desk.ask(peer)
    desk.ready()
    desk.answer()
    assert desk.asked() == ["m:f"]
    assert desk.accepted == [b"a", b"b", b"c"]


def test_a_submit_that_is_sent_again_waits_once(desk: Desk) -> None:
    """The newest sender gets the answer, and the job is queued once."""
    desk.ask(b"a", key=b"k" * 16)
    desk.ask(b"b", key=b"k" * 16)
    desk.ready()
    desk.answer()
    assert desk.accepted == [b"b"]


def test_a_no_of_a_fresh_checker_is_believed(desk: Desk) -> None:
    """It has just looked at the user's files."""
    desk.ask(b"a")
    desk.ready()
    desk.answer("m has no function 'f'")
    ((peer, error),) = desk.refused
    assert (peer, error.message, error.hint) == (b"a", "m has no function 'f'", "a hint")
    assert error.error == "bad_function"


def test_a_no_is_not_remembered(desk: Desk) -> None:
    """The user mends the module and submits again: a new checker sees it."""
    desk.ask(b"a")
    desk.ready()
    desk.answer("no")
    assert not desk.ask(b"a")
    assert len(desk.spawned) == 2
    desk.ready()
    desk.answer()
    assert desk.accepted == [b"a"]


def test_a_no_of_a_checker_that_has_been_running_is_asked_again(desk: Desk) -> None:
    """It may have imported the module before it was mended."""
    desk.ask(b"a", "m:f")
    desk.ready()
    desk.answer()
    desk.ask(b"b", "m:g")
    desk.answer("m has no function 'g'")
    assert desk.refused == []
    assert len(desk.spawned) == 2
    desk.ready()
    assert desk.sent[-1] == (desk.uid, Check(2, "m:g", [ONE]))
    desk.answer()
    assert desk.accepted == [b"a", b"b"]


def test_what_the_new_checker_says_no_to_as_well_is_refused(desk: Desk) -> None:
    """It is asked once more, not for ever."""
    desk.ask(b"a", "m:f")
    desk.ready()
    desk.answer()
    desk.ask(b"b", "m:g")
    desk.answer("no")
    desk.ready()
    desk.answer("no")
    assert desk.why() == ["no"]


def test_a_refusal_leaves_the_other_questions_to_a_new_checker(desk: Desk) -> None:
    """The one that refused ends by itself."""
    desk.ask(b"a", "m:f")
    desk.ask(b"b", "m:g")
    desk.ready()
    desk.answer("no")
    desk.ready()
    desk.answer()
    assert desk.asked() == ["m:f", "m:g"]
    assert desk.accepted == [b"b"]


def test_an_answer_of_a_checker_that_was_replaced_does_not_count(desk: Desk) -> None:
    """Nor does one to a question that nobody asked."""
    desk.ask(b"a")
    desk.ready()
    old = desk.uid
    desk.checks.reload()
    desk.checks.checked(old, Checked(1, "", ""))
    desk.ready()
    desk.checks.checked(desk.uid, Checked(99, "", ""))
    assert desk.accepted == []
    desk.answer()
    assert desk.accepted == [b"a"]


def test_a_check_that_takes_too_long_is_refused_and_its_checker_ended(desk: Desk) -> None:
    """An import that hangs must not hang the submit, nor those behind it."""
    desk.ask(b"a", "slow:f")
    desk.ask(b"b", "m:g")
    desk.ready()
    desk.checks.expire(100.0)
    desk.checks.expire(109.9)
    assert desk.refused == []
    assert desk.checks.deadline_s() == 110.0
    hanging = desk.uid
    desk.checks.expire(110.0)
    assert desk.killed == [hanging]
    assert desk.why() == ["checking slow:f took over 10 s"]
    desk.checks.died(hanging, "SIGKILL")
    desk.ready()
    desk.answer()
    assert desk.accepted == [b"b"]


def test_each_check_has_its_own_time(desk: Desk) -> None:
    """The time begins when the question is asked, not when it was put in the queue."""
    desk.ask(b"a", "m:f")
    desk.ask(b"b", "m:g")
    desk.ready()
    desk.checks.expire(100.0)
    desk.answer()
    desk.checks.expire(109.0)
    desk.checks.expire(118.0)
    assert desk.refused == []
    desk.checks.expire(119.0)
    assert desk.why() == ["checking m:g took over 10 s"]


def test_a_checker_that_never_reports_does_not_keep_a_submit_waiting(desk: Desk) -> None:
    """The zygote may be broken; the sentence says that it was not the function's fault."""
    desk.ask(b"a")
    desk.checks.expire(100.0)
    desk.checks.expire(110.0)
    assert desk.why() == ["m:f cannot be checked: no checker within 10 s"]


def test_with_nothing_to_check_there_is_no_deadline(desk: Desk) -> None:
    """The loop sleeps."""
    assert desk.checks.deadline_s() is None
    desk.ask(b"a")
    desk.ready()
    desk.answer()
    assert desk.checks.deadline_s() is None
    desk.checks.expire(1e9)
    assert desk.killed == []


def test_an_import_that_ends_the_checker_is_refused_with_how_it_ended(desk: Desk) -> None:
    """A module that calls os._exit, or crashes the interpreter."""
    desk.ask(b"a", "deadly.mod:f")
    desk.ask(b"b", "m:g")
    desk.ready()
    desk.checks.died(desk.uid, "SIGSEGV")
    assert desk.why() == ["importing deadly.mod ended the process that did it (SIGSEGV)"]
    desk.ready()
    desk.answer()
    assert desk.accepted == [b"b"]


def test_a_checker_that_dies_before_it_is_ready_is_started_once_more(desk: Desk) -> None:
    """It has not seen the question: that is nobody's fault."""
    desk.ask(b"a")
    desk.checks.died(desk.uid, "SIGKILL")
    assert desk.refused == []
    assert len(desk.spawned) == 2
    desk.checks.died(desk.uid, "exit code 70")
    assert desk.why() == ["m:f cannot be checked: exit code 70"]


def test_an_idle_checker_that_dies_is_missed_by_nobody(desk: Desk) -> None:
    """The next submit starts another."""
    desk.ask(b"a")
    desk.ready()
    desk.answer()
    desk.checks.died(desk.uid, "SIGKILL")
    assert len(desk.spawned) == 1
    desk.ask(b"b", "m:g")
    assert len(desk.spawned) == 2


def test_the_death_of_another_process_is_none_of_its_business(desk: Desk) -> None:
    """Workers die too."""
    desk.ask(b"a")
    desk.ready()
    desk.checks.died("boot-1", "SIGKILL")
    desk.checks.ready("boot-1")
    desk.answer()
    assert desk.accepted == [b"a"]


def test_a_reload_forgets_every_yes(desk: Desk) -> None:
    """The code may have changed."""
    desk.ask(b"a")
    desk.ready()
    desk.answer()
    desk.checks.reload()
    assert desk.killed == [desk.uid]
    assert not desk.ask(b"b")
    assert len(desk.spawned) == 2


def test_a_reload_in_mid_check_asks_a_new_checker(desk: Desk) -> None:
    """What the old one says does not count any more."""
    desk.ask(b"a")
    desk.ready()
    desk.checks.reload()
    desk.ready()
    desk.answer()
    assert desk.accepted == [b"a"]
    assert len(desk.spawned) == 2


def test_memory_does_not_grow_with_the_number_of_functions(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that makes up shapes must not fill the daemon."""
    monkeypatch.setattr(checks, "MOST_REMEMBERED", 10)
    desk.ask(b"a")
    desk.ready()
    desk.answer()
    for number in range(100):
        desk.ask(b"b", "m:f", (number + 2, ()))
        desk.answer()
        assert len(desk.checks._known) <= 12
    assert not desk.checks._pending


def test_a_graph_is_checked_function_by_function(desk: Desk) -> None:
    """Whoever asks for the next check when the last one has passed waits in line like all others."""
    graph = Apply(0, b"graph", [])
    calls = [Submit(0, b"", name, [], [ONE]) for name in ("m:f", "m:g")]

    def go_on(peer: bytes, request: object) -> None:
        desk.accepted.append(peer)
        if len(desk.accepted) == 1:
            assert request is graph
            desk.checks.ask(b"graph", graph, calls[1])

    desk.checks._accept = go_on
    desk.checks.ask(b"graph", graph, calls[0])
    desk.ask(b"other", "m:h")
    assert desk.checks.is_pending(b"graph")
    desk.ready()
    for name in ("m:f", "m:h", "m:g"):
        assert desk.asked()[-1] == name
        desk.answer()
    assert desk.asked() == ["m:f", "m:h", "m:g"]
    assert desk.accepted == [b"graph", b"other", b"graph"]
