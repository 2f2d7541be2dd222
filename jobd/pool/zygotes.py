"""A zygote as the daemon sees it: a process, the channel to it, and what it owes an answer to.

It is another process, so it may be stopped, swapped out or stuck in a user's module, and a
daemon that waits for it without a bound would look well and start no worker.  So each
thing that it is asked for has a time.  Whoever holds it looks once a second (``overdue``)
and replaces it then: its workers go on, and their deaths are seen without it.
"""

from __future__ import annotations

import socket
import subprocess
import sys

import msgspec

from jobd.pool import linux
from jobd.pool.protocol import Preloading, Settings, Spawn, Up

ANSWERS_S = 10.0
"""A fork takes milliseconds; on a machine that swaps, or with a preload of many gigabytes, far more."""

STOPPED_S = 2.0
"""A zygote that a signal has stopped is not waited for any longer: nobody but us has use for it."""

LONG_S = 3.0
LONG_IMPORT_S = 10.0
"""An answer, or the imports, that take longer than this are a trouble that is told of."""


class ZygoteProcess:
    """One zygote."""

    def __init__(self, settings: Settings, now_s: float) -> None:
        """Start it; raises OSError if there can be none."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-P", "-m", "jobd.pool.zygote", str(fd)]
            try:
                self._process = subprocess.Popen(
                    [*command, msgspec.json.encode(settings).decode()],
                    pass_fds=(fd, *(settings.outputs or ())),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self.channel = ours
        self.pid = self._process.pid
        self.asked: dict[str, float] = {}
        """Workers that it is to fork, and since when."""
        self.is_retired = False
        """It forks no more, and ends with its workers."""
        self._may_import_s = settings.preload_timeout_s
        self._began_at = now_s
        self._up_at = 0.0
        """When it had imported everything; 0: it has not."""
        self._module = ""
        """What it imports."""
        self._stopped_at = 0.0
        self._useless_at = 0.0

    def ask(self, spawn: Spawn, now_s: float) -> None:
        """Have a worker forked; raises OSError if it is gone, or has not read for long."""
        self.channel.send(msgspec.msgpack.encode(spawn))
        self.asked[spawn.uid] = now_s

    def hear(self, word: object, now_s: float) -> None:
        """It says what it imports now, or that it has imported everything."""
        match word:
            case Preloading(module):
                self._module = module
            case Up():
                self._up_at = now_s

    def retire(self) -> None:
        """Have it fork no more, and end with its workers; its last words are heard all the same."""
        self.is_retired = True
        self.channel.shutdown(socket.SHUT_WR)

    def overdue(self, now_s: float, *, has_workers: bool) -> str:
        """Return why it is not to be waited for any longer, or ""; called about once a second."""
        stopped_s = self._stands_still_for(now_s)
        if stopped_s >= STOPPED_S:
            return f"the zygote (pid {self.pid}) was stopped by a signal"
        if not self._up_at and not self.is_retired:
            if now_s - self._began_at > self._may_import_s:
                return f"{self._what_it_imports} was not imported within {self._may_import_s:g} s"
            return ""
        waits_s = now_s - self._owes_since(now_s)
        if waits_s > ANSWERS_S:
            return f"the zygote (pid {self.pid}) did not answer within {ANSWERS_S:g} s"
        return self._does_not_end(now_s, has_workers=has_workers)

    def trouble(self, now_s: float) -> str:
        """Return a sentence about what is waited for and takes long, or ""."""
        if self._stopped_at:
            return (
                f"the zygote (pid {self.pid}) is stopped by a signal, so that no worker can start: "
                "it is about to be replaced"
            )
        imports_s = now_s - self._began_at
        if not self._up_at and imports_s > min(LONG_IMPORT_S, self._may_import_s / 2):
            return (
                f"{self._what_it_imports} is being imported for {imports_s:.0f} s already: "
                f"no worker can start before (pool.preload_timeout_s is {self._may_import_s:g})"
            )
        waits_s = now_s - self._owes_since(now_s)
        if waits_s > LONG_S:
            return (
                f"the zygote (pid {self.pid}) has not answered for {waits_s:.0f} s, so that no "
                f"worker can start: it is replaced after {ANSWERS_S:g} s"
            )
        return ""

    def kill(self) -> int:
        """End it at once, whatever it is at; return its exit code, or minus the signal's number."""
        self._process.kill()
        return self._process.wait()

    def end(self, timeout_s: float) -> bool:
        """Hang up and wait for its end; return False if it had to be killed."""
        self.channel.close()
        if linux.is_stopped(self.pid):
            timeout_s = 0.0
        try:
            self._process.wait(max(0.01, timeout_s))
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    @property
    def _what_it_imports(self) -> str:
        return f"the preload module {self._module}" if self._module else "jobd itself"

    def _owes_since(self, now_s: float) -> float:
        """Return since when it has owed its oldest answer; now, if it owes none."""
        if not self._up_at:
            return now_s
        return max(self._up_at, min(self.asked.values(), default=now_s))

    def _stands_still_for(self, now_s: float) -> float:
        if not linux.is_stopped(self.pid):
            self._stopped_at = 0.0
            return 0.0
        self._stopped_at = self._stopped_at or now_s
        return now_s - self._stopped_at

    def _does_not_end(self, now_s: float, *, has_workers: bool) -> str:
        """Tell of a zygote that is retired, and has none of its workers left, that it ought to have ended."""
        if not self.is_retired or has_workers:
            self._useless_at = 0.0
            return ""
        self._useless_at = self._useless_at or now_s
        if now_s - self._useless_at <= ANSWERS_S:
            return ""
        return f"the zygote (pid {self.pid}) did not end after its last worker"
