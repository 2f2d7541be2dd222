"""What a client knows, without any I/O: frames come in and go out, and somebody else waits.

A driver (``sync``, ``aio``) has a connection, a way to wait and a clock; everything
else is here, once.

Every submit has a key.  When the connection breaks, whatever was not answered is
sent again with the same key, and the daemon answers with the same ids.  Ends of
jobs are pushed by the daemon.  The count of frames in the answer to a ping tells
whether the daemon had to drop something; then it is asked again for what is missing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any, Generic, TypeVar

from jobd.client.deferred import DeferredBase
from jobd.client.files import Files
from jobd.client.pythons import HERE, refuse_code
from jobd.client.waiting import Farewell, Pending, Submission
from jobd.model.errors import JobdError, UsageError
from jobd.model.job import PUT, AtBound, Progress
from jobd.model.messages import (
    Apply,
    Ended,
    Ping,
    Pong,
    Progressed,
    Put,
    Stuck,
    Submit,
    Submitted,
    Watch,
    Welcome,
    decode_replies,
    encode,
)

D = TypeVar("D", bound=DeferredBase[Any])

PING_S = 5.0
ACKNOWLEDGE_BYTES = 4 * 1024 * 1024
"""After so much the daemon is asked whether it had to drop something."""


Onlooker = Callable[[int, Progress], object]
OnStuck = Callable[[int, AtBound], object]
"""Called with a job's id and how far it is, by the thread that reads; may not use the client."""


class Core(Generic[D]):
    """The client's half of the protocol; ``kind`` is the class of its deferred results.

    It does not know the client: a cycle of references would keep one that is dropped.
    Nothing here may be called by two threads at once, but ``next_rid``.
    """

    def __init__(self, kind: type[D]) -> None:
        self._kind = kind
        self.next_rid = count(1).__next__
        self.pending: dict[int, Pending] = {}
        self.submits = 0
        self.files = Files()
        self._failed: list[Submission] = []
        self._live: dict[int, weakref.ref[D]] = {}
        self._twins: dict[int, list[weakref.ref[D]]] = {}
        """More of them for the same jobs: submits with one key may be answered with one job."""
        self._received = 0
        self._unacknowledged = 0
        self.welcome: Welcome
        self._is_foreign = False
        """The workers have another version of Python."""
        self.farewell: Farewell | None = None
        self.onlooker: Onlooker | None = None
        self.on_stuck: OnStuck | None = None
        """Who wants to be told how far the jobs are that are waited for."""

    # -- asking --

    def submit(self, request: Submit | Put | Apply) -> Submission:
        """Give a submit its numbers and register it; its frame is then to be sent, in this order.

        Its deferred results are made behind that (``promise``): the daemon need not wait for them.

        Raises:
            UsageError: it makes too large a message, or has code for another Python than the workers'.
        """
        request.rid = self.next_rid()
        request.uid = request.uid or self.files.next_key()
        if self._is_foreign:
            self.refuse_foreign(request)
        frame = encode([request])
        size, function = 1, PUT
        if isinstance(request, Submit):
            size, function = len(request.args), request.function
        elif isinstance(request, Apply):
            size, function = len(request.jobs), "(a graph)"
        if len(frame) > self.welcome.max_message_bytes:
            self.files.settle(request.uid, refused=True)
            raise UsageError(
                f"these {size} calls make a message of {len(frame)} bytes, "
                f"over the limit of {self.welcome.max_message_bytes}",
                "submit them in several parts, or pass file names",
            )
        self.submits += 1
        submission = Submission(request.rid, frame, request.uid, function, size, request.watch)
        self.pending[request.rid] = submission
        return submission

    def refuse_foreign(self, request: Submit | Put | Apply) -> None:
        """Raise UsageError if a submit has code that the workers' Python cannot run."""
        if not self._is_foreign:
            return
        try:
            refuse_code(request, self.welcome.python, self.files.blobs)
        except UsageError:
            self.files.settle(request.uid, refused=True)
            raise

    def promise(self, client: object, submission: Submission) -> list[D]:
        """Make the deferred results of a submit, once; the list itself is not the caller's."""
        kind, watched = self._kind, submission.watch
        if submission.size == 1:
            deferreds = [kind(client, submission, 0, 0, watched)]
        else:
            deferreds = [
                kind(client, submission, index, 0, watched) for index in range(submission.size)
            ]
        if submission.first:
            self._number(submission.first, deferreds)
        else:
            submission.deferreds = deferreds
        return deferreds

    def watch_again(self, numbers: Iterable[int]) -> bytes:
        """Return the frame that asks for the ends of these jobs, over or not; it has no answer."""
        return encode([Watch(0, [*numbers], self.onlooker is not None)])

    def submissions(self) -> list[Submission]:
        """Return the submits that are not answered."""
        return [p for p in list(self.pending.values()) if isinstance(p, Submission)]

    def take_failure(self) -> JobdError | None:
        """Return, once, why a submit was refused that nobody has looked at."""
        unseen = [s.error for s in self._failed if not s.seen]
        self._failed.clear()
        return unseen[0] if unseen else None

    def attach(self, client: object, number: int) -> D:
        """Return a deferred result of a job that anybody has submitted.

        Raises:
            UsageError: that is no id.
        """
        # The daemon drops what makes no sense to it: it would be sent again and again.
        given: object = number
        if not isinstance(given, int) or not 0 < given < 1 << 63:
            raise UsageError(f"{number!r:.80} is no id of a job", "give a number, such as 42")
        known = self._live.get(number)
        deferred = known() if known else None
        if deferred is None:
            deferred = self._kind(client, None, 0, number)
            self._live[number] = weakref.ref(deferred, self._drop(number))
        return deferred

    def ping(self) -> bytes:
        """Return the frame that tells what was received, and asks whether something was dropped."""
        self._unacknowledged = 0
        return encode([Ping(0, self._received)])

    @property
    def owes_ping(self) -> bool:
        """Whether so much was received that the daemon should be asked."""
        return self._unacknowledged > ACKNOWLEDGE_BYTES

    # -- the connection --

    def begin(self, pending: Pending) -> None:
        """Register a request, which is then to be sent; one that has no answer is not."""
        if not pending.over:
            self.pending[pending.rid] = pending

    def hung_up(self) -> bool:
        """Take in that the daemon is gone; return whether that was asked for."""
        if self.farewell is None:
            return False
        self.farewell.over = True
        self.farewell.fire()
        return True

    def connected(self, welcome: Welcome) -> None:
        """Begin to count what comes over a new connection."""
        self.welcome = welcome
        self._is_foreign = welcome.python not in ("", HERE)
        self.files.connected(welcome.place)
        self._received = 1  # the frame with the welcome
        self._unacknowledged = 0

    def repeat(self) -> Iterator[bytes]:
        """Yield frames to send again: what was not answered, submits with their old keys, and watches."""
        for _, pending in sorted(self.pending.items()):
            pending.replies.clear()
            yield pending.again()
        live = [(n, ref()) for n, ref in list(self._live.items())]
        live += [(n, ref()) for n, refs in list(self._twins.items()) for ref in refs]
        waiting = {n: None for n, d in live if d is not None and d._watched and d._ended is None}  # noqa: SLF001  # ours
        if waiting:
            yield self.watch_again(waiting)

    def take(self, frame: bytes) -> Iterable[bytes]:
        """Take in a frame; return what is to be sent because of it: usually nothing."""
        self._received += 1
        self._unacknowledged += len(frame)
        again: Iterable[bytes] = ()
        live = self._live
        for reply in decode_replies(frame):
            if type(reply) is Ended:
                ref = live.pop(reply.id, None)
                deferred = ref() if ref else None
                if deferred is not None:
                    deferred._ended = reply  # noqa: SLF001  # ours
                    if deferred._waiters is not None:  # noqa: SLF001  # ours
                        deferred.fire()
                if self._twins:
                    self._tell_twins(reply)
            elif type(reply) is Submitted:
                self._submitted(reply)
            else:
                if type(reply) is Pong and reply.sent != self._received:
                    self._received = reply.sent
                    again = self.repeat()
                self._answered(reply)
        return again

    def _submitted(self, reply: Submitted) -> None:
        submission = self.pending.pop(reply.rid, None)
        if not isinstance(submission, Submission):
            return
        submission.over = True
        self.files.settle(submission.uid, refused=reply.existed)
        if reply.existed:
            submission.existed = True
        submission.first = reply.first
        self._number(reply.first, submission.deferreds)
        submission.deferreds = ()
        submission.frame = b""
        if submission._waiters is not None:  # noqa: SLF001  # ours
            submission.fire()

    def _number(self, first: int, deferreds: Sequence[DeferredBase[Any]]) -> None:
        """Give deferred results their ids, by which their ends are told."""
        live = self._live
        if first in live:  # the owner of a key may hear of its id after those that it stands for
            self._twins.setdefault(first, []).append(live[first])
        for deferred in deferreds:
            number = deferred._id = first + deferred._index  # noqa: SLF001  # ours
            live[number] = weakref.ref(deferred)  # type: ignore[arg-type]  # of our kind

    def _tell_twins(self, ended: Ended) -> None:
        for ref in self._twins.pop(ended.id, ()):
            deferred = ref()
            if deferred is not None:
                deferred._ended = ended  # noqa: SLF001  # ours
                deferred.fire()

    def _answered(self, reply: Any) -> None:
        if type(reply) in (Progressed, Stuck):
            self._seen(reply)
            return
        pending = self.pending.get(reply.rid)
        if pending is None:
            return
        pending.take(reply)
        if pending.over:
            del self.pending[reply.rid]
            pending.fire()
            if isinstance(pending, Submission):
                self.files.settle(pending.uid, refused=True)
                self._failed.append(pending)
                for deferred in pending.deferreds:
                    deferred.fire()

    def _seen(self, reply: Progressed | Stuck) -> None:
        """Tell whoever looks on while he waits."""
        if isinstance(reply, Stuck):
            if self.on_stuck is not None:
                self.on_stuck(reply.id, reply.at_bound)
        elif self.onlooker is not None:
            self.onlooker(reply.id, reply.progress)

    def _drop(self, number: int) -> Callable[[object], None]:
        """Return what forgets an attached deferred result once nobody holds it."""
        live = self._live

        def drop(ref: object) -> None:
            if live.get(number) is ref:
                del live[number]

        return drop
