"""What every model file says about itself, in both formats: JSON text under the key `voxpress_manifest`."""

from __future__ import annotations

from os import PathLike
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from pipeline.artifact.store import LoadedArtifact
from pipeline.errors import InputError
from pipeline.features.fbank import min_frames
from pipeline.features.spec import FrontEndSpec
from pipeline.files import first_problem

MANIFEST_KEY = "voxpress_manifest"

# Versions of the ops as they are written into files; the kernels refuse versions they do not know.
CONV2D_VERSION = 1
STATS_POOL_VERSION = 1

Lowering = Literal["voxpress", "stock"]


class ModelManifest(BaseModel):
    """A model file's own description: enough to compute its features and to know what it needs to run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: str
    architecture: str
    embedding_dim: PositiveInt
    source_sha256: str
    lowering: Lowering
    bits: dict[str, int]  # width by layer as the file holds it; 32 where weights are dequantized
    ops: dict[str, int]  # versions of the custom ops that the file needs
    min_frames: PositiveInt
    max_frames: PositiveInt | None  # None: no limit but memory
    frontend: FrontEndSpec


def parse_manifest(text: str, name: str | PathLike[str]) -> ModelManifest:
    """The manifest in a model file's text. Raises InputError naming the file if it is malformed."""
    try:
        return ModelManifest.model_validate_json(text)
    except ValidationError as error:
        raise InputError(name, expected="a VoxPress manifest in the model", found=first_problem(error)) from None


def model_manifest(artifact: LoadedArtifact, lowering: Lowering, *, max_frames: int | None) -> ModelManifest:
    """The manifest of a model file made from `artifact`."""
    header, stock = artifact.header, lowering == "stock"
    return ModelManifest(
        artifact=header.name,
        architecture=header.architecture,
        embedding_dim=header.embedding_dim,
        source_sha256=header.source_sha256,
        lowering=lowering,
        bits={node.name: 32 if stock else node.bits for node in header.layers},
        ops={} if stock else {"voxpress.conv2d": CONV2D_VERSION, "voxpress.stats_pool": STATS_POOL_VERSION},
        min_frames=min_frames(header.frontend),
        max_frames=max_frames,
        frontend=header.frontend,
    )
