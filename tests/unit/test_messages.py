"""The messages on the two sockets: each comes back as it went, and anything else is a FrameError."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobd.config import settings
from jobd.daemon.requests import decode as decode_requests
from jobd.model import blob, job, messages, options, orders, queues, selector
from jobd.model.edges import When
from jobd.model.job import (
    AtBound,
    Attempt,
    ErrorInfo,
    JobInfo,
    LogSpan,
    Outcome,
    Progress,
    Usage,
    Verdict,
)
from jobd.model.messages import FrameError, Message, decode_replies, encode
from jobd.model.orders import decode_orders, decode_reports
from jobd.model.queues import QueueInfo
from jobd.model.selector import MAX_ID, Selector
from jobd.model.states import State

ERROR = ErrorInfo("ValueError", "why", "Traceback ...")
LOG = LogSpan("w.1.log", 10, 20, 5)
ATTEMPT = Attempt(1, 2, State.CRASHED, 3, 4, 5, "SIGSEGV", ERROR, LOG)
INFO = JobInfo(1, b"u" * 16, State.QUEUED, "m:f", 2, 3, 4, 5, 6, 7, "", None, 8, b"j", [ATTEMPT])
OUTCOME = Outcome(1, 2, Verdict.RAISED, None, ERROR, 3, 4, LOG)
SELECTOR = Selector([(1, 2)], 3, True, [State.FAILED])
TASK = orders.Task(1, 2, "m:f", b"j[[],{}]")

REQUESTS: list[Message] = [
    messages.Hello(1, 1, 2, "0.1"),
    messages.Submit(1, b"u" * 16, "m:f", [b"a", b"b"], [(1, ("x",))], check=False, watch=True),
    messages.Watch(1, [1, 2, MAX_ID]),
    messages.Fetch(1, 2),
    messages.Find(1, SELECTOR),
    messages.List(1, SELECTOR, 9, 100),
    messages.Cancel(1, SELECTOR, "a reason"),
    messages.Retry(1, SELECTOR),
    messages.Hold(1, SELECTOR),
    messages.Release(1, SELECTOR),
    messages.Status(1),
    messages.Logs(1, 2, 3, 4, 5, follow=True),
    messages.Stop(1, 2.5),
    messages.Stop(1),
    messages.Reload(1),
    messages.Ping(1),
    messages.Take(1, 2, b"token"),
    messages.Taken(1, 2, b"token"),
    messages.Follow(1, 2, 3, 5, 4, 6),
    messages.More(1, 2, 3, 4),
    messages.Unfollow(1, 2, close=True),
    messages.Put(1, b"u" * 16, b"j5", watch=False),
    messages.Submit(
        1, b"u" * 16, "m:f", [b"a"], [(1, ())], after=[(7, When.ENDED), (b"k", When.FAILED)]
    ),
    messages.Apply(1, b"u" * 16, [messages.Submit(0, b"", "m:f", [b"a"], [(1, ())])], dry_run=True),
    messages.Graph(1, 2, 50),
    messages.Queues(1, ["etl"]),
    messages.SetQueue(1, "etl", 2, "10/s", paused=True, known=True, reset=True),
    messages.RemoveQueue(1, "etl"),
    messages.Submit(
        1,
        b"u" * 16,
        "m:f",
        [b"j[[],{}]"],
        [(1, ())],
        array=job.ArraySpec(2, 1, job.Errors.KEEP, 3),
        chunks=[(2, b"j[[1],[2]]")],
    ),
    messages.Gather(1, 2, [(0, 2**32 - 1)], ordered=False, wait=False),
    messages.SetArray(1, 2, 3),
]
REPLIES: list[Message] = [
    messages.Welcome(1, 1, "0.1", 2, "boot", "/state", 3, 4, 5),
    messages.Submitted(1, 2, 3),
    messages.Refused(1, "not_found", "there is no job 7", "see 'jobd ls'"),
    messages.Ended(1, State.SUCCEEDED, b"j1"),
    messages.Ended(1, State.FAILED, None, ERROR, "why", inline=False),
    messages.Watching(1, [2]),
    messages.Fetched(1, 2, State.CRASHED, None, ERROR, "SIGSEGV"),
    messages.Jobs(1, [INFO], more=True),
    messages.Answers(1, [(2, "cancelled")], more=False),
    messages.StatusInfo(
        *(1, "0.1", 2, "/state", "/socket", "full", 3),
        *([messages.WorkerInfo(4, "busy", 5, 6)], {"queued": 7}, 8, ["trouble"]),
    ),
    messages.LogData(1, 2, b"text", 3, end=True, over=False, dropped=4),
    messages.Accepted(1),
    messages.Pong(1, 2),
    messages.Offered(1, 2, State.SUCCEEDED, b"j5", None, "", 0),
    messages.Items(1, 2, 3, 4, [b"j1", b"j2"], over=True),
    messages.Progressed(1, Progress(2.0, 3.0, "text")),
    messages.GraphInfo(1, [INFO], 2, 3, whole=True),
    messages.QueueInfos(1, [QueueInfo("etl", 2, "10/s", True, 3, 4, {"slots": "built in"})]),
    messages.Stuck(1, AtBound(2, 100)),
    messages.Pieces(
        1,
        [
            messages.Piece(3, 2, State.SUCCEEDED, b"v"),
            messages.Piece(5, 1, State.FAILED, b"", ERROR),
        ],
        *(True, State.FAILED, 9),
    ),
]
ORDERS: list[Message] = [
    orders.Run("boot", [TASK], 7),
    orders.Recorded([1, 2]),
    orders.GiveBack(3),
    orders.StopJob(1, 2),
    orders.Retire(),
    orders.Adopt("boot"),
    orders.Check(1, "m:f", [(2, ("x", "y"))]),
    orders.Grant(1, 2, 3, 4),
    orders.CloseStream(1, 2),
    orders.Lent(1, "deadlock", "message", "hint"),
]
REPORTS: list[Message] = [
    orders.Ready(1, "boot"),
    orders.Outcomes(1, [OUTCOME]),
    orders.GivenBack([(1, 2)], 3, 4),
    orders.Alive(1, "boot"),
    orders.Handover(1, (2, 3)),
    orders.Leaving([(1, 2)]),
    orders.Checked(1, "message", "hint"),
    orders.Produced(1, 2, 3, 4, [b"j1", b"j2"]),
    orders.Waiting(1, 2, True, [3, 4]),
    orders.Progressing(1, 2, Progress(3.0)),
]
KINDS: list[tuple[str, Any, list[Message], Callable[[bytes], list[Any]]]] = [
    ("requests", messages.Request, REQUESTS, decode_requests),
    ("replies", messages.Reply, REPLIES, decode_replies),
    ("orders", orders.Order, ORDERS, decode_orders),
    ("reports", orders.Report, REPORTS, decode_reports),
]
DECODERS = [decode for _, _, _, decode in KINDS]
ALL = [(decode, message) for _, _, found, decode in KINDS for message in found]

THINGS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=6)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)
"""What msgpack can say."""


@pytest.mark.parametrize(
    ("decode", "message"), ALL, ids=[type(message).__name__ for _, message in ALL]
)
def test_every_message_comes_back_as_it_went(
    decode: Callable[[bytes], list[Any]], message: Message
) -> None:
    """Alone, and among others in one frame."""
    assert decode(encode([message])) == [message]
    assert decode(encode([message, message])) == [message, message]


@pytest.mark.parametrize(
    ("union", "found"), [kind[1:3] for kind in KINDS], ids=[kind[0] for kind in KINDS]
)
def test_no_message_is_forgotten_here(union: Any, found: list[Message]) -> None:
    """One of each kind is in the tests above."""
    assert {type(message) for message in found} == set(get_args(union))


@pytest.mark.parametrize(
    "module", [blob, job, messages, options, orders, queues, selector, settings]
)
def test_no_type_of_a_field_is_a_text(module: ModuleType) -> None:
    """Each start of the command line would compile them; so these modules do without `__future__`."""
    structs = [kind for kind in vars(module).values() if isinstance(kind, msgspec.StructMeta)]
    assert structs
    for struct in structs:
        assert [name for name, of in struct.__annotations__.items() if isinstance(of, str)] == []


@pytest.mark.parametrize("decode", DECODERS, ids=[kind[0] for kind in KINDS])
def test_an_empty_frame_is_one_without_messages(decode: Callable[[bytes], list[Any]]) -> None:
    """A frame of nothing is right; no bytes at all are none."""
    assert decode(encode([])) == []
    with pytest.raises(FrameError):
        decode(b"")


@given(st.sampled_from(DECODERS), st.binary(max_size=64))
@example(decode_requests, b"\x91")
@example(decode_requests, b"\xdd\xff\xff\xff\xff")
@example(decode_requests, b"\x91" * 5000)
def test_random_bytes_are_a_frame_error(decode: Callable[[bytes], list[Any]], data: bytes) -> None:
    """Whoever sends them cannot end the daemon."""
    try:
        decode(data)
    except FrameError:
        pass


@given(st.sampled_from(DECODERS), THINGS)
def test_msgpack_that_is_no_message_is_a_frame_error(
    decode: Callable[[bytes], list[Any]], thing: object
) -> None:
    """Well-formed, but not ours."""
    for frame in (encode(thing), encode([thing]), encode([[1, thing]])):
        try:
            decode(frame)
        except FrameError:
            pass


@given(st.sampled_from(ALL), st.data())
def test_a_damaged_message_is_a_frame_error_or_another_message(
    pair: tuple[Callable[[bytes], list[Any]], Message], data: st.DataObject
) -> None:
    """A bit that has flipped, a byte too few, a byte too many."""
    decode, message = pair
    frame = bytearray(encode([message]))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(frame), bytes(frame[:at]), bytes(frame) + b"\x00"):
        try:
            decode(damaged)
        except FrameError:
            pass


def test_a_number_that_the_store_cannot_hold_is_refused() -> None:
    """An id of 64 bits or more never reaches SQLite."""
    for number in (MAX_ID + 1, 2**64 - 1, -1):
        frame = encode([[5, 1, [[[number, number]], 0, False, []]]])
        with pytest.raises(FrameError):
            decode_requests(frame)


@pytest.mark.parametrize("number", [-1, 2**63, 2**64 - 1])
def test_no_report_has_a_number_that_the_store_cannot_hold(number: int) -> None:
    """Whatever a job has written over in its worker: the worker is replaced, not the daemon ended."""
    outcome = Outcome(1, 1, Verdict.RETURNED, b"j1", None, 5, 6, LogSpan("f", 0, 1), Usage(1, 2))
    replace = msgspec.structs.replace
    bad: list[Message] = [
        orders.Outcomes(number, []),
        *(
            orders.Outcomes(1, [replace(outcome, **{name: number})])
            for name in ("id", "attempt", "verdict", "started_at", "duration_us")
        ),
        orders.Outcomes(1, [replace(outcome, log=LogSpan("f", 0, number))]),
        orders.Outcomes(1, [replace(outcome, usage=Usage(1, number))]),
        orders.Ready(number, "boot"),
        orders.GivenBack([(number, 1)]),
        orders.Leaving([(1, number)]),
        orders.Handover(1, (number, 1)),
        orders.Waiting(1, number, waits=True, awaited=[]),
        orders.Produced(1, 1, 1, number, [b"j1"]),
    ]
    for report in bad:
        with pytest.raises(FrameError):
            decode_reports(encode([report]))
    assert decode_reports(encode([orders.Outcomes(1, [outcome])]))


@pytest.mark.parametrize(
    ("frame", "numbers"),
    [
        (encode([messages.Fetch(7, 2**63), messages.Ping(8)]), [7, 8]),
        (msgspec.msgpack.encode([[99, 5, "?"], "x", [], [1], [2, True], [3, "n"]]), [5]),
        (b"\xc1", [0]),
        (msgspec.msgpack.encode({"a": 1}), [0]),
        (b"\x91" * 100_000, [0]),
    ],
    ids=["out of range", "odd", "no msgpack", "no list", "deep"],
)
def test_what_cannot_be_decoded_is_answered_by_its_numbers(
    frame: bytes, numbers: list[int]
) -> None:
    """Or who has sent it would wait until his time is over."""
    assert messages.numbers_in(frame) == numbers
