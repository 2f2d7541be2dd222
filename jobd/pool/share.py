"""How many threads the libraries of one worker take, so that all workers together do not take too many.

OpenBLAS, OpenMP, polars and others start a thread for each core, in each process.  They
read the number from environment variables, when they are loaded or used for the first
time; so the zygote sets those before it imports anything (``set_variables``).  What the
user has set is his, and ``OMP_NUM_THREADS`` of his holds for the libraries too that look
there when they have no variable of their own.

A part of one job may have another number (``limited``): that of a library which is loaded
already is set by threadpoolctl, if that is installed, and put back afterwards.  Polars
and numba cannot be told any more; a numba that has been imported even fails when its variable
is changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

OPENMP = "OMP_NUM_THREADS"
BY_LIBRARY = {
    "openmp": OPENMP,
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
}
"""The variable of each library that threadpoolctl knows, by its name there: what can be put back."""

_AS_OPENMP = (*list(BY_LIBRARY.values())[1:], "NUMEXPR_NUM_THREADS")
"""Those that are left alone when the user has set that of OpenMP, because their libraries look there too."""

_NUMBA = "NUMBA_NUM_THREADS"
_OTHERS = (
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    _NUMBA,
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
VARIABLES = (OPENMP, *_AS_OPENMP, *_OTHERS)


def set_variables(count: int) -> list[str]:
    """Set what the user has not set, for this process and all that it starts; return the names."""
    names = unset(os.environ) if count else []
    os.environ.update(dict.fromkeys(names, str(count)))
    return names


def unset(environ: Mapping[str, str]) -> list[str]:
    """Return the variables of which the user has left the choice to us."""
    names = VARIABLES if OPENMP not in environ else _OTHERS
    return [name for name in names if name not in environ]


@contextmanager
def limited(count: int, names: Collection[str]) -> Iterator[None]:
    """Have the libraries with these variables take ``count`` threads each inside; 0: as many as ever."""
    if "numba" in sys.modules:
        names = [name for name in names if name != _NUMBA]
    if not count or not names:
        yield
        return
    environ = {name: os.environ.get(name) for name in names}
    loaded = [(lib, lib.num_threads) for lib in _libraries(names)]
    os.environ.update(dict.fromkeys(names, str(count)))
    for lib, _ in loaded:
        lib.set_num_threads(count)
    try:
        yield
    finally:
        for name, value in environ.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        for lib, before in loaded:
            lib.set_num_threads(before)
        _set_new(names, {lib.filepath for lib, _ in loaded})


def _set_new(names: Collection[str], known: set[str]) -> None:
    """Tell what was loaded meanwhile what it would have read from the environment."""
    for lib in _libraries(names):
        value = os.environ.get(BY_LIBRARY[lib.internal_api], "")
        if lib.filepath not in known and value.isdigit():
            lib.set_num_threads(int(value))


def _libraries(names: Collection[str]) -> list[Any]:
    """Return the loaded libraries with these variables, as threadpoolctl has them; none without it."""
    if "numpy" not in sys.modules:
        return []  # to look for libraries takes 10 ms, and hardly any comes without numpy
    try:
        import threadpoolctl  # noqa: PLC0415  # the user's, if he has it
    except ImportError:
        return []
    found: list[Any] = threadpoolctl.ThreadpoolController().lib_controllers
    return [lib for lib in found if BY_LIBRARY.get(lib.internal_api) in names]
