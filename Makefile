# One command each: a fresh machine needs Python 3.11 or later and a package index, nothing else.
# Linux without an Nvidia card: README.md, "Install", says how to get the small CPU build of torch.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# 3.11 first: the pinned versions were tested on it. A name that does not run does not count.
PYTHON ?= $(shell for one in python3.11 python3 python; do \
	$$one -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$one && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup peers demo test check bench gpu docs clean

help:  ## Say what there is
	@sed -n 's/^\([a-z]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: $(STAMP)  ## Make .venv with the pinned versions; done once

$(STAMP): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later was found; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[lab,serve,dev]'
	@touch $@

# vibecheck-nn is under the GPL: a command in an environment of its own, which borrows torch and NumPy of ours
JUDGE := $(VENV)/tools/vibecheck

# the four ask for torchvision, visdom or an old requests, which what is used of them does not
peers: $(STAMP)  ## Add the libraries whose attacks are borrowed and compared with ours
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[peers]'
	@$(BIN)/python -m pip install --quiet --no-deps torchattacks==3.5.1 secml-torch==1.5 cleverhans==4.0.0 adv-lib==0.2.8
	@$(BIN)/python -m venv $(JUDGE)
	@$(JUDGE)/bin/python -m pip install --quiet --no-deps vibecheck-nn==1.1.0 onnx==1.21.0 onnxruntime==1.26.0 onnx2torch==1.5.15 gurobipy==13.0.3
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(JUDGE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth"

demo: $(STAMP)  ## Every stage on embedded digits, offline; ends with the report's path
	@$(BIN)/purple demo

# Two processes, each file's tests in one of them: what a file sets up is set up once.
test: $(STAMP)  ## Run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)  ## Format, lint, types, and who may import whom
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check --no-cache .  # how imports are sorted hangs on other files, which a cache does not see
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)  ## Measure what training, attacks, the scan and an installation cost, into results/
	@$(BIN)/python benchmarks/training.py
	@$(BIN)/python benchmarks/attacks.py
	@$(BIN)/python benchmarks/install.py
	@$(BIN)/python benchmarks/scan.py cost

gpu: $(STAMP)  ## On a machine with CUDA: parity with the CPU, then the record rows, into results/gpu.json
	@$(BIN)/python benchmarks/gpu.py

docs: $(STAMP)  ## Write the tables of the pages anew from results/, and docs/api.md from docstrings
	@$(BIN)/python docs/update_tables.py
	@$(BIN)/python docs/make_api.py

clean:  ## Remove what the tools left, but neither .venv nor runs
	rm -rf build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
