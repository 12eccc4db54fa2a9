# make demo and make test set up everything they need; make help lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test stress lint lint-elixir lint-rust lint-python bench doctor docs clean

# The Python of demo, tests and benchmarks, whatever the shell has activated.
export VIRTUAL_ENV := $(CURDIR)/_build/venv
export PATH := $(PATH):$(HOME)/.cargo/bin

# Without any locale, as in a container, file names would be Latin-1 to Erlang.
ifeq ($(LANG)$(LC_ALL),)
export LANG := C.UTF-8
endif

say = @echo "==> $(1)"
newest_formatter = $(shell elixir --short-version 2>/dev/null | awk -F. '{ print ($$1 > 1 || $$2 >= 18) ? "yes" : "no" }')

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing; make _build/venv
	@scripts/setup.sh
	@scripts/venv.sh _build/venv scripts/requirements.txt

demo: setup ## draw a picture in Elixir, process it in Python, write _build/demo.png
	$(call say,building)
	@mix compile
	$(call say,running examples/demo.exs)
	@mix run examples/demo.exs
	$(call say,demo: done)

test: export MIX_ENV := test
test: setup ## all tests: Elixir, Rust, Python
	$(call say,building)
	@mix compile
	$(call say,Elixir tests)
	@mix test
	@mix test --only own_vm
	$(call say,Rust tests)
	@scripts/cargo.sh test --quiet --workspace --exclude py_worker
	$(call say,Python tests)
	@if [ -d test/python ]; then PYTHONPATH=priv/python _build/venv/bin/python -m unittest discover -s test/python -t test/python; fi
	$(call say,test: all passed)

stress: export MIX_ENV := test
stress: export PY_STRESS_SECONDS ?= 60
stress: setup ## random traffic for PY_STRESS_SECONDS, from PY_STRESS_SEED
	@mix test --only own_vm test/stress

lint: setup ## formatters, linters and type checkers of the three languages
	@if [ "$(newest_formatter)" = yes ]; then $(MAKE) --no-print-directory lint-elixir; \
	else echo "==> lint: the Elixir part needs Elixir 1.18 or later and is skipped (.ci/run runs it in the forky chroot)"; fi
	@$(MAKE) --no-print-directory lint-rust lint-python
	$(call say,lint: all clean)

lint-elixir: setup ## mix format and warnings
	$(call say,mix format --check-formatted)
	@mix format --check-formatted
	$(call say,mix compile --warnings-as-errors)
	@mix compile --warnings-as-errors --force
	@MIX_ENV=test mix compile --warnings-as-errors --force

lint-rust: setup ## cargo fmt and clippy
	$(call say,cargo fmt --check)
	@cargo fmt --all --check -- --color=never
	$(call say,cargo clippy)
	@scripts/cargo.sh clippy --quiet --workspace --exclude py_worker --all-targets -- -D warnings
	@scripts/cargo.sh --shared clippy --quiet -p py_worker --all-targets -- -D warnings

lint-python: setup ## ruff and mypy --strict
	@scripts/venv.sh _build/lint scripts/requirements-lint.txt
	@scripts/venv.sh _build/bench scripts/requirements-bench.txt
	$(call say,ruff check)
	@_build/lint/bin/ruff check --quiet . examples/python/*.py
	$(call say,ruff format --check)
	@_build/lint/bin/ruff format --quiet --check . examples/python/*.py
	$(call say,mypy --strict)
	@_build/lint/bin/mypy --strict --python-executable _build/venv/bin/python priv/python examples/python bench/python test/python test/stress/oracle.py
	@_build/lint/bin/mypy --strict --python-executable _build/bench/bin/python bench/chart.py

bench: export MIX_ENV := prod
bench: setup ## the benchmarks: a table, and a chart in bench/results/ (BENCH='--only T1,T2 --runs 3')
	@scripts/venv.sh _build/bench scripts/requirements-bench.txt
	@mix compile
	@scripts/cargo.sh build --quiet --release -p py_floor
	@PY_FLOOR="$$(scripts/cargo.sh --target-dir)/release/libpy_floor.so" mix run bench/run.exs $(BENCH)

doctor: setup ## what Py finds on this machine, and what is wrong
	@mix py.doctor

docs: setup ## the documentation, into doc/, with the ex_doc on PATH (Debian: elixir-ex-doc)
	@mix compile
	@command -v ex_doc >/dev/null || { echo "==> ex_doc is missing: apt-get install elixir-ex-doc" >&2; exit 1; }
	@ex_doc Py "$$(sed -n 's/.*@version "\(.*\)"/\1/p' mix.exs)" _build/dev/lib/py/ebin \
	    --main Py --extras README.md --extras CHANGELOG.md --output doc --proglang elixir
	$(call say,docs: doc/index.html)

clean: ## remove what was built
	@rm -rf _build priv/native doc
