"""Following a stream: what has come of it and was not taken yet, and what the daemon is told.

The daemon pushes items ahead of their consumption, up to ``CREDIT`` of them.  An item
counts as consumed when the one after it is asked for.  That is told once as many have
been consumed as are left here, so that a producer with a small bound never waits for
long, and one with a large bound is not told of every item.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from jobd import payload
from jobd.client.asking import Steps, identify
from jobd.client.deferred import DeferredBase, error_of
from jobd.client.verbs import AnyCore, end
from jobd.client.waiting import Pending
from jobd.model.errors import NotFound
from jobd.model.messages import Ended, Follow, Items, Message, More, Unfollow, encode
from jobd.model.states import State

CREDIT = 256
"""Items that may be on their way, or wait here."""


class Following(Pending):
    """A request that is answered again and again, until the stream is over."""

    def __init__(self, rid: int, number: int) -> None:
        """Begin with the oldest item that is kept."""
        super().__init__(rid, b"", patient=True, awaited=[number])
        self.sent = False
        self.number = number
        self.inbox: deque[bytes] = deque()
        self.attempt = 0
        self.received = 0
        self.taken = 0
        self.consumed = 0
        self.told = 0
        """How far the daemon has been told that items were consumed."""
        self.frame = self.again()

    def again(self) -> bytes:
        """Return the frame that asks for what has not been received."""
        seen = self.attempt, self.received, self.consumed
        return encode([Follow(self.rid, self.number, *seen, CREDIT)])

    def done(self) -> bool:
        """Whether there is something to take, or the end."""
        return bool(self.inbox) or self.over

    def take(self, reply: Message) -> None:
        """Take in items; what was sent twice, over two connections, counts once."""
        if not isinstance(reply, Items):
            super().take(reply)
            return
        skip = 0
        if self.received:
            skip = self.received + 1 - reply.first
            if skip < 0:
                self.error = NotFound(
                    f"items {self.received + 1} to {reply.first - 1} of job {self.number} are gone",
                    "the daemon was restarted, and another consumer was faster",
                )
                self.over = True
        elif reply.values:
            self.taken = self.consumed = self.told = self.received = reply.first - 1
        self.attempt = reply.attempt
        fresh = reply.values[skip:]
        self.received += len(fresh)
        self.inbox += fresh
        self.over = self.over or reply.over
        self.fire()


class Notice(Pending):
    """A message without an answer."""

    def __init__(self, message: Message) -> None:
        """Prepare it."""
        super().__init__(0, encode([message]))
        self.over = True


class StreamReader:
    """One pass over the items of a job; ``missed`` were consumed and deleted before it came."""

    def __init__(self, core: AnyCore, deferred: DeferredBase[Any]) -> None:
        """Prepare; the first ``read`` begins."""
        self.missed = 0
        self.ended: Ended | None = None
        """How the job ended, once the stream is over."""
        self._core = core
        self._deferred = deferred
        self._following: Following | None = None
        self._is_first = True

    def read(self) -> Steps[bytes | None]:
        """Return the next item, encoded; None: there is no more, ``ended`` tells why.

        Raises:
            NotFound: there is no such job.
            UsageError: it is no stream.
        """
        if self.ended is not None:
            return None
        following = self._following
        if following is None:
            number = yield from identify(self._deferred)
            following = self._following = Following(self._core.next_rid(), number)
            yield following
            following.sent = True
        following.consumed = following.taken
        unsaid = following.consumed - following.told
        if unsaid and unsaid >= len(following.inbox) and not following.over:
            following.told = following.consumed
            yield Notice(More(following.rid, following.number, following.consumed, CREDIT))
        if not following.done():
            yield following
        if following.inbox:
            if self._is_first:
                self._is_first, self.missed = False, following.taken
            following.taken += 1
            return following.inbox.popleft()
        if following.error is not None:
            raise following.error
        self.ended = yield from end(self._core, self._deferred)
        return None

    def decode(self, data: bytes) -> Any:
        """Return an item as it was produced.

        Raises:
            PayloadLost, PayloadUnreadable: it is a file, which is gone or damaged.
        """
        return payload.decode(data, self._core.files.blobs)

    def check(self) -> None:
        """Raise how the job ended, if it has not succeeded.

        Raises:
            JobError: it failed, crashed, or was cancelled or aborted.
        """
        if self.ended is not None and self.ended.state is not State.SUCCEEDED:
            raise error_of(self.ended)

    def leave(self, *, close: bool) -> bytes | None:
        """Return the frame that tells the daemon that we want no more, if it has to be told.

        With ``close`` a stream that nobody else follows is ended.
        """
        following, self._following = self._following, None
        if following is None or following.over:
            return None
        self._core.pending.pop(following.rid, None)
        return encode([Unfollow(following.rid, following.number, close)])
