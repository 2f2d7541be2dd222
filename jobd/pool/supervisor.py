"""The daemon's side of the pool: starts the zygote, has workers forked, sees them die.

A death is seen on the worker's pidfd, in microseconds.  It is *judged* only when
the zygote has told how the worker ended, and when all outcomes that the worker
had sent have been taken in (the scoreboard says how many): a job that is
finished must not run again because its worker died right after it.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from jobd.pool import cgroup, linux
from jobd.pool.deaths import NOTHING, Dead, Inquest, how_it_ended
from jobd.pool.process import Process, open_living
from jobd.pool.protocol import (
    Exited,
    Failed,
    NotSpawned,
    Settings,
    Spawn,
    Spawned,
    Warned,
    decode_word,
)
from jobd.pool.scoreboard import Now, Scoreboard
from jobd.pool.unheard import Unheard, insist
from jobd.pool.zygotes import ZygoteProcess

log = logging.getLogger("jobd")

NO_FILES = "no file descriptors are left to watch a worker with: raise LimitNOFILE, or 'ulimit -n'"


class Pool:
    """All worker processes of one daemon."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.processes: dict[str, Process] = {}
        self._trouble = ""
        self._zygote: ZygoteProcess | None = None
        self._old: list[ZygoteProcess] = []
        """Those that fork no more."""
        self.warnings: list[str] = []
        """What the preload modules of the present zygote have done; a new one may do better."""
        self._checkers: set[str] = set()
        self._lost_checkers: list[tuple[str, str]] = []
        self._not_spawned: list[str] = []
        self.unheard = Unheard()
        self._inquest = Inquest(settings)
        self._is_heir = False
        """A zygote has died before us, and what were its children are ours."""

    # -- starting --

    def start(self) -> bool:
        """Start a zygote; one that is there already forks no more and ends with its workers.

        Returns whether that could be done; if not, all is as before, and ``trouble`` says why.
        """
        linux.become_subreaper()
        try:
            fresh = ZygoteProcess(self.settings, time.monotonic())
        except OSError as error:
            self._trouble = f"the zygote cannot be started: {error.strerror}"
            log.warning("%s", self._trouble)
            return False
        if self._zygote is not None:
            self._zygote.retire()
            self._old.append(self._zygote)
        self._zygote = fresh
        self.warnings = []
        return True

    def spawn(self, uid: str, *, checker: bool = False) -> None:
        """Have a worker forked; it reports through its socket."""
        if checker:
            self._checkers.add(uid)
        if self._zygote is None and not self.start():
            self._refused(uid, self._trouble)
            return
        assert self._zygote is not None
        try:
            self._zygote.ask(Spawn(uid, checker), time.monotonic())
        except OSError as error:
            self._refused(uid, f"the zygote does not answer: {error.strerror}")

    @property
    def trouble(self) -> str:
        """A sentence about what does not work at the moment, or ""."""
        slow = self._zygote.trouble(time.monotonic()) if self._zygote else ""
        return slow or self._trouble

    def adopt(self, uid: str) -> Process | None:
        """Take over a worker of a dead daemon, if it lives.

        Raises:
            ConfigError: there are no files to do so with; to take it for dead would run its job twice.
        """
        found = open_living(self.board_path(uid))
        if found is None:
            return None
        board, pidfd = found
        process = Process(uid, board.pid, pidfd, board)
        self.processes[uid] = process
        return process

    def post_mortem(self, uid: str) -> Dead:
        """Tell what can be known of a worker that died while no daemon watched; raises as ``adopt``."""
        return self._inquest.unwatched(uid, self.board_path(uid))

    # -- what the loop polls --

    def fds(self) -> Iterator[int]:
        """Yield the file descriptors to be polled for reading."""
        for zygote in self._zygotes():
            yield zygote.channel.fileno()
        for process in self.processes.values():
            if not process.seen_dead_at:
                yield process.pidfd

    def wake_at_s(self) -> float | None:
        """Return when ``look`` should be called next, on the monotonic clock, or None."""
        times = [p.seen_dead_at + p.patience_s for p in self.processes.values() if p.seen_dead_at]
        insist_at = self.unheard.wake_at_s()
        return min(times if insist_at is None else [*times, insist_at], default=None)

    def look(self) -> None:
        """Take in what zygotes say and which pidfds have fired; called when one of ``fds`` is readable."""
        self._hear_zygotes()
        now = time.monotonic()
        alive = {p.pidfd: p for p in self.processes.values() if not p.seen_dead_at}
        poll = select.poll()
        for fd in alive:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(0):
            alive[fd].seen_dead_at = now

    def judge(self, received: dict[str, int]) -> list[Dead]:
        """Return the deaths that are certain; ``received`` is the last outcome frame of each worker."""
        judged: list[Dead] = []
        dead = [p for p in self.processes.values() if p.seen_dead_at]
        now = time.monotonic() if dead else 0.0
        for process in dead:
            late = now - process.seen_dead_at > process.patience_s
            if late and process.zygote is not None and process.exited is None:
                owes = f"the zygote (pid {process.zygote.pid}) did not tell of a worker's end"
                self._replace(process.zygote, owes)  # then we are told
            board = self._board_of(process)
            told = process.is_told
            all_in = board is None or received.get(process.uid, 0) >= board.seq
            if late or (told and all_in):
                judged.append(self._judge(process, board))
        judged += [
            Dead(uid, f"it could not be started: {self._trouble}", NOTHING)
            for uid in self._not_spawned
        ]
        self._not_spawned.clear()
        return judged

    def take_lost_checkers(self) -> list[tuple[str, str]]:
        """Return the checkers that have ended, as (uid, how)."""
        lost, self._lost_checkers = self._lost_checkers, []
        return lost

    # -- looking and ending --

    def takes_on(self, uid: str) -> bool:
        """Whether a worker that is ready can be looked at; else it is ended, before it has a job."""
        if self.sees(uid):
            return True
        self._trouble = NO_FILES
        log.warning("a worker is ended again: %s", NO_FILES)
        self.kill(uid, 0, 0)
        return False

    def sees(self, uid: str) -> bool:
        """Whether a worker's scoreboard can be read: else nobody knows what it is at."""
        process = self.processes.get(uid)
        return process is None or self._board_of(process) is not None

    def now(self, uid: str) -> Now:
        """Return what a worker runs at this moment."""
        process = self.processes.get(uid)
        board = self._board_of(process) if process else None
        return board.now if board else NOTHING

    def last(self, uid: str) -> Now:
        """Return what a worker runs, or has run last."""
        process = self.processes.get(uid)
        board = self._board_of(process) if process else None
        return board.last if board else NOTHING

    def sweep_leaves(self) -> None:
        """End what a dead daemon's workers have left in their cgroups; those that live are adopted."""
        if self.settings.cgroup is not None:
            self._inquest.leaves = cgroup.sweep(self.settings.cgroup, self.processes)

    def sweep(self) -> None:
        """Replace zygotes that are overdue; end what workers have left behind whose zygote is dead.

        That has come down to us.
        """
        self._look_after_zygotes()
        self._inquest.leaves = [leaf for leaf in self._inquest.leaves if not leaf.remove()]
        if not self._is_heir:
            return
        ours = {process.pid for process in self.processes.values()}
        linux.end_strays(ours | {zygote.pid for zygote in self._zygotes()})

    def kill(self, uid: str, job: int, attempt: int) -> None:
        """Kill a worker, and what it has started, but for a job's sake only while it runs that job.

        It is stopped before we look: between a look and a kill it might begin the next one.
        """
        process = self.processes.get(uid)
        if process is None:
            self._forget_asked(uid)
            return
        if process.seen_dead_at:
            return
        if job:
            is_ours = linux.halt(process.pid, process.pidfd)
            if self.now(uid)[:2] != (job, attempt):
                if is_ours:
                    linux.go_on(process.pidfd)
                return
        process.killed = True
        if process.zygote is None:  # else that ends what the worker has started
            linux.signal_group(process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):  # it died by itself, or by the line above
            signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)

    def insist(self) -> None:
        """Stop those attempts whose workers should have heard the order to do so by now."""
        for uid, *attempt in self.unheard.take():
            process = self.processes.get(uid)
            board = self._board_of(process) if process else None
            if process is not None and board is not None and not process.seen_dead_at:
                insist(process.pid, process.pidfd, board, (attempt[0], attempt[1]))

    def board_path(self, uid: str) -> str:
        """Return where a worker's scoreboard is."""
        return os.path.join(self.settings.boards_dir, uid)

    def forget_board(self, uid: str) -> None:
        """Remove a worker's scoreboard: it is dead, and that is on record."""
        with suppress(FileNotFoundError):  # it never got so far as to make one
            os.unlink(self.board_path(uid))

    def zygote_pid(self) -> int:
        """Return the pid of the zygote that forks, or 0."""
        return self._zygote.pid if self._zygote else 0

    def close(self, timeout_s: float = 1.0) -> None:
        """End the zygotes and the checker; every worker has ended before."""
        for process in self.processes.values():
            linux.signal_group(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + timeout_s
        for zygote in self._zygotes():
            if not zygote.end(deadline - time.monotonic()):
                log.warning("the zygote (pid %d) did not end: it was killed", zygote.pid)
                self._is_heir = True
        if self._is_heir:
            linux.kill_children()
        for process in self.processes.values():
            os.close(process.pidfd)
            if process.board is not None:
                process.board.close()
        self._inquest.memory.close()
        self.processes.clear()
        self.sweep_leaves()
        self._zygote = None
        self._old.clear()

    # -- zygotes --

    def _zygotes(self) -> list[ZygoteProcess]:
        return self._old if self._zygote is None else [*self._old, self._zygote]

    def _hear_zygotes(self) -> None:
        for zygote in list(self._zygotes()):
            if not self._hear(zygote):  # whatever still keeps its channel open is not ours
                ended = how_it_ended(_as_status(zygote.kill()))
                self._bury_zygote(zygote, f"the zygote ended ({ended})")

    def _look_after_zygotes(self) -> None:
        """Replace those that do not do what they were asked for in time."""
        now = time.monotonic()
        parents = {id(process.zygote) for process in self.processes.values()}
        for zygote in list(self._zygotes()):
            why = zygote.overdue(now, has_workers=id(zygote) in parents)
            if why:
                self._replace(zygote, why)

    def _replace(self, zygote: ZygoteProcess, why: str) -> None:
        """End a zygote that is not waited for any longer; the next ``spawn`` starts another."""
        log.warning("%s: it is replaced, and its workers go on", why)
        zygote.kill()
        self._is_heir = True
        self._hear(zygote)  # its last words
        self._bury_zygote(zygote, f"{why}: it was replaced")

    def _bury_zygote(self, zygote: ZygoteProcess, why: str) -> None:
        """A zygote is dead: its workers are ours now, and what it has not forked nobody will."""
        zygote.channel.close()
        if zygote is self._zygote:
            self._zygote = None
            self._trouble = self._trouble or why
        else:
            self._old.remove(zygote)
        self._is_heir |= not zygote.is_retired
        for process in self.processes.values():
            if process.zygote is zygote:
                process.zygote = None
                self._is_heir = True
        for uid in zygote.asked:
            self._refused(uid, self._trouble or why)

    def _hear(self, zygote: ZygoteProcess) -> bool:
        """Take all packets of one zygote; return whether it lives."""
        while True:
            try:
                packet, fds, _, _ = socket.recv_fds(zygote.channel, 65536, 4)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                continue  # it has ended with orders unread; its last words are still to come
            except OSError:
                return False
            if not packet:
                return False
            self._take(zygote, decode_word(packet), fds)

    def _take(self, zygote: ZygoteProcess, word: object, fds: list[int]) -> None:
        match word:
            case Spawned(uid, pid):
                self._spawned(zygote, uid, pid, fds)
            case NotSpawned(uid, why):
                self._refused(uid, why)
            case Exited(uid):
                process = self.processes.get(uid)
                if process is not None:
                    process.exited = word
            case Failed(why):
                self._trouble = why
            case Warned(sentences) if zygote is self._zygote:
                self.warnings = sentences
                log.warning("%s", "; ".join(sentences))
            case _:
                zygote.hear(word, time.monotonic())

    def _spawned(self, zygote: ZygoteProcess, uid: str, pid: int, fds: list[int]) -> None:
        """A worker was forked: watch it, unless nobody wants it any more, or we cannot."""
        wanted = zygote.asked.pop(uid, None) is not None
        if wanted and fds:
            self.processes[uid] = Process(uid, pid, fds[0], zygote=zygote)
            self._trouble = ""
            return
        linux.signal_quietly(pid, signal.SIGKILL)  # its zygote reaps it
        for fd in fds:
            os.close(fd)
        if wanted:
            self._refused(uid, NO_FILES)

    def _forget_asked(self, uid: str) -> None:
        """A worker that is not forked yet is not wanted any more: nobody waits for its zygote."""
        for zygote in self._zygotes():
            if zygote.asked.pop(uid, None) is not None:
                self._not_started(uid, "it was not wanted any more")

    def _refused(self, uid: str, why: str) -> None:
        for zygote in self._zygotes():
            zygote.asked.pop(uid, None)
        self._trouble = why
        self._not_started(uid, why)

    def _not_started(self, uid: str, why: str) -> None:
        if uid in self._checkers:
            self._checkers.discard(uid)
            self._lost_checkers.append((uid, why))
        else:
            self._not_spawned.append(uid)

    # -- the dead --

    def _board_of(self, process: Process) -> Scoreboard | None:
        return process.look(self.board_path(process.uid))

    def _judge(self, process: Process, board: Scoreboard | None) -> Dead:
        del self.processes[process.uid]
        dead = self._inquest.of(process, board)
        os.close(process.pidfd)
        if process.uid in self._checkers:
            self._checkers.discard(process.uid)
            self._lost_checkers.append((process.uid, dead.cause))
        return dead


def _as_status(returncode: int) -> int:
    return -returncode if returncode < 0 else returncode << 8
