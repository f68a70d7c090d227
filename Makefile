# Two commands: `make train` and `make test`. Both set up what they need in .venv.

PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet
OPTIONS ?=

.PHONY: train test lint bench clean

train: .venv/.run  ## train on the built-in data and open the table: make train OPTIONS="--seed 1"
	.venv/bin/fastsim train $(OPTIONS)

test: .venv/.test lint  ## the whole suite, two processes of one thread each
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/.run  ## environment steps per second
	.venv/bin/python benchmarks/benchmark_env.py

clean:
	rm -rf .venv

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fastsim needs Python >= 3.11; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --upgrade "pip>=25.1"
	touch $@

.venv/.run: .venv/.python pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

.venv/.test: .venv/.python pyproject.toml constraints.txt tests/oracles.txt
	$(PIP) install --constraint constraints.txt --editable ".[sb3,pettingzoo,yfinance,ccxt,fracast,baselines,onnx]" --group test
	$(PIP) install --no-deps --ignore-requires-python --requirement tests/oracles.txt
	touch $@ .venv/.run
