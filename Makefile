# make figures and make test do all the set-up themselves; they need Python 3.11+ and nothing else.
# PYTHON= chooses the interpreter; one that is not the default gets an environment of its own.
PYTHON ?= python3
VENV := $(if $(filter $(PYTHON),python3),.venv,.venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.PHONY: setup figures test soak lowest lint docs bench bench-gpu lock clean
setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("jaxfit needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

figures: setup
	$(BIN)/python -m experiments

# A case of each kind; at the end the slowest, so that they stay few.
test: setup
	$(BIN)/python -m pytest --durations=10

# All cases, and what takes longer, with the programs that users run: each test is named with the share that is done.
soak: setup
	$(BIN)/python -m pytest -m '' -vv --durations=10

# The tests with the lowest versions that pyproject.toml allows; these warn of each other.
lowest:
	@$(PYTHON) -m venv --clear .venv-lowest
	@.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r lowest.lock
	@.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	.venv-lowest/bin/python -m pytest -W ignore::DeprecationWarning

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# The site, in build/site; its pages' code runs while it is built.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site
	$(BIN)/python docs/check.py build/site
	@echo "open build/site/index.html"

$(VENV)/.docs: $(STAMP) docs/requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r docs/requirements.lock
	@touch $@

bench: setup
	$(BIN)/python -m benchmarks

# The GPU's column, in one call of at most eight minutes; first: $(BIN)/python -m pip install '.[cuda13]'
bench-gpu: setup
	$(BIN)/python -m benchmarks --gpu

# The lock file holds hashes and no address, so that any mirror of the package index serves it.
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml
lock:
	$(COMPILE) --extra dev -o requirements.lock
	$(COMPILE) --extra docs -c requirements.lock -o docs/requirements.lock
	$(COMPILE) --extra dev --resolution lowest-direct -o lowest.lock

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .ruff_cache
