# Everything happens in .venv; no target needs anything outside it but a Python and, for a first setup, the registry.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# A name on PATH may be a shim that does not run, so each candidate is asked for its version.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
UV ?= $(shell command -v uv)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup demo test fuzz check chaos soak swap format lock clean

help: ## Show the targets.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

setup: $(STAMP) ## Make the environment in .venv (does nothing when it is up to date).

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later on PATH; pass PYTHON=/path/to/python" >&2; exit 1; }
	@if [ -n "$(UV)" ]; then \
		[ -x $(BIN)/python ] || $(UV) venv --python "$(PYTHON)" .venv; \
		$(UV) pip install --python $(BIN)/python --require-hashes -r requirements.lock; \
		$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
		$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv .venv; \
		$(BIN)/python -m pip install --require-hashes -r requirements.lock; \
		$(BIN)/python -m pip install --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

demo: setup ## Run the whole thing once on this machine: broker, models, worker, plays in, lists out.
	$(BIN)/msam demo

test: setup ## Run every test (starts real Kafka brokers), three at a time.
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

CASES ?= 100000
SEED ?= 0
fuzz: setup ## Throw CASES random and damaged records (100000) at the codecs and the play step.
	$(BIN)/python -m tests.fuzz --cases $(CASES) --seed $(SEED)

check: setup ## Lint, format, types and doctests: the same here and in CI.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --doctest-modules streams msam schemas

KILLS ?= 10
EACH ?= 3
SEED ?= 1
MINUTES ?= 90
soak: MINUTES = 60
RATE ?= 500
swap: RATE = 1000
SWAPS ?= 20

chaos: setup ## Kill workers and the broker, cut lines, fill disks while plays go in, and judge the log: chaos-report.json.
	$(BIN)/python -m tests.chaos.run --kills $(KILLS) --each $(EACH) --seed $(SEED) --minutes $(MINUTES)

soak: setup ## A worker under RATE (500) plays a second for MINUTES (60): memory and descriptors must stay level: soak-report.json.
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES) --rate $(RATE)

swap: setup ## SWAPS (20) roll-backs and promotions under RATE (1000) plays a second: what they cost: swap-report.json.
	$(BIN)/python -m tests.chaos.swap --swaps $(SWAPS) --rate $(RATE)

format: setup ## Let ruff rewrite what it can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

COMPILE = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links --quiet

lock: ## Pin again what pyproject.toml asks for (needs uv); UPGRADE=--upgrade moves to newer releases.
	$(COMPILE) $(UPGRADE) --extra dev -o requirements.lock
	$(COMPILE) -c requirements.lock -o deploy/requirements.lock

clean: ## Remove the environment, caches and build outputs.
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
