"""Jobs each tenth of which ends its worker."""

import ctypes
import os
import signal


def tally(path: str, number: int) -> None:
    """Append the number to a file, in one write; ``tally(path, 9)`` and each tenth dies of it."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, b"%d\n" % number)
    os.close(file)
    if number % 10 == 9:
        _end(number // 10 % 3, os.path.join(os.path.dirname(path), "victims"))


def _end(how: int, victims: str) -> None:
    if how == 0:
        os._exit(3)
    if how == 1:
        ctypes.string_at(0)
    with open(victims, "w", encoding="ascii") as fifo:
        fifo.write(f"{os.getpid()}\n")
    while True:
        signal.pause()
