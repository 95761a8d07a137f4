# Two commands do the set-up on a fresh machine: `make run` and `make test`. Both make the environment that they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests run in parallel on as many processors as there are.
PYTEST_FLAGS ?= -n auto -q

.PHONY: run test bench lint types check lock clean help

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml ews_sync/__init__.py
	$(PYTHON) -c 'import sys; sys.exit("ews-sync needs Python 3.11 or later; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

run: $(STAMP) ## Run the appliance against a simulated Exchange, until Ctrl-C; mail lands in ./demo-data
	@exec $(BIN)/reinfer-ews demo $(DEMO)

test: $(STAMP) ## Run all tests
	$(BIN)/pytest $(PYTEST_FLAGS)

bench: $(STAMP) ## Measure, which takes some minutes; figures compare within one run only
	$(BIN)/python -m benchmarks.platform

lint: $(STAMP) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types
	$(BIN)/mypy

check: test lint types ## All of the above

lock: $(STAMP) ## Renew requirements.lock, which the image installs from
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--output-file requirements.lock pyproject.toml

clean: ## Remove what the other targets made, but for the demo's mail
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
