#!/bin/sh
# LightGBM 4.7.0: OMP_NUM_THREADS=1 holds for lightgbm.train, but LGBMRegressor.fit starts a thread for
# each core all the same, unless it is given n_jobs. So an environment variable that keeps the other
# libraries of a process to one thread does not keep this one.
# Seen on two cores: "train 0, fit 1, fit with n_jobs=1 0" (threads that were started); on one core there
# is nothing to see.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install lightgbm==4.7.0 numpy==2.4.6 scikit-learn==1.9.1 scipy==1.17.1
"$folder/venv/bin/python" - <<'PROGRAM'
import os
import subprocess
import sys

CALLS = {
    'train': 'lightgbm.train({"verbose": -1}, lightgbm.Dataset(x, x[:, 0]), 5)',
    'fit': 'lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(x, x[:, 0])',
    'fit with n_jobs=1': 'lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1).fit(x, x[:, 0])',
}
HEAD = '''
import os
import lightgbm, numpy
def threads(): return len(os.listdir("/proc/self/task"))
x = numpy.random.default_rng(1).random((2000, 10))
before = threads()
'''
environ = dict(os.environ, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
started = {}
for name, call in CALLS.items():
    program = HEAD + call + '\nprint(threads() - before)'
    done = subprocess.run([sys.executable, '-c', program], env=environ, capture_output=True, text=True, check=True)
    started[name] = int(done.stdout)
print(', '.join(f'{name} {count}' for name, count in started.items()))
several = len(os.sched_getaffinity(0)) > 1
sys.exit(started['train'] != 0 or (started['fit'] > 0) != several or started['fit with n_jobs=1'] != 0)
PROGRAM
