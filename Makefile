# make run    the main job, offline if it must be: creates .venv, installs, trains, reports
# make test   adds the tools of development, runs the tests
PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin

.PHONY: help run test test-slow check figures format smoke

help:
	@sed -n '1,2s/^# //p; s/^\([a-z-]*\):.*## /  \1: /p' Makefile

# Python compiles what it imports; compiling all files of these libraries takes half a minute and serves nothing. It has
# to be allowed to keep that, though: images that set this variable would compile for a quarter of a minute at each start.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

# torch goes first, at the pinned version: no other package then brings another build of it.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) torch
	$(INSTALL) --editable .
	touch .venv/installed

.venv/dev: .venv/installed
	$(INSTALL) --editable ".[dev]"
	touch .venv/dev

run: .venv/installed ## the main job on laptop14, or on the bundled sample where laptop14 cannot be had
	$(BIN)/absa-edit train +experiment=laptop14

smoke: .venv/installed ## every stage on a few examples, in seconds
	$(BIN)/absa-edit train +experiment=smoke

RUNS ?= $(wildcard outputs/laptop14/reviewlm/seed0 outputs/laptop-sample/reviewlm/seed0)
figures: .venv/installed ## the README's pictures, from finished runs (RUNS=...)
	$(BIN)/python scripts/figures.py $(RUNS)

test: .venv/dev ## the tests that need no network, no GPU and little time
	$(BIN)/python -m pytest

test-slow: .venv/dev ## the slow ones
	$(BIN)/python -m pytest -m "slow and not gpu and not network"

check: .venv/dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
