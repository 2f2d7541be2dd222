"""What jobs write, as clients read it: a piece for each request, and some wait for more."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from jobd.daemon import output
from jobd.daemon.outbox import Clients
from jobd.daemon.turns import Handlers
from jobd.daemon.view import View
from jobd.model.errors import JobdError, StoreFailed, UsageError, no_such_job
from jobd.model.job import Job
from jobd.model.messages import LogData, Logs, refusal
from jobd.model.states import ENDED, State
from jobd.pool.scoreboard import Now
from jobd.pool.supervisor import Pool
from jobd.scheduler import Scheduler
from jobd.store import Store

LOG_CHUNK = 256 * 1024

MOST_FOLLOWED = 1_000
"""Requests of one client that wait for more output."""


class Follower(msgspec.Struct):
    """A client that waits for more output."""

    peer: bytes
    request: Logs


@dataclass
class LogDesk:
    """Serves output; attempts that have written more than ``max_output_bytes`` are cut there."""

    scheduler: Scheduler
    store: Store
    pool: Pool
    view: View
    clients: Clients
    max_output_bytes: int
    followers: list[Follower] = field(default_factory=list)

    @property
    def handlers(self) -> Handlers:
        """What it answers."""
        return {Logs: self._logs}

    def forget(self, peer: bytes) -> None:
        """The client is gone: it waits for no more output."""
        self.followers = [f for f in self.followers if f.peer != peer]

    def punch(self) -> None:
        """Bound what running attempts take on the disk."""
        directory = self.pool.settings.logs_dir
        for worker in self.scheduler.workers.values():
            now = self.pool.now(worker.uid)
            if now.job:
                output.punch(directory, worker.uid, now, self.max_output_bytes)

    def follow(self) -> None:
        """Answer the followers for whom there is something new."""
        self.followers = [f for f in self.followers if not self._try_logs_quietly(f)]

    def _logs(self, peer: bytes, request: Logs) -> None:
        if self._try_logs(peer, request):
            return
        if sum(follower.peer == peer for follower in self.followers) >= MOST_FOLLOWED:
            raise UsageError(
                f"{MOST_FOLLOWED} requests of this client wait for output already",
                "wait for one of them to be answered",
            )
        self.followers.append(Follower(peer, request))

    def _try_logs_quietly(self, follower: Follower) -> bool:
        try:
            return self._try_logs(follower.peer, follower.request)
        except StoreFailed:
            raise
        except JobdError as error:
            self.clients.reply(follower.peer, refusal(follower.request.rid, error))
            return True

    def _try_logs(self, peer: bytes, request: Logs) -> bool:
        """Answer if there is output, or will be no more; else return False."""
        number, directory = request.id, self.pool.settings.logs_dir
        job = self.store.job(number)
        if job is None:
            raise no_such_job(number)
        limit = max(1, min(request.limit, LOG_CHUNK))
        live = self.scheduler.window.jobs.get(number)
        running = self.view.running().get(number)
        attempt = request.attempt or (live or job).attempt
        if not request.attempt and live is not None and self.scheduler.workforce.is_behind(live):
            attempt -= not running  # the latest one has not begun
        if running and running[1].attempt == attempt:
            piece = self._read_running(*running, request.offset, limit)
        elif live is not None and _is_open(live, attempt):
            piece = output.Piece(b"", end=False)
        else:
            attempts = {a.number: a.log for a in self.store.attempts(number)}
            span = output.span_of(job, attempts, attempt)
            piece = output.read(directory, span, request.offset, limit)
        if request.follow and not piece.data and not piece.end:
            return False
        over = job.state >= ENDED and attempt >= job.attempt
        reply = LogData(
            request.rid, attempt, piece.data, request.offset, piece.end, over, piece.dropped
        )
        self.clients.reply(peer, reply, len(piece.data))
        return True

    def _read_running(self, uid: str, now: Now, offset: int, limit: int) -> output.Piece:
        """Return what a running attempt has written so far, of the part that will be kept."""
        most = self.max_output_bytes - offset
        piece = output.read_running(
            self.pool.settings.logs_dir, uid, now, offset, max(0, min(limit, most))
        )
        if self.pool.now(uid) != now:
            return output.Piece(b"", end=False)  # it has just ended: this may be the next job's
        return piece


def _is_open(job: Job, attempt: int) -> bool:
    """Whether an attempt is yet to come, or it runs, or its end is not durable."""
    if any(past.number == attempt for past in job.earlier or ()):
        return True
    if attempt == job.attempt > 0:
        return job.state not in (State.HELD, State.SCHEDULED, State.QUEUED)
    return attempt >= job.attempt
