"""What every model file says about itself, in both formats: JSON text under the key `voxpress_manifest`."""

from __future__ import annotations

from os import PathLike
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from calibration.ranges import LEVELS, Mode, RangeChoice
from exporters.fast import FastProgram
from pipeline.artifact.store import LoadedArtifact
from pipeline.errors import InputError
from pipeline.features.fbank import min_frames
from pipeline.features.spec import FrontEndSpec
from pipeline.files import first_problem

MANIFEST_KEY = "voxpress_manifest"

# Versions of the ops as they are written into files; the kernels refuse versions they do not know.
CONV2D_VERSION = 1
CONV2D_U8_VERSION = 1
STATS_POOL_VERSION = 1
FBANK_VERSION = 1

Lowering = Literal["voxpress", "stock"]
# What a model takes: mean-normalised log-mel features, or samples, of which it makes the features itself.
ModelInput = Literal["fbank", "waveform"]
WAVEFORM_NAME = "waveform"  # name of the input that takes samples


class LongAudio(BaseModel):
    """How longer utterances than the model should see at once are embedded; see exporters/long_audio.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Literal["chunk-average"] = "chunk-average"
    chunk_frames: PositiveInt


class U8Tensor(BaseModel):
    """A u8 activation of a model file: it stands for scale * (q - zero)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    zero: Annotated[int, Field(ge=0, le=LEVELS)]


class FastManifest(BaseModel):
    """What a file of mode `fast` says about its activations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    activations: dict[str, U8Tensor]  # every u8 tensor; the others are float32
    algorithms: dict[str, str]  # layers whose algorithm was chosen at export; the kernels choose the others'
    choice: RangeChoice
    utterances: PositiveInt  # that the ranges were measured on


class ModelManifest(BaseModel):
    """A model file's own description: enough to compute its features and to know what it needs to run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: str
    architecture: str
    embedding_dim: PositiveInt
    source_sha256: str
    lowering: Lowering
    input: ModelInput = "fbank"
    mode: Mode = "exact"
    bits: dict[str, int]  # width by layer as the file holds it; 32 where weights are dequantized
    ops: dict[str, int]  # versions of the custom ops that the file needs
    min_frames: PositiveInt
    max_frames: PositiveInt | None  # of one pass; None: no limit but memory
    max_batch: PositiveInt | None = 1  # utterances of one length in one pass; None: no limit but memory
    long_audio: LongAudio | None = None  # None: an utterance longer than max_frames is refused
    weights_file: str | None = None  # the .ptd beside a .pte whose weights lie there; its name holds their digest
    frontend: FrontEndSpec
    fast: FastManifest | None = None  # of mode fast


def check_waveform(lowering: Lowering) -> None:
    """Raise InputError where the front end cannot be in the model: there is no stock op for it."""
    if lowering == "stock":
        raise InputError("--input waveform", expected="a model with VoxPress ops", found="stock ops only (--fallback)")


def parse_manifest(text: str, name: str | PathLike[str]) -> ModelManifest:
    """The manifest in a model file's text. Raises InputError naming the file if it is malformed."""
    try:
        return ModelManifest.model_validate_json(text)
    except ValidationError as error:
        raise InputError(name, expected="a VoxPress manifest in the model", found=first_problem(error)) from None


def model_manifest(
    artifact: LoadedArtifact,
    lowering: Lowering,
    *,
    max_frames: int | None,
    max_batch: int | None = 1,
    model_input: ModelInput = "fbank",
    long_audio: LongAudio | None = None,
    fast: FastProgram | None = None,
    weights_file: str | None = None,
) -> ModelManifest:
    """The manifest of a model file made from `artifact`, of mode `fast` if that is given."""
    header, stock = artifact.header, lowering == "stock"
    convolution = ("voxpress.conv2d", CONV2D_VERSION) if fast is None else ("voxpress.conv2d_u8", CONV2D_U8_VERSION)
    ops = {} if stock else dict([convolution, ("voxpress.stats_pool", STATS_POOL_VERSION)])
    if model_input == "waveform":
        ops["voxpress.fbank"] = FBANK_VERSION
    return ModelManifest(
        artifact=header.name,
        architecture=header.architecture,
        embedding_dim=header.embedding_dim,
        source_sha256=header.source_sha256,
        lowering=lowering,
        input=model_input,
        mode="exact" if fast is None else "fast",
        bits={node.name: 32 if stock else node.bits for node in header.layers},
        ops=ops,
        min_frames=min_frames(header.frontend),
        max_frames=max_frames,
        max_batch=max_batch,
        long_audio=long_audio,
        weights_file=weights_file,
        frontend=header.frontend,
        fast=None if fast is None else _fast_manifest(fast),
    )


def _fast_manifest(fast: FastProgram) -> FastManifest:
    return FastManifest(
        activations={name: U8Tensor(scale=one.scale, zero=one.zero) for name, one in fast.bytes_of.items()},
        algorithms={name: algorithm.name.lower() for name, algorithm in fast.algorithms.items()},
        choice=fast.ranges.choice,
        utterances=fast.ranges.utterances,
    )
