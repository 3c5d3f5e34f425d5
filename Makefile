# make demo and make test need nothing but Python 3.11 or newer: they set up what they need first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
READY := .venv/.ready
export PYTHON

.PHONY: help setup demo up down status frameworks test lint format schemas release experiments lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## a virtual environment with the locked packages (.venv)

$(READY): tools/setup.sh requirements/local.txt requirements/uv.txt pyproject.toml
	@tools/setup.sh

demo: $(READY) ## the whole loop on this machine: an agent learns while you watch
	@$(BIN)/leyden demo

up: $(READY) ## the same stack without the demo's agent
	@$(BIN)/leyden up

down: $(READY) ## stop it
	@$(BIN)/leyden down

status: $(READY) ## what of it runs
	@$(BIN)/leyden status

frameworks: .venv-frameworks/.ready .venv-frameworks-openai-2/.ready ## environments of the agent frameworks that the tests run

.venv-%/.ready: requirements/%.txt | $(READY)
	@.uv/bin/uv venv --quiet --clear --python $(BIN)/python .venv-$*
	@VIRTUAL_ENV=.venv-$* .uv/bin/uv pip sync --quiet --require-hashes $<
	@touch $@

test: $(READY) frameworks ## the whole suite, real servers included (T="-k name" for a part, T="-n0 …" in one process)
	@$(BIN)/python -m pytest --numprocesses 2 --durations 10 $(T)

lint: $(READY) ## ruff, mypy (strict; looser over the tests), the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --config-file tests/mypy.ini & tests=$$!; $(BIN)/mypy; code=$$?; wait $$tests && exit $$code
	@$(BIN)/python tools/lint_imports.py

format: $(READY) ## put the code in form
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format .

schemas: $(READY) ## export JSON Schemas and docs/asyncapi.yaml after a change of events or topologies
	@$(BIN)/python -m leyden.events.export
	@$(BIN)/python tools/asyncapi.py

release: $(READY) ## version, changelog, schema baseline, commit and tag (VERSION=0.2.0); pushes nothing
	@$(BIN)/python tools/release.py $(VERSION)

experiments: $(READY) ## learn binary search under every credit strategy; redraws docs/experiments (about 15 minutes)
	@PYTHONPATH=examples/binary_search:$$PYTHONPATH $(BIN)/python -m binary_search

LOCK := .uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock" --overrides requirements/overrides.txt
ifdef UPGRADE
LOCK += --upgrade
endif
OPTIONAL := services trainer vllm local test dev

lock: | $(READY) ## refresh requirements/ after a change of pyproject.toml (UPGRADE=1: newest versions)
	@$(LOCK) pyproject.toml $(OPTIONAL:%=--extra %) -o requirements/local.txt
	@$(LOCK) pyproject.toml --extra services -c requirements/local.txt -o requirements/services.txt
	@$(LOCK) pyproject.toml --extra services --extra trainer -c requirements/local.txt -o requirements/trainer.txt
	@for file in requirements/*.in; do $(LOCK) $$file -o $${file%.in}.txt || exit 1; done

clean: ## remove what make made here (caches of jars and models stay)
	@rm -rf .venv .venv-* .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find services shared workbench tests -name __pycache__ -type d -prune -exec rm -rf {} +
