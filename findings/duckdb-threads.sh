#!/bin/sh
# DuckDB 2.0.1: opening a connection starts eight threads for input and output beside one for each core but the
# first, before any query; SET threads=1 ends the latter and not the eight.
# Seen on two cores: "before 1, connected 10, with threads=1 9" (threads of the process).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install duckdb==2.0.1
"$folder/venv/bin/python" - <<'PROGRAM'
import os
import sys

import duckdb

def threads():
    return len(os.listdir('/proc/self/task'))

before = threads()
connection = duckdb.connect()
connected = threads()
connection.execute('set threads=1')
(limited,) = connection.execute("select current_setting('threads')").fetchall()[0]
print(f'before {before}, connected {connected}, with threads={limited} {threads()}')
cores = len(os.sched_getaffinity(0))
sys.exit((before, connected, limited, threads()) != (1, 9 + cores - 1, 1, 9))
PROGRAM
