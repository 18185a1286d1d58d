# Every target sets up what it needs: on a fresh machine `make demo` and `make test` are enough.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
PYTEST  := $(BIN)/python -m pytest
# ASYNC9 is a style in which every function has a checkpoint; ASYNC127 advises another HTTP client.
ASYNC_RULES := --disable=ASYNC9,ASYNC127 --startable-in-context-manager=run,_run_stage,_keep_running

.DEFAULT_GOAL := help
.PHONY: help setup run demo test prove lint bench eval docs clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The server runs on Python 3.11 to 3.13; the first interpreter that fits and can make an environment is taken.
$(STAMP): pyproject.toml
	@set -e; found=; \
	for python in "$(PYTHON)" python3.13 python3.12 python3.11; do \
	    "$$python" -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue; \
	    found=$$python; break; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "No Python 3.11 to 3.13 with venv found. Install one, or name it: make PYTHON=/path/to/python3.12 setup" >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$($$found --version)"; \
	"$$found" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(STAMP)  ## Make .venv and install everything into it (once)

run: $(STAMP)  ## Start the server: ingest 8001, API 8002, page 3000
	$(BIN)/python -m dunetrace

demo: $(STAMP)  ## Start the server and a few example agents, so that the page has something to show
	$(BIN)/python -m dunetrace --demo

# Files in their order: left to itself, xdist begins with the files of many tests and ends on one long one.
# What fails beside others is run once more with the machine to itself, in plain view: a busy machine is not a fault.
test: $(STAMP)  ## Run the tests, side by side; then, alone, those that measure how fast an alert is
	$(PYTEST) -m "not prove and not alone" --numprocesses 3 --dist loadfile --no-loadscope-reorder \
	|| $(PYTEST) -m "not prove and not alone" --last-failed --last-failed-no-failures none
	$(PYTEST) -m "alone and not prove"

prove: $(STAMP)  ## Run the long proofs that `make test` leaves out
	$(PYTEST) -m prove

lint: $(STAMP)  ## Style, types, async rules and the walls between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/flake8-async $(ASYNC_RULES) $$(find dunetrace examples bench -name '*.py')
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## Measure ingest on this machine
	$(BIN)/python -m bench

eval: $(STAMP)  ## Measure the detectors on real agent runs, and write docs/detection-quality.md
	$(BIN)/python -m tests.quality --write

docs: $(STAMP)  ## Write the generated pages anew, then check every page
	$(BIN)/python -m dunetrace.events_page > docs/events.md.new && mv docs/events.md.new docs/events.md
	$(BIN)/python -m dunetrace.detectors.docs > docs/detectors.md.new && mv docs/detectors.md.new docs/detectors.md
	$(PYTEST) tests/docs

clean:  ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
