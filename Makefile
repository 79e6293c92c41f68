# make demo        the shipped model on the shipped clip; needs no torch and no GPU
# make test        the test suite on the CPU, with coverage of glnet_rt
# make test-gpu    the tests that need an NVIDIA GPU
# make check-all   lint, and every CPU test, the slow ones too
# make lint        ruff and mypy
# make bench       every benchmark in benchmarks/
#
# Each sets up what it needs in $(VENV). Another interpreter: make demo PYTHON=/path/to/python3.12

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
OUT ?= out/demo
COVERAGE_MIN ?= 90
TORCH ?= torch==2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

# The first interpreter of at least 3.10.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $$p && break; done)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
PYTEST := $(BIN)/python -m pytest
COVERAGE := --cov=glnet_rt --cov-report=term --cov-fail-under=$(COVERAGE_MIN)
BENCHMARKS := $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))

.PHONY: help demo test test-gpu check-all lint bench

help:
	@sed -n '/^# make/s/^# //p' Makefile

demo: $(VENV)/.runtime
	@$(BIN)/glnet-rt demo --out $(OUT)

test: $(VENV)/.test
	@echo "== tests"
	@$(PYTEST) -m "not slow and not gpu" $(COVERAGE)

check-all: lint $(VENV)/.rtx
	@echo "== tests, the slow ones too"
	@$(PYTEST) -m "not gpu" $(COVERAGE)

# What was found goes into docs/hardware.md, failures too.
test-gpu: $(VENV)/.test
	@if ! nvidia-smi -L >/dev/null 2>&1; then \
		echo "No NVIDIA GPU found (nvidia-smi -L failed): no GPU test was run."; \
	else \
		nvidia-smi -L; rm -f out/gpu.json; $(PYTEST) -m gpu -rs -s; code=$$?; \
		$(BIN)/python -m tests.gpu.record out/gpu.json docs/hardware.md && exit $$code; \
	fi

lint: $(VENV)/.test
	@echo "== ruff check"; $(BIN)/ruff check .
	@echo "== ruff format"; $(BIN)/ruff format --check .
	@echo "== mypy"; $(BIN)/mypy

bench: $(VENV)/.test
	@if [ -z "$(BENCHMARKS)" ]; then echo "There is no benchmark in benchmarks/ yet: nothing was run."; fi
	@for file in $(BENCHMARKS); do \
		name=$$(basename $$file .py); echo "== python -m benchmarks.$$name"; \
		$(BIN)/python -m benchmarks.$$name || exit $$?; \
	done

# An environment that is there already, with pip, is used as it is; nothing is ever deleted.
$(VENV)/.made:
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python >= 3.10 found. Install one (sudo apt install python3 python3-venv)," >&2; \
		echo "or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "== using the virtual environment in $(VENV)"; \
	elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
		echo "$(PYTHON) is no Python >= 3.10. Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	else \
		echo "== making a virtual environment in $(VENV), $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
			|| $(PYTHON) -m virtualenv -q $(VENV) 2>/dev/null \
			|| virtualenv -q -p $(PYTHON) $(VENV) 2>/dev/null \
			|| { echo "$(PYTHON) cannot make a virtual environment: Debian and Ubuntu leave out its venv module." >&2; \
				echo "Install it: sudo apt install python3-venv" >&2; exit 1; }; \
	fi
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "Python >= 3.10 is needed, $(VENV) has $$($(BIN)/python --version 2>&1)." >&2; \
		echo "Name another: make VENV=.venv310 PYTHON=/path/to/python3.10" >&2; exit 1; }
	@touch $@

$(VENV)/.runtime: $(VENV)/.made setup.py glnet_rt/_version.py
	@echo "== glnet-rt and what it needs at run time"
	@$(PIP) install -e .
	@touch $@

# The CPU build of torch: from its own index, else from the index that pip is set up with.
$(VENV)/.torch: $(VENV)/.made
	@echo "== torch, CPU build (for the tests of train/ and export/; glnet_rt itself never uses it)"
	@$(PIP) install --retries 0 --timeout 10 --index-url $(TORCH_CPU_INDEX) "$(TORCH)" 2>/dev/null \
		|| { echo "   not from $(TORCH_CPU_INDEX): trying pip's own index"; $(PIP) install "$(TORCH)"; } \
		|| { echo "   no $(TORCH) for this Python: taking the newest torch"; $(PIP) install torch; }
	@touch $@

$(VENV)/.test: $(VENV)/.torch $(VENV)/.runtime
	@echo "== what training, export and the tests need"
	@$(PIP) install -e ".[openvino,cuda,train,export,dev,oracles]"
	@touch $@

# Builds engines for GPUs that are not here. Where there is no wheel of it, its tests are skipped.
$(VENV)/.rtx: $(VENV)/.test
	@echo "== TensorRT for RTX"
	@if $(PIP) install -e ".[rtx]"; then touch $@; \
	else echo "   not to be had here: no engine will be built"; fi
