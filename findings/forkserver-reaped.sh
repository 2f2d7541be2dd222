#!/bin/sh
# CPython's multiprocessing: when a fork server has ended, and the program itself has reaped it (as one does that waits for
# all its children, os.waitpid(-1)), that process can never start another: each attempt raises ChildProcessError, because the
# module waits for the old one's pid first. A new interpreter is the only way out.
# Seen with Python 3.11.7, 3.12 and 3.13: "ChildProcessError ChildProcessError"
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/program.py" <<'PROGRAM'
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver

def use():
    with multiprocessing.get_context('forkserver').Pool(1) as pool:
        return pool.apply(abs, (-3,))

def attempt():
    try:
        return str(use())
    except Exception as error:
        return type(error).__name__

if __name__ == '__main__':
    assert use() == 3
    server = forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGTERM)
    while os.waitpid(-1, 0)[0] != server:
        pass
    found = [attempt(), attempt()]
    print(*found)
    sys.stdout.flush()
    os._exit(found != ['ChildProcessError', 'ChildProcessError'])
PROGRAM
"${PYTHON:-python3}" "$folder/program.py"
