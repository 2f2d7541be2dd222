#!/bin/sh
# OpenBLAS in numpy 2.4.6, threadpoolctl 3.8.0: OPENBLAS_NUM_THREADS is cut down to the number of cores
# when the library is loaded; the same number set later, by threadpool_limits, is not, and so many threads
# are started.
# Seen on two cores: "by the environment 2, by threadpool_limits 5" (5 is three more than there are cores).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install numpy==2.4.6 threadpoolctl==3.8.0
"$folder/venv/bin/python" - <<'PROGRAM'
import os
import sys

cores = len(os.sched_getaffinity(0))
wanted = cores + 3
os.environ['OPENBLAS_NUM_THREADS'] = str(wanted)
import numpy
import threadpoolctl

def taken():
    return [info['num_threads'] for info in threadpoolctl.threadpool_info()][0]

loaded = taken()
threadpoolctl.threadpool_limits(wanted)
print(f'by the environment {loaded}, by threadpool_limits {taken()}')
sys.exit((loaded, taken()) != (cores, wanted))
PROGRAM
