# make demo: the main job. make test: the tests. Both install what they need into .venv on the first run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/installed
LOCK := requirements.lock
# One test process per core, at most eight.
WORKERS ?= --numprocesses auto --maxprocesses 8 --dist worksteal

# OpenMP threads that spin while they wait slow small steps 4 to 20 times.
export OMP_WAIT_POLICY ?= PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all lint bench lock

demo: $(READY)
	$(BIN)/operant demo

test: lint
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS) -m "not slow" --cov --cov-report=term:skip-covered

test-all: lint
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --project pyproject.toml

bench: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/strategies.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/routes.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/features.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/gradient.py

# torch goes first and alone: the lock fits any build of it, CPU or CUDA.
$(READY): pyproject.toml $(LOCK)
	@echo "installing the locked versions into $(VENV), about 2 GB: some minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$$(grep '^torch==' $(LOCK))"
	PIP_CONSTRAINT=$(LOCK) $(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Write the lock again from what the environment holds.
lock: $(READY)
	{ echo "# Exact versions, a pip constraints file. Written by: make lock"; \
	  $(BIN)/pip freeze --all --exclude-editable | sed 's/+cpu$$//' | grep -v -E '^(pip|setuptools|wheel|operant)=='; } > $(LOCK).new
	mv $(LOCK).new $(LOCK)
