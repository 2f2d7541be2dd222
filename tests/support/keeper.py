"""A supervisor for a test: it starts the daemon again whenever that has died."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness import DaemonUnderTest, eventually
from oracle import Oracle

from jobd.client import Client
from jobd.model.errors import DaemonUnreachable


class Keeper:
    """Starts a daemon now, and again after each death, each time with the next failpoint.

    A failpoint is used up when the daemon is killed; after the last one it starts without.
    ``on_start`` is called with the daemon each time that one answers.
    """

    def __init__(
        self,
        oracle: Oracle,
        failpoints: list[str],
        on_start: Callable[[DaemonUnderTest], None] | None = None,
    ) -> None:
        self.deaths: list[int] = []
        """Exit codes."""
        self._oracle = oracle
        self._daemon = oracle.daemon
        self._failpoints = deque(failpoints)
        self._on_start = on_start
        self._released = False
        self._error: BaseException | None = None
        self._start()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def kills(self) -> int:
        """How often the daemon has died of SIGKILL."""
        return self.deaths.count(-signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the daemon, and wait until the next one has been started."""
        seen = len(self.deaths)
        process = self._daemon.process
        assert process is not None
        process.send_signal(number)
        eventually(lambda: len(self.deaths) > seen)

    def release(self) -> None:
        """Let the next end of the daemon be its last."""
        self._released = True

    def join(self) -> None:
        """Wait for the thread; the daemon has ended.  Raises what went wrong in it."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        failpoint = self._failpoints[0] if self._failpoints else ""
        self._daemon.start(failpoint=failpoint, wait=self._on_start is not None)
        if self._on_start is not None:
            self._on_start(self._daemon)

    def _run(self) -> None:
        try:
            while self._keep():
                pass
        except BaseException as error:  # noqa: BLE001  # raised again by join
            self._error = error

    def _keep(self) -> bool:
        """Wait for one death; return whether there is to be another daemon, and start it."""
        assert self._daemon.process is not None
        code = self._daemon.process.wait()
        if self._released:
            return False
        if code == -signal.SIGKILL and self._failpoints:
            self._failpoints.popleft()
        self._oracle.fault()
        self._start()
        self.deaths.append(code)
        return True


@contextmanager
def kept(
    oracle: Oracle,
    failpoints: list[str],
    on_start: Callable[[DaemonUnderTest], None] | None = None,
) -> Iterator[Keeper]:
    """Keep a daemon running; on the way out it is judged, and runs no more."""
    keeper = Keeper(oracle, failpoints, on_start)
    try:
        yield keeper
        keeper.release()
        oracle.judge()
    finally:
        keeper.release()
        if oracle.daemon.process is not None:
            oracle.daemon.process.kill()
        keeper.join()


def connect(daemon: DaemonUnderTest) -> Client:
    """Connect as soon as there is a daemon."""

    def attempt() -> Client | None:
        try:
            return daemon.client()
        except DaemonUnreachable:
            return None

    client = eventually(attempt)
    assert client is not None
    return client


def workers_of(daemon: DaemonUnderTest) -> list[int]:
    """Return the pids of the workers, once all of them are ready."""
    client = daemon.client()

    def look() -> list[int]:
        workers = client.status().workers
        return [w.pid for w in workers] if all(w.state == "idle" for w in workers) else []

    return eventually(look)
