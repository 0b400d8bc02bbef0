"""Bundles of every format version that was ever written stay loadable, and run."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_tests.check_bundle import verify_bundle
from exporters.bundle.manifest import Manifest
from exporters.bundle.trust import Trust
from exporters.doctor import KNOWN_OPS
from pipeline.errors import VerificationError
from pipeline.progress import Progress
from tests.exporters.bundle.keep import from_text, public_key

KEPT = Path(__file__).parent / "kept"


def test_every_format_version_is_kept() -> None:
    now = Manifest.model_fields["format_version"].default
    assert sorted(path.name for path in KEPT.iterdir()) == [f"v{number}" for number in range(1, now + 1)]


@pytest.mark.parametrize("kept", sorted(KEPT.iterdir()), ids=lambda path: path.name)
def test_a_kept_bundle_is_whole_signed_and_runs_on_both_runtimes(kept: Path, tmp_path: Path) -> None:
    from_text(kept, tmp_path / "bundle")
    trust = Trust(keys=(public_key(tmp_path / "key.pem"),), min_version="1.2.3", name="kept")
    verdict = verify_bundle(tmp_path / "bundle", trust, progress=Progress.silent(), every_runtime=True)
    assert (verdict.name, verdict.version) == ("kept", "1.2.3")
    assert verdict.signed_by is not None
    assert {result.runtime.split()[0] for result in verdict.golden if result.runtime} == {"executorch", "litert"}
    assert all(result.outcome == "agrees" for result in verdict.golden)


def test_what_is_kept_is_text() -> None:
    for path in KEPT.rglob("*"):
        if path.is_file():
            path.read_text(encoding="ascii")


def test_a_bundle_with_an_op_that_this_build_does_not_know_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_text(KEPT / "v1", tmp_path / "bundle")
    monkeypatch.setitem(KNOWN_OPS, "conv2d", 0)
    with pytest.raises(VerificationError, match=r"models/.*: expected ops that this build knows, found .*conv2d"):
        verify_bundle(tmp_path / "bundle", Trust(), progress=Progress.silent(), golden=False)
