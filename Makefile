# `make demo` and `make test` set everything up on a fresh machine, in a virtual environment of their own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests' models are tiny: two processes of one thread each do more than one process of two.
TEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest
WORKERS ?= 2
STAMP := $(VENV)/.installed

DOCS_STAMP := $(VENV)/.docs-installed

.PHONY: demo test test-all lint types docs audit bench clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,demo]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m examples.demo

test: $(STAMP)
	$(TEST) -m "not slow" --numprocesses $(WORKERS) --dist loadfile

test-all: $(STAMP)
	$(TEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: $(DOCS_STAMP)
	$(BIN)/mkdocs build --strict

# Known weaknesses of what is installed, where the service that lists them can be reached.
audit: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip-audit
	$(BIN)/pip-audit --skip-editable

bench: $(STAMP)
	$(BIN)/python -m benchmarks.export_fidelity

clean:
	rm -rf $(VENV) build dist site *.egg-info
