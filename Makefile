# Every target sets up what it needs in .venv, and finds it there the next time.
.NOTPARALLEL:
# Two files of tests at a time: most of them use a single core.
workers = --numprocesses 2 --dist loadfile
.PHONY: help demo test test-all check check-format check-lint check-types check-imports bench peers core dev clean

help:
	@echo 'make demo      set up, then show what speculative decoding does'
	@echo 'make test      set up for development, then run the tests'
	@echo 'make test-all  the slow and the statistical tests too: all but those that need a GPU'
	@echo 'make check     format, lint, types, direction of imports'
	@echo 'make bench     measure everything that README.md reports, and write it there'
	@echo 'make peers     virtual environments of the engines to compare with, in build/peers'
	@echo 'make clean     remove .venv and caches'

demo: core
	@.venv/bin/outrider demo

test: dev
	@.venv/bin/python -m pytest $(workers) -m 'not (slow or statistical or gpu or browser or ray)'

test-all: test
	@.venv/bin/python -m pytest $(workers) -m '(slow or statistical or browser or ray) and not gpu'

check: check-format check-lint check-types check-imports

check-format: dev
	@.venv/bin/ruff format --check

check-lint: dev
	@.venv/bin/ruff check

check-types: dev
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv/bin/pyright

check-imports: dev
	@.venv/bin/lint-imports --no-logo

core dev:
	@scripts/setup.sh $@

bench:
	@scripts/setup.sh dev
	@.venv/bin/python -m benchmarks.identity
	@.venv/bin/python -m benchmarks.verification
	@.venv/bin/python -m benchmarks.speculation
	@.venv/bin/python -m benchmarks.plain
	@.venv/bin/python -m benchmarks.overhead
	@.venv/bin/python -m benchmarks.startup
	@.venv/bin/python -m benchmarks.report

peers:
	@scripts/peers.sh

clean:
	@rm -rf .venv .hypothesis .import_linter_cache .pytest_cache .ruff_cache
