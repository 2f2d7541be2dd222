"""The messages between daemon and worker: ``Order`` goes to a worker, ``Report`` comes from one."""

import msgspec

from jobd.model.job import Count, JobId, Outcome, Progress
from jobd.model.messages import Message
from jobd.model.options import BUILT_IN, Policy


class Limits(msgspec.Struct, frozen=True, array_like=True):
    """What the worker has to see to while it runs an attempt."""

    soft_timeout_s: float = 0.0
    """After that ``TimeLimitExceeded`` is raised in it; 0: never."""
    mem_bytes: int = 0
    cpus: float = 0.0
    nproc: int = 0
    nice: int = 0

    @property
    def restricts(self) -> bool:
        """Whether there is more to it than time: then the worker is not the same afterwards."""
        return bool(self.mem_bytes or self.cpus or self.nproc or self.nice)


class Surroundings(msgspec.Struct, frozen=True, array_like=True):
    """What an attempt finds around it that is not as its worker has it; "" and empty: nothing."""

    env: bytes = b""
    """As ``jobd.model.environment`` encodes it; in an order its digest, and the order has the rest."""
    inherit_env: list[str] = []
    cwd: str = ""
    argv: list[str] = []

    @classmethod
    def of(cls, policy: Policy) -> "Surroundings | None":
        """Return what a policy says of them; None: nothing."""
        if not (policy.env or policy.inherit_env or policy.cwd or policy.argv):
            return None
        return cls(policy.env, policy.inherit_env, policy.cwd, policy.argv)


class Task(msgspec.Struct, array_like=True, gc=False):
    """An attempt to run."""

    id: int
    attempt: int
    function: str
    args: bytes
    inputs: list[int | bytes] = []
    """The encoded values of its inputs; the scheduler leaves their ids, which the loop replaces."""
    queue: str = BUILT_IN.queue
    limits: Limits | None = None
    surroundings: Surroundings | None = None
    count: int = 0
    """With one: so many items of an array, from ``id`` on, whose calls are in the chunk in ``args``, ..."""
    at: int = 0
    """... from this place on."""


class Run(Message, tag=1):
    """Jobs to run in this order; ignored by a worker that has turned to another daemon than ``boot``."""

    boot: str
    tasks: list[Task]
    number: int = 0
    """Counts the orders to run that this worker was sent."""
    environments: dict[bytes, bytes] = msgspec.field(default_factory=dict)
    """The variables of these jobs, each set of them once, by its digest."""


class Recorded(Message, tag=2):
    """These frames of outcomes are durable and need not be kept any longer."""

    seqs: list[int]


class GiveBack(Message, tag=3):
    """Send off all outcomes, and give back every job of the orders up to ``upto`` that has not started.

    A busy worker may not have read them all yet: those it forgets when it does.
    """

    upto: int


class StopJob(Message, tag=4):
    """End this attempt if it is the one that runs, by SIGTERM to the worker's process group."""

    id: int
    attempt: int


class Retire(Message, tag=5):
    """End as soon as nothing is in hand."""


class Adopt(Message, tag=6):
    """A new daemon asks a worker of a dead one to hand over what it has, and then to retire."""

    boot: str


class Check(Message, tag=7):
    """Resolve the reference and bind each shape to its signature (for the checker process)."""

    number: int
    function: str
    shapes: list[tuple[int, tuple[str, ...]]]
    surroundings: Surroundings | None = None
    """In which the module is imported, with its variables."""


class Lent(Message, tag=8):
    """The answer to ``Waiting``: the slot is lent; or it is not, and the ``error`` says why."""

    id: int
    error: str = ""
    message: str = ""
    hint: str = ""


class Grant(Message, tag=9):
    """A stream may produce up to item number ``credit``; items up to ``recorded`` are durable."""

    id: int
    attempt: int
    credit: int
    recorded: int


class CloseStream(Message, tag=10):
    """Nobody consumes this stream any more: close the generator as soon as it yields."""

    id: int
    attempt: int


Order = Run | Recorded | GiveBack | StopJob | Retire | Adopt | Check | Grant | CloseStream | Lent


# -- worker to daemon ---------------------------------------------------------


class Ready(Message, tag=1):
    """A new worker has connected."""

    pid: Count
    boot: str


class Outcomes(Message, tag=2):
    """What came of attempts; numbered by ``seq``, so that it can be acknowledged."""

    seq: Count
    outcomes: list[Outcome]


class GivenBack(Message, tag=3):
    """These attempts (id, attempt) were not started and never will be.

    Nor will those of the orders to run from number ``read`` + 1 to ``upto``, which the
    worker has not read yet.
    """

    attempts: list[tuple[JobId, Count]]
    read: Count = 0
    upto: Count = 0


class Alive(Message, tag=4):
    """Sent when the control thread has connected, so that a daemon learns of a worker it did not start."""

    pid: Count
    boot: str


class Handover(Message, tag=5):
    """The answer to ``Adopt``: the attempt that runs (or (0, 0)); everything else is sent or dropped."""

    pid: Count
    running: tuple[JobId, Count]
    for_us: Count = 0
    """How long it has been running."""


class Checked(Message, tag=6):
    """``message`` is empty when all is well; ``error`` is the name of what is wrong (jobd.model.errors)."""

    number: Count
    message: str
    hint: str
    error: str = ""


class Waiting(Message, tag=7):
    """A job waits for others, and would lend its slot meanwhile; or (not ``waits``) it goes on.

    ``awaited`` has ids of jobs each of which it waits for, as far as they are known, some of
    them if they are many.
    """

    id: JobId
    attempt: Count
    waits: bool
    awaited: list[JobId]


class Progressing(Message, tag=8):
    """How far a job is."""

    id: JobId
    attempt: Count
    progress: Progress


class Produced(Message, tag=9):
    """Items of a stream, from number ``first`` (they count from 1); none: it has just begun.

    ``number`` counts the frame among those of outcomes, so that a death is judged after it.
    The worker keeps them until a ``Grant`` says that they are durable.
    """

    number: Count
    id: JobId
    attempt: Count
    first: Count
    values: list[bytes]


class Leaving(Message, tag=10):
    """This worker begins nothing more, and ends once all that it has handed in is durable.

    These attempts (id, attempt), which it had been handed, were not started and never will be.
    """

    attempts: list[tuple[JobId, Count]]


Report = (
    Ready
    | Outcomes
    | GivenBack
    | Alive
    | Handover
    | Checked
    | Waiting
    | Progressing
    | Produced
    | Leaving
)


decode_orders = msgspec.msgpack.Decoder(list[Order]).decode
decode_reports = msgspec.msgpack.Decoder(list[Report]).decode
