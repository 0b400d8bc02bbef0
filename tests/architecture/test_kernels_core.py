"""The kernel core stays free of frameworks, allocation and I/O, and its table is the only list of kernels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "exporters" / "kernels"
SOURCES = sorted(path for path in KERNELS.rglob("*") if path.suffix in {".h", ".cc", ".inc"})
STANDARD = {"algorithm", "array", "atomic", "cmath", "cstddef", "cstdint", "cstring", "limits", "type_traits"}
KERNEL_NAME = re.compile(r"(conv2d|dwconv2d|statspool)_f32_(pal|none)_\d+x\d+_portable")


def _code(path: Path) -> str:
    return re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))


def test_there_are_sources() -> None:
    assert len(SOURCES) > 10


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_includes_only_itself_and_a_fixed_list_of_standard_headers(path: Path) -> None:
    for bracket, header in re.findall(r'#\s*include\s*([<"])([^>"]+)[>"]', _code(path)):
        if bracket == "<":
            assert header in STANDARD, f"{path}: <{header}>"
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
        for name in re.findall(r"^void (\w+_portable)\(", _code(path), re.M)
    }
    assert defined
    assert all(f"({name})" in table for name in defined), defined
