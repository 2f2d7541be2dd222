"""The Python client, and what the command line is made of.

``core`` and ``verbs`` know the protocol and do no I/O; ``sync`` and ``aio`` are the
two drivers, for threads and for asyncio, which only send, wait and watch the clock.
"""

from jobd.client.sync import Client, Deferred

__all__ = ["Client", "Deferred"]
