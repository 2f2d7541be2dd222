"""The messages on the two sockets, and how they become frames.

A frame is a msgpack array of messages, so that everything for one peer in one
turn of the loop is one frame.  ``rid`` is the request's number, chosen by the
client; the answer carries it back.  What comes without having been asked for
(``Ended``) has none.

These are the messages between client and daemon, ``Request`` and ``Reply``; those
between daemon and worker are in ``orders``.

Here, and where the structs of fields are from, annotations are evaluated at once, without
``from __future__ import annotations``: msgspec compiles and evaluates those that are texts
as soon as a decoder is made, which was a tenth of all that the command line did.
"""

from typing import Annotated

import msgspec

from jobd.model.blob import Place
from jobd.model.durations import LONGEST_S
from jobd.model.edges import When
from jobd.model.errors import BY_NAME, DuplicateKey, JobdError
from jobd.model.job import ArraySpec, AtBound, ErrorInfo, JobInfo, Progress
from jobd.model.queues import QueueInfo
from jobd.model.selector import Number, Selector
from jobd.model.states import State

PROTOCOL = 1
"""The version that this code speaks; a peer whose range leaves it out is refused."""

Arguments = Annotated[int, msgspec.Meta(ge=0, le=2**20)]
"""A count of positional arguments; the checker binds as many to the signature."""

INLINE_BYTES = 32 * 1024
"""A result up to this size is pushed with its ``Ended``; a larger one is fetched."""


class Message(msgspec.Struct, array_like=True, tag=True, gc=False):
    """Base of all messages: arrays on the wire, their first element the tag."""


# -- client to daemon ---------------------------------------------------------


class Hello(Message, tag=1):
    """The first request: the versions of the protocol that the client speaks."""

    rid: int
    low: int
    high: int
    version: str
    errand: bool = False
    """The client only asks how the daemon is, or ends it: then it is heard though there are too many."""
    by_wire: bool = False
    """It is on another machine, so large payloads have to come in line, not as references to files."""


class Submit(Message, tag=2):
    """One or many jobs of one function: all of them or none are queued.

    ``shapes`` says which counts of positional arguments and names of keyword
    arguments occur, so that the signature can be checked without a look into
    ``args``.

    ``inputs`` has, for each call, the jobs whose results are among its arguments: by
    id, or, as a submit may not be answered yet, by its key and then 8 bytes,
    big-endian: which of its jobs.  Empty: no call has any.  ``by_value``: the function itself is in
    ``args``, and ``function`` is only its name.  ``after`` has the jobs that all of these come after,
    named in the same way.
    """

    rid: int
    uid: bytes  # 16: 8 of the client's session, 8 big-endian that only rise
    function: str
    args: list[bytes]
    shapes: list[tuple[Arguments, tuple[str, ...]]]
    check: bool = True
    watch: bool = False
    options: bytes = b""
    inputs: list[list[Number | bytes]] = []
    by_value: bool = False
    after: list[tuple[Number | bytes, When]] = []
    environment: bytes = b""
    """Within an ``Apply``, on arrival: that one's."""
    array: ArraySpec | None = None
    """With one it is one job, whose items these are; its own call has no arguments."""
    chunks: list[tuple[Arguments, bytes]] = []
    """The items' calls: how many, and these (``jobd.model.stretch``)."""


class Watch(Message, tag=3):
    """Push an ``Ended`` for each of these as soon as there is one.

    With ``progress`` also a ``Progressed`` whenever one of them tells how far it is.
    """

    rid: int
    ids: list[Number]
    progress: bool = False


class Fetch(Message, tag=4):
    """The result of one job, of any size, as it stands now."""

    rid: int
    id: Number


class Find(Message, tag=5):
    """Jobs with all their details."""

    rid: int
    selector: Selector


class List(Message, tag=6):
    """A page of jobs, the newest first; ``before`` is the last page's lowest id, or 0."""

    rid: int
    selector: Selector
    before: Number
    limit: Number


class Cancel(Message, tag=7):
    """End jobs, by a person's wish; ``reason`` is kept.

    With ``only_waiting`` a job goes on that a worker has already, and the answer says so.
    ``grace_s`` is the time between TERM and KILL, None: as each job's own; with 0 no TERM is waited for.
    """

    rid: int
    selector: Selector
    reason: str = ""
    only_waiting: bool = False
    grace_s: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)] | None = None


class Retry(Message, tag=8):
    """Queue jobs again that ended without a result; ``args``: with another call, if it is one job."""

    rid: int
    selector: Selector
    args: bytes = b""


class Status(Message, tag=9):
    """How the daemon is."""

    rid: int


class Logs(Message, tag=10):
    """What attempt number ``attempt`` (0: the latest) wrote, from byte ``offset`` on.

    With ``follow`` the answer comes once there is something new or the attempt is over.
    """

    rid: int
    id: Number
    attempt: Number
    offset: Number
    limit: Number
    follow: bool = False


class Stop(Message, tag=11):
    """End the daemon; running jobs get ``drain_s`` seconds (None: as the settings say)."""

    rid: int
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None


class Reload(Message, tag=12):
    """Replace every worker by a new one, each as soon as its job is done."""

    rid: int


class Ping(Message, tag=13):
    """Is somebody there, and has anything been dropped?

    ``seen`` counts the frames that the client has received.
    """

    rid: int
    seen: int = 0


Credit = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
"""A count of items that a follower takes without having consumed those before."""


class Take(Message, tag=14):
    """The value of one job, to consume it: answered by ``Offered``, once nobody else is at it."""

    rid: int
    id: Number
    token: bytes
    """Random; tells this taker from others, over all connections that it makes."""


class Taken(Message, tag=15):
    """The value has arrived: nobody else is to have it.  Accepted once that is durable."""

    rid: int
    id: Number
    token: bytes


class Follow(Message, tag=16):
    """Push the items of a stream after number ``after``, ``credit`` of them at most before a ``More``.

    What is not kept any more is passed over.  Sent again with the same ``rid``, it goes on from
    ``after``, the last item that was received, where items up to ``consumed`` have been consumed.
    """

    rid: int
    id: Number
    attempt: Number  # whose items were received, 0: none yet
    after: Number
    consumed: Number
    credit: Credit


class More(Message, tag=17):
    """The follower ``rid`` has consumed item ``seq`` and those before, and takes ``credit`` after it."""

    rid: int
    id: Number
    seq: Number
    credit: Credit


class Unfollow(Message, tag=18):
    """The follower ``rid`` wants no more; with ``close``, a stream that has no other one is ended."""

    rid: int
    id: Number
    close: bool


class Put(Message, tag=19):
    """A value, to be kept as the result of a job that has succeeded."""

    rid: int
    uid: bytes
    value: bytes
    watch: bool = True


class Queues(Message, tag=20):
    """How queues are; no names: all of them."""

    rid: int
    names: list[str] = []


class SetQueue(Message, tag=21):
    """Change a queue from now on, and make it if there is none; what is None stays as it is.

    ``known``: only if there is one already.  ``reset``: first forget the slots and the rate that were
    said before, so that the settings hold again.
    """

    rid: int
    name: str
    slots: int | None = None
    rate: str | None = None
    paused: bool | None = None
    known: bool = False
    reset: bool = False


class RemoveQueue(Message, tag=22):
    """Forget a queue that was made by ``SetQueue`` and has no jobs."""

    rid: int
    name: str


class Hold(Message, tag=25):
    """Set jobs aside that have not started, until they are released."""

    rid: int
    selector: Selector


class Release(Message, tag=26):
    """Let jobs go that are held."""

    rid: int
    selector: Selector


class Apply(Message, tag=23):
    """Jobs of several functions that may come after each other: all of them or none are queued.

    Each of ``jobs`` is a submit of one call, whose number and key do not count; it names one before
    it in this list by ``OWN_KEY`` and 8 bytes, big-endian: its place there.  Answered as a ``Submit``;
    or ``Accepted``, with ``dry_run``: then all is checked, and nothing queued.
    """

    rid: int
    uid: bytes
    jobs: list[Submit]
    watch: bool = False
    dry_run: bool = False
    environment: bytes = b""
    """The variables that those of its jobs inherit that do, once for all (``jobd.model.environment``)."""


class Graph(Message, tag=24):
    """What a job comes after, and what comes after it, all the way; up to ``limit`` jobs each way."""

    rid: int
    id: Number
    limit: Number


Index = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
"""Which of an array's items, counted from 0."""


class Gather(Message, tag=27):
    """What has ended of an array's items, of those between each pair of indexes, both included.

    ``ordered``: only those before the first that has not ended.  ``wait``: the answer comes once one has.
    """

    rid: int
    id: Number
    wanted: list[tuple[Index, Index]]
    ordered: bool = True
    wait: bool = True


class SetArray(Message, tag=28):
    """Change an array: how many of its items may run at once (0: any number)."""

    rid: int
    id: Number
    slots: Annotated[int, msgspec.Meta(ge=0, le=2**31)]


Request = (
    Hello
    | Submit
    | Watch
    | Fetch
    | Find
    | List
    | Cancel
    | Retry
    | Status
    | Logs
    | Stop
    | Reload
    | Ping
    | Take
    | Taken
    | Follow
    | More
    | Unfollow
    | Put
    | Queues
    | SetQueue
    | RemoveQueue
    | Hold
    | Release
    | Apply
    | Graph
    | Gather
    | SetArray
)

OWN_KEY = bytes(16)
"""Stands for the key of the ``Apply`` itself."""


# -- daemon to client ---------------------------------------------------------


class Welcome(Message, tag=1):
    """The answer to ``Hello``."""

    rid: int
    protocol: int
    version: str
    pid: int
    boot: str
    state_dir: str
    workers: int
    max_payload_bytes: int
    max_message_bytes: int
    place: Place | None = None
    """Where large payloads go."""
    python: str = ""
    """The version of Python that runs the workers, as ``3.11``."""


class Submitted(Message, tag=2):
    """The jobs ``first`` to ``first + count - 1`` are durable.

    ``existed``: they are not those of this submit; the job has the same key, and stands for its one.
    """

    rid: int
    first: int
    count: int
    existed: bool = False


class Refused(Message, tag=3):
    """The request failed; ``error`` is a name in ``jobd.model.errors.BY_NAME``."""

    rid: int
    error: str
    message: str
    hint: str
    id: int = 0
    """The job that it is about, for ``duplicate_key``."""


class Ended(Message, tag=4):
    """A watched job's recorded end; ``inline`` is false where the value must be fetched."""

    id: int
    state: State
    value: bytes | None = None
    error: ErrorInfo | None = None
    cause: str = ""
    inline: bool = True
    root: int = 0
    """Aborted: the job that was to blame."""


class Watching(Message, tag=5):
    """The answer to ``Watch``; ``unknown`` are ids that nobody has."""

    rid: int
    unknown: list[int]


class Fetched(Message, tag=6):
    """The answer to ``Fetch``; ``value`` is None where there is none (yet)."""

    rid: int
    id: int
    state: State
    value: bytes | None
    error: ErrorInfo | None
    cause: str
    root: int = 0
    items: int | None = None
    """How many items it has, if it is an array."""


class Jobs(Message, tag=7):
    """Jobs found; ``more``: the answer goes on (``Find``), or there is a next page (``List``)."""

    rid: int
    jobs: list[JobInfo]
    more: bool


class Answers(Message, tag=8):
    """What became of each job that was to be changed; ``more`` says that the answer goes on."""

    rid: int
    answers: list[tuple[int, str]]
    more: bool


class WorkerInfo(msgspec.Struct, array_like=True):
    """A worker as ``status`` shows it."""

    pid: int
    state: str
    job: int  # 0: none
    rss_bytes: int


class StatusInfo(Message, tag=9):
    """The answer to ``Status``."""

    rid: int
    version: str
    pid: int
    state_dir: str
    socket: str
    durability: str
    started_at: int
    workers: list[WorkerInfo]
    jobs: dict[str, int]
    rss_bytes: int
    trouble: list[str]
    """Sentences about what does not work at the moment; empty when all is well."""


class LogData(Message, tag=10):
    """Bytes ``offset`` on of an attempt's output.

    ``end``: this attempt wrote no more; ``over``: and there will be no other attempt.
    """

    rid: int
    attempt: int
    data: bytes
    offset: int
    end: bool
    over: bool
    dropped: int


class Accepted(Message, tag=11):
    """Done, with nothing to tell."""

    rid: int


class Pong(Message, tag=12):
    """``sent`` counts the frames sent to this client; fewer seen means that some were dropped."""

    rid: int
    sent: int


class Offered(Message, tag=13):
    """The answer to ``Take``: how the job ended; its value waits for ``Taken``."""

    rid: int
    id: int
    state: State
    value: bytes | None
    error: ErrorInfo | None
    cause: str
    root: int


class Items(Message, tag=14):
    """What a stream has produced, from item number ``first``, for the follower ``rid``.

    ``over``: there is no more, the job has ended.
    """

    rid: int
    id: int
    attempt: int
    first: int
    values: list[bytes]
    over: bool


class Progressed(Message, tag=15):
    """How far a job is that was watched for its progress; some may be left out."""

    id: int
    progress: Progress


class QueueInfos(Message, tag=16):
    """The answer to ``Queues`` and to ``SetQueue``."""

    rid: int
    queues: list[QueueInfo]


class Stuck(Message, tag=19):
    """A watched job, or an input of it, waits until somebody consumes a stream; told once."""

    id: int
    at_bound: AtBound


class GraphInfo(Message, tag=18):
    """The answer to ``Graph``: the job itself and others, the nearest ones first in each direction.

    ``before`` and ``after`` count those that were left out, as far as ``whole``: else there are more.
    """

    rid: int
    jobs: list[JobInfo]
    before: int
    after: int
    whole: bool


class Piece(msgspec.Struct, array_like=True, gc=False):
    """Items of an array that have ended: ``count`` of them from the index ``first`` on, all in one state."""

    first: int
    count: int
    state: State
    values: bytes = b""
    """What they have returned (``jobd.model.stretch``), if they have succeeded."""
    error: ErrorInfo | None = None
    cause: str = ""


class Pieces(Message, tag=20):
    """The answer to ``Gather``; ``over``: the array has ended, and the request wants nothing more of it."""

    rid: int
    pieces: list[Piece]
    over: bool
    state: State
    """The array's own."""
    items: int
    """How many it has."""


Reply = (
    Welcome
    | Submitted
    | Refused
    | Ended
    | Watching
    | Fetched
    | Jobs
    | Answers
    | StatusInfo
    | LogData
    | Accepted
    | Pong
    | Offered
    | Items
    | Progressed
    | QueueInfos
    | Stuck
    | GraphInfo
    | Pieces
)


encode = msgspec.msgpack.Encoder().encode
"""Turn a list of messages into a frame."""


def refusal(rid: int, error: JobdError) -> Refused:
    """Return the answer that tells an error."""
    refused = Refused(rid, error.error, error.message, error.hint)
    if isinstance(error, DuplicateKey):
        refused.id = error.id
    return refused


def error_of(refused: Refused) -> JobdError:
    """Return the error that an answer tells."""
    error = BY_NAME.get(refused.error, JobdError)(refused.message, refused.hint)
    if isinstance(error, DuplicateKey):
        error.id = refused.id
    return error


FrameError = (msgspec.MsgspecError, UnicodeDecodeError)
"""What decoding raises on bytes that are no frame; on a text that is no UTF-8, the second."""

MOST_ANSWERED = 100
"""Requests of one frame that are answered each by itself, though it cannot be decoded."""

_decode_anything = msgspec.msgpack.Decoder().decode


def numbers_in(frame: bytes) -> list[int]:
    """Return the numbers of the requests in a frame that cannot be decoded, so that it can be answered.

    A frame that makes no sense at all has the one number 0.
    """
    try:
        found = _decode_anything(frame)
    except (*FrameError, RecursionError):
        return [0]
    requests = found[:MOST_ANSWERED] if isinstance(found, list) else []
    numbers = [r[1] for r in requests if isinstance(r, list) and len(r) > 1]
    return [n for n in numbers if isinstance(n, int) and not isinstance(n, bool)] or [0]


decode_replies = msgspec.msgpack.Decoder(list[Reply]).decode
