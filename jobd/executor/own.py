"""The daemon that an executor starts for itself, from what the standard library's pool is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import current_process
from typing import TYPE_CHECKING, Any

from jobd.executor.sharing import Sharing
from jobd.private import PrivateDaemon

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext


@dataclass(frozen=True)
class Own:
    """What was said of it; see ``Executor``."""

    max_workers: int | None
    mp_context: BaseContext | None
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    max_tasks_per_child: int | None
    state_dir: str | None

    def check(self) -> None:
        """Refuse what makes no sense, in the words of the standard library.

        Raises:
            ValueError, TypeError: it makes none.
        """
        if self.max_workers is not None and self.max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if self.initializer is not None and not callable(self.initializer):
            raise TypeError("initializer must be a callable")
        method = _start_method(self.mp_context)
        most = self.max_tasks_per_child
        if most is None:
            return
        if not isinstance(most, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if most <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")
        if method == "fork":
            raise ValueError(
                "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method;"
                " supply a different mp_context."
            )

    @property
    def is_wanted(self) -> bool:
        """Whether anything was said of it: else the daemon that runs will do."""
        said = (
            self.max_workers,
            self.mp_context,
            self.initializer,
            self.max_tasks_per_child,
            self.state_dir,
        )
        return any(word is not None for word in said)


def own_daemon(own: Own, sharing: Sharing) -> PrivateDaemon:
    """Start it; what of ``multiprocessing`` the initializer is given, ``sharing`` hands out.

    Raises:
        JobdError: it did not start.
    """
    first = b""
    if own.initializer is not None:
        first = sharing.dumps((own.initializer, own.initargs))
    settings: dict[str, object] = {"jobs.max_crashes": 0}
    if own.max_tasks_per_child is not None:
        settings["pool.max_jobs_per_worker"] = own.max_tasks_per_child
    return PrivateDaemon(
        own.max_workers or 0,
        initializer=first,
        state_dir=own.state_dir or "",
        settings=settings,
        authkey=bytes(current_process().authkey),
        outputs=None if own.state_dir else _outputs(),
    )


def _outputs() -> tuple[int, int] | None:
    """Return where this process writes, so that its jobs do too; None if it has closed that."""
    try:
        os.fstat(1)
        os.fstat(2)
    except OSError:
        return None
    return 1, 2


def _start_method(mp_context: BaseContext | None) -> str:
    """Return how a context starts processes; "": there is none.

    Raises:
        TypeError: it is no context.
    """
    if mp_context is None:
        return ""
    if not hasattr(mp_context, "get_start_method"):
        raise TypeError(f"mp_context must be a context of multiprocessing, not {mp_context!r:.80}")
    return str(mp_context.get_start_method(allow_none=False))
