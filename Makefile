# Everything a person does in a checkout. `make` alone lists it.
# Uses .venv; makes it at first use, with the first Python of at least 3.11 it finds (PYTHON=... to choose).

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
BIN := .venv/bin
STAMP := .venv/.installed
# more for pytest: make test ARGS="-k spool"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 10

demo: $(STAMP)  ## run a daemon on a temporary spool and send it the example bundles
	@$(BIN)/datarun demo

test: $(STAMP)  ## all tests, as many at once as there are processors (up to 8)
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist worksteal $(ARGS)

lint: $(STAMP)  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: $(STAMP)  ## the benchmarks, side by side in one run
	@$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove the virtual environment and the tools' caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "datarun needs Python 3.11 or newer, and found none. On Debian: apt install python3 python3-venv. Or: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "making .venv with $$($(PYTHON) --version) ($(PYTHON))"; $(PYTHON) -m venv .venv >/dev/null 2>&1; } || { \
	    rm -rf .venv; \
	    echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv. Or: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "installing datarun and what it needs into .venv (a minute or two, once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	@touch $@
