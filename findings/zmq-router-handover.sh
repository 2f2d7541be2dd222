#!/bin/sh
# pyzmq 27.3.0 with libzmq 4.3.5: a ROUTER with ROUTER_HANDOVER takes a name from a peer, and does not disconnect it.
#
# The manual (zmq_setsockopt) says that the socket hands the connection over to the new client and disconnects
# the existing one. The name does go over to the newcomer. But the connection before stays up: its monitor
# tells of no disconnection, its sends succeed, and what it sends is dropped without a word, for good. Seen
# with CPython 3.11.7:
#
#   to the name: the new one gets it
#   the old one's monitor: CONNECTED, HANDSHAKE_SUCCEEDED, and nothing more in 2 s
#   3 sends of the old one: no error, the ROUTER hears 0 of them
#
# (So a worker that comes again under its name closes its old connection itself, and jobd's own ROUTER hangs
# up on who has lost its name.)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check pyzmq==27.3.0
cat >handover.py <<'PYTHON'
import time
import zmq
from zmq.utils.monitor import recv_monitor_message

context = zmq.Context()
router = context.socket(zmq.ROUTER)
router.set(zmq.ROUTER_HANDOVER, 1)
port = router.bind_to_random_port("tcp://127.0.0.1")


def dealer():
    made = context.socket(zmq.DEALER)
    made.identity = b"name"
    monitor = made.get_monitor_socket(zmq.EVENT_ALL)
    made.connect(f"tcp://127.0.0.1:{port}")
    made.send(b"hello")
    assert router.poll(5000) and router.recv_multipart() == [b"name", b"hello"]
    return made, monitor


old, old_monitor = dealer()
new, _ = dealer()
router.send_multipart([b"name", b"order"])
got = "the new one" if new.poll(5000) else "the old one" if old.poll(0) else "nobody"
print(f"to the name: {got} gets it")

events, until = [], time.monotonic() + 2
while (left := until - time.monotonic()) > 0:
    if old_monitor.poll(left * 1000):
        events.append(zmq.Event(recv_monitor_message(old_monitor)["event"]).name)
seen = [name for name in ("CONNECTED", "HANDSHAKE_SUCCEEDED", "DISCONNECTED") if name in events]
print(f"the old one's monitor: {', '.join(seen)}, and nothing more in 2 s")

heard = 0
for _ in range(3):
    old.send(b"outcome", zmq.NOBLOCK)
while router.poll(1000):
    router.recv_multipart()
    heard += 1
print(f"3 sends of the old one: no error, the ROUTER hears {heard} of them")
context.destroy(linger=0)
PYTHON
venv/bin/python handover.py | tee out
grep -q "to the name: the new one gets it" out
grep -q "the old one's monitor: CONNECTED, HANDSHAKE_SUCCEEDED, and nothing more in 2 s" out
grep -q "3 sends of the old one: no error, the ROUTER hears 0 of them" out
