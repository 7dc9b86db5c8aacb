# make demo: the main job. make test: the tests. Both install what they need into .venv on the first run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/installed
LOCK := requirements.lock
PLUGINS ?= .venv-plugins
PLUGINS_PYTHON ?= python3.12
TRL ?= 0.29.1 1.4.0
TRAINERS := $(addprefix tests/hf/trainers/test_,trl_compat.py rl.py rl_step.py resample.py trainer.py sft_levels.py sft_packing.py sft_metrics.py rl_settings.py)
# One test process per core, at most eight.
WORKERS ?= --numprocesses auto --maxprocesses 8 --dist worksteal

# OpenMP threads that spin while they wait slow small steps 4 to 20 times.
export OMP_WAIT_POLICY ?= PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test tests test-all test-pages test-plugins test-trl lint docs docs-links dist bench torture lock

demo: $(READY)
	$(BIN)/operant demo

# Lint and the tests at once: pyright alone leaves all cores but one idle for a minute.
test: $(READY)
	$(MAKE) --no-print-directory --jobs=2 lint tests

tests: $(READY)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS) -m "not slow" --cov --cov-report=term:skip-covered

test-all: lint
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS)

# The pages in Chromium; the first line says which one, or how to install one.
test-pages: $(READY)
	$(BIN)/python -m tests.report.browser
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -m pages tests/report

# verl and SkyRL pin other versions than ours, and SkyRL needs Python 3.12: both have an environment of their own.
test-plugins: $(PLUGINS)/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PLUGINS)/bin/python -m pytest -W default tests/plugins

# The trainers on older TRL releases, which lie in front of the locked one; they import requests without asking for it.
test-trl: $(READY)
	for release in $(TRL); do \
	  folder=$(CURDIR)/$(VENV)/trl-$$release; \
	  test -f $$folder/installed || { $(BIN)/pip install --quiet --target $$folder --no-deps trl==$$release && \
	    $(BIN)/pip install --quiet --target $$folder requests && touch $$folder/installed; } || exit 1; \
	  PYTHONPATH=$$folder HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" $(TRAINERS) || exit 1; \
	done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --project pyproject.toml

# The documentation in site/. A link or an anchor that leads nowhere, a page without a place and a docstring that does not
# parse are errors.
docs: $(READY)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going -c docs . site
	@echo "open site/index.html"

# The links that lead elsewhere, README's too; it asks each of their servers.
docs-links: $(READY)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/sphinx-build --quiet --fresh-env -b linkcheck -c docs \
	  -D 'include_patterns=*.md,docs/**,recipes/README.md,experiments/*/README.md' . site/links

# The wheel and the sdist, tried in an environment of their own.
dist: $(READY)
	$(BIN)/python .ci/dist.py

bench: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/strategies.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/peers.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/routes.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/features.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/gradient.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training.py

# torch goes first and alone: the lock fits any build of it, CPU or CUDA.
$(READY): pyproject.toml $(LOCK)
	@echo "installing the locked versions into $(VENV), about 2 GB: some minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install "$$(grep '^torch==' $(LOCK))"
	PIP_CONSTRAINT=$(LOCK) $(BIN)/pip install --editable '.[dev]'
	touch $@

$(PLUGINS)/installed: pyproject.toml tests/plugins/requirements.txt
	test -x $(PLUGINS)/bin/python || $(PLUGINS_PYTHON) -m venv $(PLUGINS)
	$(PLUGINS)/bin/pip install --quiet "$$(grep '^torch==' $(LOCK))"
	$(PLUGINS)/bin/pip install --quiet --no-deps verl==0.9.1 skyrl==0.4.0 skyrl-gym==0.4.0
	$(PLUGINS)/bin/pip install --quiet --requirement tests/plugins/requirements.txt
	$(PLUGINS)/bin/pip install --quiet --no-deps --editable .
	touch $@

# What operant survives, in one table: 40 minutes on two cores; TORTURE=short in five.
torture: $(READY)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m torture --write runs/torture.md

# Write the lock again from what the environment holds.
lock: $(READY)
	{ echo "# Exact versions, a pip constraints file. Written by: make lock"; \
	  $(BIN)/pip freeze --all --exclude-editable | sed 's/+cpu$$//' | grep -v -E '^(pip|setuptools|wheel|operant)=='; } > $(LOCK).new
	mv $(LOCK).new $(LOCK)
