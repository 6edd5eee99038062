# Needs Python 3.12 or 3.13, git and make; `make setup` finds or brings the rest.

PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint long soak fuzz live mutate bench docs clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv ready (finds Python, brings uv, installs what uv.lock says)
	@PYTHON='$(PYTHON)' sh .ci/setup.sh

demo: setup ## Play an agent under enforcement and prove its record
	@$(PY) docs/demo/demo.py

test: setup ## Run the tests that need neither root nor internet
	@$(PY) -m pytest -q -n auto --maxprocesses=4 --dist=loadgroup --ignore=tests/live

check: lint test ## Lint, types, contracts, generated documents, then the tests

lint: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-cache
	@$(PY) docs/generate.py --check

long: setup ## Compare with other engines, play many histories of the record and a soak (minutes)
	@sh .ci/packages.sh
	@$(PY) -m pytest -q -rP -n auto --maxprocesses=4 -m long tests/differential tests/faults tests/soak/test_soak.py

soak: setup ## Ten minutes in which nothing may grow, 5,000 idle connections, 100 uploads of 100 MB, 100,000 files
	@SOAK_S=600 LOAD=full $(PY) -m pytest -q -s -m long tests/soak tests/live/test_many_files.py

fuzz: setup ## Run a fuzz target led by coverage (FUZZ="fuzz_http -max_total_time=60")
	@.uv/bin/uv run -q --with atheris tests/fuzz/run.py $(FUZZ)

live: setup ## Run the tests that need root, kernel features or Debian packages
	@sh .ci/live.sh

mutate: setup ## Put known bugs in, one at a time, and say which the tests miss (minutes)
	@$(PY) tests/faults/mutate.py

bench: ## Measure against real peers, side by side (BENCH=--quick for a short run)
	@PYTHON='$(PYTHON)' sh .ci/setup.sh --bench
	@$(PY) -m benchmarks $(BENCH)

docs: setup ## Write the generated documents again
	@$(PY) docs/generate.py

clean: ## Remove everything that was made here
	rm -rf .venv .uv .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist demo-state
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
