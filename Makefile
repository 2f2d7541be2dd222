# What a person does with a fresh clone; it needs Python >= 3.11, git and make.
#
#   make run     install jobd into .venv-run, as a user would, and show the README's examples
#   make test    everything that CI checks, in .venv
#   make format  put the sources into the form that `make test` asks for
#   make bench   measure the installed jobd
#   make chaos   faults at random for SECONDS (60) and POWER_CUTS (0), the counts at the end
#
# Two environments, because they want opposite things: .venv has the sources as an
# editable install, so that a test always sees what was just saved; .venv-run has
# them copied, because an editable install makes every start of the CLI slower.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: run test lint format bench chaos clean

# Of the Pythons on the PATH, the first that is new enough and can make a venv.
find_python = \
	for python in "$${PYTHON:-python3}" python3 python3.13 python3.12 python3.11 python3.14 python; do \
		if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null; then break; fi; \
		python=; \
	done; \
	if [ -z "$$python" ]; then echo "jobd needs Python 3.11 or later with venv; set PYTHON" >&2; exit 1; fi

# An environment that is active, or a PYTHONPATH, must not leak into ours.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := -m pip --quiet install

# With the directories: a file that was removed changes only its directory's time.
SOURCES := pyproject.toml README.md LICENSE $(shell find jobd/ cli config \
	-name __pycache__ -prune -o -print)

run: .venv-run/.stamp
	PATH="$(CURDIR)/.venv-run/bin:$$PATH" tests/examples.sh

# One process more than there are processors, as tests that wait need none; no more than four.
test: lint
	.venv/bin/python -P -m pytest --dist worksteal \
		--numprocesses $$(( $$(nproc) < 4 ? $$(nproc) + 1 : 4 ))

lint: .venv/.stamp
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/python scripts/unasync.py --check
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/.stamp
	.venv/bin/ruff check --fix-only
	.venv/bin/ruff format
	.venv/bin/python scripts/unasync.py

bench: .venv-run/.stamp
	.venv-run/bin/python $(PIP) 'numpy>=1.26'
	PATH="$(CURDIR)/.venv-run/bin:$$PATH" .venv-run/bin/python tests/benchmarks

SECONDS ?= 60
POWER_CUTS ?= 0

chaos: .venv/.stamp
	.venv/bin/python tests/chaos $(SECONDS) --power-cuts $(POWER_CUTS)

clean:
	rm -rf .venv .venv-run build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis

.venv/bin/python .venv-run/bin/python:
	@$(find_python); "$$python" -m venv $(@:/bin/python=)

.venv/.stamp: pyproject.toml jobd/_version.py | .venv/bin/python
	.venv/bin/python $(PIP) --editable '.[dev]'
	touch $@

# Two steps, so that a change of the sources alone asks no package index for anything.
.venv-run/.stamp: .venv-run/.requirements $(SOURCES)
	rm -rf build # setuptools would install what an earlier build left there
	.venv-run/bin/python $(PIP) --no-build-isolation --no-deps --force-reinstall .
	touch $@

.venv-run/.requirements: pyproject.toml | .venv-run/bin/python
	.venv-run/bin/python $(PIP) 'setuptools>=77'
	.venv-run/bin/python $(PIP) --no-build-isolation .
	touch $@
