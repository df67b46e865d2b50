# Two commands: `make demo` and `make test`. Each sets up .venv from nothing and does its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.suder-installed
SOURCES := $(shell find csrc CMakeLists.txt -type f)

.PHONY: demo test lint setup sanitize clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements-dev.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements-dev.txt
	$(BIN)/pip install -q --no-build-isolation --no-deps -e .
	touch $@

demo: setup
	$(BIN)/suder demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc tests -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

clean:
	rm -rf build dist $(VENV)
