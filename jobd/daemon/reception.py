"""What clients ask of the daemon itself: who it is, how it is, whether it is there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from jobd._version import __version__
from jobd.config.settings import Settings
from jobd.daemon.outbox import Clients
from jobd.daemon.remote import Remote
from jobd.daemon.turns import Handlers
from jobd.daemon.view import View
from jobd.model.blob import Place
from jobd.model.errors import ProtocolMismatch
from jobd.model.messages import (
    PROTOCOL,
    Hello,
    Ping,
    Pong,
    Status,
    StatusInfo,
    Welcome,
    WorkerInfo,
)
from jobd.model.states import NAMES, State
from jobd.pool import linux
from jobd.pool.supervisor import Pool
from jobd.scheduler import Phase, Scheduler, Worker


@dataclass(frozen=True)
class ReceptionDesk:
    """Welcomes clients; ``trouble`` tells what does not work at the moment."""

    settings: Settings
    scheduler: Scheduler
    pool: Pool
    view: View
    place: Place
    clients: Clients
    remote: Remote | None
    started_at_us: int
    trouble: Callable[[], list[str]]

    @property
    def handlers(self) -> Handlers:
        """What it answers."""
        return {Hello: self._hello, Status: self._status, Ping: self._ping}

    def _hello(self, peer: bytes, request: Hello) -> None:
        if not request.low <= PROTOCOL <= request.high:
            raise ProtocolMismatch(
                f"the client ({request.version}) speaks protocol {request.low} to {request.high}, "
                f"the daemon ({__version__}) speaks {PROTOCOL}",
                "install the same version of jobd for both",
            )
        limits = self.settings.limits
        by_wire = request.by_wire or (self.remote is not None and self.remote.is_peer(peer))
        if by_wire:
            self.clients.by_wire.add(peer)
        reply = Welcome(
            request.rid,
            PROTOCOL,
            __version__,
            os.getpid(),
            self.scheduler.boot,
            self.settings.state_dir,
            self.scheduler.options.workers,
            limits.max_payload_bytes,
            limits.max_message_bytes,
            None if by_wire else self.place,
            "{}.{}".format(*sys.version_info),
        )
        self.clients.reply(peer, reply)

    def _ping(self, peer: bytes, request: Ping) -> None:
        self.clients.reply(peer, Pong(request.rid, self.clients.sent(peer)))

    def _status(self, peer: bytes, request: Status) -> None:
        settings, scheduler = self.settings, self.scheduler
        running = len(self.view.running())
        jobs = {NAMES[state]: scheduler.ledger.counts[state] for state in State}
        jobs["running"] = running
        jobs["queued"] = max(0, jobs["queued"] - running)
        reply = StatusInfo(
            request.rid,
            __version__,
            os.getpid(),
            settings.state_dir,
            settings.socket,
            settings.store.durability,
            self.started_at_us,
            [self._info(worker) for worker in scheduler.workers.values()],
            jobs,
            linux.rss_bytes(os.getpid()),
            self.trouble(),
        )
        self.clients.reply(peer, reply)

    def _info(self, worker: Worker) -> WorkerInfo:
        job = self.pool.now(worker.uid).job
        if worker.waiting is not None:
            state = "waiting"
        elif job:
            state = "busy"
        else:
            state = "idle" if worker.phase is Phase.READY else worker.phase.name.lower()
        process = self.pool.processes.get(worker.uid)
        pid = worker.pid or (process.pid if process else 0)  # it has not said so yet
        return WorkerInfo(pid, state, job, linux.rss_bytes(pid) if pid else 0)
