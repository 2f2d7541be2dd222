"""What makes workers the kin of their owner's processes, as far as ``multiprocessing`` goes."""

from __future__ import annotations


def belong_to(authkey: str) -> None:
    """Have the key that is in this file: managers and queues of its owner let us in.

    Called before the fork, because all workers have the same, and each would have to load the module.
    """
    from multiprocessing.process import current_process  # noqa: PLC0415  # 8 ms, only for an owner's

    with open(authkey, "rb") as file:
        current_process().authkey = file.read()
