"""Core ML files, as far as they can be looked at without an Apple device."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporters.coreml.emit import emit_coreml, table_of
from exporters.coreml.export import export_coreml
from exporters.coreml.verify import verify_coreml
from pipeline.artifact.store import LoadedArtifact, write_artifact
from pipeline.errors import VerificationError, VoxPressError
from tests.factories import tiny_artifact

pytestmark = pytest.mark.slow  # coremltools takes its time to import

WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 6, 7: 8, 8: 8}


@pytest.mark.parametrize("bits", [1, 3, 5, 8, 32])
def test_the_file_holds_the_artifacts_codes_and_palettes(bits: int, tmp_path: Path) -> None:
    artifact = tiny_artifact(bits, depthwise=bits == 3)
    write_artifact(tmp_path / "artifact", artifact)
    found = export_coreml(tmp_path / "artifact", tmp_path / "out", max_seconds=10.0, precision="float16")
    path = tmp_path / "out" / f"{artifact.header.name}.mlpackage"
    assert found.tables == ({} if bits == 32 else {WIDTHS[bits]: 7})
    assert {child.name for child in path.iterdir()} == {"Data", "Manifest.json"}
    assert found.bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if bits < 32:
        # Codes as they are; tables, scales and the program's own text are the rest.
        weights = path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
        codes = sum(layer.node.weight_count for layer in artifact.layers.values()) * WIDTHS[bits] // 8
        assert codes < weights.stat().st_size < codes + 12_000


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")])

    monkeypatch.setattr("exporters.coreml.export.emit_coreml", full)
    write_artifact(tmp_path / "artifact", tiny_artifact())
    with pytest.raises(VoxPressError, match=r"tiny-4bit\.mlpackage: could not be written: \[Errno 28\] No space"):
        export_coreml(tmp_path / "artifact", tmp_path / "out", max_seconds=10.0, precision="float16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bits", sorted(WIDTHS))
def test_a_table_gives_the_layers_weights(bits: int) -> None:
    for layer in tiny_artifact(bits).layers.values():
        table = table_of(layer)
        assert table is not None
        assert (table.bits, len(table.lut)) == (WIDTHS[bits], 1 << WIDTHS[bits])
        np.testing.assert_array_equal(table.lut[table.indices], layer.dense_weight().transpose(0, 3, 1, 2))


def _with(artifact: LoadedArtifact, **changes: object) -> LoadedArtifact:
    layers = dict(artifact.layers)
    layers["block.conv1"] = replace(layers["block.conv1"], **changes)  # type: ignore[arg-type]
    return LoadedArtifact(artifact.header, layers)


def test_another_artifact_is_told_apart(tmp_path: Path) -> None:
    artifact = tiny_artifact(4)
    emit_coreml(artifact, tmp_path / "m.mlpackage", max_seconds=10.0, precision="float32")
    assert verify_coreml(tmp_path / "m.mlpackage", artifact, precision="float32").layers == 7
    layer = artifact.layers["block.conv1"]
    assert layer.codes is not None
    assert layer.palette is not None
    others = {
        "indices": _with(artifact, codes=layer.codes ^ 1),
        "look-up table": _with(artifact, palette=layer.palette * np.float32(1.01)),
        "scale": _with(artifact, scale=layer.scale + np.float32(0.01)),
        "bias": _with(artifact, bias=layer.bias + np.float32(0.01)),
    }
    for what, other in others.items():
        with pytest.raises(VerificationError, match=f"block.conv1: {what} as in the artifact"):
            verify_coreml(tmp_path / "m.mlpackage", other, precision="float32")
