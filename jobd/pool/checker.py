"""The checker: resolves function references and binds arguments, so that the daemon need not.

It is a process of its own, because every worker may be busy for hours, and
because an import can hang, exit or crash.  After it has refused something the
daemon ends it: the next check then sees the user's files as they are now.
"""

from __future__ import annotations

import os

from jobd.model.messages import encode
from jobd.model.orders import Check, Checked, Ready, Retire, Surroundings, decode_orders
from jobd.pool.link import Link
from jobd.pool.protocol import Settings
from jobd.pool.resolve import check
from jobd.pool.surroundings import Surrounded, set_argv
from jobd.wire.zmtp import Disconnected


def run(uid: str, settings: Settings) -> None:
    """Answer checks until the daemon says so, or is gone."""
    pid = os.getpid()
    link = Link(settings.socket, uid.encode() + b"/j")
    link.send(encode([Ready(os.getpid(), settings.boot)]))
    going = True
    while going:
        try:
            frames = link.receive()
        except Disconnected:
            break
        for frame in frames:
            for order in decode_orders(frame):
                match order:
                    case Check():
                        answer = _answer(order, settings.allow)
                        if os.getpid() != pid:  # a module has forked as it was imported
                            os._exit(0)
                        link.send(encode([answer]))
                    case Retire():
                        going = False
    os._exit(0)  # without the way out that an imported module can block


def _answer(order: Check, allow: list[str]) -> Checked:
    """Do one check, with the job's variables; its directory may not be there yet."""
    given = order.surroundings or Surroundings()
    around = Surrounded(Surroundings(given.env, given.inherit_env), order.function)
    around.enter()
    set_argv(order.function, given)
    try:
        for nargs, names in order.shapes:
            refusal = check(order.function, nargs, names, allow)
            if refusal is not None:
                return Checked(order.number, refusal.message, refusal.hint, refusal.error)
    finally:
        around.leave()
    return Checked(order.number, "", "")
