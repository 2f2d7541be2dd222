#!/bin/sh
# numba 0.68.1: once a parallel function has run, a change of NUMBA_NUM_THREADS in os.environ makes the *next
# compilation of anything* fail, a serial function's too; functions that are compiled already go on.
# Who restores or changes the environment in a long-lived process has to leave this variable alone.
# Seen: "RuntimeError: Cannot set NUMBA_NUM_THREADS to a different value once the threads have been
# launched (currently have 1, trying to set 2)"; it was 2 and is 1: the message has the two the wrong way round.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install numba==0.68.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PROGRAM'
import os
import sys

os.environ['NUMBA_NUM_THREADS'] = '2'
import numba
import numpy

@numba.njit(parallel=True)
def total(numbers):
    found = 0.0
    for n in numba.prange(len(numbers)):
        found += numbers[n]
    return found

@numba.njit
def doubled(number):
    return 2 * number

assert total(numpy.ones(1000)) == 1000
os.environ['NUMBA_NUM_THREADS'] = '1'
try:
    doubled(1)
except RuntimeError as error:
    print(f'RuntimeError: {error}')
else:
    sys.exit('a serial function was compiled')
assert total(numpy.ones(1000)) == 1000
PROGRAM
