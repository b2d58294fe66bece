# `make` lists the targets. Everything lives in .venv and .peers inside the checkout; nothing else is touched.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= auto
TESTS ?= tests
RECORDS ?= 200000
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint property soak proof bench samples docs man build kinds clouds peers oracles apiserver clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("snaptool needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# The engine: what has a .pxd beside it is compiled, by pip, and again when it is edited; without a compiler it runs as Python.
# The bytecode makes the first start as quick as the second.
ENGINE := $(shell find snaptool -name '*.pxd')

.venv/.compiled: .venv/.ready $(ENGINE) $(ENGINE:.pxd=.py)
	@$(BIN)/python -m tests.support.engine
	@$(BIN)/python -m compileall -q snaptool
	@touch $@

setup: .venv/.compiled ## virtual environment with snaptool, its tests' tools and a real etcd

demo: setup ## rewrite a real sample snapshot, and check the result
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python samples/demo.py

test: setup ## the tests, real etcd included (narrow with TESTS=tests/unit)
	$(BIN)/python -m pytest -q -n $(JOBS) $(TESTS)

lint: setup ## ruff, its formatter, and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## what CI runs: lint, types, tests

property: setup ## the laws only
	$(BIN)/python -m pytest -q -n $(JOBS) tests/property

soak: setup ## slow properties and long fuzzing
	$(BIN)/python -m pytest -q -n $(JOBS) -m soak tests

bench: setup ## snaptool beside etcdutl, bbolt and cp (RECORDS=1000000 for 3 GB; BENCH=--growth, BENCH=--shapes)
	$(BIN)/python -m tests.benchmarks --records $(RECORDS) $(BENCH)
	$(if $(BENCH),,$(BIN)/python -m tests.benchmarks.kms)
	$(if $(BENCH),,$(BIN)/python -m tests.benchmarks.kinds)
	$(if $(BENCH),,$(BIN)/python -m tests.benchmarks.audit)

peers: setup ## other etcds and bbolt, which judge what we write (Go; Debian's etcd by apt-get)
	$(BIN)/python -m tests.peers.build etcd bbolt

oracles: setup ## the API server's own code, to judge every provider (Go)
	$(BIN)/python -m tests.peers.build apiserver

apiserver: setup ## a whole kube-apiserver and kubectl, built from source (Go; many minutes)
	$(BIN)/python -m tests.peers.build kubernetes kubectl

proof: peers apiserver ## a real kube-apiserver on what snaptool wrote: disaster, migration, informers
	$(BIN)/python -m pytest -q -m proof tests/proof

clouds: setup ## stores and key services: real servers on loopback (pip, Go, npm; see docs/clouds.md)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[clouds-tests]'
	$(BIN)/python -m tests.peers.build transit local-kms versitygw fake-gcs-server azurite
	$(BIN)/python -m pytest -q -rs tests/clouds

kinds: setup ## make the table of kinds again from the published API modules (Go's module proxy)
	$(BIN)/python -m tests.generators.kinds

samples: setup ## make the sample snapshots again with a real etcd
	$(BIN)/python -m samples.make

docs: setup ## write docs/cli.md from the help of every command
	$(BIN)/python -m tests.docs

man: setup ## man pages of every command, into build/man
	$(BIN)/python -m tests.man

build: setup ## the wheel, into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove everything that make made
	find snaptool -name '*.c' -delete -o -name '*.so' -delete
	rm -rf .venv .peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
