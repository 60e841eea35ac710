# make quickstart   train, look, sample: five minutes on two CPU cores
# make serve        the quickstart's run over HTTP, with a playground at http://127.0.0.1:8000
# make test         the default tests
# make test-slow    everything slow as well
# make test-gpu    what needs a GPU
# make chaos        kill runs, preempt them, kill them while they save, break their input: within an hour
# make check        format, lint, types
# make all          check, docs and test
# make docs         the documentation as a site, in build/docs/site; warnings are errors

PYTHON ?= python3
BIN := .venv/bin

.PHONY: all quickstart serve test test-slow test-gpu chaos check docs format clean

quickstart: .venv/installed
	$(BIN)/lightning-xt fit -c configs/language/quickstart.yaml

serve: .venv/installed-serve
	$(BIN)/lightning-xt serve runs/quickstart

all: check docs test

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 -m "not gpu" --all-shape-checks

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-gpu: .venv/installed-dev
	$(BIN)/python -m pytest -m gpu

chaos: .venv/installed-dev
	$(BIN)/python tests/chaos/check.py

docs: .venv/installed-docs
	$(BIN)/python docs/build_site.py
	$(BIN)/zensical build --strict --config-file build/docs/zensical.toml

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("lightning-xt needs Python 3.11 to 3.14; set PYTHON=python3.x" if not (3, 11) <= sys.version_info[:2] <= (3, 14) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/installed-serve: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[serve]"
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@
