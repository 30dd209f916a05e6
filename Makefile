# What a person does with this project; each target makes the environment that it needs.
#
#   make demo    the main job on real input, on every back-end
#   make test    the suite, against the built wheel; TESTS= names a part of it, PYTHON= another Python
#   make test-portable        the same with what only Linux has taken away
#   make test-free-threading  the same with the rules for contexts of free-threaded Pythons
#   make test-interpreters    the contract on subinterpreters, from Python 3.14 on
#   make test-clusters   the contract on real clusters, and how they fail; needs mpiexec for MPI
#   make test-tools      the tools that people use it with, each for real
#   make docs    the site, in docs/_build/html
#   make lint    style            make types   type checkers       make wheel   the distribution
#   make check   the suite, style, types and the distribution
#   make coverage   which lines the suite runs, those in workers included, as a table by package
#   make python-3.14   an interpreter of that version: prints its path, for PYTHON=
#   make chaos   2,000 random faults on real pools; FAULTS=, MINUTES= and SEED= change that
#   make bench   every workload over every other library that is installed; writes OUT=; BENCH= for less
#   make bench-clients   what programs do with a pool, emcee, SciPy and asyncio among them
#   make endurance   10,000 calls, 1,000 pools, a lazy map over 1,000,000 items; ENDURE= for less

PYTHON ?= $(shell for v in 3.15 3.14 3.13 3.12 3.11; do \
	if python$$v -c '' 2>/dev/null; then echo python$$v; exit; fi; done; echo python3)
# 3.14t is the free-threaded 3.14.
TAG := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2] + getattr(sys, "abiflags", ""))')
VENV := .venv-$(TAG)
# Absolute, as tests run in their own folder: Python 3.14 warns of a path with dots in it.
BIN := $(CURDIR)/$(VENV)/bin
WHEEL := build/wheel-$(TAG)
# uv, as it installs in seconds what takes pip minutes; with the certificates that the system trusts.
export UV_SYSTEM_CERTS := 1
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python
# Programs that tests start load what was compiled before, as they do for users.
unexport PYTHONDONTWRITEBYTECODE
SOURCES := pyproject.toml README.md LICENSE $(shell find parallel_facade -name '*.py')
TESTS := unit travel contract processes documents
PORTABLE := processes --start-methods spawn
# Python's own checks, such as of what is not closed, with DEV='-X dev'.
DEV :=
PYTEST = cd tests && $(BIN)/python $(DEV) -m pytest --durations 50 --durations-min 1

FAULTS ?= 2000
MINUTES ?= 20

OUT ?= docs/explanation/performance
BENCH ?= --out $(OUT)

ENDURE ?=

.PHONY: demo test test-processes test-others test-portable test-free-threading test-interpreters coverage test-tools docs docs-links test-clusters test-dask test-ppft test-ray test-engines test-mpi worker lint types wheel check bench bench-clients bench-short chaos endurance clean

demo: $(VENV)/wheel
	$(BIN)/python -m parallel_facade demo

# From the folder of the tests: there, the name of the package means the installed wheel. The suite
# runs in two halves at the same time, since most of its tests wait for processes; a part, as it is.
test: $(VENV)/wheel $(VENV)/test
	cd tests && $(BIN)/python -c 'import parallel_facade as p; assert "site-packages" in p.__file__'
ifeq ($(origin TESTS), file)
	$(MAKE) --no-print-directory --jobs 2 --output-sync test-processes test-others
else
	$(PYTEST) $(TESTS)
endif

test-processes:
	$(PYTEST) processes

test-others:
	$(PYTEST) $(filter-out processes, $(TESTS))

# The roads that macOS takes: see tests/portable.
test-portable: $(VENV)/wheel $(VENV)/test
	cd tests && PYTHONPATH=$(CURDIR)/tests/portable PARALLEL_FACADE_START_METHOD=spawn \
		$(BIN)/python -m pytest $(PORTABLE)

# Both rules are in force in a free-threaded Python; any other from 3.14 on can switch them on.
test-free-threading: $(VENV)/wheel $(VENV)/test
	cd tests && PYTHON_CONTEXT_AWARE_WARNINGS=1 PYTHON_THREAD_INHERIT_CONTEXT=1 \
		$(BIN)/python -m pytest $(TESTS) --start-methods forkserver

# In a process of its own: beside subinterpreters, nothing can be forked.
test-interpreters: $(VENV)/wheel $(VENV)/test
	cd tests && $(BIN)/python -m pytest contract --backends executor-interpreter -k interpreter

coverage: $(VENV)/wheel $(VENV)/test $(VENV)/coverage
	cd tests && $(BIN)/python coverage_of_packages.py $(TESTS)

python-%:
	@.ci/get-python $*

CLUSTERS := $(VENV)/wheel $(VENV)/test $(VENV)/clusters

# Each in a process of its own: Ray has one connection in a process.
test-clusters: test-dask test-ppft test-ray test-mpi test-engines

# All engines carry the same bytes to the same function: what becomes of callables, seeds, prints and
# bad input on one of them becomes of it on all.
ENGINE := $(addprefix contract/test_, map.py imap.py apply_async.py failures.py limits.py pool.py)

test-dask: $(CLUSTERS)
	cd tests && $(BIN)/python -m pytest contract --backends dask

test-ppft: $(CLUSTERS)
	cd tests && $(BIN)/python -m pytest $(ENGINE) --backends ppft

test-ray: $(CLUSTERS)
	cd tests && $(BIN)/python -m pytest $(ENGINE) --backends ray

test-engines: $(CLUSTERS)
	cd tests && $(BIN)/python -m pytest engines

test-mpi: $(CLUSTERS)
	cd tests && PATH="$(BIN):$$PATH" OMPI_ALLOW_RUN_AS_ROOT=1 \
		OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpiexec --oversubscribe -n 3 \
		$(BIN)/python -m mpi4py.futures -m pytest $(ENGINE) --backends mpi

# The tools that people use it with, and the pages on them.
test-tools: $(VENV)/wheel $(VENV)/test $(VENV)/tools
	cd tests && $(BIN)/python -m pytest tools documents/test_documents.py

# The site, in docs/_build/html; a warning is an error.
docs: $(VENV)/wheel $(VENV)/docs $(VENV)/tools $(VENV)/test
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m sphinx -q -W --keep-going -n -b html docs docs/_build/html

# Whether what pages link to elsewhere is there; it needs the network.
docs-links: docs
	$(BIN)/python -m sphinx -q -W --keep-going -b linkcheck docs docs/_build/linkcheck

# A Python that is the worker of another one's scheduler, to see that it is refused.
worker: $(VENV)/wheel
	$(INSTALL) distributed

lint: $(VENV)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/wheel $(VENV)/test $(VENV)/clusters $(VENV)/tools $(VENV)/lint
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/typing/api.py
	$(BIN)/pyright --pythonpath $(BIN)/python
	cd tests && PATH="$(BIN):$$PATH" $(BIN)/python typing/completeness.py

wheel: $(VENV)/wheel
	ls $(WHEEL)

check: test lint types wheel

chaos: $(VENV)/wheel $(VENV)/test
	cd tests && $(BIN)/python -W ignore::RuntimeWarning chaos.py \
		--faults $(FAULTS) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/wheel $(VENV)/bench
	$(BIN)/python benchmarks/bench.py $(BENCH)

bench-clients: $(VENV)/wheel $(VENV)/tools
	$(BIN)/python benchmarks/bench_clients.py

bench-short: $(VENV)/wheel $(VENV)/test
	$(BIN)/python benchmarks/bench.py --short --peers parallel_facade multiprocessing.Pool

endurance: $(VENV)/wheel $(VENV)/test
	cd tests && $(BIN)/python endurance.py $(ENDURE)

clean:
	rm -rf .venv-* build dist

$(VENV)/made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	touch $@

$(VENV)/coverage: $(VENV)/made
	$(INSTALL) 'coverage>=7.10'
	touch $@

$(VENV)/wheel: $(VENV)/made $(SOURCES)
	rm -rf $(WHEEL)
	$(BIN)/uv build --quiet --wheel --python $(BIN)/python --out-dir $(WHEEL)
	$(INSTALL) --reinstall-package parallel-facade $(WHEEL)/*.whl
	touch $@

$(VENV)/test: $(VENV)/made pyproject.toml $(shell find tests/plugin -type f -not -path '*/__pycache__/*')
	$(INSTALL) --group test
	$(INSTALL) --no-deps ./tests/plugin
	touch $@

$(VENV)/clusters: $(VENV)/made pyproject.toml
	$(INSTALL) --group clusters
	touch $@

$(VENV)/tools: $(VENV)/made pyproject.toml
	$(INSTALL) --group tools
	touch $@

$(VENV)/docs: $(VENV)/made pyproject.toml
	$(INSTALL) --group docs
	touch $@

$(VENV)/bench: $(VENV)/made pyproject.toml
	$(INSTALL) '.[bench]'
	touch $@

$(VENV)/lint: $(VENV)/made pyproject.toml
	$(INSTALL) --group lint
	touch $@
