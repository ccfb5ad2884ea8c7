# Every target sets itself up: all it needs is Python >= 3.11, a C++ compiler and make.
#   make test PYTHON=python3.13      another interpreter; each has its own environment in .venv/

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell sh .ci/interpreters.sh first)
endif
VERSION := $(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv/$(VERSION)
BIN := $(VENV)/bin
NATIVE := $(wildcard native/*)
PYTEST_ARGS ?=
BENCH_ARGS ?=
SHARED := PYTHONUNBUFFERED=1

.PHONY: audit faults soak suites bench-live bench-page help demo test test-native test-python bench bench-throughput bench-findings bench-findings-scale lint format wheel clean check-python

help:  ## this list
	@echo "PyScope: make <target> [PYTHON=python3.x]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-22s %s\n", $$1, $$2}'
	@echo "  interpreter: $(or $(PYTHON),none found) ($(or $(VERSION),none))"

demo: $(VENV)/built.stamp  ## run the TaskFlow service, drive it over HTTP, record it, print what ran
	$(SHARED) $(BIN)/python -m taskflow.demo

test: test-native test-python  ## native tests (sanitizers) and pytest

test-native: check-python  ## C++ tests under AddressSanitizer + UBSan, and ThreadSanitizer
	sh tests/native/run.sh

test-python: $(VENV)/built.stamp
	sh .ci/browser.sh
	$(SHARED) $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder --max-worker-restart 2 $(PYTEST_ARGS)

bench: $(VENV)/built.stamp  ## every figure with its interval, into docs/benchmarks.md; goes on where it stopped
	$(SHARED) $(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-throughput: $(VENV)/built.stamp  ## TaskFlow recorded and not, by pytest-benchmark, JSON in build/bench
	@mkdir -p build/bench
	$(SHARED) $(BIN)/python -m pytest benchmarks/test_throughput.py --benchmark-json=build/bench/throughput-$(VERSION)-pytest.json $(PYTEST_ARGS)

bench-live: $(VENV)/built.stamp  ## the dashboard: event to screen in Chromium, cost of being watched, 20 viewers
	sh .ci/browser.sh
	$(SHARED) $(BIN)/python -m benchmarks.live

bench-page: $(VENV)/built.stamp  ## the dashboard's page in Chromium: first paint, long tasks, keys; heap and nodes over ten minutes
	sh .ci/browser.sh
	$(SHARED) $(BIN)/python -m benchmarks.page

bench-findings: $(VENV)/built.stamp  ## precision and recall of the detectors on pairs of programs
	$(SHARED) $(BIN)/python -m benchmarks.findings

bench-findings-scale: $(VENV)/built.stamp  ## each analysis on a recording of ten million events: CPU time, memory
	$(SHARED) $(BIN)/python -m benchmarks.findings_scale

suites: $(VENV)/built.stamp  ## test suites of packages from PyPI: untraced, with an empty hook, everything traced
	$(SHARED) $(BIN)/python -m benchmarks.suites $(SUITES_ARGS)

soak: $(VENV)/built.stamp  ## TaskFlow recorded under load for ten minutes: memory, handles and threads must be flat
	$(SHARED) $(BIN)/python -m benchmarks.soak $(SOAK_ARGS)

faults: $(VENV)/built.stamp  ## every call inside every probe made to raise, the reader fuzzed, ten thousand starts and stops
	FAULT_ROUNDS=200 FUZZ_EXAMPLES=20000 $(SHARED) $(BIN)/python -m pytest -q --timeout 3600 tests/robustness/test_injected_faults.py tests/robustness/test_exporters_that_fail.py tests/robustness/test_secrecy.py
	$(SHARED) $(BIN)/python -m benchmarks.restarts

audit: $(VENV)/deps.stamp  ## known vulnerabilities of the declared dependencies, by pip-audit
	$(BIN)/python .ci/audit.py $(AUDIT_ARGS)

lint: $(VENV)/deps.stamp  ## ruff, mypy --strict, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(wildcard native/*.hpp native/*.cpp tests/native/*.cpp tests/native/*.hpp)

format: $(VENV)/deps.stamp  ## let ruff and clang-format settle the layout
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(wildcard native/*.hpp native/*.cpp tests/native/*.cpp tests/native/*.hpp)

wheel: $(VENV)/built.stamp  ## build the wheel, repair it for manylinux, try it in a clean environment
	$(BIN)/python tests/packaging/build_wheel.py
	$(SHARED) $(BIN)/python -m pytest -m packaging tests/packaging $(PYTEST_ARGS)

clean:  ## remove environments, builds and recordings made here
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f pyscope/*.so *.pyscope
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

check-python:
	@test -n "$(VERSION)" || { echo "No Python >= 3.11 found (looked for python3, python3.11 to python3.14 on PATH and in ~/.pyenv/versions). Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $(VERSION): PyScope needs Python >= 3.11" >&2; exit 1; }

# The environment and every tool in it; made again when pyproject.toml changes.
$(VENV)/deps.stamp: pyproject.toml .ci/environment.sh | check-python
	sh .ci/environment.sh "$(PYTHON)" "$(VENV)"
	touch $@

# The extension modules in place; setuptools compiles only what changed.
$(VENV)/built.stamp: $(VENV)/deps.stamp setup.py $(NATIVE)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@
