"""The checker: resolves function references and binds arguments, so that the daemon need not.

It is a process of its own, because every worker may be busy for hours, and
because an import can hang, exit or crash.  It ends after it has refused
something: the next check then sees the user's files as they are now.
"""

from __future__ import annotations

import os

import zmq

from jobd.model.messages import encode
from jobd.model.orders import Check, Checked, Ready, Retire, decode_orders
from jobd.pool.protocol import Settings
from jobd.pool.resolve import check

ORPHAN_MS = 5_000
"""How long to wait for orders before looking whether the zygote still lives."""


def run(uid: str, settings: Settings) -> None:
    """Answer checks until one is refused, the daemon says so, or is gone."""
    parent = os.getppid()
    context = zmq.Context()
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    socket.set(zmq.IDENTITY, uid.encode() + b"/j")
    socket.set(zmq.LINGER, 1000)
    socket.connect(settings.address)
    socket.send(encode([Ready(os.getpid(), settings.boot)]))
    going = True
    while going and os.getppid() == parent:
        if socket.poll(ORPHAN_MS):
            for order in decode_orders(socket.recv()):
                match order:
                    case Check():
                        going = going and _answer(socket, order)
                    case Retire():
                        going = False
    context.destroy(linger=1000)
    os._exit(0)  # without the way out that an imported module can block


def _answer(socket: zmq.Socket[bytes], order: Check) -> bool:
    """Answer one check; return whether all is well."""
    for nargs, names in order.shapes:
        refusal = check(order.function, nargs, names)
        if refusal is not None:
            socket.send(encode([Checked(order.number, refusal.message, refusal.hint)]))
            return False
    socket.send(encode([Checked(order.number, "", "")]))
    return True
