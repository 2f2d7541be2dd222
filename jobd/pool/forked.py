"""What a worker must not have in common with the others, though all are copies of the zygote.

That is the state of random number generators that preload modules have begun to use, or only
loaded: else all workers draw the same numbers.  Python's ``random`` sees to it by itself,
and so do ``uuid``, ``ssl``, numba and DuckDB.
"""

from __future__ import annotations

import sys
from typing import Any


def differ() -> None:
    """Seed anew, from the system's entropy, what a whole process has one of, if it is loaded."""
    for module, reseed in _RESEED.items():
        loaded = sys.modules.get(module)
        if loaded is None:
            continue
        try:
            reseed(loaded)
        except Exception as error:  # noqa: BLE001  # of a version that does it otherwise, or half imported
            print(
                f"jobd: the random numbers of {module} are the same in all workers: it cannot be "
                f"seeded anew ({type(error).__name__}: {error})",
                file=sys.stderr,
                flush=True,
            )


def _numpy(module: Any) -> None:
    module.seed()


def _torch(module: Any) -> None:
    module.default_generator.seed()


def _sqlite(module: Any) -> None:
    # SQLite sees by itself that it was forked, but looks only when it opens a file.
    module.connect("file:/dev/null?mode=ro", uri=True).close()


_RESEED = {"numpy.random": _numpy, "torch": _torch, "_sqlite3": _sqlite}
