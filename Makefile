# `make demo` and `make test` need Python 3.11 or newer and a package registry, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
INPUTS := setup.cfg pyproject.toml constraints.txt
# A process for each of two cores; threads of their own would only stand in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile
MIN    := .venv-min
MIN_PIP := $(MIN)/bin/pip --disable-pip-version-check install --quiet -c constraints-min.txt
# Estimators, searches, files, evaluation, accounting, features, and the command line.
MIN_TESTS := $(addprefix tests/,accounting/test_accountants.py accounting/ledger/test_ledger.py \
  accounting/statements/test_statement.py dpfc/test_estimators.py \
  dpfc/evaluation/test_evaluate.py dpfc/_support/test_late.py dpfc/test_loading.py \
  dpfc/search/test_privacy.py dpfc/evaluation/test_summaries.py dpfc/search/test_search_cv.py \
  dpfc/full_models/test_classifier.py dpfc/full_models/dp_sgd/test_mechanism.py \
  experiments/cli/test_app.py experiments/cli/test_errors.py features/cache/test_reader.py \
  features/test_extraction.py features/test_sklearn_transformer.py \
  features/datasets/test_webdataset.py)
PIP    := $(BIN)/pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: help demo picture test test-min check coverage lint typecheck slow docs clean

help:
	@echo "make demo    embed MNIST-5k, train private classifiers, plot accuracy versus epsilon"
	@echo "make picture the demo, and its picture into docs/"
	@echo "make test    the fast tests"
	@echo "make test-min  the wheel in an environment of the lowest versions that setup.cfg allows"
	@echo "make check   ruff, mypy and import-linter on the built wheel, slow tests, examples of the docs"
	@echo "make coverage  the fast tests, with what they cover; fails below the floor of pyproject.toml"
	@echo "make docs    the documentation as a site, in build/site"
	@echo "make clean   remove the virtual environment, caches and runs"

demo: $(VENV)/.stamp-demo
	$(BIN)/dpfc demo

# The picture of README, and the figures of the runs that it shows.
picture: demo
	cp runs/demo/accuracy.png docs/accuracy.png
	cp runs/demo/results.csv docs/accuracy.csv

test: $(VENV)/.stamp-test
	$(PYTEST)

# Takes half as long again. What runs in processes of its own does not count.
coverage: $(VENV)/.stamp-test
	$(PYTEST) --cov --cov-report=term

# PYTHONSAFEPATH: the wheel is tested, not the folders beside it.
test-min: $(MIN)/.stamp
	rm -rf build/lib build/min
	$(MIN)/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/min .
	$(MIN_PIP) --no-deps --force-reinstall build/min/*.whl
	OMP_NUM_THREADS=1 PYTHONSAFEPATH=1 $(MIN)/bin/pytest -q -n 2 --dist loadfile $(MIN_TESTS)
	$(MIN)/bin/dpfc demo --out build/min/demo

$(MIN)/.stamp: setup.cfg constraints-min.txt
	$(PYTHON) -m venv --clear $(MIN)
	$(MIN_PIP) setuptools wheel
	$(MIN_PIP) --no-build-isolation ".[demo,sweep,full-models,webdataset]" \
	  pytest pytest-xdist hypothesis jsonschema pandas
	@touch $@

check: lint typecheck slow

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.stamp-dev
	.ci/typecheck $(BIN)/python

slow: $(VENV)/.stamp-dev
	$(PYTEST) -m slow

docs: $(VENV)/.stamp-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

# One stamp a set of extras: a demo installs no test tools.
$(VENV)/.stamp-%: $(INPUTS) | $(VENV)
	@echo "installing dpfc[$*] into $(VENV) …"
	$(PIP) --no-build-isolation -e ".[$*]"
	@touch $@

$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools wheel

clean:
	rm -rf $(VENV) $(MIN) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis runs
