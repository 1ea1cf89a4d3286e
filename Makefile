# `make demo` and `make test` need Python 3.11 or newer, make and git; they set up everything else in .venv/.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench bench-reports fuzz screenshots lock clean test-senders soak lab crash-test

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## install everything into .venv/

$(STAMP): requirements.lock pyproject.toml hatch_build.py $(wildcard telemetry/receiver/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11: run 'make PYTHON=/path/to/python3.11 …'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh .ci/install-venv-module $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv/ (once; a minute or so)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: setup  ## play hundreds of real sessions through the pipeline, report, and leave the pages open
	@$(BIN)/telemetry demo

test: setup  ## run the tests; those of the pages in Debian's Chromium, which is installed where that is possible
	@sh .ci/install-packages "without Chromium the tests of the pages are skipped" chromium || true
	@$(BIN)/pytest -n 2 --dist loadfile

test-senders: setup  ## install the JavaScript SDK (needs nodejs and npm) and send from Node and headless Chromium
	@cd tests/receiver/javascript && npm ci --ignore-scripts --no-audit --no-fund
	@$(BIN)/pytest tests/receiver/test_javascript.py tests/receiver/test_browser.py

check: setup  ## format, lint, types and tests: what must pass before a commit
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory test

format: setup  ## let ruff rewrite what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup  ## measure; results go to tests/bench/results/
	@$(BIN)/python -m tests.bench

bench-reports: setup  ## measure every report, beside ClickHouse over the collector's table (chDB, fetched on demand)
	@test -x build/chdb/bin/python || $(PYTHON) -m venv build/chdb
	@$(BIN)/uv pip install --quiet --python build/chdb/bin/python chdb==4.4.0
	@BENCH_CHDB=build/chdb/bin/python $(BIN)/python -m tests.bench reports

fuzz: setup  ## a million mutated requests against the receiver's decoders
	@$(BIN)/python -m tests.fuzz

soak: setup  ## half of full speed for an hour (SOAK_MINUTES=…) with readers and pruning: memory and file stay flat
	@$(BIN)/python -m tests.soak

lab: setup  ## make real faults of networks, and hold the verdicts against them (root; five minutes)
	@sh .ci/install-packages "faults of a network need root and some tools" iproute2 nftables coturn
	@$(BIN)/python -m tests.lab

crash-test: setup  ## kill a storing process 200 times and count what was lost (some four minutes)
	@$(BIN)/python -m tests.crash.kill 200

screenshots: setup  ## draw the pages for the README, in both themes
	@$(BIN)/python -m tests.support.screenshots

lock:  ## resolve the dependencies anew
	@$(BIN)/uv pip compile pyproject.toml --extra clickhouse --group dev --universal --generate-hashes --upgrade \
	  --python-version 3.11 --no-header --no-annotate --quiet -o requirements.lock

clean:  ## remove what setup, tests and tools made
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist .coverage
