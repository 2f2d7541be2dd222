"""The values that describe a job, its attempts and what came of them.

Units: instants are integers, microseconds since 1970 in UTC (``_at``);
durations name their unit.  ``args`` and ``value`` are opaque bytes here: the
daemon never looks into them (jobd.payload knows the codecs).
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from jobd.model.durations import LONGEST_S
from jobd.model.edges import Edges, When, joined
from jobd.model.options import BUILT_IN, Policy
from jobd.model.states import Event, State
from jobd.model.stretch import Stretch

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number in a worker's report: sums of a few of them fit the store."""

JobId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""The number of a job, or of an item (``jobd.model.item``), in a worker's report."""

Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**60)]
"""A size of memory, which a kernel may tell to be that of the address space."""

PUT = "jobd:put"
"""The function of a job that never ran: a value that a client has handed in."""

COMMAND = "jobd.shell:run"
"""The function of a shell command."""

JSON = (b"j", b"J")
"""What values, and calls without references, begin with that were not pickled (jobd.payload)."""

PLAIN = (*JSON, b"r", b"R")
"""The same of calls, with those that have references to results."""

NO_ARGS = b"j[[],{}]"
"""A call without arguments, encoded."""

ITEMS = b"i"
"""The value of an array that has succeeded: it consists of those of its items."""

LIST = b"l"
"""Before the encoded values of an array's items (``jobd.model.stretch``), handed on as one value."""

TAKEN = b"!taken"
EXPIRED = b"!expired"
"""What begins the value of a job whose result was consumed, or has been kept for long enough."""

TOMBSTONES = (TAKEN, EXPIRED)


class ErrorInfo(msgspec.Struct, frozen=True, array_like=True):
    """An exception as plain text, so that it travels whatever the exception was."""

    type: str
    message: str
    traceback: str
    pickled: bytes = b""
    """The exception itself, for those who may unpickle; b"" where it cannot travel."""


class LogSpan(msgspec.Struct, frozen=True, array_like=True):
    """What an attempt wrote to fds 1 and 2: bytes ``start`` to ``end`` of a worker's log file."""

    file: str
    start: Count
    end: Count
    dropped: Count = 0
    """Bytes over the limit that were not kept."""


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """What an attempt has used, with its child processes as far as they have ended."""

    max_rss_bytes: Bytes
    cpu_us: Count


Notes = tuple[str, ...]
"""What is to be said of an attempt beside how it ended, a sentence each: what it left behind, say."""


class Verdict:
    """How an attempt came to its end, as the worker tells it."""

    RETURNED = 0
    RAISED = 1
    STOPPED = 2
    """It was told to stop, and did."""
    TIMED_OUT = 3
    """Its soft limit was raised in it, and ended it."""


class Wish:
    """What a job wants to follow its attempt, by what it raises."""

    NOTHING = 0
    RETRY = 1
    SNOOZE = 2
    CANCEL = 3


class Raised(msgspec.Struct, frozen=True, array_like=True):
    """What decides what follows an attempt that has raised."""

    names: list[str]
    """Of the exception's class and its bases, each with its module."""
    wish: int = Wish.NOTHING
    in_s: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)] | None = None
    """After how long; None: as the job's policy says."""
    why: str = ""


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """One attempt's end, as the worker hands it in.

    Or, with a ``count``, those of so many items of an array, from ``id`` on, each of which has returned
    and has nothing else to tell: then ``value`` has all their values (``jobd.model.stretch``).
    """

    id: JobId
    attempt: Count
    verdict: Annotated[int, msgspec.Meta(ge=0, le=3)]
    value: bytes | None
    error: ErrorInfo | None
    started_at: Count
    duration_us: Count
    log: LogSpan | None = None
    usage: Usage | None = None
    """None: it took less than a millisecond."""
    raised: Raised | None = None
    notes: Notes = ()
    count: Count = 0


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """An attempt that is over and was not the job's last word; one that was snoozed is ``SCHEDULED``."""

    job: int
    number: int
    state: State
    started_at: int
    ended_at: int
    pid: int
    cause: str
    error: ErrorInfo | None
    log: LogSpan | None
    usage: Usage | None = None
    tail: str = ""
    """The last lines of its output, where somebody is shown it; not stored."""
    notes: Notes = ()


class Lease(msgspec.Struct, gc=False):
    """The record that a worker may have started these attempts, (job, attempt) each.

    It is stored in the same commit as the jobs or before they start, and removed
    with the last of their ends.  After a crash of everything it tells what may
    have run from what never ran.
    """

    id: int
    worker: str
    attempts: list[tuple[int, ...]]
    """Of a stretch of an array's items the first one, and how many there are."""
    open: int  # how many have not ended or come back
    stored: bool = False
    run: int = 0  # the number of the order to run them; 0: it has not left yet


class Parcel(msgspec.Struct):
    """Submitted jobs that follow on each other by id and are stored in one row, as they came.

    A job gets a row of its own once it has something of its own to tell: its end, or an
    attempt that came to nothing.  The parcel is deleted when all of its jobs have one.
    """

    first: int
    last: int
    records: list["Record"]
    open: int = 0  # records with jobs that have no row of their own
    stored: bool = False
    lane: str = ""  # of all its jobs (jobd.model.lane); "": they are plain


class Record(msgspec.Struct):
    """One submit, or a slice of a large one, within a parcel."""

    first: int
    uid: bytes
    batch: int  # how many jobs the whole submit has, on its first slice; else 0
    function: str
    created_at: int
    args: list[bytes]
    policy: Policy | None
    parcel: Parcel
    open: int = 0  # jobs that have no row of their own


class Errors(StrEnum):
    """What an array's result is if some of its items have not succeeded."""

    FAIL = "fail"  # there is none: the array has failed
    SKIP = "skip"  # it is without them
    KEEP = "keep"  # in the place of each is what became of it


class ArraySpec(msgspec.Struct, frozen=True, array_like=True):
    """What makes a job an array."""

    items: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    """How many it has."""
    max_fails: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """When more than so many have failed, those that have not started are aborted; None: never."""
    errors: Errors = Errors.FAIL
    slots: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many of them may run at once; 0: any number."""


class Job(msgspec.Struct, gc=False):
    """A job as the scheduler holds it.

    ``attempt`` is the number of the latest attempt that was handed to a worker
    (0: none yet).  A superseded attempt has a lower number, and whatever it
    still sends is refused by it.
    """

    id: int
    uid: bytes
    batch: int  # how many jobs its submit held, on the first of them; else 0
    function: str
    args: bytes
    created_at: int
    policy: Policy | None = None  # None: all as built in
    state: State = State.QUEUED
    attempt: int = 0
    crashes: int = 0
    started_at: int = 0
    ended_at: int = 0
    pid: int = 0  # the worker of the latest attempt
    cause: str = ""
    stop: Event | None = None  # it is being stopped, and this is what happens once it has
    error: ErrorInfo | None = None
    log: LogSpan | None = None
    value: bytes | None = None
    inputs: list[int] | None = None  # the jobs whose results are among its arguments
    after: list[tuple[int, When]] | None = None  # those that it comes after besides
    root: int = 0  # aborted: the job that was to blame
    usage: Usage | None = None  # of the latest attempt
    notes: Notes = ()  # of the latest attempt
    due_at: int = 0  # when the clock does something to it (scheduler.timers); 0: never
    failures: int = 0  # attempts of this round that have failed: the retries that are used up
    lane: str = ""  # in which it waits (jobd.model.lane); "": it is plain
    grace_us: int | None = None  # it is being cancelled with this grace, instead of its own
    array: ArraySpec | None = None  # it is one: its items are what runs
    # What follows lives in memory only.
    row: bool = False  # it has a row of its own, or will with the commit in flight
    stored: State = State.QUEUED  # the state that it is counted under
    record: Record | None = None  # the part of a parcel that holds it, while it has no row
    lease: Lease | None = None  # while it is assigned
    cost_us: float = 0.0  # what it is expected to take, while it is assigned
    watchers: tuple[bytes, ...] | None = None
    earlier: list[Attempt] | None = None  # ends of superseded attempts, not stored yet
    void: bool = False  # its submit failed: whatever it does is not recorded
    is_heir: bool = False  # it takes over the places of one that is before it in the same hands
    stretch: Stretch | None = None  # it stands for these items, this one first, as none has a row
    # Of those: from which to which, what they are to be instead of run, and why.
    doomed: list[tuple[int, int, State, str]] | None = None

    @property
    def count(self) -> int:
        """How many items of an array it stands for; 1: it is a job, or an item, by itself."""
        return 1 if self.stretch is None else self.stretch.count

    def edges(self) -> Edges:
        """Return the jobs that it comes after, and what each has to come to."""
        return joined(self.inputs or (), self.after or ())


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far a running job says that it is."""

    done: float
    total: float | None = None
    text: str = ""


class AtBound(msgspec.Struct, frozen=True, array_like=True):
    """A stream that waits at its bound because nobody consumes it."""

    job: int
    bound: int


class ArrayInfo(msgspec.Struct, array_like=True):
    """How the items of an array are."""

    spec: ArraySpec
    states: dict[str, int]
    """How many are in each state in which some are."""
    first_failure: int = 0
    """The number of the first item that has not succeeded, of those known; 0: none."""


class JobInfo(msgspec.Struct, array_like=True):
    """A job as people see it: what ``show`` and ``ls`` carry."""

    id: int
    uid: bytes
    state: State
    function: str
    created_at: int
    started_at: int
    ended_at: int
    attempt: int
    crashes: int
    pid: int
    cause: str
    error: ErrorInfo | None
    log_bytes: int
    args: bytes | None = None
    earlier: list[Attempt] = []
    queue: str = BUILT_IN.queue
    name: str = ""
    inputs: list[int] = []
    """The jobs whose results are among its arguments."""
    root: int = 0
    """Aborted: the job that was to blame; else 0."""
    progress: Progress | None = None
    policy: Policy | None = None
    """What holds for it; None: all as built in, or not asked for."""
    usage: Usage | None = None
    tail: str = ""
    """The last lines of the latest attempt's output."""
    due_at: int = 0
    """When it starts, if it is scheduled, or when it expires; 0: neither."""
    enforced: dict[str, str] = {}
    """By what each of its limits is enforced."""
    after: list[tuple[int, When]] = []
    """The jobs that it comes after, but for the inputs."""
    at_bound: AtBound | None = None
    """What it waits for until somebody consumes that: itself, or an input, at once or by way of others."""
    waits_for: str = ""
    """What keeps a queued job from being started, in words; "": a free worker, or it was not asked for."""
    notes: Notes = ()
    """Of the latest attempt."""
    array: ArrayInfo | None = None
    """How its items are, if it is an array."""
