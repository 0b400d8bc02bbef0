"""From an artifact to a Core ML program whose weights stay codes and palettes (look-up tables).

Needs coremltools (`pip install --editable '.[coreml]'`). Core ML knows tables of 1, 2, 3, 4, 6 and 8
bits; layers of 5 and 7 bits are written with one bit more, their palettes padded with their last value. Inside, tensors
are [1, C, frames, mel]; scales and biases are a batch-norm of their own, not folded into the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from exporters.manifest import MANIFEST_KEY, model_manifest
from pipeline.artifact.bitpack import unpack_codes
from pipeline.artifact.schema import INPUT_NAME, STATS_POOL_EPSILON, Conv2dNode
from pipeline.artifact.store import LoadedArtifact, StoredLayer
from pipeline.errors import MissingToolError
from pipeline.features.fbank import max_frames, min_frames

Floats = npt.NDArray[np.float32]
Precision = Literal["float16", "float32"]

OUTPUT_NAME = "embedding"
DEFAULT_FRAMES = 200
_TABLE_BITS = {5: 6, 7: 8}  # widths that Core ML lacks, and the next that it has


@dataclass(frozen=True)
class Table:
    """A layer's weights as Core ML stores them: weight = lut[indices]."""

    bits: int
    indices: npt.NDArray[np.uint8]  # [O, I / groups, kernel_frames, kernel_mel]
    lut: Floats  # [2^bits]


def table_of(layer: StoredLayer) -> Table | None:
    """The table of a palettized layer; None for float weights."""
    if layer.codes is None or layer.palette is None:
        return None
    node = layer.node
    bits = _TABLE_BITS.get(node.bits, node.bits)
    codes = unpack_codes(layer.codes, node.bits, node.weight_count).reshape(node.weight_shape)
    lut = np.concatenate([layer.palette, np.full((1 << bits) - len(layer.palette), layer.palette[-1], np.float32)])
    return Table(bits, np.ascontiguousarray(codes.transpose(0, 3, 1, 2)), lut)


def coremltools() -> Any:
    """The package coremltools. Raises MissingToolError, saying how to get it, if it is not installed."""
    try:
        import coremltools as package
    except ImportError:
        raise MissingToolError(
            "coremltools: expected the package for Core ML files, found none; install it with `pip install coremltools`"
        ) from None
    return package


def emit_coreml(artifact: LoadedArtifact, path: Path, *, max_seconds: float, precision: Precision = "float16") -> None:
    """Write the folder `path` (.mlpackage): features [1, T, mel] -> embedding [1, E], T up to `max_seconds`.

    float16 is what the Neural Engine computes in; tables, scales and activations are rounded to it. Needs iOS 18.
    """
    ct = coremltools()
    from coremltools.converters.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import get_new_symbol

    header = artifact.header
    spec = header.frontend

    @mb.program(  # type: ignore[untyped-decorator]
        input_specs=[mb.TensorSpec(shape=(1, get_new_symbol("frames"), spec.num_mel_bins))],
        opset_version=ct.target.iOS18,
    )
    def program(features: Any) -> Any:
        values = {INPUT_NAME: mb.expand_dims(x=features, axes=[1])}
        for node in header.program:
            if isinstance(node, Conv2dNode):
                residual = None if node.residual is None else values[node.residual]
                values[node.name] = _conv2d(mb, artifact.layers[node.name], values[node.input], residual)
            else:
                values[node.name] = _stats_pool(mb, values[node.input])
        last = values[header.program[-1].name]
        return mb.reshape(x=last, shape=[1, header.embedding_dim], name=OUTPUT_NAME)

    shortest, longest = min_frames(spec), max_frames(max_seconds, spec)
    frames = ct.RangeDim(shortest, longest, default=min(max(DEFAULT_FRAMES, shortest), longest))
    rounding = {"float16": ct.precision.FLOAT16, "float32": ct.precision.FLOAT32}[precision]
    model = ct.convert(
        program,
        inputs=[ct.TensorType(name="features", shape=(1, frames, spec.num_mel_bins), dtype=np.float32)],
        outputs=[ct.TensorType(name=OUTPUT_NAME, dtype=np.float32)],
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=rounding,
        skip_model_load=True,
    )
    manifest = model_manifest(artifact, "stock", max_frames=longest)
    widths = {node.name: node.bits for node in header.layers}
    model.user_defined_metadata[MANIFEST_KEY] = manifest.model_copy(update={"bits": widths}).model_dump_json()
    model.short_description = f"VoxPress {header.name}"
    model.save(str(path))


def _conv2d(mb: Any, layer: StoredLayer, x: Any, residual: Any) -> Any:
    node, table = layer.node, table_of(layer)
    if table is None:
        weight = layer.dense_weight().transpose(0, 3, 1, 2)
    else:
        from coremltools.converters.mil.mil import types

        indices = table.indices.astype(types.nptype_from_builtin(types.string_to_builtin(f"uint{table.bits}")))
        lut = table.lut.reshape(1, 1, 1, 1, -1, 1)
        weight = mb.constexpr_lut_to_dense(indices=indices, lut=lut, name=f"{node.name}.weight")
    (frames, mel) = node.padding
    y = mb.conv(
        x=x,
        weight=weight,
        strides=list(node.stride),
        pad_type="custom",
        pad=[frames, frames, mel, mel],
        groups=node.groups,
        name=f"{node.name}.conv",
    )
    zeros, ones = np.zeros(node.out_channels, np.float32), np.ones(node.out_channels, np.float32)
    y = mb.batch_norm(
        x=y,
        mean=zeros,
        variance=ones,
        gamma=layer.scale,
        beta=layer.bias,
        epsilon=np.float32(0),
        name=f"{node.name}.normed",
    )
    if residual is not None:
        y = mb.add(x=y, y=residual)
    return mb.relu(x=y) if node.relu else y


def _stats_pool(mb: Any, x: Any) -> Any:
    """[1, C, frames, mel] -> [1, 2 * mel * C, 1, 1], mel-major as the program's stats_pool."""
    mean = mb.reduce_mean(x=x, axes=[2], keep_dims=True)
    squares = mb.reduce_mean(x=mb.square(x=mb.sub(x=x, y=mean)), axes=[2], keep_dims=True)
    frames = mb.cast(x=mb.gather(x=mb.shape(x=x), indices=[2], axis=0), dtype="fp32")
    unbiased = mb.real_div(x=frames, y=mb.maximum(x=mb.sub(x=frames, y=np.float32(1)), y=np.float32(1)))
    variance = mb.mul(x=squares, y=unbiased)
    deviation = mb.sqrt(x=mb.add(x=variance, y=np.float32(STATS_POOL_EPSILON)))
    both = mb.concat(values=[mean, deviation], axis=2)  # [1, C, 2, mel]
    return mb.reshape(x=mb.transpose(x=both, perm=[0, 2, 3, 1]), shape=[1, -1, 1, 1])
