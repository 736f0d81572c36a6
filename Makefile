PYTHON ?= python3
VENV ?= .venv
# Further arguments for pip, for example `-c constraints.txt`.
PIP_ARGS ?=

BIN := $(VENV)/bin
# With the tools of development, and without: the demo asks for no test library and no browser driver.
INSTALLED := $(VENV)/.installed
RUNNABLE := $(VENV)/.runnable
# How many processes run tests; those of one file stay together, since they share what they trained.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile
# The files with tests of a mark: nothing else is imported, which takes longer than some of these tests.
MARKED = $(shell grep -rl --include='*.py' 'mark\.$(1)\b' tests)
SPHINX := $(BIN)/python -m sphinx -W --keep-going -n -q
NEWEST = ls -td $(1) 2>/dev/null | head -n 1

# Tests start many processes, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help .venv demo test test-processes test-documents test-trainings test-all test-realdata test-minimum test-wheel lint type format docs docs-links bench clean

help: ## This list
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e ".[dev]"
	touch $@

$(RUNNABLE): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -e $(INSTALLED) || $(BIN)/python -m pip install --quiet $(PIP_ARGS) -e .
	touch $@

.venv: $(INSTALLED) ## The virtual environment for development, again when pyproject.toml changes (PYTHON=python3.12 VENV=.venv-3.12)

data/phantom: | $(RUNNABLE)
	$(BIN)/medseg phantom $@ || { rm -rf $@; exit 1; }

demo: $(RUNNABLE) data/phantom ## Train and test on synthetic abdomens: no data and no GPU needed
	$(BIN)/medseg fit --config configs/experiment/demo.yaml
	$(BIN)/medseg test --ckpt_path "$$($(call NEWEST,runs/demo/version_*/checkpoints/best.ckpt))"
	$(BIN)/medseg report "$$($(call NEWEST,runs/demo/version_*))" -o "$$($(call NEWEST,runs/demo/version_*))/report.html"
	@echo
	@echo "Report:   $$($(call NEWEST,runs/demo/version_*/report.html))"
	@echo "Scores:   $$($(call NEWEST,runs/demo/version_*/scores_test.csv))"
	@echo "Summary:  $$($(call NEWEST,runs/demo/version_*/summary_test.json))"
	@echo "Overlays: $$($(call NEWEST,runs/demo/version_*/overlays))"

test: $(INSTALLED) ## The tests that need minutes, no data and no network
	$(PYTEST)

test-processes: $(INSTALLED) ## The tests that start processes of their own: signals, kills, ranks, terminals, dashboards
	$(PYTEST) -m "processes and not slow" $(call MARKED,processes)

test-documents: $(INSTALLED) ## The tests that run the documentation's commands and the benchmarks
	$(PYTEST) -m "documents and not slow" $(call MARKED,documents)

test-trainings: $(INSTALLED) ## The tests that train or export several times: longer runs, faults, hostile and foreign files
	$(PYTEST) -m "trainings and not slow and not processes and not documents" $(call MARKED,trainings)

test-all: $(INSTALLED) ## Every test that can run here: slow ones, real data where MEDSEG_TEST_DATA is set, Slurm where it is installed
	$(PYTEST) -m "$(if $(shell command -v slurmctld 2>/dev/null),,not cluster)"

test-realdata: $(INSTALLED) ## The tests on real data, from the folder in MEDSEG_TEST_DATA
	@test -d "$$MEDSEG_TEST_DATA" || { echo "MEDSEG_TEST_DATA must name the folder of the real data, got '$$MEDSEG_TEST_DATA'." >&2; exit 2; }
	@$(PYTEST) -m "realdata and not slow" $(call MARKED,realdata) || { status=$$?; test $$status -eq 5 || exit $$status; \
		echo "No test is marked realdata: nothing was checked against real data."; }

test-minimum: ## The tests with the oldest libraries that pyproject.toml allows (PYTHON=python3.10)
	mkdir -p build
	$(PYTHON) .ci/minimum.py > build/minimum.txt
	$(MAKE) test VENV=.venv-minimum PIP_ARGS="-c build/minimum.txt"

test-wheel: $(INSTALLED) ## Every command of the README with the wheel alone, in an environment of its own (WHEEL=dist/medseg-….whl)
	rm -rf build/wheel
	$(PYTHON) -m venv build/wheel/venv
	$(if $(WHEEL),cp $(WHEEL) build/wheel,$(BIN)/python -m pip wheel --quiet --no-deps $(PIP_ARGS) -w build/wheel .)
	build/wheel/venv/bin/pip install --quiet $(PIP_ARGS) "$$(ls build/wheel/*.whl)[export,pretrained]"
	MEDSEG_TEST_PROGRAM="$(CURDIR)/build/wheel/venv/bin/medseg" $(BIN)/python -m pytest -m slow tests/docs/test_wheel.py

lint: $(INSTALLED) type ## Style, layers and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

type: $(INSTALLED) ## Types only
	$(BIN)/mypy

format: $(INSTALLED) ## Put the style right where that can be done by machine
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(INSTALLED) ## The documentation, to build/docs; a link between pages that leads nowhere is an error
	$(SPHINX) -b html docs build/docs
	@echo "Open build/docs/index.html"

docs-links: $(INSTALLED) ## Ask the network for every link of the documentation that leads out of it
	$(SPHINX) -b linkcheck docs build/docs-links

$(VENV)/.bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e ".[bench]"
	touch $@

bench: $(VENV)/.bench ## Every benchmark, one after the other, with its peers; fills docs/benchmarks.md
	mkdir -p build/bench
	@for script in benchmarks/[!_]*.py; do \
		echo "== $$script"; $(BIN)/python $$script build/bench/$$(basename $$script .py).json || exit 1; done
	$(BIN)/python benchmarks/_page.py build/bench docs/benchmarks.md

clean: ## Remove caches and builds; the environment, data/ and runs/ stay
	rm -rf build dist *.egg-info htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find medseg_pl tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
