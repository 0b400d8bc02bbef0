from __future__ import annotations

import ctypes
import subprocess
import sys

from exporters.native import native_path
from exporters.pte.run import PteRunner
from tests.exporters.pte.models import tiny_pte, utterance


def test_registering_again_adds_nothing_and_does_not_abort() -> None:
    library = ctypes.CDLL(str(native_path("pte_ops")), mode=ctypes.RTLD_GLOBAL)
    assert library.voxpress_register_ops() == 0  # loading it has registered both
    assert library.voxpress_register_ops() == 0


def test_loading_the_library_twice_under_two_names_does_not_abort(tmp_path: object) -> None:
    script = """
import ctypes, shutil, sys
copy = sys.argv[2] + "/copy.so"
shutil.copy(sys.argv[1], copy)
first = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
second = ctypes.CDLL(copy, mode=ctypes.RTLD_LOCAL)
assert second.voxpress_register_ops() == 0
"""
    subprocess.run([sys.executable, "-c", script, native_path("pte_ops"), str(tmp_path)], check=True)


def test_kernels_that_ran_are_named() -> None:
    PteRunner(tiny_pte(4)).embed(utterance(50))
    library = ctypes.CDLL(str(native_path("pte_ops")), mode=ctypes.RTLD_GLOBAL)
    library.voxpress_kernels_used.restype = ctypes.c_size_t
    length = library.voxpress_kernels_used(None, 0)
    text = ctypes.create_string_buffer(length + 1)
    assert library.voxpress_kernels_used(text, ctypes.c_size_t(length + 1)) == length
    names = text.value.decode().split(",")
    assert any(name.startswith("conv2d_f32_") for name in names)
    assert any(name.startswith("statspool_f32_") for name in names)
