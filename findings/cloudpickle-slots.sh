#!/bin/sh
# cloudpickle 3.1.2: a class that is pickled by value loses its __slots__.
#
# Its instances then have a __dict__ in the other process, and their state says so: sent back to where the
# class is the original, one of `@dataclass(slots=True)` cannot be unpickled.  Seen with CPython 3.11.7:
#
#   there: has a __dict__: True
#   back: AttributeError: 'Point' object has no attribute '__dict__'
#
# (jobd/by_value.py makes such classes with their slots.)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check cloudpickle==3.1.2
cat >there.py <<'PYTHON'
import pickle, sys
import cloudpickle
point = pickle.load(sys.stdin.buffer)
print("there: has a __dict__:", hasattr(point, "__dict__"), file=sys.stderr)
sys.stdout.buffer.write(cloudpickle.dumps(point, 5))
PYTHON
cat >here.py <<'PYTHON'
import pickle, subprocess, sys
from dataclasses import dataclass
import cloudpickle

@dataclass(slots=True)
class Point:
    x: int

there = subprocess.run([sys.executable, "there.py"], input=cloudpickle.dumps(Point(1), 5), stdout=-1, check=True)
try:
    print("back:", pickle.loads(there.stdout))
except AttributeError as error:
    print("back: AttributeError:", error)
PYTHON
venv/bin/python here.py 2>&1 | tee out
grep -q "there: has a __dict__: True" out
grep -q "back: AttributeError: 'Point' object has no attribute '__dict__'" out
