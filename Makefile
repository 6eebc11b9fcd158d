# The project's vocabulary; `make help` lists it. Every target makes what it needs, all of it inside
# .venv and runs/, on a machine with Python 3.11, make and git.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test check bench up down docs lock clean

PY := .venv/bin/python
UV := .venv/bin/uv
INSTALLED := .venv/.installed
COMPOSE ?= docker compose
BENCH ?= windows history stream load device serving serving-steps pipeline alarms

# Any Python 3.11 that can make an environment; `PYTHON=/path/to/python make setup` names one.
# Each candidate is run, not only looked up: a version manager's shim exists without its Python.
FIND_PYTHON = for python in $(PYTHON) python3.11 python3 python; do \
	  $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' \
	    2>/dev/null && break; python=; done; \
	if [ -z "$$python" ]; then \
	  echo "error: no Python 3.11 with venv on PATH; install one (Debian: python3.11-venv)" \
	    "or name it, PYTHON=/path/to/python3.11 make setup" >&2; exit 2; fi

# uv does not read pip's settings, so an index and wheel folders configured for pip are handed on.
# torch is the CPU build: from a wheel folder that has it, else from uv's own idea of where it is.
# `UV_TORCH_BACKEND=auto make setup` asks for the build that fits this machine's accelerator.
FIND_WHEELS = index=$$($(PY) -m pip config get global.index-url 2>/dev/null || true); \
	links=$${PIP_FIND_LINKS:-$$($(PY) -m pip config get global.find-links 2>/dev/null || true)}; \
	index=$${PIP_INDEX_URL:-$$index}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX=$${UV_DEFAULT_INDEX:-$$index}; fi; \
	if [ -n "$$links" ]; then export UV_FIND_LINKS=$${UV_FIND_LINKS:-$${links// /,}}; fi; \
	if [ -z "$$links" ] || ! ls $$links 2>/dev/null | grep -q '^torch-'; then \
	  export UV_TORCH_BACKEND=$${UV_TORCH_BACKEND:-cpu}; fi

# Where this is set, every process compiles every library anew: Feast alone takes 8 s more to import.
unexport PYTHONDONTWRITEBYTECODE

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

setup: $(INSTALLED) ## make .venv with the pinned dependencies (the other targets do it themselves)
	@echo "ready: .venv (its commands: .venv/bin/throughline --help)"

demo: $(INSTALLED) ## the whole story, raw events to a promoted model; DEMO_ARGS="--size full"
	$(PY) -m throughline fraud demo $(DEMO_ARGS)

# The stack's tests hold real processes to deadlines, so they have the machine to themselves.
test: $(INSTALLED) ## every test: unit, parity, model, stack; TEST_ARGS="tests/unit -k window"
ifdef TEST_ARGS
	$(PY) -m pytest $(TEST_ARGS)
else
	@failed=0; set -x; \
	  $(PY) -m pytest --ignore=tests/stack -n auto --dist loadfile || failed=1; \
	  $(PY) -m pytest tests/stack || failed=1; exit $$failed
endif

check: $(INSTALLED) ## format, lint, types and the import contracts; changes nothing
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

bench: $(INSTALLED) ## every bench beside its peers, into runs/bench; BENCH="stream history" picks
	for name in $(BENCH); do \
	  $(PY) -m throughline bench $${name/-steps/ --ablate} --json runs/bench/$$name.json; done

up: ## the fraud service and the MLflow page in containers, on loopback; STACK=1 adds Redis, a stream, the loop
	@test -d $${RUNS:-runs/demo} || { echo "error: nothing to serve; run make demo first" >&2; exit 2; }
	$(COMPOSE) $(if $(STACK),--profile stack) up --detach

down: ## stop what `make up` started; files stay
	$(COMPOSE) --profile stack down

docs: $(INSTALLED) ## rewrite the tables of README.md and docs/ from what lies in runs/
	$(PY) -m monitoring.results_table

lock: $(UV) ## rewrite requirements.lock from pyproject.toml; UPGRADE=--upgrade moves every pin but torch
	@grep '^torch==' requirements.lock > .venv/torch.pin
	@grep -v '^torch==' requirements.lock > .venv/new.lock
	@$(FIND_WHEELS); $(UV) pip compile pyproject.toml --extra dev --extra bench --python-version 3.11 --quiet \
	  --no-header --no-annotate $(UPGRADE) --constraint .venv/torch.pin --output-file .venv/new.lock
	@sed 's/+cpu$$//' .venv/new.lock > requirements.lock

clean: ## remove caches and build leftovers; keeps .venv and runs/
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(UV):
	@$(FIND_PYTHON); echo "making .venv with $$($$python -V)"; $$python -m venv --clear .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"

$(INSTALLED): $(UV) requirements.lock pyproject.toml
	@echo "installing the packages of requirements.lock into .venv"; $(FIND_WHEELS); \
	  $(UV) pip install $$([ -t 2 ] || echo --quiet) --python $(PY) --requirement requirements.lock
	@$(UV) pip install --python $(PY) --quiet --no-deps --no-build-isolation --editable .
	@$(PY) -c 'import lightgbm' || { echo "error: LightGBM needs the system's OpenMP library" \
	  "(Debian: libgomp1; macOS: brew install libomp)" >&2; exit 2; }
	@touch $@
