# Everything a person or a CI runs. Set-up is done by the first target that needs it, and alone touches the network.
PYTHON ?= python3
BIN := .venv/bin

# pyright would otherwise ask the network whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# Where the machine has no Node, set-up brings one for the tests.
export PATH := $(PATH):$(CURDIR)/$(BIN)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test check bench chaos picture lock schema format \
        check-format check-lint check-types check-layers check-migrations check-wheel

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup:  ## what running needs: .venv from requirements.lock
	@$(PYTHON) scripts/setup.py runtime

setup-dev:  ## what testing needs too: requirements-dev.lock, Redis and Chromium
	@$(PYTHON) scripts/setup.py dev

demo: setup  ## the research workflow from start to finish, a worker killed on the way
	@$(BIN)/aigateway demo $(ARGS)

test: setup-dev  ## the tests, on real Redis and PostgreSQL; ARGS="-k name" chooses
	$(BIN)/pytest -n 3 --dist loadfile -m "not chaos" $(ARGS)

chaos: setup-dev  ## the long failure drills
	$(BIN)/pytest -m chaos $(ARGS)

check: check-format check-lint check-types check-layers check-migrations check-wheel  ## everything else that CI demands

check-format: setup-dev
	$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; false; }

check-lint: setup-dev
	$(BIN)/ruff check --quiet .

check-types: setup-dev
	$(BIN)/pyright

check-layers: setup-dev
	$(BIN)/lint-imports

check-migrations: setup-dev
	PYTHONPATH=tests $(BIN)/python -W "ignore:XDG_RUNTIME_DIR is not set" scripts/check_migrations.py

check-wheel: setup-dev
	$(BIN)/python scripts/smoke_wheel.py

bench: setup-dev  ## the measurements in benchmarks/
	@set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file $(ARGS); done

picture: setup  ## draw docs/demo.svg, the README's picture, anew
	@$(BIN)/python scripts/draw_demo.py

schema: setup  ## write workflows/schema.json, which editors read, anew
	@$(BIN)/aigateway workflows schema > workflows/schema.json

format: setup-dev  ## lay out the code and mend what can be mended
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
          --no-annotate --python-version 3.11 --extra otel --custom-compile-command "make lock" pyproject.toml $(ARGS)

lock: setup-dev  ## pin every package anew; ARGS=--upgrade takes newer versions
	$(COMPILE) --group build --output-file requirements.lock
	$(COMPILE) --group build --group dev --constraint requirements.lock --output-file requirements-dev.lock
