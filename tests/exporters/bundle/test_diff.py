from __future__ import annotations

from pathlib import Path

from exporters.bundle.diff import diff_manifests
from pipeline.features.spec import FrontEndSpec
from tests.exporters.bundle.made import made_bundle, made_model


def test_a_bundle_does_not_differ_from_itself(tmp_path: Path) -> None:
    manifest = made_bundle(tmp_path / "net")
    diff = diff_manifests(manifest, manifest)
    assert (diff.changes, diff.same_weights) == ((), True)


def test_what_changed_is_named_with_both_sides(tmp_path: Path) -> None:
    old = made_bundle(tmp_path / "old")
    artifact = old.artifacts[0].model_copy(update={"bits": {"conv1": 8, "embedding": 4}, "bits_per_weight": 4.1})
    new = made_bundle(
        tmp_path / "new",
        version="1.1.0",
        artifacts=(artifact,),
        frontend=FrontEndSpec(window="povey"),
        models=tuple(made_model(suffix, ops={"voxpress.conv2d": 2}) for suffix in ("pte", "tflite")),
        padding=3,
    )
    diff = diff_manifests(old, new)
    found = {(change.kind, change.what): (change.old, change.new) for change in diff.changes}
    size = "sha256"
    assert found.pop(("file", "models/net-4bit.pte"))[0].startswith(f"3 bytes, {size}")
    assert found == {
        ("identity", "version"): ("1.0.0", "1.1.0"),
        ("network", "ops"): ("voxpress.conv2d 1", "voxpress.conv2d 2"),
        ("network", "front end window"): ("hamming", "povey"),
        ("bits", "bits per weight"): ("4.000", "4.100"),
        ("bits", "layer conv1"): ("4", "8"),
    }
    assert diff.same_weights


def test_what_only_one_side_has(tmp_path: Path) -> None:
    old, new = made_bundle(tmp_path / "old"), made_bundle(tmp_path / "new", salt="other")
    (tmp_path / "new" / "more.txt").write_text("more")
    grown = made_bundle(tmp_path / "new", salt="other")
    diff = diff_manifests(old, grown)
    assert not diff.same_weights
    (more,) = [change for change in diff.changes if change.what == "more.txt"]
    assert (more.old, more.new is not None) == (None, True)
    back = diff_manifests(grown, new)
    assert [(change.old is None, change.new) for change in back.changes] == [(False, None)]
