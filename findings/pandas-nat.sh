#!/bin/sh
# pandas 3.1.1: NaT, what stands for a time that is not there, is an instance of datetime; but its isoformat() is
# the text "NaT", which datetime.fromisoformat refuses, and json.dumps with default=str writes "NaT" as if it were
# a time. So what is to become null has to be looked for before datetimes are.
# Seen: "a datetime: True, isoformat: 'NaT', read back: ValueError".
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install pandas==3.1.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PROGRAM'
import sys
from datetime import datetime

import pandas

is_one, text = isinstance(pandas.NaT, datetime), pandas.NaT.isoformat()
try:
    back = str(datetime.fromisoformat(text))
except ValueError as error:
    back = type(error).__name__
print(f'a datetime: {is_one}, isoformat: {text!r}, read back: {back}')
sys.exit((is_one, text, back) != (True, 'NaT', 'ValueError'))
PROGRAM
