# Two commands do the set-up on a fresh machine: `make run` and `make test`. Both make the environment that they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests run in parallel on as many processors as there are.
PYTEST_FLAGS ?= -n auto -q

.PHONY: run test simulate soak memory fuzz bench docs package image lint types check lock clean help

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

simulate: $(STAMP) ## Run the engine under simulated faults and crashes: make simulate SEEDS=10000
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) --jobs 2

soak: $(STAMP) ## Run the appliance against a faulty Exchange for an hour, or make soak MINUTES=5
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),60)

fuzz: $(STAMP) ## Look for input that the reader of answers does not take: make fuzz SECONDS=600
	$(BIN)/python -m tests.fuzz.soap --seconds $(or $(SECONDS),60)

memory: $(STAMP) ## Measure the peak memory with large, many and odd messages; fails above 128 MiB
	$(BIN)/python -m benchmarks.memory $(MEMORY)

bench: $(STAMP) ## Measure speed and what it costs, in 20 minutes: make bench BENCH="--only backfill"
	$(BIN)/python -m benchmarks $(BENCH)

docs: $(STAMP) ## Build the handbook into ./site
	$(BIN)/pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

package: $(STAMP) ## Build what is released, and test it away from the sources
	.ci/package

image: $(STAMP) ## Build the image and try it, where that can be done
	.ci/image

lint: $(STAMP) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types
	$(BIN)/mypy

check: test lint types ## All of the above

lock: $(STAMP) ## Renew the locks that the image installs from
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--allow-unsafe --build-deps-for=wheel --only-build-deps --output-file requirements-build.lock pyproject.toml

clean: ## Remove what the other targets made, but for the demo's mail
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site *.egg-info
