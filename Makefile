# Two commands: `make train` and `make test`. Both set up what they need in .venv.
# `make gpu` measures a GPU with the Python that has a CUDA torch: benchmarks/README.md says what else.
# `make test-long` runs the tests that take longest, which `make test` leaves to it.
# `make test-clients` tries other people's training libraries, in .venv/clients over .venv, and
# `make test-nautilus` NautilusTrader, in .venv/nautilus, as it needs an older pandas.

PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet
CLIENTS = .venv/clients/bin/python
CLIENTS_PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet --python $(CLIENTS)
NAUTILUS = .venv/nautilus/bin/python
OPTIONS ?=

.PHONY: train test test-long test-clients test-nautilus lint bench gpu clean

train: .venv/.run  ## train on the built-in data and open the table: make train OPTIONS="--seed 1"
	.venv/bin/fastsim train $(OPTIONS)

test: .venv/.test lint  ## the whole suite, two processes of one thread each
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2

test-long: .venv/.test  ## parity over many random rules under an interpreter, kernels and packages compiled
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 -m long

test-clients: .venv/.clients  ## every client library trains for a few iterations
	FASTSIM_CLIENTS=all OMP_NUM_THREADS=1 $(CLIENTS) -m pytest tests/adapters

test-nautilus: .venv/.nautilus  ## agents in NautilusTrader, against fastsim's replay of them
	FASTSIM_CLIENTS=nautilus OMP_NUM_THREADS=1 $(NAUTILUS) -m pytest -n 2 --dist loadfile tests/adapters/nautilus

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/.run  ## environment steps per second
	.venv/bin/python benchmarks/benchmark_env.py

gpu:  ## tests and benchmarks of a GPU: make gpu OPTIONS=--quick
	PYTHONPATH=".:$$PYTHONPATH" $(PYTHON) benchmarks/gpu.py --json benchmarks/results/gpu.json $(OPTIONS)

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
	$(PIP) install --constraint constraints.txt --editable ".[sb3,pettingzoo,plot,yfinance,ccxt,calendars,fracast,baselines,onnx,tune]" --group test
	$(PIP) install --no-deps --ignore-requires-python --requirement tests/oracles.txt
	touch $@ .venv/.run

.venv/.clients: .venv/.test tests/clients.txt
	.venv/bin/python -m venv .venv/clients
	.venv/bin/python -c "import site, sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> "$$($(CLIENTS) -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	$(CLIENTS_PIP) install --constraint constraints.txt --constraint tests/clients.txt --group clients
	$(CLIENTS_PIP) install --no-deps --constraint tests/clients.txt moviepy imageio-ffmpeg proglog
	touch $@

.venv/.nautilus: .venv/.test tests/nautilus.txt
	.venv/bin/python -m venv .venv/nautilus
	.venv/bin/python -c "import site, sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> "$$($(NAUTILUS) -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	.venv/bin/python -m pip --disable-pip-version-check --quiet --python $(NAUTILUS) install --no-deps --requirement tests/nautilus.txt
	touch $@
