"""How far running jobs are, as they say themselves, and who is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobd.daemon.outbox import Clients
from jobd.daemon.view import View
from jobd.model.job import Progress
from jobd.model.messages import Progressed
from jobd.model.orders import Progressing
from jobd.pool.scoreboard import Now


@dataclass
class ProgressBoard:
    """The latest word of each worker; lost with the daemon."""

    view: View
    clients: Clients
    latest: dict[str, Progressing] = field(default_factory=dict)
    onlookers: dict[bytes, set[int]] = field(default_factory=dict)
    """Jobs whose progress a client wants to be told."""

    def heard(self, uid: str, report: Progressing) -> None:
        """A job says how far it is; no longer shown once its attempt is over."""
        self.latest[uid] = report
        for peer, numbers in self.onlookers.items():
            if report.id in numbers:
                self.clients.reply(peer, Progressed(report.id, report.progress))

    def look_on(self, peer: bytes, numbers: list[int]) -> None:
        """Tell a client of the progress of jobs from now on, and how far they are."""
        watched = self.onlookers.setdefault(peer, set())
        watched.update(numbers)
        for number, (uid, now) in self.view.running().items():
            progress = self.of(uid, now) if number in watched else None
            if progress is not None:
                self.clients.reply(peer, Progressed(number, progress))

    def of(self, uid: str, now: Now) -> Progress | None:
        """Return how far the attempt is that a worker is at, if it has said so."""
        report = self.latest.get(uid)
        if report is None or (report.id, report.attempt) != (now.job, now.attempt):
            return None
        return report.progress

    def forget(self, peer: bytes) -> None:
        """This client is gone."""
        self.onlookers.pop(peer, None)

    def forget_worker(self, uid: str) -> None:
        """This worker is dead."""
        self.latest.pop(uid, None)
