"""Imports run one way, and the command line stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From left to right: a module may import from its own part and from parts further left, never from the right.
ORDER = [
    "pipeline.errors",
    "pipeline.files",
    "pipeline.progress",
    "pipeline.features.spec",
    "pipeline.corpus",
    "pipeline.features",
    "pipeline.artifact",
    "pipeline.models",
    "pipeline.scoring",
    "pipeline.training",
    "pipeline.quantize",
    "pipeline.recipe",
    "pipeline.stamp",
    "calibration",
    "exporters",
    "device_tests",
    "pipeline.stages",
    "pipeline.commands",
    "pipeline.cli",
]


def _part(module: str) -> int | None:
    """Position of the longest name in ORDER that the module is or lies in; None for what is not ours."""
    matches = [name for name in ORDER if module == name or module.startswith(name + ".")]
    return ORDER.index(max(matches, key=len)) if matches else None


def _sources() -> list[Path]:
    return [
        path
        for top in ("pipeline", "calibration", "exporters", "device_tests")
        for path in sorted((ROOT / top).rglob("*.py"))
        if path.name != "__init__.py" and "tests" not in path.parts
    ]


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_left(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    own = _part(module)
    assert own is not None, f"{module} has no place in the order"
    for imported in _imports(path):
        assert not imported.startswith("tests"), f"{module} imports {imported}"
        part = _part(imported)
        assert part is None or part <= own, f"{module} imports {imported}, which lies further right"


def test_help_imports_no_framework() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['voxpress', '--help']\n"
        "import pipeline.cli\n"
        "try:\n    pipeline.cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'tensorflow', 'executorch', 'lhotse', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_part_is_a_drawer_for_everything() -> None:
    assert not [path for path in _sources() if path.stem in ("utils", "util", "helpers", "common", "misc")]
