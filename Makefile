# Everything a person does here, on a machine with Python >= 3.10 (with venv) and make. `make` lists the targets.
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo_out
WORKERS ?= 2
# yes, or try: build the site without what npm brings where it cannot be had.
NPM ?= yes

BIN := $(VENV)/bin
# One stamp per kind of installation, named after what was installed and from where: an unchanged tree installs nothing.
KEY := $(shell (cat settings.ini setup.py pyproject.toml constraints.txt; pwd) | cksum | tr ' ' '-')
RUN := $(VENV)/.mnsp-run-$(KEY)
DEV := $(VENV)/.mnsp-dev-$(KEY)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
LINTED := mnsp tests docs setup.py $(wildcard experiments)

SHELL := /bin/sh
WITH := PATH="$(abspath $(BIN)):$$PATH"
heading = @printf '\n== %s\n' "$(1)"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test docs in-sync readme-check lint audit notebooks pytest export readme install install-dev stamp clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  settings: PYTHON=$(PYTHON) VENV=$(VENV) OUT=$(OUT) WORKERS=$(WORKERS) NPM=$(NPM)"

demo: $(RUN)  ## pre-train, fine-tune and evaluate a tiny model on this machine; writes OUT/report.html
	$(call heading,demo)
	$(BIN)/mnsp demo --out $(OUT)

test: NPM = try
test: in-sync readme-check lint notebooks docs pytest  ## every check: in sync, README, ruff, all notebooks, site, pytest

docs: $(DEV)  ## the documentation site: docs/_build/html/index.html
	$(call heading,documentation site)
	@rm -rf docs/_build
	$(BIN)/python docs/vendor.py $(if $(filter try,$(NPM)),--try)
	$(BIN)/python docs/prep.py
	$(BIN)/python -m sphinx -W --keep-going -q -c docs docs/_src docs/_build/html

in-sync: $(DEV)  ## the package is what the notebooks export, and the notebooks are clean
	$(call heading,package and notebooks in sync)
	@$(WITH) sh docs/in_sync.sh

readme-check: $(DEV)  ## README.md is what nbs/index.ipynb says
	$(call heading,README in sync)
	$(BIN)/python docs/readme.py --check

lint: $(DEV)  ## ruff
	$(call heading,ruff)
	$(BIN)/ruff check $(LINTED)

audit: $(DEV)  ## known vulnerabilities of the versions in constraints.txt (asks PyPI)
	$(call heading,pip-audit)
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip --strict --progress-spinner off

notebooks: $(DEV)  ## execute every notebook
	$(call heading,notebooks)
	$(WITH) OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers $(WORKERS) --do-print

pytest: $(DEV)  ## tests/
	$(call heading,pytest)
	$(WITH) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests

export: $(DEV)  ## after editing notebooks: write mnsp/*.py, clean the notebooks, write README.md
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(BIN)/python docs/readme.py

readme: $(DEV)  ## write README.md from nbs/index.ipynb
	$(BIN)/python docs/readme.py

install: $(RUN)  ## what a user needs, into VENV
install-dev: $(DEV)  ## the same and the tools of development

clean:  ## remove what demo, tests and builds left (VENV stays)
	rm -rf $(OUT) build dist *.egg-info .pytest_cache .ruff_cache _proc docs/_src docs/_build docs/_static/mathjax docs/_static/onnxruntime docs/_static/reader
	find mnsp nbs tests docs -name __pycache__ -prune -exec rm -rf {} +
	find nbs -name .ipynb_checkpoints -prune -exec rm -rf {} +

# For .ci/run, which has just pointed a complete environment to this clone.
stamp:
	@rm -f $(VENV)/.mnsp-*
	@touch $(RUN) $(DEV)

$(BIN)/pip:
	$(call heading,environment in $(VENV))
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python >= 3.10 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11 ..." if v < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

$(RUN): | $(BIN)/pip
	$(call heading,install (the first time takes minutes: PyTorch is large))
	@rm -f $(VENV)/.mnsp-*
	@$(INSTALL) 'setuptools>=77'
	@PYTHONWARNINGS=ignore $(INSTALL) --no-build-isolation -e .
	@touch $@

$(DEV): | $(BIN)/pip
	$(call heading,install with the tools of development (the first time takes minutes: PyTorch is large))
	@rm -f $(VENV)/.mnsp-*
	@$(INSTALL) 'setuptools>=77'
	@PYTHONWARNINGS=ignore $(INSTALL) --no-build-isolation -e '.[dev]'
	@touch $(RUN) $@
