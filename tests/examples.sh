#!/usr/bin/env bash
# The README's examples, run for real against a daemon of their own.
#
# Needs `jobd` on the PATH; `make run` sees to that. Nothing outside of one new
# directory is touched, and the daemon is stopped whatever happens.
set -euo pipefail

directory=$(mktemp -d "${TMPDIR:-/tmp}/jobd.XXXXXX")

finish() {
    local code=$?
    trap - EXIT INT TERM
    jobd stop || true # it may never have started
    rm -rf "$directory"
    exit "$code"
}
trap finish EXIT INT TERM

# The user's own settings and daemon must play no part in this.
for name in "${!JOBD_@}"; do unset "$name"; done
export XDG_CONFIG_HOME="$directory/config"
export JOBD_STATE_DIR="$directory/state"
export JOBD_SOCKET="$directory/client.sock"

say() { printf '\n# %s\n' "$*"; }

# Show a command as a user would type it, then run it.
try() {
    printf '$ jobd'
    local word
    for word; do
        [[ $word =~ ^[A-Za-z0-9_./:=@-]+$ ]] || word=${word@Q}
        printf ' %s' "$word"
    done
    printf '\n'
    jobd "$@"
}

# The same for a command that must end with the given exit code.
try_for() {
    local expected=$1 code=0
    shift
    try "$@" || code=$?
    echo "(exit code $code)"
    if ((code != expected)); then
        echo "examples: expected exit code $expected" >&2
        return 1
    fi
}

cd "$directory"
cat >mytasks.py <<'PYTHON'
import time


def resize(name, width=800):
    print(f"resizing {name}")
    time.sleep(0.2)
    return {"name": name, "width": width}


def load(file="nowhere.csv"):
    if file == "nowhere.csv":
        raise FileNotFoundError(file)
    return [{"name": "Ann"}, {"name": "Bob"}]


def names(rows):
    return [row["name"] for row in rows]


def greet(who):
    return f"hello {who}"


def count(to):
    for number in range(1, to + 1):
        time.sleep(0.1)
        yield number
PYTHON

say "A daemon in the background"
try start

say "A function of the standard library: an id now, its result later"
try submit math:factorial 20
try result --wait 1

say "Submit and wait in one"
try submit --wait os.path:join usr lib

say "A function of one's own, from the current directory"
try submit --wait mytasks:resize cat.jpg width=200
try logs 3

say "A shell command; the exit code tells how the job ended"
try run -- sh -c 'echo hi; exit 3'
try_for 1 wait 4
try logs 4

say "Results are arguments: blocked until they are there, aborted if they never will be"
try submit mytasks:load sales.csv
try submit mytasks:names @job:5
try submit --wait mytasks:greet who=@job:6[0]
try submit mytasks:load
try submit mytasks:names @job:8
try_for 5 wait 9

say "Exactly one consumer"
try take 6
try_for 4 take 6

say "A generator is a stream"
try submit --follow mytasks:count 3

say "Queues: made before they are used, limited, paused"
try queue set etl --slots 2 --rate 100/m
try_for 2 submit mytasks:load march.csv --queue elt
try queue pause etl
try submit mytasks:load march.csv --queue etl
try queue ls
try queue resume etl
try result --wait last
try_for 4 queue pause elt

say "What happened"
try ls
try show 4
try status
