# The commands of the project. Each sets up what it needs in .venv and says what it does.

PYTHON ?= python3
VENV := .venv
# The service runs on the GPU where an NVIDIA driver answers, otherwise on the CPU.
ENGINE := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
PYTEST := $(VENV)/bin/pytest --numprocesses logical --maxprocesses 8 --dist worksteal
DEMO_ARGUMENTS := $(if $(DATA),--data "$(DATA)") $(if $(CHECK),--check) $(if $(PORT),--port $(PORT))

.PHONY: demo test test-all check check-extras bench clean

demo: $(VENV)/.service
	$(VENV)/bin/passerby demo $(DEMO_ARGUMENTS)

test: check
	@echo "== pytest"
	$(PYTEST) -m "not slow"

test-all: test
	@echo "== pytest, the slow tests"
	$(PYTEST) -m slow

check-extras:
	@echo "== pip install --dry-run"
	$(PYTHON) tests/check_extras.py

check: $(VENV)/.development
	@echo "== ruff, mypy --strict, import-linter"
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.bench
	$(VENV)/bin/python -m bench

$(VENV)/.service: pyproject.toml
	@echo "== setting up $(VENV) for the service ($(ENGINE))"
	@$(PYTHON) -c 'import sys; sys.exit("Passerby needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[$(ENGINE)]"
	@touch $@

$(VENV)/.development: $(VENV)/.service
	@echo "== setting up $(VENV) for training and tests"
	$(VENV)/bin/python -m pip install --quiet --editable ".[$(ENGINE),train,dev]"
	@touch $@

$(VENV)/.bench: $(VENV)/.development
	@echo "== setting up $(VENV) for comparisons with other vector indexes"
	$(VENV)/bin/python -m pip install --quiet --editable ".[$(ENGINE),train,dev,bench]"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache
