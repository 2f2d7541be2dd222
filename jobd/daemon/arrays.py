"""Arrays as clients see them: what has ended of their items, as it ends, and how many may run at once.

What is told is read from the store, which shows only what is durable.  Who asks for items that have not
ended waits here, and is answered after the commit with which one has.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import msgspec

from jobd.daemon.outbox import Clients
from jobd.daemon.progress import ProgressBoard
from jobd.daemon.turns import Handlers
from jobd.daemon.view import View
from jobd.model.errors import UsageError, no_such_job
from jobd.model.item import item_of
from jobd.model.job import Job, Progress
from jobd.model.messages import Accepted, Gather, Pieces, Progressed, SetArray
from jobd.model.states import ENDED
from jobd.scheduler import Scheduler
from jobd.store import Store
from jobd.store.arrays import PIECE_BYTES

TELL_S = 0.1
"""Between two words to one onlooker."""

ANSWER_BYTES = 256 * 1024
"""Of values that are told at once; more by those of one piece at most."""


@dataclass
class ArrayDesk:
    """Tells what has ended of arrays."""

    scheduler: Scheduler
    store: Store
    view: View
    clients: Clients
    progress: ProgressBoard
    told_s: dict[tuple[bytes, int], float] = field(default_factory=dict)
    """When each onlooker was told last how far an array is."""
    waiting: dict[tuple[bytes, int], Gather] = field(default_factory=dict)
    """By client and number of the request, those that wait for an end."""

    @property
    def handlers(self) -> Handlers:
        """What it answers."""
        return {Gather: self._gather, SetArray: self._set}

    def _gather(self, peer: bytes, request: Gather) -> None:
        if not self._answer(peer, request):
            self.waiting[peer, request.rid] = request

    def _answer(self, peer: bytes, request: Gather) -> bool:
        """Answer if there is something to tell; return whether that is so."""
        job = self.store.job(request.id)
        if job is None:
            if self.scheduler.ledger.stored_high < request.id < self.scheduler.ledger.next_id:
                return False  # its submit is not durable yet
            raise no_such_job(request.id)
        if job.array is None:
            raise UsageError(f"job {job.id} is no array", f"see 'jobd show {job.id}'")
        pieces, size = [], 0
        for low, high in request.wanted:
            first, behind = item_of(job.id, low), item_of(job.id, min(high + 1, job.array.items))
            found = self.store.arrays.ended(
                first, behind, ANSWER_BYTES - size, ordered=request.ordered
            )
            pieces += found
            size += sum(len(piece.values) + PIECE_BYTES for piece in found)
            if size >= ANSWER_BYTES or (request.ordered and not found):
                break
        over = job.state >= ENDED and not pieces
        if not (pieces or over) and request.wait:
            return False
        reply = Pieces(request.rid, pieces, over, job.state, job.array.items)
        self.clients.reply(peer, reply, size)
        return True

    def serve(self) -> None:
        """Answer those that wait for what has ended since, and tell those who look on how far it is."""
        news, self.scheduler.arrays.news = self.scheduler.arrays.news, set()
        self._tell_progress(news)
        for key, request in list(self.waiting.items()) if news else ():
            peer = key[0]
            if request.id in news and not self.clients.is_behind(peer):
                if self._answer(peer, request):
                    del self.waiting[key]
            elif request.id in news:
                self.scheduler.arrays.news.add(request.id)

    def _tell_progress(self, news: set[int]) -> None:
        now_s = time.monotonic()
        for peer, numbers in self.progress.onlookers.items():
            for number in numbers & news:
                array = self.scheduler.arrays.live.get(number)
                if array is None or now_s - self.told_s.get((peer, number), 0.0) < TELL_S:
                    continue
                self.told_s[peer, number] = now_s
                failed = array.failed
                text = f"{failed:,} failed" if failed else ""
                done = array.spec.items - array.open
                told = Progressed(number, Progress(done, array.spec.items, text))
                self.clients.reply(peer, told)

    def forget(self, peer: bytes) -> None:
        """This client is gone."""
        self.told_s = {key: at for key, at in self.told_s.items() if key[0] != peer}
        self.waiting = {key: asked for key, asked in self.waiting.items() if key[0] != peer}

    def _set(self, peer: bytes, request: SetArray) -> None:
        """Change how many items of an array may run at once."""
        job = self._array(request.id)
        array = self.scheduler.arrays.live.get(job.id)
        if array is None:
            raise UsageError(f"array {job.id} has ended", "nothing of it will run")
        assert job.array is not None
        spec = msgspec.structs.replace(job.array, slots=request.slots)
        self.scheduler.arrays.change(array, spec)
        self.scheduler.answer(peer, Accepted(request.rid))

    def _array(self, number: int) -> Job:
        job = self.view.job(number)
        if job is None:
            raise no_such_job(number)
        if job.array is None:
            raise UsageError(f"job {number} is no array", "queues have slots: 'jobd queue set'")
        return job
