# Two commands: `make demo` and `make test`. Each sets up .venv from nothing and does its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.suder-installed
# The rooms too: an editable installation lists the modules it found.
SOURCES := CMakeLists.txt $(shell find csrc -type f) $(shell find suder_ext python -name __init__.py)
CXX_FILES := $(shell find csrc tests -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
DEMO_ARGS ?=
# A file of tests stays in one process, with the models that its tests share; each takes a gigabyte.
ALL_CORES := -n auto --maxprocesses 8 --dist loadfile
# Threads of torch's OpenMP that wait by spinning for long would slow all that runs beside them.
export GOMP_SPINCOUNT ?= 10000
# ON builds the CUDA kernels too (nvcc; two minutes more)
SUDER_CUDA ?= OFF

.PHONY: demo test lint docs docs-serve setup sanitize emulated gates fuzz chaos hosts wheel clean

demo: setup
	$(BIN)/suder demo $(DEMO_ARGS)

test: setup
	$(BIN)/python -m pytest $(ALL_CORES)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest suder_ext._C --mypy-config-file pyproject.toml
	@$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

# The pages of docs/ into build/site, without any network; a warning is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --strict

sanitize: setup
	bash .ci/sanitize

# The CUDA kernels for the tests of a machine without a GPU; `make test` runs those it finds built.
emulated: setup
	bash .ci/emulated build

# sdist and wheel into dist/, the wheel tried in an empty environment; PYTHON and SUDER_CUDA choose
wheel:
	PYTHON=$(PYTHON) SUDER_CUDA=$(SUDER_CUDA) bash .ci/wheel

# verl, ms-swift and lmms-eval themselves with our plug-ins (100 MB to fetch; a part of CI).
hosts: setup
	bash .ci/hosts

# The CUDA kernels compiled for every card: no warning, no spill (CI does it for two; minutes).
gates: setup
	$(BIN)/python .ci/cuda_gates.py $(foreach arch,80 86 89 90a 100 120,--arch $(arch))

# Damaged pictures; FUZZ=count, and FUZZ_SEED for others. libtiff's own messages are many.
FUZZ ?= 1000000
FUZZ_SEED ?= 0
fuzz: setup
	$(BIN)/python -m tests.trainer.inputs.fuzz_pictures $(FUZZ) $(FUZZ_SEED) 2>/dev/null

# Runs killed 200 times at random, resumed, compared bit for bit (ten minutes); a test does it 8 times.
chaos: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.trainer.run.chaos --kills 200

setup: $(STAMP)

$(STAMP): pyproject.toml requirements-dev.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements-dev.txt
	CMAKE_ARGS=-DSUDER_CUDA=$(SUDER_CUDA) $(BIN)/pip install -q --no-build-isolation --no-deps -e .
	touch $@

clean:
	rm -rf build dist $(VENV)
