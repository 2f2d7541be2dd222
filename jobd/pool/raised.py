"""What the daemon has to know of an exception to decide what follows."""

from __future__ import annotations

import os

from jobd.again import Cancel, Retry, Snooze
from jobd.model.job import Raised, Wish
from jobd.pool.failure import class_name, message_of

MOST_NAMES = 50
WISHES = ((Retry, Wish.RETRY), (Snooze, Wish.SNOOZE), (Cancel, Wish.CANCEL))


def raised_by(error: BaseException) -> Raised:
    """Return the names of an exception's class and bases, and what it asks for.  Never raises."""
    bases: tuple[type, ...] = vars(type)["__mro__"].__get__(type(error))
    names = [class_name(kind) for kind in bases[:MOST_NAMES] if kind is not object]
    for kind, wish in WISHES:
        if kind in bases:
            in_s = getattr(error, "in_s", None)
            why = "" if wish == Wish.RETRY else message_of(error)
            return Raised(names, wish, in_s if type(in_s) is float else None, why)
    return Raised(names)


def end_if_told(error: BaseException | None) -> None:
    """End this process if an exception asks for that: its job is not to blame, and has not begun.

    So it is for what unpickles arguments: who exits there leaves a broken worker behind, not a result.
    """
    if isinstance(error, SystemExit):
        code = error.code
        os._exit(code if isinstance(code, int) else code is not None)
