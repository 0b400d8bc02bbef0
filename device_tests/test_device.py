"""One test for each verdict on a bundle; see conftest.py."""

from __future__ import annotations

import pytest

from device_tests.gates import GateResult


def test_gate(verdict: GateResult) -> None:
    """A failed gate fails; one that could not be judged is skipped with the reason."""
    if verdict.verdict == "not judged":
        pytest.skip(verdict.line())
    assert verdict.verdict == "passed", verdict.line()
