#!/bin/sh
# cloudpickle 3.1.3: a function that travels by value loses the name of its file: its code says "<dynamic-code>". So a
# traceback where it is called shows none of its lines; those of version 3.1.0 had both. The package says why (pickles are
# to be alike wherever a notebook was), and has no switch.
# Seen: "3.1.0: script.py, 3.1.3: <dynamic-code>".
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/script.py" <<'PROGRAM'
import os
import pickle

import cloudpickle


def fail():
    raise ValueError("bad")


print(os.path.basename(pickle.loads(cloudpickle.dumps(fail)).__code__.co_filename))
PROGRAM
"${PYTHON:-python3}" -m venv "$folder/venv"
name_with() {
    "$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install "cloudpickle==$1"
    "$folder/venv/bin/python" "$folder/script.py"
}
seen="3.1.0: $(name_with 3.1.0), 3.1.3: $(name_with 3.1.3)"
echo "$seen"
[ "$seen" = "3.1.0: script.py, 3.1.3: <dynamic-code>" ]
