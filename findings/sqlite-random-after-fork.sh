#!/bin/sh
# SQLite 3.50.4 (apsw): processes that are forked after random() was used once draw the same numbers, in databases
# in memory that each of them opens for itself; the random numbers are the process's, not the connection's. A process
# that opens a database in a file draws numbers of its own: then SQLite sees that it was forked.
# Seen: "in memory: 1 different of 3, after a file was opened: 3 of 3"
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install apsw==3.50.4.0
"$folder/venv/bin/python" - <<'PROGRAM'
import os
import sys
import tempfile

import apsw

def draw(path):
    if path:
        apsw.Connection(path).close()
    return next(apsw.Connection(':memory:').execute('select random()'))[0]

def forked(path):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, str(draw(path)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        found = pipe.read()
    os.wait()
    return found

draw('')
same = {forked('') for _ in range(3)}
with tempfile.TemporaryDirectory() as folder:
    own = {forked(os.path.join(folder, 'any.db')) for _ in range(3)}
print(f'in memory: {len(same)} different of 3, after a file was opened: {len(own)} of 3')
sys.exit((len(same), len(own)) != (1, 3))
PROGRAM
