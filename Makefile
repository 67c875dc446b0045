# Every command sets up .venv by itself: python3 (3.11+) with venv and make is all it needs.

PYTHON ?= python3
BIN := .venv/bin
# Two processes, a file of tests each: half the wait, and as much memory as a laptop has. One thread
# each, since their threads would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
VERSION_CHECK := import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"fastseg needs Python 3.11 or newer, this is {v[0]}.{v[1]} ({sys.executable}); try: make PYTHON=python3.11")

.PHONY: help demo test test-slow test-all test-figures test-arm64 test-gpu test-engines referees lint format bench dist clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/ready: requirements-dev.txt constraints.txt pyproject.toml runtime/pyproject.toml
	@$(PYTHON) -c '$(VERSION_CHECK)'
	@echo "setting up .venv: some minutes the first time, torch is large" >&2
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements-dev.txt
	@touch $@

# The converters of phones weigh another gigabyte: only what needs them installs them.
.venv/ready-converters: .venv/ready
	$(PIP) -e ./runtime -e '.[dev,tflite,coreml,openvino]'
	@touch $@

demo: .venv/ready ## train, export and run a small network on synthetic scenes; writes demo/report.html
	$(BIN)/python tools/demo/make_demo.py

test: .venv/ready ## the fast tests
	$(PYTEST)

test-slow: .venv/ready-converters ## the rest: training, converters, sshd, browser
	$(PYTEST) -m slow

# tests/conftest.py puts slow files first: begun last, one of them would leave the others waiting. A third process
# computes while tests wait for a board, a browser or a package.
test-all: .venv/ready-converters ## test, test-slow and test-engines in one go
	$(PYTEST) -n 3 -rs --durations=15 --no-loadscope-reorder -m "not figures and not arm64 and not gpu"

test-figures: .venv/ready ## times and memory against their limits, on a quiet machine
	$(BIN)/python -m pytest -q -m figures

test-arm64: .venv/ready-converters ## on an emulated arm64 board (root, qemu-user-static)
	$(BIN)/python -m pytest -q -m arm64

test-gpu: .venv/ready ## what needs an NVIDIA GPU
	$(BIN)/python -m pytest -q -m gpu

# In environments of their own below .cache (or $FASTSEG_CACHE). ENGINES="1.17.0 1.23.2" names ONNX
# Runtimes, "tflite-runtime==2.14.0" others; without it all of tests/engines/engines.toml are run.
test-engines: .venv/ready-converters ## in old and new ONNX Runtimes and LiteRTs, which it fetches
	$(BIN)/python -m pytest -q -rs -m engines tests/engines

referees: .venv/ready ## vendors' toolchains that judge artifacts, into the cache; REFEREES="..." names a few
	$(BIN)/python -m fastseg_exporters.gate.referees install $(REFEREES)

lint: .venv/ready-converters ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready ## the networks' speed (beside RIVALS="package.module:factory ...") and the runtime's costs
	$(BIN)/compare_models $(RIVALS) nano small base large --int8 --roofline -o bench
	$(BIN)/python tools/runtime_figures/measure_runtime.py

dist: .venv/ready ## both wheels, into dist/
	$(PIP) hatchling
	cd runtime && ../$(BIN)/python -m hatchling build -t wheel -d ../dist
	$(BIN)/python -m hatchling build -t wheel -d dist

clean: ## remove what these targets made; trainings in runs/ stay
	rm -rf .venv .cache dist demo bench
