"""The kernel core stays free of frameworks, allocation and I/O, and its table is the only list of kernels."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from exporters.native import native_path

KERNELS = Path(__file__).resolve().parents[2] / "exporters" / "kernels"
# bench/ holds a program on the core, which is free to allocate and to print.
SOURCES = sorted(
    path for path in KERNELS.rglob("*") if path.suffix in {".h", ".cc", ".inc"} and path.parent.name != "bench"
)
STANDARD = {"algorithm", "array", "atomic", "cmath", "cstddef", "cstdint", "cstring", "limits", "type_traits"}
# Instructions without an operator, in files of their instruction set; what a processor can do, where it is asked.
INTRINSICS = {"immintrin.h", "arm_neon.h"}
ASKING = {"isa.cc": {"sys/auxv.h", "sys/sysctl.h"}}
ISAS = ("portable", "neon", "neondot", "avx2", "avx512", "avx512vnni")
OPS, ACTIVATIONS, WEIGHTS = "winograd[24]|conv2d|dwconv2d|statspool", "f32|u8", "pal|panel|panel8|none"
KERNEL_NAME = re.compile(rf"({OPS})_({ACTIVATIONS})_({WEIGHTS})_\d+x\d+_({'|'.join(ISAS)})")


def _code(path: Path) -> str:
    return re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))


def test_there_are_sources() -> None:
    assert len(SOURCES) > 10


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_includes_only_itself_and_a_fixed_list_of_standard_headers(path: Path) -> None:
    for bracket, header in re.findall(r'#\s*include\s*([<"])([^>"]+)[>"]', _code(path)):
        if bracket == "<":
            of_an_isa = path.stem.rsplit("_", 1)[-1] in ISAS
            allowed = STANDARD | (INTRINSICS if of_an_isa else set()) | ASKING.get(path.name, set())
            assert header in allowed, f"{path}: <{header}>"
        else:
            assert (KERNELS / header).is_file(), f"{path}: {header} does not lie under exporters/kernels"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_allocates_nothing_throws_nothing_and_asserts_nothing(path: Path) -> None:
    found = re.search(
        r"\b(new|delete|malloc|calloc|free|throw|try|catch|assert|abort|dynamic_cast|typeid)\b", _code(path)
    )
    assert found is None, f"{path}: {found and found[0]}"


def test_kernel_names_follow_the_grammar_and_are_unique() -> None:
    table = _code(KERNELS / "kernels.inc")
    names = re.findall(r"^VOXPRESS_\w+_KERNEL\((\w+)\)", table, flags=re.MULTILINE)
    assert names
    assert len(names) == len(set(names))
    for name in names:
        assert KERNEL_NAME.fullmatch(name), name
        assert len(name) <= 40


def test_every_kernel_defined_in_a_source_is_in_the_table() -> None:
    table = (KERNELS / "kernels.inc").read_text(encoding="utf-8")
    defined = {
        name
        for path in SOURCES
        if path.suffix == ".cc"
        for name in re.findall(rf"^(?:void|const Conv2d(?:U8)?Kernel) (\w+_(?:{'|'.join(ISAS)}))\b", _code(path), re.M)
    }
    assert len(defined) == len(re.findall(r"^VOXPRESS_\w+_KERNEL\(", table, re.M))
    assert all(f"({name})" in table for name in defined), defined


def _sizes(code: str, *, suffix: str = "") -> dict[str, int]:
    return {key: int(size) for key, size in re.findall(rf"#define VOXPRESS_(\w+?){suffix} (\d+)", code)}


def test_kernels_lie_in_the_file_of_their_instruction_set_and_their_tile_is_what_it_says() -> None:
    for path in KERNELS.rglob("conv2d_f32_*.cc"):
        name, code = path.stem.removeprefix("conv2d_f32_"), _code(path)
        assert name in ISAS
        sizes = _sizes(code)
        kernels = re.findall(r"^const Conv2dKernel (\w+)", code, re.M)
        assert len(kernels) == 8
        for kernel in kernels:
            channels = sizes["LANES"] * (4 if kernel.startswith("dw") else sizes["VECTORS"])
            rows = 1 if kernel.startswith("dw") else sizes["ROWS"]
            assert f"_{rows}x{channels}_{name}" in kernel


def test_integer_kernels_lie_in_the_file_of_their_instruction_set_and_their_tile_is_what_it_says() -> None:
    for path in KERNELS.rglob("conv2d_u8_*.cc"):
        name, code = path.stem.removeprefix("conv2d_u8_"), _code(path)
        assert name in ISAS
        kernels = re.findall(r"^const Conv2dU8Kernel (\w+)", code, re.M)
        assert all(kernel.endswith(f"_{name}") for kernel in kernels)
        if name == "portable":
            continue
        (lanes,) = re.findall(r'LANES_HEADER "([^"]+)"', code)
        assert len(kernels) == 5
        header = _code(KERNELS / lanes)
        sizes = {**_sizes(header), **_sizes(header, suffix="_U8")}
        for kernel in kernels:
            columns = sizes["BYTES"] if kernel.startswith("dw") else sizes["BYTES"] // 4 * sizes["VECTORS"]
            rows, found = re.findall(r"_(\d+)x(\d+)_", kernel)[0]
            assert int(found) == columns
            # What of the largest tile fits: Winograd's sums of all points into the cache, floats into registers.
            assert int(rows) <= sizes["ROWS"]


def test_code_for_wider_machines_is_no_other_files_to_take() -> None:
    """A weak symbol compiled with AVX flags could replace its namesake in files that every machine runs."""
    objects = [path for path in native_path("kernels_capi").parent.rglob("conv2d_*_*.o") if "portable" not in path.name]
    assert objects
    for path in objects:
        listing = subprocess.run(["nm", "-C", str(path)], check=True, capture_output=True, text=True).stdout
        weak = [line for line in listing.splitlines() if re.search(r" [WVu] ", line)]
        assert not weak, f"{path.name}: {weak}"
