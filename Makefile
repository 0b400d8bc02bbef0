# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make their own .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NATIVE := build/native
SOURCES := pipeline calibration exporters device_tests tests
CXX_SOURCES = $(shell git ls-files '*.cc' '*.h')

.PHONY: demo test test-fast native lint type format clean

demo: native
	$(BIN)/voxpress run demo --out out/demo
	$(BIN)/voxpress report out/demo/device-test

test: native
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: native
	$(BIN)/python -m pytest -m "not slow"

# pip is told not to look for newer versions: requirements.lock names every package exactly.
$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "VoxPress needs Python 3.11, this is " + sys.version.split()[0] + "; name one with PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

native: $(INSTALLED)
	@test -f $(NATIVE)/build.ninja || $(BIN)/cmake -S . -B $(NATIVE) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python
	@$(BIN)/cmake --build $(NATIVE)

lint: $(INSTALLED)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

type: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/clang-format -i $(CXX_SOURCES)

clean:
	rm -rf build out
