# make demo     set up, then train a network with three quantum layers on real digits, and draw what it learned
# make test     set up, then run every test
# make test-triton  the GPU kernels under Triton's interpreter, in an environment of PyTorch and no TensorFlow
# make check    ruff (rules and format) and mypy
# make bench    quantum layers timed side by side with others, in one run
# make docs     build the documentation site in build/site, warnings being errors
# make clean    remove the environment and what the targets wrote

PYTHON ?= python3
VENV   ?= .venv
PY      = $(VENV)/bin/python
PIP    ?= $(PY) -m pip
ARGS   ?=
COV    ?=
WORKERS ?= auto

INSTALL = $(PIP) install --quiet --disable-pip-version-check --no-input -c constraints-dev.txt
INPUTS  = pyproject.toml constraints-dev.txt

# TensorFlow prints its start-up notes only where something is wrong.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-triton check bench docs clean
.DEFAULT_GOAL := test

demo: $(VENV)/.ready-demo
	$(PY) examples/image_classification.py --framework keras --quick-test --visualize --output-dir runs/demo $(ARGS)

# With ARGS, those tests only; COV="--cov" counts what they run.
test: $(VENV)/.ready-dev
	$(PY) -m pytest -q -n $(WORKERS) $(COV) $(ARGS)
ifeq ($(ARGS),)
	$(MAKE) test-triton
endif

test-triton: $(VENV)-triton/.ready
	TRITON_INTERPRET=1 $(VENV)-triton/bin/python -m pytest -q tests/torch/triton

check: $(VENV)/.ready-dev
	$(PY) -m ruff check --quiet .
	$(PY) -m ruff format --check --quiet .
	$(PY) -m mypy --no-error-summary

bench: $(VENV)/.ready-dev
	$(PY) -m benchmarks $(ARGS)

docs: $(VENV)/.ready-dev
	$(PY) -m sphinx -W --keep-going -q -b html docs build/site $(ARGS)
	@echo "build/site/index.html"

clean:
	rm -rf $(VENV) $(VENV)-triton build runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# One environment: first what the demo needs, then the rest. Torch comes first and alone where it is needed, so that
# nothing else decides which build of it comes.

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qstore needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "Making an environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.ready-demo: $(VENV)/.python $(INPUTS)
	@echo "Installing qstore with TensorFlow, numba and what the example draws with (some minutes, once) ..."
	@$(INSTALL) -e '.[tf,fast,examples]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-demo
	@echo "Installing PyTorch ..."
	@$(INSTALL) torch==2.13.0
	@echo "Installing the tools for tests: pytest, hypothesis, mypy, and PennyLane and Aer to compare with ..."
	@$(INSTALL) -e '.[tf,torch,jax,fast,files,sklearn,cli,docs,examples,dev]'
	@touch $@

# Triton has an environment of its own: imported after TensorFlow, it ends the process. PyTorch's CUDA builds bring the
# version that they need; beside others any will do.
TRITON_PIP = $(VENV)-triton/bin/python -m pip

$(VENV)-triton/.ready: $(INPUTS)
	@echo "Making an environment for Triton in $(VENV)-triton ..."
	@$(PYTHON) -m venv $(VENV)-triton
	@$(subst $(PIP),$(TRITON_PIP),$(INSTALL)) torch==2.13.0
	@$(VENV)-triton/bin/python -c "import triton" 2>/dev/null || $(TRITON_PIP) install --quiet --disable-pip-version-check --no-input triton==3.9.0
	@$(subst $(PIP),$(TRITON_PIP),$(INSTALL)) -e . pytest hypothesis
	@touch $@
