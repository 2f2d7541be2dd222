"""The Python client, and what the command line is made of.

``core`` and ``verbs`` know the protocol and do no I/O.  What can be asked for is written once, in
``aio_api``, of which ``sync_api`` is made; ``sync`` and ``aio`` are the two drivers, for threads and
for asyncio, which only send, wait and watch the clock.
"""

from jobd.client.sync import Client
from jobd.client.sync_api import Deferred

__all__ = ["Client", "Deferred"]
