# What a developer and CI run. Needs make, and Python 3.11 or newer with its venv module; the rest comes by itself.
# Another Python than python3, for the first run: make venv PYTHON=python3.13

PYTHON ?= python3
ARGS ?=
SEED ?=
WRITE ?=

# How many processes share the tests. Who names some of them, or how to run them, mostly wants to see them run: in one.
WORKERS ?= $(if $(ARGS),0,3)

# The tests start hundreds of processes: each would compile the project again.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
READY := .venv/.ready
BENCH_READY := .venv-bench/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: check
check: $(READY)  ## format, lint, types, layers: all that needs no running of tests
	@$(BIN)/ruff format --check --output-format concise .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache
	@$(BIN)/journeyman schema --check

.PHONY: test
test: $(READY) browser  ## every test, in three processes; some, in one: make test ARGS="tests/store -k order"
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

# The pages are tested in chromium. Where it is missing and can't be installed, those tests are skipped; in CI they fail.
.PHONY: browser
browser:
	@test -n "$$JOURNEYMAN_CHROMIUM" || command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  echo 'Installing chromium, for the tests of the pages …'; \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium; } \
	    >/dev/null 2>&1 || echo 'chromium can not be installed: the tests of the pages need it.' >&2; \
	fi

.PHONY: screenshots
screenshots: $(READY) browser  ## take the pictures in docs/pictures again
	@$(BIN)/python -m tests.browser.screenshots

# The same experiments on the servers of the higher rungs, and those on the servers themselves, are a run of their own.
SERVERS := tests/crash/test_postgres.py tests/crash/test_nats.py

.PHONY: crash
crash: $(READY)  ## the crash laboratory in full, half an hour; the same faults again with: make crash SEED=1
	@$(call laboratory,crash,tests/crash $(SERVERS:%=--ignore %))

.PHONY: crash-servers
crash-servers: $(READY)  ## the same on PostgreSQL and JetStream, whose servers are killed, too
	@$(call laboratory,crash-servers,$(SERVERS))

# What it counted is told at its end, kept in build/, and written into a document with WRITE=FILE.
define laboratory
mkdir -p build; rm -f build/$(1).jsonl; touch build/$(1).jsonl; \
JOURNEYMAN_CRASH_REPORT=$(CURDIR)/build/$(1).jsonl JOURNEYMAN_CRASH_SEED=$(SEED) \
  $(BIN)/pytest $(2) -m crash $(ARGS); status=$$?; \
$(BIN)/python -m tests.crash.report build/$(1).jsonl $(if $(WRITE),--write $(WRITE)) && exit $$status
endef

.PHONY: bench
bench: $(READY) $(BENCH_READY)  ## measure it beside its limits and peers; briefly with: make bench ARGS="--quick"
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-pages
bench-pages: $(READY)  ## measure the console's pages on a log of a million messages
	@$(BIN)/python -m benchmarks.pages $(ARGS)

# The peers are kept apart: what they need must not change what Journeyman runs on.
$(BENCH_READY): benchmarks/requirements.txt
	@echo 'Installing the peers into .venv-bench …'
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip --disable-pip-version-check --no-input --quiet install --require-hashes \
	  --only-binary :all: --requirement benchmarks/requirements.txt
	@touch $@

.PHONY: format
format: $(READY)  ## format the code, and mend what ruff can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: demo
demo: $(READY)  ## run the demo; its options with: make demo ARGS="--help"
	@$(BIN)/journeyman demo $(ARGS)

.PHONY: venv
venv: $(READY)  ## install everything into .venv; once, and again when the requirements change

# Without build isolation, so that the build backend, too, is the one whose hash is known.
$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Journeyman needs Python 3.11 or newer, and $(PYTHON) is not: try make venv PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { \
	  echo 'This Python lacks its venv module: on Debian, apt-get install python3-venv' >&2; exit 1; }
	@echo 'Installing into .venv …'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes --only-binary :all: --requirement requirements-dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: requirements
requirements:  ## choose the newest versions again: writes requirements-dev.txt, for the oldest Python
	@test -x .venv-lock/bin/pip-compile || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install -q pip-tools; }
	@CUSTOM_COMPILE_COMMAND='make requirements' .venv-lock/bin/pip-compile --quiet --upgrade --extra llm --extra postgres \
	  --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --output-file requirements-dev.txt pyproject.toml requirements-dev.in

.PHONY: bench-requirements
bench-requirements:  ## choose the newest peers: writes benchmarks/requirements.txt
	@test -x .venv-lock/bin/pip-compile || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install -q pip-tools; }
	@CUSTOM_COMPILE_COMMAND='make bench-requirements' .venv-lock/bin/pip-compile --quiet --upgrade \
	  --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --output-file benchmarks/requirements.txt benchmarks/requirements.in

.PHONY: clean
clean:  ## remove .venv, the caches and what was built
	@rm -rf .venv .venv-bench .venv-lock dist build .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find src tests -name __pycache__ -prune -exec rm -rf {} +
