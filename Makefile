# Two commands do everything on a fresh machine with Python 3.11 or newer:
#
#     make playground      set up, fetch the built-in model, start the app
#     make test            the same set-up, then every test, a real browser included
#
# For teaching: make lab (JupyterLab on the tutorial), make offline-pack (all that the set-up fetches, in one folder).
#
# On Linux without a GPU, PyTorch's own CPU index saves gigabytes of CUDA libraries:
#
#     make playground TORCH_INDEX=https://download.pytorch.org/whl/cpu
#
# While working on it: make check (format, lint, types), make test-fast (that, and the quick tests).
#
# Options: PYTHON (the interpreter to build the environment from), PORT, RUNS, WORKERS (processes that run the tests),
# OFFLINE_PACK (a folder of make offline-pack, to set up from without a network), PLATFORMS (linux windows mac: for whom
# it is packed; nothing: for machines like this one).

# the first one that runs and is new enough: a version manager's shim may be there and not run
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { command -v $$p; break; }; done)
TORCH_INDEX ?=
PORT ?= 7860
RUNS ?=
NOTEBOOKS ?=
PLATFORMS ?=
# a folder of that name beside this file is used without being named
OFFLINE_PACK ?= $(if $(IS_PACKING),offline-pack,$(wildcard offline-pack))
IS_PACKING := $(filter offline-pack,$(MAKECMDGOALS))
# two at most: each takes up to 3 GB of memory
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); [ $$n -lt 2 ] && echo 1 || echo 2)

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ifneq ($(if $(IS_PACKING),,$(OFFLINE_PACK)),)
ifeq ($(wildcard $(OFFLINE_PACK)/wheels),)
$(error OFFLINE_PACK=$(OFFLINE_PACK): there is no folder wheels in it. Name a folder that make offline-pack has filled, or leave OFFLINE_PACK= empty to use the network)
endif
# for pip, also where it fetches what the project is built with
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(abspath $(OFFLINE_PACK))/wheels
export TUNELAB_STARTER_WHEEL ?= $(firstword $(wildcard $(abspath $(OFFLINE_PACK))/starter/*.whl))
endif

.PHONY: help playground lab test test-fast check format bench notebooks offline-pack clean

help:
	@sed -n '2,17s/^# \{0,1\}//p' Makefile

playground: $(VENV)/starter
	@$(BIN)/python -m playground --port $(PORT) $(if $(RUNS),--runs "$(RUNS)")

# the tutorial, in a browser; its first notebook is open
lab: $(VENV)/starter
	@$(BIN)/jupyter lab notebooks/00_quickstart.ipynb

# the model is made while the checks run: both wait for the same packages only
test:
	@$(MAKE) --no-print-directory -j2 $(VENV)/starter check
	@echo "running the tests: first those that can run side by side"
	@$(PYTEST) -m "not alone"
	@$(BIN)/python -m pytest -m alone tests/browser

test-fast: $(VENV)/test-tools check
	@echo "running the quick tests"
	@$(PYTEST) -m "not slow"

check: $(VENV)/test-tools
	@echo "checking format, lint and types"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

format: $(VENV)/test-tools
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# every figure, into benchmarks/RESULTS.md
bench: $(VENV)/starter
	@$(PIP) -r requirements-bench.txt
	@$(BIN)/python -m benchmarks

# run the solutions in full, keep their outputs, make the learners' copies; NOTEBOOKS="03 05": these alone
notebooks: $(VENV)/starter
	@$(BIN)/python -m notebooks.run $(NOTEBOOKS)

# what a workshop without a network needs
offline-pack: $(VENV)/installed
	@$(BIN)/python -m notebooks.offline_pack "$(OFFLINE_PACK)" $(PLATFORMS) $(if $(TORCH_INDEX),--torch-index "$(TORCH_INDEX)")

clean:
	rm -rf $(VENV) build lib/*.egg-info

# Set-up, step by step. Each step leaves a file behind, so that the second time is fast; a step that was interrupted
# leaves none and is done again.

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; python3 here is: $$(python3 -V 2>&1 || true). Install a newer one, or give PYTHON=/path/to/python3.11."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Python 3.11 or newer is needed; $(PYTHON) is: $$($(PYTHON) -V 2>&1 || true). Give PYTHON=/path/to/python3.11."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "making the environment in $(VENV) with $$($(PYTHON) -V)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: requirements.txt pyproject.toml | $(VENV)/made
	@echo "installing the packages of requirements.txt (some minutes the first time)$(if $(PIP_NO_INDEX), from $(OFFLINE_PACK))"
ifneq ($(TORCH_INDEX),)
	@$(PIP) --index-url $(TORCH_INDEX) "$$(grep '^torch==' requirements.txt)"
endif
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/starter: $(VENV)/installed lib/tunelab/model/starter.py
	@$(BIN)/python -m tunelab.model.starter > /dev/null
	@touch $@

$(VENV)/test-tools: requirements-test.txt $(VENV)/installed
	@echo "installing the test tools and a browser"
	@$(PIP) -r requirements-test.txt
	@sh .ci/browser $(BIN)/python
	@touch $@
