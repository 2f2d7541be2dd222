#!/bin/sh
# joblib 1.5.1 (loky): its processes live on between calls of Parallel. When they have ended meanwhile, the next call does
# not start others but fails with TerminatedWorkerError; the one after that works.
# Seen: "30 TerminatedWorkerError 30"
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install joblib==1.5.1
cat > "$folder/program.py" <<'PROGRAM'
import os
import signal
import sys

from joblib import Parallel, delayed
from joblib.externals.loky import reusable_executor

def attempt():
    try:
        return str(sum(Parallel(2)(delayed(pow)(n, 2) for n in range(5))))
    except Exception as error:
        return type(error).__name__

if __name__ == '__main__':
    found = [attempt()]
    for pid in list(reusable_executor._executor._processes):
        os.kill(pid, signal.SIGTERM)
    found += [attempt(), attempt()]
    print(*found)
    sys.exit(found != ['30', 'TerminatedWorkerError', '30'])
PROGRAM
"$folder/venv/bin/python" "$folder/program.py"
