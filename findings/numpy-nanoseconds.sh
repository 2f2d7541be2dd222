#!/bin/sh
# numpy 2.4.6: .item() of a datetime64 makes a Python value of it, and which one depends on its unit: a datetime
# for microseconds, a date for days, and for nanoseconds, the unit of pandas, a bare int. An array's tolist()
# does the same. So nobody may turn such a scalar into a plain value without a look at its dtype.
# Seen: "us datetime, D date, ns int, tolist of ns int".
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install numpy==2.4.6
"$folder/venv/bin/python" - <<'PROGRAM'
import sys

import numpy

time = numpy.datetime64('2026-12-24T12:00:00')
seen = [f'{unit} {type(time.astype(f"M8[{unit}]").item()).__name__}' for unit in ('us', 'D', 'ns')]
seen.append(f'tolist of ns {type(numpy.array([time], "M8[ns]").tolist()[0]).__name__}')
print(', '.join(seen))
sys.exit(seen != ['us datetime', 'D date', 'ns int', 'tolist of ns int'])
PROGRAM
