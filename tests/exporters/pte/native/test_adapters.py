"""Packed weights and settings of the ExecuTorch ops. Each run has a process of its own: settings are read once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.kernels.capi import float_isa, isas

pytestmark = pytest.mark.slow  # half a minute of importing torch

PRELUDE = """
import ctypes
import numpy as np
import torch
from exporters.native import native_path
from exporters.pte.emit import emit_pte
from exporters.pte.run import PteRunner
from pipeline.artifact.decode import decode
from pipeline.errors import InputError
from tests.exporters.pte.models import relative_error, utterance
from tests.factories import tiny_artifact

library = ctypes.CDLL(str(native_path("pte_ops")), mode=ctypes.RTLD_GLOBAL)
library.voxpress_release_packed.restype = ctypes.c_size_t


def artifact(seed):
    return tiny_artifact(4, seed=seed, channels=(11, 19))  # AVX-512 leaves layers of up to eight channels to AVX2


def model(seed=0):
    return emit_pte(artifact(seed), lowering="voxpress", max_seconds=4.0)


def assert_right(runner, seed=0):
    expected = decode(artifact(seed))(torch.from_numpy(utterance(50))[None])[0].numpy()
    assert relative_error(runner.embed(utterance(50)), expected) < 1e-5


def kernels():
    text = ctypes.create_string_buffer(4096)
    library.voxpress_kernels_used(text, ctypes.c_size_t(4096))
    return [name for name in text.value.decode().split(",") if not name.startswith("statspool")]
"""


def run(script: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_another_program_at_the_same_address_is_another_program() -> None:
    run("""
data, other = model(), model(seed=1)
assert len(data) == len(other)
runner = PteRunner(data)
assert_right(runner)
del runner
ctypes.memmove(np.frombuffer(data, np.uint8).ctypes.data, other, len(other))
assert_right(PteRunner(data), seed=1)
""")


def test_packed_weights_are_kept_shared_and_released() -> None:
    run("""
first = PteRunner(model())
assert library.voxpress_release_packed() == 0
assert_right(first)
held = library.voxpress_release_packed()
assert held > 0
assert library.voxpress_release_packed() == 0
assert_right(first)
assert_right(PteRunner(model()))
assert library.voxpress_release_packed() == held
""")


@pytest.mark.parametrize("name", isas())
def test_the_environment_names_the_instruction_set(name: str) -> None:
    script = """
assert_right(PteRunner(model()))
assert kernels()
assert all(name.endswith("_" + wanted) and "_panel_" in name for name in kernels()), kernels()
"""
    run(f"wanted = {float_isa(name)!r}\n{script}", VOXPRESS_KERNELS=name)


def test_low_memory_runs_from_codes_and_keeps_nothing() -> None:
    script = """
assert_right(PteRunner(model()))
assert kernels()
assert all("_pal_" in name for name in kernels()), kernels()
assert library.voxpress_release_packed() == 0
"""
    run(script, VOXPRESS_LOW_MEMORY="1")


def test_an_instruction_set_that_the_machine_lacks_is_refused() -> None:
    script = """
try:
    PteRunner(model()).embed(utterance(50))
except InputError:
    print("refused")
"""
    output = run(script, VOXPRESS_KERNELS="sse9")
    assert "refused" in output
    assert "an instruction set that this machine does not have" in output
