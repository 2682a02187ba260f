# make demo        install the package into .venv and run the main job on the simulated planet
# make test        install what the tests need too; checks and tests, but for the slow ones
# make test-fast   the tests that need no trained network
# make test-all    the slow tests too: processes, browser, servers, compilers
# make docs        install what the site needs too, and build it into site/
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-all docs clean

demo: .venv/has-package
	$(BIN)/wsdcast run planet

test: .venv/has-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10

test-fast: .venv/has-test
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile -m 'not slow and not trains'

test-all: test
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --durations 10 -m slow

docs: .venv/has-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# One environment for all: each target adds what it needs to what is there, one at a time.
.NOTPARALLEL:
.venv/has-package: EXTRA :=
.venv/has-test: EXTRA := [test]
.venv/has-docs: EXTRA := [docs]

.venv/has-%: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.$(EXTRA)'
	touch .venv/has-package $@

clean:
	rm -rf .venv runs site
