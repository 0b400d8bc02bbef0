"""A test skipped for want of a system package fails a run that asks for all tools, and only that."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.mark.parametrize(
    ("reason", "options", "code"),
    [
        ("needs Debian's frobnicator", ["--require-tools"], 1),
        ("needs Debian's frobnicator", [], 0),
        ("no speech here", ["--require-tools"], 0),
    ],
)
def test_require_tools(tmp_path: Path, reason: str, options: list[str], code: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_one.py").write_text(
        f"import pytest\n\n@pytest.mark.skip(reason={reason!r})\ndef test_a(): ...\n\ndef test_b(): ...\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stdout
