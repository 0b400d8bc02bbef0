"""Artifacts on disk: a folder with `artifact.json`, `weights.safetensors` and `frontend.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from pipeline.artifact.bitpack import unpack_codes
from pipeline.artifact.schema import Artifact, Conv2dNode
from pipeline.errors import InputError
from pipeline.files import read_json, write_atomically

HEADER_FILE = "artifact.json"
WEIGHTS_FILE = "weights.safetensors"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StoredLayer:
    """The tensors of one conv2d node: codes and palette (1..8 bits) or weight (32 bits), and scale and bias [O]."""

    node: Conv2dNode
    scale: Floats
    bias: Floats
    codes: npt.NDArray[np.uint8] | None = None
    palette: Floats | None = None
    weight: Floats | None = None

    def dense_weight(self) -> Floats:
        """float32 [O, kernel_frames, kernel_mel, I / groups]: palette[codes], or the stored weight."""
        if self.codes is None or self.palette is None:
            return self._float_weight()
        codes = unpack_codes(self.codes, self.node.bits, self.node.weight_count)
        return self.palette[codes].reshape(self.node.weight_shape)

    def _float_weight(self) -> Floats:
        if self.weight is None:
            raise InputError(f"layer {self.node.name}", expected="codes and a palette, or a weight", found="neither")
        return self.weight

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The layer's tensors by their key in the file."""
        named: dict[str, npt.NDArray[Any]] = {"scale": self.scale, "bias": self.bias}
        if self.node.bits == 32:
            named["weight"] = self._float_weight()
        elif self.codes is not None and self.palette is not None:
            named |= {"codes": self.codes, "palette": self.palette}
        return {f"{self.node.name}.{key}": np.ascontiguousarray(value) for key, value in named.items()}


@dataclass(frozen=True)
class LoadedArtifact:
    """An artifact in memory: what it says about itself and the tensors of its layers."""

    header: Artifact
    layers: Mapping[str, StoredLayer]

    @property
    def weights_bytes(self) -> int:
        """Bytes of all codes, palettes, scales, biases and float weights: the information that has to be shipped."""
        return sum(tensor.nbytes for layer in self.layers.values() for tensor in layer.tensors().values())

    @property
    def sha256(self) -> str:
        """Hex sha256 of what the network computes: its front end, its program and every tensor of its layers."""
        digest = hashlib.sha256()
        header = self.header
        for part in (header.frontend.model_dump_json(), *(node.model_dump_json() for node in header.program)):
            digest.update(part.encode() + b"\0")
        for layer in self.layers.values():
            for key, tensor in sorted(layer.tensors().items()):
                digest.update(key.encode() + b"\0" + tensor.tobytes())
        return digest.hexdigest()

    @property
    def bits_per_weight(self) -> float:
        """Mean width of a weight's code over all layers."""
        counts = [(layer.node.bits, layer.node.weight_count) for layer in self.layers.values()]
        return sum(bits * count for bits, count in counts) / sum(count for _, count in counts)


def write_artifact(folder: Path, artifact: LoadedArtifact) -> None:
    """Write an artifact's files into `folder`, the header last."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value for layer in artifact.layers.values() for key, value in layer.tensors().items()}
    write_atomically(folder / WEIGHTS_FILE, safetensors.numpy.save(tensors))
    artifact.header.frontend.write(folder)
    write_atomically(folder / HEADER_FILE, artifact.header.model_dump_json(indent=1) + "\n")


def read_artifact(folder: Path) -> LoadedArtifact:
    """Read and check an artifact.

    Raises InputError naming the file for anything missing, extra, truncated or misshapen.
    """
    header = read_json(folder / HEADER_FILE, Artifact, what="a VoxPress artifact's header")
    path = folder / WEIGHTS_FILE
    try:
        tensors = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise InputError(path, expected="the artifact's weights", found="no such file") from None
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(path, expected="a whole safetensors file", found=str(error)) from None
    layers = {node.name: _take_layer(path, node, tensors) for node in header.layers}
    if tensors:
        raise InputError(path, expected="only tensors that artifact.json names", found=sorted(tensors)[0])
    return LoadedArtifact(header, layers)


def _take_layer(path: Path, node: Conv2dNode, tensors: dict[str, npt.NDArray[Any]]) -> StoredLayer:
    def take(key: str, dtype: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        name = f"{node.name}.{key}"
        value = tensors.pop(name, None)
        if value is None:
            raise InputError(path, expected=f"a tensor {name}", found="none of that name")
        if value.dtype != dtype or value.shape != shape:
            raise InputError(
                path, expected=f"{name} {np.dtype(dtype)} {list(shape)}", found=f"{value.dtype} {list(value.shape)}"
            )
        if value.dtype == np.float32 and not np.isfinite(value).all():
            raise InputError(path, expected=f"{name} finite", found="NaN or infinity")
        return value

    scale = take("scale", np.float32, (node.out_channels,))
    bias = take("bias", np.float32, (node.out_channels,))
    if node.bits == 32:
        return StoredLayer(node, scale, bias, weight=take("weight", np.float32, node.weight_shape))
    codes = take("codes", np.uint8, (node.code_bytes,))
    palette = take("palette", np.float32, (1 << node.bits,))
    return StoredLayer(node, scale, bias, codes=codes, palette=palette)
