# Everything a developer runs, on a machine that has a Python 3.11 or newer and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
READY := .venv/ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Where bytecode may not be kept, each of the thousand processes that the tests start would compile all of Hecaton.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## List these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: setup
setup: $(READY) ## Make .venv with everything that the other targets need

# A name in PATH may be a stub that starts nothing, and Debian's Python may lack ensurepip: each candidate has to prove itself.
$(READY): requirements-dev.txt pyproject.toml
	@if [ ! -x $(BIN)/python ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for python in python3.11 python3.12 python3.13 python3.14 python3 python \
	      "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[1-9]*/bin/python; do \
	    if "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then \
	    echo "No Python 3.11 or newer was found that can make a virtual environment. On Debian and Ubuntu: apt-get install python3 python3-venv" >&2; exit 1; \
	  fi; \
	  echo "Making .venv with $$("$$found" --version)"; \
	  "$$found" -m venv --clear .venv; \
	fi
	@echo "Installing what requirements-dev.txt pins"
	@$(PIP) install --requirement requirements-dev.txt
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@$(PIP) check
	@touch $@

.PHONY: demo
demo: setup ## Run server, worker, a real handler and a batch of jobs, then clean up
	@$(BIN)/hecaton demo

# More than half of the time of most tests is waiting, but what measures patience fails on cores with too much to do.
PROCESSES ?= $(shell nproc 2>/dev/null || echo 2)
PYTEST := $(if $(SEED),SEED=$(SEED) )$(BIN)/python -m pytest -n $(PROCESSES) --no-loadscope-reorder
# A folder or a file of tests (core, server/test_jobs.py, simulator), or else an expression of markers.
CHOSEN = $(if $(PART),$(or $(firstword $(wildcard tests/test_$(PART).py tests/$(PART))),-m '$(PART)'))

.PHONY: test
test: setup ## Run all tests, or PART=core|FILE|MARKER of them, with a real Docker engine (SEED=N draws the same again)
	@$(BIN)/python -m tests.engine up
	@$(PYTEST) $(CHOSEN)

.PHONY: test-fast
test-fast: setup ## Run the tests that need no engine and do not wait for real time
	@$(PYTEST) -m 'not engine and not slow'

.PHONY: sim
sim: setup ## Run fresh seeds of the deterministic simulator for WORLDS=30
	@$(BIN)/python -m tests.simulator --worlds $(or $(WORLDS),30)

.PHONY: chaos
chaos: setup ## 10,000 jobs through 200 random kills and pauses of everything (SEED=N plays one again)
	@$(BIN)/python -m tests.engine up
	@$(BIN)/python -m tests.faults.chaos --jobs $(or $(JOBS),10000) --faults $(or $(FAULTS),200) $(if $(SEED),--seed $(SEED))

.PHONY: mutants
mutants: setup ## Put faults into copies of Hecaton and see whether the suite notices
	@$(BIN)/python -m tests.mutants

.PHONY: reliability
reliability: setup ## Full figures of what is promised under faults: about an hour
	@$(BIN)/python -m tests.engine up
	@FULL=1 $(BIN)/python -m pytest tests/faults
	@FULL=1 $(BIN)/python -m pytest --ignore tests/faults -m 'sample or full'
	@$(MAKE) chaos
	@$(MAKE) mutants
	@$(MAKE) sim WORLDS=600

# What runs on Windows and macOS must not call what only Linux has; the types of the standard library know.
TYPES_ELSEWHERE := --follow-imports silent --no-warn-unreachable -p hecaton.core -p hecaton.wire
CLIENT := -p hecaton.client -p hecaton.cli.hecaton -m hecaton._entry -m hecaton.cli.output -m hecaton.cli.terminal
SERVER := -p hecaton.server -p hecaton.store -p hecaton.cli.hecaton_server -m hecaton.cli.log_lines -m hecaton.cli.units

.PHONY: check
check: setup ## Check format, lint and strict types of code and tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 $(TYPES_ELSEWHERE) $(CLIENT)
	@$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin $(TYPES_ELSEWHERE) $(CLIENT) $(SERVER)

.PHONY: bench
bench: setup ## Measure throughput, latency, instructions
	@$(BIN)/python -m benchmarks

.PHONY: commands
commands: setup ## Write docs/commands.md anew, from the commands
	@$(BIN)/python -m tests.command_reference

.PHONY: instructions
instructions: setup ## Instructions of a job beside those kept; KEEP=1 keeps them
	@$(BIN)/python -m benchmarks.instructions $(if $(KEEP),--keep)

.PHONY: screenshots
screenshots: setup ## Make the pictures of the README again
	@$(BIN)/python docs/screenshots/make.py

.PHONY: dist
dist: setup ## Build wheel, source and release notes into dist/, and try them with pip, pipx and uv
	@$(BIN)/python -m tests.release

.PHONY: clean
clean: ## Remove .venv, caches and build results
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
