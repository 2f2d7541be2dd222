#!/bin/sh
# uvloop 0.21.0: what a handler of Python's raises while the loop waits is not raised out of the loop.
#
# asyncio's own loop lets it out of `run_forever`, and so out of `asyncio.run`, whose tasks are then cancelled.
# uvloop logs it as an exception in a callback, and goes on.  Seen with CPython 3.11.7:
#
#   asyncio: the handler's error ended the loop
#   uvloop: the loop went on, and ended by itself
#
# (So the soft limit of a job is raised again, and the second time has the loop's tasks cancelled.)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check uvloop==0.21.0
cat >loops.py <<'PYTHON'
import asyncio, logging, signal
import uvloop

logging.disable(logging.CRITICAL)

def on_alarm(*_):
    raise TimeoutError

signal.signal(signal.SIGALRM, on_alarm)
for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        run(asyncio.sleep(1))
        print(f"{name}: the loop went on, and ended by itself")
    except TimeoutError:
        print(f"{name}: the handler's error ended the loop")
PYTHON
venv/bin/python loops.py | tee out
grep -q "asyncio: the handler's error ended the loop" out
grep -q "uvloop: the loop went on, and ended by itself" out
