# make demo    the ratio sweep on real text: a table, Parquet and a figure; README says how long it took
# make test    everything the project checks
# make notebooks    executes them from scratch, in place
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
SCALE ?= cpu
# As in sweeps/workers/server.py, for the tests.
export GOMP_SPINCOUNT ?= 3000

.PHONY: demo test check lint services docs notebooks clean chaos

demo: $(BIN)/.installed
	$(BIN)/python -m sweeps run ratio --scale $(SCALE)

test: lint services
	$(BIN)/python -m pytest -q -m "slow or not slow"

# The tests with the mark `service` start a PostgreSQL of their own, those with `browser` open pages
# in Chromium. Without these, and without the right to install them, they are skipped and say so.
services:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
	    || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	         && apt-get update -q && apt-get install -qy --no-install-recommends postgresql; } \
	    || echo "no PostgreSQL server: its tests will be skipped; apt-get install postgresql"
	@command -v chromium >/dev/null \
	    || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	         && apt-get update -q && apt-get install -qy --no-install-recommends chromium; } \
	    || echo "no Chromium: its tests will be skipped; apt-get install chromium"

check: lint
	$(BIN)/python -m pytest -q

lint: $(BIN)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Kills a hundred processes at random and writes what was found into docs/reliability.md.
chaos: $(BIN)/.installed-dev
	$(BIN)/python -m benchmarks.chaos --kills 100 --page docs/reliability.md

# What is generated from code or records; the tests hold it against its source.
docs: $(BIN)/.installed-dev
	$(BIN)/python -m sweeps docs
	$(BIN)/python -m hybrid docs
	$(BIN)/python -m ablations report --html

notebooks: $(BIN)/.installed-dev
	$(BIN)/python -m notebooks

$(BIN)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e .
	touch $@

# mamba-ssm only for its Python formulas, which ours are held against, and triton for its
# interpreter; those that are there stay, since torch for CUDA brings a triton of its own.
$(BIN)/.installed-dev: $(BIN)/.installed
	$(PIP) install -q -c constraints.txt -e '.[dev,hf,eval,notebooks,postgres,grpc,slurm,dashboard]'
	$(BIN)/python -c 'from importlib.metadata import version; version("mamba-ssm")' 2>/dev/null \
	    || MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE \
	    $(PIP) install -q --no-deps --no-build-isolation mamba-ssm==2.3.2.post1
	$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP) install -q triton==3.9.0
	touch $@

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
