# Everything a person does with a checkout. Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$each" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$each" && break; done)
BIN := .venv/bin
READY := .venv/.ready
PIN := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-annotate \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help install demo test unit check lint types imports schemas drift format constraints audit bench fuzz chaos soak clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 14

install: $(READY) ## make .venv with the command full-pass in it

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed (on Debian and Ubuntu: python3-venv); or say make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "making .venv (once, about a minute)…" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY) ## run the main job on a sample export, from nothing to the three events; ARGS="--export my.zip" for yours
	@$(BIN)/full-pass demo $(ARGS)

test: $(READY) ## run all tests; ARGS="-k lease" for some
	@$(BIN)/python -m pytest $(ARGS)

unit: $(READY) ## run the unit tests, which take seconds
	@$(BIN)/python -m pytest tests/unit $(ARGS)

check: lint types imports drift test ## run what CI runs

lint: $(READY) ## ruff, formatting, compose and workflow files
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml

types: $(READY) ## mypy, strict
	@$(BIN)/mypy

imports: $(READY) ## import rules between the rooms
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

schemas: $(READY) ## write the JSON Schemas and the AsyncAPI document from the models
	@$(BIN)/full-pass schemas export

drift: $(READY) ## compare the committed contract with the models, and with the last release
	@$(BIN)/full-pass schemas export --check
	@$(BIN)/full-pass schemas compare

format: $(READY) ## format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

constraints: $(READY) ## pin all packages anew, with hashes; of these, what the image needs to run and to be built
	@$(PIN) --all-extras --output-file constraints.txt pyproject.toml
	@$(PIN) --constraint constraints.txt --output-file deploy/image/runtime.txt pyproject.toml
	@$(PIN) --constraint constraints.txt --build-deps-for wheel --only-build-deps --output-file deploy/image/build.txt pyproject.toml

audit: $(READY) ## look for known vulnerabilities in the pinned packages
	@$(BIN)/pip-audit --strict --requirement constraints.txt --disable-pip --require-hashes

fuzz: $(READY) ## damage exports at random and read them; ARGS="--seconds 60 --seed 7"
	@$(BIN)/python -m tests.fuzz $(ARGS)

chaos: $(READY) ## servers die under load, workers at each point and at random; ARGS="--kills 300 --users 50 --workers 3 --seed 1"
	@$(BIN)/python -m pytest -m chaos
	@$(BIN)/python -m tests.chaos $(ARGS)

soak: $(READY) ## thousands of short runs, with lines that have to stay flat; ARGS="--runs 20000"
	@$(BIN)/python -m tests.soak $(ARGS)

bench: $(READY) ## print the benchmarks
	@$(BIN)/python -m benchmarks.intake
	@$(BIN)/python -m benchmarks.export
	@$(BIN)/python -m benchmarks.facts
	@$(BIN)/python -m benchmarks.publish

clean: ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
