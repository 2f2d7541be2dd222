"""The files of large payloads as the daemon looks after them: it never opens one.

A job's arguments go once it has succeeded, for a call consumes them; a result
goes with what the row says of it.  A file goes after the commit by which it has lost its
owner, and never before.  What nobody owns, because somebody was killed at the
wrong moment, is found by a *sweep*, at the start and every hour: each name tells whose
the file should be.  It is spared while its job is at work, or its client lives.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import msgspec

from jobd.blobs import remove_if_dead, unlink
from jobd.config.settings import Settings
from jobd.daemon.lock import private_directory
from jobd.daemon.memory import Memory
from jobd.model.blob import (
    BY_VALUE,
    CODEC,
    FRESH,
    Owner,
    Place,
    is_session,
    owner_of,
    reference_in,
    session_name,
    unpack,
)
from jobd.model.errors import JobdError
from jobd.model.job import Job
from jobd.model.states import State
from jobd.scheduler import Scheduler
from jobd.scheduler.batch import Change
from jobd.store import Store

log = logging.getLogger("jobd")

SWEEP_S = 3600.0
SETTLED_S = 600.0
"""A younger file is left to the next sweep: its submit may be on its way."""

_MAY_REFER = (CODEC, BY_VALUE)

LOW_BYTES = 4 * 1024 * 1024


def prepare(settings: Settings, stack: ExitStack) -> Place:
    """Make the directories, and tell where large payloads go; ``stack`` lets go of them.

    Raises:
        JobdError: there can be none in the state directory.
    """
    disk = os.path.join(settings.state_dir, "blobs")
    private_directory(disk)
    kind, memory = settings.payloads.place, ""
    try:
        held = Memory(settings.state_dir)
    except (JobdError, OSError) as error:
        if kind == "memory":
            why = error.message if isinstance(error, JobdError) else error
            log.warning("%s: large payloads are kept in %s instead", why, disk)
    else:
        stack.callback(held.release)
        memory = held.directory
    return Place(
        memory,
        disk,
        kind if memory else "disk",
        settings.payloads.spill,
        settings.store.durability == "full" and settings.payloads.place == "disk",
        settings.limits.max_blob_bytes,
        settings.limits.max_payload_bytes,
    )


class Payloads:
    """Which files there are to be, and the removal of all others."""

    def __init__(self, place: Place, store: Store, scheduler: Scheduler) -> None:
        self.place = place
        self._store = store
        self._scheduler = scheduler
        self._remover = Remover()
        self._doomed: list[str] = []
        """Paths to remove once what was decided so far is durable."""
        self._released: list[str] = []
        self._consumed: list[str] = []
        """The same, for whose sake the commit in flight is: of values, and of arguments."""
        self._next_sweep_s = 0.0
        self.trouble = ""

    # -- with the commits --

    def release(self, data: bytes | None, job: Job | None = None) -> None:
        """From the next commit on nothing refers to this payload: the item of a stream, or a job's value.

        A value may be what a client has put: it goes only if it is the job's own.
        """
        self._doomed += self._path(data, job)

    def writing(self, changes: Iterable[Change]) -> None:
        """A commit with these changes is on its way."""
        self._released, self._doomed = self._doomed, []
        for change in changes:
            job = change.job
            if job.args[:1] in _MAY_REFER and job.state is State.SUCCEEDED:
                self._consumed += self._path(job.args, job)

    def written(self) -> None:
        """It is durable."""
        for path in self._released + self._consumed:
            self._remover.put(path)
        self._released, self._consumed = [], []

    def not_written(self) -> None:
        """It was rolled back; what it said of jobs comes again with the next one."""
        self._doomed[:0] = self._released
        self._released, self._consumed = [], []

    def _path(self, data: bytes | None, job: Job | None) -> list[str]:
        """Return the path of a reference, if it is one; with a ``job`` only if that owns it."""
        reference = reference_in(data)
        if not reference:
            return []
        try:
            blob = unpack(reference)
        except (ValueError, msgspec.MsgspecError):
            return []  # a client may say what it likes
        owner = owner_of(blob.name)
        if owner is None or (job and owner.key != job.uid and owner.job != job.id):
            return []
        return [os.path.join(self.place.directories[blob.directory], blob.name)]

    # -- with the clock --

    def look(self, now_s: float) -> Iterator[None] | None:
        """See how much room there is; return the steps of a sweep if it is time for one."""
        self.trouble = self._lack_of_room()
        if now_s < self._next_sweep_s:
            return None
        first = not self._next_sweep_s
        self._next_sweep_s = now_s + SWEEP_S
        return self.sweep(0.0 if first else SETTLED_S)

    def _lack_of_room(self) -> str:
        place = self.place
        directory = place.memory if place.kind == "memory" else place.disk
        try:
            room = os.statvfs(directory)
        except FileNotFoundError:  # systemd-logind does so, where it removes a user's IPC
            return self._make_again(directory)
        except OSError as error:
            return f"large payloads cannot be kept in {directory}: {error.strerror}"
        free = room.f_bavail * room.f_frsize
        if not room.f_blocks or free >= LOW_BYTES:
            return ""
        then = f"they go to {place.disk}" if place.kind == "memory" and place.spill else "some fail"
        return f"there is hardly any room for large payloads in {directory}: {then}"

    @staticmethod
    def _make_again(directory: str) -> str:
        """Make a directory that somebody has removed; return what is wrong now."""
        log.warning("somebody has removed %s, and the large payloads in it", directory)
        try:
            private_directory(os.path.dirname(directory))
            private_directory(directory)
        except JobdError as error:
            return f"large payloads cannot be kept in {directory}: {error.message}"
        return ""

    def sweep(self, settled_s: float) -> Iterator[None]:
        """Remove what nobody owns, a file in each step; younger files than ``settled_s`` are spared."""
        sessions: list[str] = []
        count = 0
        for directory in filter(None, self.place.directories):
            for name in _names(directory):
                path = os.path.join(directory, name)
                owner = owner_of(name)
                if is_session(name):
                    sessions.append(path)
                elif owner is not None:
                    if _age_s(path) >= settled_s and not self._is_owned(owner, name):
                        self._remover.put(path)
                        count += 1
                    yield
        for path in sessions:
            remove_if_dead(path)
        if count:
            log.info("removed %d files of large payloads that belonged to no job", count)

    def _is_owned(self, owner: Owner, name: str) -> bool:
        if owner.key:
            return self._lives(owner.key[:8]) or self._has_submit(owner, name)
        live = self._scheduler.window.jobs.get(owner.job)
        if live is not None and live.attempt == owner.attempt:
            return True  # it runs, or its end is not durable yet
        if owner.seq:
            return any(
                _names_it(i, name) for i in self._store.items(owner.job, owner.seq, owner.seq)
            )
        job = self._store.job(owner.job)
        return job is not None and _names_it(job.value, name)

    def _lives(self, session: bytes) -> bool:
        """Whether the client lives that has made keys of this session."""
        return not remove_if_dead(os.path.join(self.place.disk, session_name(session)))

    def _has_submit(self, owner: Owner, name: str) -> bool:
        if self._scheduler.intake.submitting(owner.key) is not None:
            return True
        found = self._store.submit_of(owner.key)
        if found is None or owner.index >= found[1]:
            return False
        job = self._store.job(found[0] + owner.index)
        return job is not None and _refers(job, name)

    # -- the end --

    def close(self) -> None:
        """Remove what is still to be removed."""
        self._remover.close()


def _refers(job: Job, name: str) -> bool:
    """Whether a row needs this file."""
    needs_arguments = job.state is not State.SUCCEEDED
    return (needs_arguments and _names_it(job.args, name)) or _names_it(job.value, name)


def _names_it(data: bytes | None, name: str) -> bool:
    reference = reference_in(data)
    if not reference or name.endswith(FRESH):
        return False
    try:
        return unpack(reference).name == name
    except (ValueError, msgspec.MsgspecError):
        return False


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return -1.0  # gone meanwhile


class Remover:
    """Removes files in a thread of its own: to free the pages of 100 MB takes 12 ms."""

    def __init__(self) -> None:
        self._paths: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, path: str) -> None:
        """Have a file removed soon."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="jobd-remover", daemon=True)
            self._thread.start()
        self._paths.put(path)

    def _run(self) -> None:
        while path := self._paths.get():
            unlink(path)

    def close(self) -> None:
        """Wait until all is removed."""
        if self._thread is not None:
            self._paths.put("")
            self._thread.join()
