# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make their own .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NATIVE := build/native
AARCH64 := build/aarch64
SOURCES := pipeline calibration exporters device_tests tests
CXX_SOURCES = $(shell git ls-files '*.c' '*.cc' '*.h')

.PHONY: demo test test-fast fuzz tflite-runtime interpreter kotlin native aarch64 aarch64-if-possible lint type format clean

demo: native
	$(BIN)/voxpress run demo --out out/demo
	$(BIN)/voxpress report out/demo/device-test

test: native tflite-runtime interpreter aarch64-if-possible kotlin
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: native tflite-runtime interpreter
	$(BIN)/python -m pytest -m "not slow"

# Needs Debian's clang and libclang-rt-14-dev, which .ci/run does without: 240 MB for what its own mutator does too.
FUZZ_SECONDS := 300
fuzz: $(INSTALLED)
	$(BIN)/cmake -S . -B build/fuzz -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DCMAKE_CXX_COMPILER=clang++ -DVOXPRESS_FUZZ=ON -DVOXPRESS_EXECUTORCH=OFF
	$(BIN)/cmake --build build/fuzz --target voxpress_fuzz
	$(BIN)/python -m tests.fuzz.corpus build/fuzz/corpus
	build/fuzz/voxpress_fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -rss_limit_mb=4096 -artifact_prefix=build/fuzz/ build/fuzz/corpus

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

# The runners, ops and delegate for 64-bit ARM, with the runtimes of the aarch64 wheels of the same versions, to be run
# under an emulator. The wheels are fetched once per version.
aarch64: $(AARCH64)/runtime/.fetched
	@test -f $(AARCH64)/native/build.ninja || $(BIN)/cmake -S . -B $(AARCH64)/native -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/device_tests/harness/cmake/aarch64-linux-gnu.cmake -Dexecutorch_DIR=$(CURDIR)/$(AARCH64)/runtime/executorch/share/cmake
	@$(BIN)/cmake --build $(AARCH64)/native --target voxpress_pte_runner voxpress_tflite_runner voxpress_tflite_delegate voxpress

# Tests skip the emulator where its tools are not installed, and need no compiler then.
aarch64-if-possible: $(INSTALLED)
	@if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64-static >/dev/null; then $(MAKE) --no-print-directory aarch64; fi

$(AARCH64)/runtime/.fetched: $(INSTALLED) device_tests/drive/fetch_runtime.py
	$(BIN)/python -m device_tests.drive.fetch_runtime --lock requirements.lock --out $(AARCH64)/runtime
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

# TFLite's interpreter as a C library, 8 MB for two processors: what .tflite bundles run on in apps with LiteRT 1.
INTERPRETER := build/tflite-interpreter
interpreter: $(INTERPRETER)/.installed
$(INTERPRETER)/.installed: android/interpreter.lock | $(INSTALLED)
	rm -rf $(INTERPRETER)
	for processor in x86_64 aarch64; do \
		$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: --platform manylinux_2_35_$$processor --dest $(INTERPRETER)/$$processor --requirement android/interpreter.lock && \
		$(BIN)/python -m zipfile -e $(INTERPRETER)/$$processor/*.whl $(INTERPRETER)/$$processor && \
		mv $(INTERPRETER)/$$processor/pyopen_wakeword/lib/libtensorflowlite_c.so $(INTERPRETER)/$$processor && \
		rm -r $(INTERPRETER)/$$processor/*wake* || exit 1; \
	done
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
