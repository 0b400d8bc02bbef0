# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make their own .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NATIVE := build/native
SOURCES := pipeline calibration exporters device_tests tests
CXX_SOURCES = $(shell git ls-files '*.cc' '*.h')

.PHONY: demo test test-fast tflite-runtime kotlin native lint type format clean

demo: native
	$(BIN)/voxpress run demo --out out/demo
	$(BIN)/voxpress report out/demo/device-test

test: native tflite-runtime kotlin
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: native tflite-runtime
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

# The last runtime of the old kind, 20 MB with the NumPy it needs; it runs beside the others, in processes of its own.
OLD_RUNTIME := build/tflite-runtime
tflite-runtime: $(OLD_RUNTIME)/.installed
$(OLD_RUNTIME)/.installed: | $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(OLD_RUNTIME) tflite-runtime==2.14.0 numpy==1.26.4
	touch $@

# The Kotlin compiler that tests/android runs on the desktop JVM, 80 MB of jars; Gradle brings its own for Android.
KOTLIN := build/kotlin
kotlin: $(KOTLIN)/.installed
$(KOTLIN)/.installed: android/kotlin.lock | $(INSTALLED)
	rm -rf $(KOTLIN)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --dest $(KOTLIN) --requirement android/kotlin.lock
	$(BIN)/python -m zipfile -e $(KOTLIN)/*.whl $(KOTLIN)
	rm $(KOTLIN)/*.whl
	touch $@

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
