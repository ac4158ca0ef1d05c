# Every target sets up .venv by itself on the first call and works offline afterwards.
PYTHON ?= python3
TOPOLOGY ?= topologies/ring.yaml
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Every process of a network imports the package: compiled once, it starts half a second sooner.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install simulate test docs package lint format notebook data experiments experiments-quick clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: $(READY)  ## create .venv and install sheafnet with its development tools

$(READY): pyproject.toml constraints.txt sheafnet/version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "sheafnet needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (first call only; PyTorch and Ray take a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) setuptools torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) --no-build-isolation -e '.[dev]'
	@touch $@

simulate: $(READY)  ## train the ring, lose modalities, infer them (TOPOLOGY=..., ARGS=...)
	@$(BIN)/sheafnet simulate --topology $(TOPOLOGY) $(ARGS)

test: $(READY)  ## run all checks and tests (ARGS='-k name' for some)
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder $(ARGS)

docs: $(READY)  ## build the documentation site into docs/_build/html, warnings as errors
	@$(BIN)/python -m sphinx -c docs -W --keep-going --quiet . docs/_build/html
	@echo "Open docs/_build/html/index.html"

package: $(READY)  ## build sdist and wheel into dist/ and run the wheel in a new environment (needs the network)
	@rm -rf dist build
	@$(BIN)/python -m build --no-isolation --outdir dist . > /dev/null
	@$(PYTHON) -m venv build/clean
	@build/clean/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) dist/*.whl
	@build/clean/bin/python -m pip check
	@cd build && clean/bin/sheafnet doctor && clean/bin/sheafnet simulate --topology ring --rounds 5 --run-dir run

lint: $(READY)  ## ruff, type checker and import contract
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo > .lint-imports.log 2>&1 || { cat .lint-imports.log; rm -f .lint-imports.log; exit 1; }
	@rm -f .lint-imports.log

format: $(READY)  ## sort imports and format the code
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

notebook: $(READY)  ## run examples/tour.ipynb anew and store its outputs
	@$(BIN)/python -m tests.notebook

experiments: $(READY)  ## run every experiment, hours; goes on where it stopped (ARGS='e2 e4' for some)
	@$(BIN)/python experiments/run.py $(ARGS)

experiments-quick: $(READY)  ## the same with tiny runs, minutes, to see that all works
	@$(BIN)/python experiments/run.py --quick $(ARGS)

data: $(READY)  ## rebuild the bundled data from its sources and compare (needs the network)
	@$(BIN)/python -m sheafnet.datasets.bundled.rebuild --check

clean:  ## remove .venv and caches; runs/ is never touched
	rm -rf $(VENV) docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info build dist
