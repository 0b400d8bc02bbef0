"""Is a Core ML file's structure the artifact's? On Linux it cannot be run, so its tables and numbers are read back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from exporters.coreml.emit import Precision, coremltools, table_of
from pipeline.artifact.store import LoadedArtifact, StoredLayer
from pipeline.errors import VerificationError


class CoremlFile(BaseModel):
    """A Core ML file that was written and read back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    bytes: int  # of the whole folder
    layers: int
    tables: dict[int, int]  # layers by the width that Core ML stores


def verify_coreml(path: Path, artifact: LoadedArtifact, *, precision: Precision) -> CoremlFile:
    """Compare every layer's indices, table, scale, bias and geometry in the file with the artifact.

    Indices must be equal, tables, scales and biases equal after rounding to `precision`. Raises VerificationError
    naming the layer. What Core ML computes from them is not checked: that takes an Apple device.
    """
    operations = _operations(path)
    tables: dict[int, int] = {}
    for name, layer in artifact.layers.items():
        table = table_of(layer)
        if table is None:
            _check_float(path, operations, name, layer)
            continue
        convolution, norm = _find(path, operations, f"{name}.conv"), _find(path, operations, f"{name}.normed")
        node = layer.node
        found = (tuple(convolution.strides.val), tuple(convolution.pad.val), int(convolution.groups.val))
        (frames, mel) = node.padding
        _equal(
            path, f"{name}: strides, padding and groups", found, (node.stride, (frames, frames, mel, mel), node.groups)
        )
        weight = _find(path, operations, f"{name}.weight")
        _equal(path, f"{name}: indices", np.array(weight.indices.val, np.uint8), table.indices)
        _equal(path, f"{name}: look-up table", np.ravel(weight.lut.val), _rounded(table.lut, precision))
        tables[table.bits] = tables.get(table.bits, 0) + 1
        _equal(path, f"{name}: scale", norm.gamma.val, _rounded(layer.scale, precision))
        _equal(path, f"{name}: bias", norm.beta.val, _rounded(layer.bias, precision))
        plain = (float(np.abs(norm.mean.val).max()), float(norm.variance.val.min()), float(norm.variance.val.max()))
        _equal(path, f"{name}: mean and variance", (*plain, float(norm.epsilon.val)), (0.0, 1.0, 1.0, 0.0))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return CoremlFile(file=path.name, bytes=size, layers=len(artifact.layers), tables=dict(sorted(tables.items())))


def _check_float(path: Path, operations: dict[str, Any], name: str, layer: StoredLayer) -> None:
    # coremltools folds scale and bias into float weights; what is left of rounding depends on its order.
    folded = _find(path, operations, f"{name}.normed")
    weight = layer.dense_weight().transpose(0, 3, 1, 2) * layer.scale[:, None, None, None]
    for what, found, expected in (("weight", folded.weight.val, weight), ("bias", folded.bias.val, layer.bias)):
        if not np.allclose(np.asarray(found, np.float32).reshape(expected.shape), expected, rtol=2e-3, atol=1e-5):
            raise VerificationError(f"{path}: expected {name}: {what} as in the artifact, found other values")


def _operations(path: Path) -> dict[str, Any]:
    """The program's operations by name, with the values of their constants."""
    ct = coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = ct.utils.load_spec(str(path))
    weights = path / "Data" / "com.apple.CoreML" / "weights"
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=str(weights))
    return {operation.name: operation for operation in program.functions["main"].operations}


def _find(path: Path, operations: dict[str, Any], name: str) -> Any:
    # Core ML's names have no dots, and say where a value was rounded.
    plain = re.sub(r"\W", "_", name)
    found = operations.get(plain) or operations.get(f"{plain}_cast_fp16")
    if found is None:
        raise VerificationError(f"{path}: expected an operation {name}, found none")
    return found


def _rounded(values: Any, precision: Precision) -> Any:
    return np.asarray(values).astype(precision)


def _equal(path: Path, what: str, found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        same = np.array_equal(np.asarray(found).reshape(expected.shape), expected)
    else:
        same = found == expected
    if not same:
        raise VerificationError(f"{path}: expected {what} as in the artifact, found other values")
