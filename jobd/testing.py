"""For tests of code that uses jobd: a daemon for the length of a ``with`` block.

>>> import jobd, jobd.testing
>>> with jobd.testing.daemon(), jobd.Client() as client:
...     client.submit("math:factorial", 5).result()
120

``with jobd.testing.inline():`` needs no daemon: every submit runs at once, in this process.

With pytest, ask for the fixture ``jobd_daemon``, which installing jobd brings:

    def test_the_report_is_sent(jobd_daemon):
        with jobd.Client() as client:
            ...
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from jobd.client import Client, aio, sync
from jobd.inline import Inline
from jobd.private import PrivateDaemon

VARIABLE = "JOBD_SOCKET"


class Daemon:
    """A daemon in a temporary directory.

    Attributes:
        socket: the path at which it answers; within the ``with`` block ``jobd.Client()``
            and the command line find it by themselves.
        pid: its process.
    """

    def __init__(self, private: PrivateDaemon) -> None:
        self.socket = private.socket
        self.pid = private.process.pid

    def client(self) -> Client:
        """Return a new client of it; closing it is the caller's part."""
        return Client(self.socket)

    def __repr__(self) -> str:
        return f"<jobd.testing.Daemon pid {self.pid}>"


@contextmanager
def daemon(
    workers: int = 2,
    path: Sequence[str] | None = None,
    queues: Iterable[str] = (),
    **settings: object,
) -> Iterator[Daemon]:
    """Give a running daemon; at the end of the block, or of this process, nothing of it is left.

    It does not wait for the disk: what it keeps is gone with it.  Jobs that still run are ended.

    Args:
        workers: how many jobs run at once.
        path: directories in which the workers look for modules first; None: where this
            process finds its own.
        queues: names of queues that jobs may be in, beside ``default``; ``Client.set_queue``
            gives them limits.
        settings: more settings, with ``__`` for the dot: ``jobs__max_crashes=0``.

    Raises:
        JobdError: it did not start.
    """
    by_key = {name.replace("__", "."): value for name, value in settings.items()}
    private = PrivateDaemon(workers, path=path, settings=by_key)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = private.socket
    try:
        running = Daemon(private)
        if names := [*queues]:
            with running.client() as client:
                for name in names:
                    client.set_queue(name)
        yield running
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        private.stop()


@contextmanager
def inline() -> Iterator[None]:
    """Have clients that are made in the block run jobs themselves, as they are submitted.

    ``Client``, ``AsyncClient`` and ``Executor()`` then need no daemon, and a debugger or a mock
    reaches the jobs.  Arguments and results are encoded and decoded as ever: what could not
    travel fails here too.  A submit may name any queue, and a generator runs to its end at its submit.
    What only a daemon can do (logs, ``graph``, ``retry``) is refused.
    """
    here = Inline()
    with patch.object(sync, "connect", here.connect), patch.object(aio, "connect", here.connect):
        yield
