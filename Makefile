# Every command sets up .venv by itself: python3 (3.11+) with venv and make is all it needs.

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := fastseg targets exporters runtime training tools tests

.PHONY: help demo test test-slow test-arm64 test-gpu lint format bench dist clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/ready: requirements-dev.txt constraints.txt pyproject.toml runtime/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"fastseg needs Python 3.11 or newer; {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.11") if v < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

demo: .venv/ready ## train, export and run a small network on synthetic scenes; writes demo/report.html
	$(BIN)/python -m fastseg_exporters.demo

test: .venv/ready ## the fast tests
	$(BIN)/python -m pytest -q

test-slow: .venv/ready ## the rest: training, converters, sshd, browser
	$(BIN)/python -m pytest -q -m "slow"

test-arm64: .venv/ready ## on an emulated arm64 board (root, qemu-user-static)
	$(BIN)/python -m pytest -q -m "arm64"

test-gpu: .venv/ready ## what needs an NVIDIA GPU
	$(BIN)/python -m pytest -q -m "gpu"

lint: .venv/ready ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready ## the tables and pictures of README
	$(BIN)/python -m compare_models

dist: .venv/ready ## both wheels, into dist/
	$(BIN)/python -m hatchling build -t wheel -d ../dist 2>/dev/null || true

clean: ## remove what the commands made
	rm -rf .venv dist demo runs
