# Two commands do everything: `make serve` starts the gateway, `make test` runs every test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
WORKERS ?= 2
# The tests start hundreds of processes; where this is set, each would compile all of Hilum anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: serve test coverage bench bench-dimse lint format docs clean peers

serve: $(VENV)/gateway.stamp
	$(BIN)/hilum serve $(ARGS)

test: $(VENV)/dev.stamp peers lint
	$(BIN)/python -m pytest tests -n $(WORKERS) --dist loadfile $(ARGS)

# wire and services by their own unit tests: what is left out is named, and fails. A test does
# the same, so that `make test` says it too.
coverage: $(VENV)/dev.stamp
	$(BIN)/python -m pytest tests/unit/wire tests/unit/services --cov $(ARGS)

bench: $(VENV)/dev.stamp peers
	$(BIN)/python -m bench $(ARGS)

bench-dimse: $(VENV)/dev.stamp peers
	$(BIN)/python -m bench.dimse $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What is generated from the code; a test says when it is out of date.
docs: $(VENV)/dev.stamp
	$(BIN)/hilum conformance --output docs/conformance.md
	$(BIN)/python -m hilum.cli.reference docs

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# DCMTK and Orthanc judge interoperability. As root on Debian they are installed; elsewhere the
# tests that need them say how to get them.
peers:
	@$(BIN)/python -m tests.install_peers

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Hilum needs Python 3.11 or newer; set PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null \
	       && $(PYTHON) -m venv $(VENV); } \
	  || { echo "cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/gateway.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[gateway]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/gateway.stamp

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis dist build
