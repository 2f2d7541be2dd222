"""What travels between jobd's processes, and how.

``zmtp`` and ``router`` are ZeroMQ's protocol as jobd speaks it itself: a DEALER for clients on this machine
and for workers, a ROUTER for the daemon's end of those clients.  ``tcp_router`` and ``tcp`` are libzmq's
(``libzmq``): the daemon's end of other machines, and a client's on one of them.  ``gate`` lets workers in,
``ssh`` goes by way of ssh, ``keys`` reads and writes keys, ``channel`` is what clients' ends have in common.
"""
