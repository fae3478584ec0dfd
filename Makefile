# make quickstart   from a bare checkout to a first report
# make test         what a change must pass, with make lint
# make test-all     the slow tests alone; CI runs both
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/install.log
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)
# For a torch build other than the default one: make setup TORCH_PIP_ARGS="--index-url ..."
TORCH_PIP_ARGS ?=
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check

# pip names a package when it gives up; its line in constraints.txt is the pin that failed.
define EXPLAIN_FAILURE
{ echo; \
  echo "setup failed on $$($(BIN)/python --version); constraints.txt was made with Python 3.11. The pin that failed:"; \
  pins=$$(grep -Eo '(No matching distribution found for|Failed to build|Cannot install|requested \(constraint\)) .*' $(LOG) \
    | sed -E 's/^(No matching distribution found for|Failed to build|Cannot install|requested \(constraint\)) //' \
    | tr -d "'" | tr ', ' '\n\n' | sed -E 's/[^A-Za-z0-9_.-].*//' | sort -u \
    | while read -r name; do test -z "$$name" || grep -i "^$$name==" constraints.txt || true; done) || true; \
  echo "$${pins:-(pip named none; see $(LOG))}" | sed 's/^/    /'; \
  echo "Use Python 3.11 (make setup PYTHON=python3.11), or loosen that line in constraints.txt."; \
  exit 1; }
endef

.PHONY: setup quickstart test test-all docs lint evidence clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: thinkdraw needs Python >= 3.11. Install it, or name one: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(PYTHON) is Python %d.%d; thinkdraw needs >= 3.11. Name another: make setup PYTHON=python3.11" % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) -m venv failed: on Debian and Ubuntu install python3-venv."; exit 1; }
	@$(PIP_INSTALL) $(TORCH_PIP_ARGS) "$(TORCH)" 2>&1 | tee $(LOG) || $(EXPLAIN_FAILURE)
	@$(PIP_INSTALL) -c constraints.txt -e '.[dev]' 2>&1 | tee $(LOG) || $(EXPLAIN_FAILURE)
	@touch $@

quickstart: setup
	$(BIN)/thinkdraw quickstart

test: setup
	$(BIN)/python -m pytest -q -m "not slow"

test-all: setup
	$(BIN)/python -m pytest -q -m slow

# Writes the pages that are made from the code.
docs: setup
	$(BIN)/python docs/make_architecture.py
	$(BIN)/python -m thinkdraw.settings

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

evidence: setup
	$(BIN)/thinkdraw evidence

# Keeps runs/ and .venv: they cost hours and downloads.
clean:
	rm -rf build dist .pytest_cache .ruff_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
