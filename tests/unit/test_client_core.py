"""The client's half of the protocol, without any I/O: frames in, frames out."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from jobd import payload
from jobd.client.asking import identify
from jobd.client.core import ACKNOWLEDGE_BYTES, Core
from jobd.client.deferred import DeferredBase
from jobd.client.functions import named
from jobd.client.verbs import cancel, end, flush, result, stop, watch
from jobd.client.waiting import Arrivals, Pending
from jobd.daemon.requests import decode
from jobd.model.errors import JobCancelled, NotFound, QueueFull, UsageError
from jobd.model.messages import (
    Accepted,
    Answers,
    Ended,
    Fetch,
    Fetched,
    Message,
    Ping,
    Pong,
    Refused,
    Stop,
    Submit,
    Submitted,
    Watch,
    Watching,
    Welcome,
    encode,
)
from jobd.model.selector import Selector
from jobd.model.states import State

Deferred = DeferredBase[Any]
WELCOME = Welcome(0, 1, "1.0", 7, "boot", "/var/lib/jobd", 2, 2**20, 2**20)
VALUE = payload.encode(42)


def new_core() -> Core[Deferred]:
    """Return a core that is connected."""
    core: Core[Deferred] = Core(DeferredBase)
    core.connected(WELCOME)
    return core


def hear(core: Core[Deferred], *messages: Message) -> list[Any]:
    """Have a core take in a frame; return the requests that it sends because of it."""
    return [request for frame in core.take(encode([*messages])) for request in decode(frame)]


def submit(core: Core[Deferred], count: int = 1, *, watched: bool = True) -> list[Deferred]:
    """Submit calls of one function."""
    request = Submit(0, b"", "m:f", [b"j[[],{}]"] * count, [(0, ())], watch=watched)
    return core.promise(None, core.submit(request))


def steps_of(core: Core[Deferred], steps: Any) -> list[Any]:
    """Begin what a verb asks for first; return the requests that this makes."""
    pending = next(steps)
    assert isinstance(pending, Pending)
    core.begin(pending)
    return decode(pending.frame)


def answer_of(steps: Any) -> Any:
    """Go on with a verb that has what it waited for, to its end."""
    with pytest.raises(StopIteration) as over:
        next(steps)
    return over.value.value


# --- submits


def test_ids_come_with_the_answer_and_ends_by_id() -> None:
    """Whatever comes first for others."""
    core = new_core()
    one, several = submit(core), submit(core, 3)
    hear(core, Submitted(2, 11, 3), Submitted(1, 14, 1), Ended(12, State.SUCCEEDED, VALUE))
    assert [d.input_of() for d in [*one, *several]] == [14, 11, 12, 13]
    assert [d.done() for d in several] == [False, True, False]
    assert answer_of(result(core, several[1])) == 42


def test_an_answer_may_be_read_before_the_deferred_results_are_made() -> None:
    """By another thread, while the submit is sent again; then the ends are asked for again."""
    core = new_core()
    submission = core.submit(Submit(0, b"", "m:f", [b"j[[],{}]"] * 2, [(0, ())], watch=True))
    hear(core, Submitted(1, 11, 2), Ended(12, State.SUCCEEDED, VALUE))
    deferreds = core.promise(None, submission)
    assert submission.over
    assert [d.input_of() for d in deferreds] == [11, 12]
    assert decode(core.watch_again(d._id for d in deferreds)) == [Watch(0, [11, 12])]
    hear(core, Ended(12, State.SUCCEEDED, VALUE))
    assert [d.done() for d in deferreds] == [False, True]


def test_what_is_not_answered_is_sent_again_with_its_key() -> None:
    """Submits, requests, and watches for what has not ended, over the next connection."""
    core = new_core()
    (first,), (second,) = submit(core), submit(core)
    hear(core, Submitted(1, 11, 1))
    canceling = cancel(core, Selector([(11, 11)]), "no")
    (request,) = steps_of(core, canceling)
    core.connected(WELCOME)
    again: list[Any] = [request for frame in core.repeat() for request in decode(frame)]
    assert again[1:] == [request, Watch(0, [11])]
    assert second.input_of() == again[0].uid + bytes(8)
    hear(core, Submitted(2, 12, 1), Answers(request.rid, [(11, "cancelled")], more=False))
    assert answer_of(canceling) == [(11, "cancelled")]
    assert first.input_of() == 11


def test_a_count_that_differs_has_everything_asked_again() -> None:
    """The daemon has dropped something for this client."""
    core = new_core()
    (deferred,) = submit(core)
    assert hear(core, Submitted(1, 11, 1)) == []
    assert hear(core, Pong(0, 3)) == []
    assert hear(core, Pong(0, 7)) == [Watch(0, [11])]
    assert decode(core.ping()) == [Ping(0, 7)]
    assert hear(core, Pong(0, 8)) == []
    assert not deferred.done()


def test_much_that_was_received_is_acknowledged() -> None:
    """Large answers stop coming for who never does."""
    core = new_core()
    owed = [core.owes_ping]
    hear(core, Ended(5, State.SUCCEEDED, bytes(ACKNOWLEDGE_BYTES)))
    owed.append(core.owes_ping)
    core.ping()
    assert [*owed, core.owes_ping] == [False, True, False]


def test_a_refused_submit_is_told_to_all_that_wait_and_at_the_end() -> None:
    """Once: whoever has looked knows."""
    core = new_core()
    (looked_at,), (forgotten,) = submit(core), submit(core)
    told: list[Deferred] = []
    looked_at.call_when_done(told.append)
    refusal = (QueueFull.error, "full", "wait")
    hear(core, Refused(1, *refusal), Refused(2, *refusal))
    assert told == [looked_at]
    assert looked_at.done()
    for verb in (identify(looked_at), result(core, looked_at), flush(core)):
        with pytest.raises(QueueFull, match="full"):
            list(verb)
    list(flush(core))
    assert "refused: full" in repr(forgotten)


def test_a_submit_over_the_daemons_limit_is_refused_before_it_is_sent() -> None:
    """Nothing of it is kept."""
    core = new_core()
    request = Submit(0, b"", "m:f", [bytes(2**20)], [(0, ())])
    with pytest.raises(UsageError, match="over the limit of 1048576"):
        core.submit(request)
    assert list(core.repeat()) == []


# --- waiting


def test_an_attached_job_is_watched_once() -> None:
    """And the same deferred result is given for the same id, as long as somebody has it."""
    core = new_core()
    deferred = core.attach(None, 5)
    assert core.attach(None, 5) is deferred
    watching = watch(core, [deferred])
    (request,) = steps_of(core, watching)
    assert request == Watch(request.rid, [5])
    hear(core, Watching(request.rid, []))
    answer_of(watching)
    assert list(watch(core, [deferred])) == []
    hear(core, Ended(5, State.CANCELLED, cause="enough"))
    with pytest.raises(JobCancelled, match="enough"):
        list(result(core, deferred))


def test_a_job_that_nobody_knows_is_not_found() -> None:
    """And watched anew by the next who asks: it may exist then."""
    core = new_core()
    deferred = core.attach(None, 5)
    for _ in range(2):
        ending = end(core, deferred)
        (request,) = steps_of(core, ending)
        hear(core, Watching(request.rid, [5]))
        with pytest.raises(NotFound, match="there is no job 5"):
            next(ending)


def test_a_large_value_is_fetched_when_it_is_asked_for() -> None:
    """The end comes without it."""
    core = new_core()
    (deferred,) = submit(core)
    hear(core, Submitted(1, 11, 1), Ended(11, State.SUCCEEDED, inline=False))
    getting = result(core, deferred)
    (request,) = steps_of(core, getting)
    assert request == Fetch(request.rid, 11)
    hear(core, Fetched(request.rid, 11, State.SUCCEEDED, VALUE, None, ""))
    assert answer_of(getting) == 42


def test_deferreds_that_nobody_holds_are_forgotten() -> None:
    """Their ends are taken in all the same, and nothing is asked again for them."""
    core = new_core()
    core.attach(None, 5)
    submit(core)
    gc.collect()
    hear(core, Submitted(1, 11, 1))
    gc.collect()
    assert list(core.repeat()) == []
    assert hear(core, Ended(11, State.SUCCEEDED, VALUE), Ended(5, State.SUCCEEDED, VALUE)) == []


def test_arrivals_come_in_the_order_of_their_ends() -> None:
    """Whoever waits for the next is woken for the first only, and may give up."""
    core = new_core()
    first, second = submit(core, 2)
    arrivals: Arrivals[Deferred] = Arrivals()
    woken: list[object] = []
    arrivals.expect((first, second))
    arrivals.call_when_done(woken.append)
    arrivals.call_when_done(print)
    arrivals.forget(print)
    hear(core, Submitted(1, 11, 2), Ended(12, State.SUCCEEDED, VALUE))
    hear(core, Ended(11, State.SUCCEEDED, VALUE))
    assert woken == [arrivals]
    assert [arrivals.pop(), arrivals.pop(), arrivals.done()] == [second, first, False]


def test_a_daemon_that_was_asked_to_end_may_hang_up() -> None:
    """That is the answer, not that it has accepted; and one that refuses goes on."""
    core = new_core()
    assert not core.hung_up()
    for refuses in (True, False):
        stopping = stop(core, 3.0)
        (request,) = steps_of(core, stopping)
        assert request == Stop(request.rid, 3.0)
        if refuses:
            hear(core, Refused(request.rid, "denied", "not you", ""))
            with pytest.raises(Exception, match="not you"):
                next(stopping)
            assert not core.hung_up()
        else:
            hear(core, Accepted(request.rid))
            assert not next(iter(core.pending.values())).done()
            assert core.hung_up()
            answer_of(stopping)


# --- what is submitted


def test_a_function_is_named_where_its_name_leads_back_to_it() -> None:
    """Classes and their methods too; what hides behind a name that is another's goes by value."""
    assert named("m:f", []) == ("m:f", b"")
    assert named(len, []) == ("builtins:len", b"")
    assert named(Core.submit, []) == ("jobd.client.core:Core.submit", b"")
    assert named([].append, [(1, ())])[0] == "builtins:list.append"

    def local() -> None:
        """Do nothing."""

    name, pickled = named(local, [(0, ())])
    assert name.endswith("test_client_core:" + local.__qualname__)
    assert pickled
    local.__module__, local.__qualname__ = "builtins", "len"
    assert named(local, [])[1]


@pytest.mark.parametrize("number", ["7", 0, -1, 2**63, 1.5, None])
def test_what_is_no_id_is_refused_at_once(number: Any) -> None:
    """The daemon would drop the message, and the client send it again and again."""
    with pytest.raises(UsageError, match=f"^{number!r} is no id of a job "):
        new_core().attach(None, number)


def test_submits_that_are_answered_with_one_job_hear_of_its_end_together() -> None:
    """Each has a deferred result of its own, and one that is left is enough to watch the job again."""
    core = new_core()
    (first,), (twin,), (other,) = submit(core), submit(core), submit(core)
    rids = sorted(core.pending)
    hear(core, Submitted(rids[0], 7, 1), Submitted(rids[1], 7, 1, existed=True))
    hear(core, Submitted(rids[2], 7, 1, existed=True))
    assert (first.is_new, twin.is_new, other.is_new) == (True, False, False)
    del first, other
    gc.collect()
    again = [request for frame in core.repeat() for request in decode(frame)]
    assert again == [Watch(0, [7])]
    hear(core, Ended(7, State.SUCCEEDED, VALUE))
    assert twin.done()
    assert not core._twins


def test_the_owner_of_a_key_may_hear_of_its_id_after_its_twin() -> None:
    """Within one turn the daemon answers what existed at once, and what is new after the commit."""
    core = new_core()
    (owner,), (twin,) = submit(core), submit(core)
    rids = sorted(core.pending)
    hear(core, Submitted(rids[1], 11, 1, existed=True))
    hear(core, Submitted(rids[0], 11, 1))
    assert (owner.is_new, twin.is_new) == (True, False)
    hear(core, Ended(11, State.SUCCEEDED, VALUE))
    assert owner.done()
    assert twin.done()
