from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from device_tests.bench import arm_cycles
from device_tests.bench.arm_cycles import (
    ANALYSER,
    COMPILER,
    Loop,
    analyse,
    best_loops,
    compile_to_assembly,
    estimate_arm_cycles,
    innermost_loops,
    is_own_model,
    model_of,
)
from device_tests.drive.build import AARCH64_FOLDER
from pipeline.errors import InputError, MissingToolError
from tests.conftest import NEEDS_TOOL

ASSEMBLY = """
\t.type\tproducts, %function
_ZN8voxpress12_GLOBAL__N_18ProductsINS0_9IntegerF4ELi16EE3RunE:
.LFB1:
\tcmp\tx0, 0
.L3:
\tldr\tq1, [x0], 16
.L4:
\tsdot\tv0.4s, v1.16b, v2.4b[0]
\t.loc 1 2
\tsdot\tv3.4s, v1.16b, v2.4b[1]
\tsubs\tx1, x1, #1
\tbne\t.L4
\tsubs\tx2, x2, #1
\tbne\t.L3
.L5:
\tadd\tv0.4s, v0.4s, v3.4s
\tadd\tv0.4s, v0.4s, v3.4s
\tcbnz\tx3, .L5
\tret
direct_run:
.L7:
\tfmla\tv0.4s, v1.4s, v2.s[0]
\tfmla\tv4.8h, v1.8h, v2.h[0]
\tfadd\tv5.4s, v1.4s, v2.4s
\tb.gt\t.L7
"""


def test_loops_are_those_without_a_loop_inside() -> None:
    loops = list(innermost_loops(ASSEMBLY))
    assert [(loop.function, len(loop.instructions), loop.macs) for loop in loops] == [
        ("_ZN8voxpress12_GLOBAL__N_18ProductsINS0_9IntegerF4ELi16EE3RunE", 4, 32),
        ("_ZN8voxpress12_GLOBAL__N_18ProductsINS0_9IntegerF4ELi16EE3RunE", 3, 0),
        ("direct_run", 4, 12),
    ]
    assert [loop.algorithm for loop in loops] == ["F(4x4)", "F(4x4)", "direct"]


def test_the_inner_product_is_the_largest_loop_that_multiplies() -> None:
    small = Loop("direct", ("sdot\tv0.4s, v1.16b, v2.4b[0]", "bne\t.L1"))
    large = Loop("direct", ("sdot\tv0.4s, v1.16b, v2.4b[0]",) * 4 + ("bne\t.L1",))
    transform = Loop("direct", ("sdot\tv0.4s, v1.16b, v2.4b[0]",) * 5 + ("add\tx0, x0, 1",) * 9 + ("bne\t.L1",))
    assert best_loops(iter([small, large, transform])) == [large]


def test_a_model_is_the_cores_own_if_it_bears_its_number() -> None:
    names = {
        "cortex-a55": "CortexA55UnitALU",
        "cortex-a76": "A57UnitB",
        "exynos-m5": "M5PipeF0",
        "tsv110": "TSV110UnitAB",
    }
    models = {core: model_of([unit]) for core, unit in names.items()}
    assert models == {"cortex-a55": "CortexA55", "cortex-a76": "A57", "exynos-m5": "M5", "tsv110": "TSV110"}
    assert {core: is_own_model(core, model) for core, model in models.items()} == {
        "cortex-a55": True,
        "cortex-a76": False,
        "exynos-m5": True,
        "tsv110": True,
    }


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingToolError, match="run `make aarch64`"):
        compile_to_assembly("conv_u8/conv2d_u8_neondot.cc", tmp_path)
    (tmp_path / "compile_commands.json").write_text(
        json.dumps([{"file": "/a/other.cc", "command": "", "directory": ""}])
    )
    with pytest.raises(InputError, match=r"expected how conv_u8/conv2d_u8_neondot\.cc is compiled"):
        compile_to_assembly("conv_u8/conv2d_u8_neondot.cc", tmp_path)
    monkeypatch.setattr(arm_cycles.shutil, "which", lambda tool: None if tool == ANALYSER else tool)
    with pytest.raises(MissingToolError, match="llvm-mca: expected the program of Debian's llvm"):
        estimate_arm_cycles(build=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(ANALYSER) is None, reason=f"{NEEDS_TOOL}llvm")
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{NEEDS_TOOL}g++-aarch64-linux-gnu")
@pytest.mark.skipif(shutil.which("qemu-aarch64-static") is None, reason=f"{NEEDS_TOOL}qemu-user-static")
def test_half_precision_multiplies_half_as_fast_as_bytes_and_twice_as_fast_as_fp32() -> None:
    rates = {}
    for isa in ("neondot", "neon, fp32", "fp16, not in use"):
        assembly = compile_to_assembly(arm_cycles.SOURCES[isa], AARCH64_FOLDER / "native")
        loops = {loop.algorithm: loop for loop in best_loops(innermost_loops(assembly))}
        cycles = analyse(loops["direct"], "exynos-m5")
        assert (cycles.model, cycles.own_model) == ("M5", True)
        rates[isa] = loops["direct"].macs / cycles.cycles
        if isa != "fp16, not in use":
            assert sorted(loops) == ["F(2x2)", "F(4x4)", "direct"]
    # Three pipes of 128 bits; an inner product that keeps less than nine tenths of them busy has lost its shape.
    assert 0.9 * 3 * 16 < rates["neondot"] <= 3 * 16
    assert 0.9 * 3 * 8 < rates["fp16, not in use"] <= 3 * 8
    assert 0.9 * 3 * 4 < rates["neon, fp32"] <= 3 * 4
