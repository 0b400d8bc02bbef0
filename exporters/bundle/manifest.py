"""The manifest of a bundle, format version 1: what is in it, where it comes from, and what it was shown to do.

`manifest.v1.schema.json` beside this file is the same as a JSON Schema; a test keeps the two together. A field that is
added, dropped or read differently makes another format version, with a reader of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from calibration.llr import LlrMap
from calibration.ranges import Mode
from calibration.record import CALIBRATION_FILE, COHORT_FILE, Calibration, CohortInfo, Threshold
from exporters.manifest import Lowering
from pipeline.features.spec import FrontEndSpec
from pipeline.scoring.score import Evaluation

MANIFEST_FILE = "manifest.json"
SCHEMA_FILE = Path(__file__).parent / "manifest.v1.schema.json"

# Far above any bundle there will be, far below what could hurt a reader.
MAX_FILES = 4096
MAX_FILE_BYTES = 1 << 32
MAX_BUNDLE_BYTES = 1 << 33

# Paths inside a bundle: plain names with slashes between them, no way out of the folder.
BundlePath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*$", max_length=240)
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
BundleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_\-]{0,63}$")]
SemanticVersion = Annotated[str, Field(pattern=r"^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-+]{1,40}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Frozen):
    """One file of a bundle."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class Source(_Frozen):
    """Where the weights come from."""

    model_sha256: Sha256 = Field(description="of the pre-trained weights that every artifact was pressed from")
    checkpoint_sha256: Sha256 | None = Field(description="of the checkpoint those were imported from; None: trained")
    recipe: BundlePath | None = Field(description="the recipe with every default; None: made without one")


class BundledArtifact(_Frozen):
    """One artifact of a bundle: a quantized network, which model files were made from."""

    label: Label
    folder: BundlePath
    bits: dict[str, int] = Field(description="width of every layer; 32: not quantized")
    bits_per_weight: float
    weights_bytes: PositiveInt = Field(description="codes, palettes, scales, biases and float weights")
    weights_sha256: Sha256
    plan: BundlePath | None = Field(description="the plan of mixed widths; None: uniform")


class BundledModel(_Frozen):
    """One model file of a bundle."""

    file: BundlePath
    label: Label = Field(description="of the artifact it was made from")
    format: Literal["pte", "tflite"]
    lowering: Lowering = Field(description='"voxpress": needs our ops; "stock": runs anywhere, weights dequantized')
    mode: Mode = Field(default="exact", description='"exact": fp32 activations; "fast": u8 activations')
    input: Literal["fbank", "waveform"] = Field(
        default="fbank", description="mean-normalised features, or samples of which it makes them itself"
    )
    ops: dict[str, PositiveInt] = Field(description="versions of the custom ops that the file needs")
    min_frames: PositiveInt
    max_frames: PositiveInt | None = Field(description="None: no limit but memory")
    weights: BundlePath | None = Field(
        default=None, description="the .ptd beside a .pte that its weights lie in, which several may share; None: in it"
    )
    chunk_frames: PositiveInt | None = Field(
        default=None, description="longer audio is embedded as the mean of chunks of this length; None: refused"
    )
    max_relative_error: float = Field(description="to the reference network, when it was exported")
    cosine_min: float | None = Field(default=None, description="likewise, the least cosine; None: not measured")


class TestedRuntime(_Frozen):
    """Versions of a runtime that ran these files; older ones are not known to."""

    runtime: Literal["executorch", "litert"]
    minimum: str
    maximum: str


class BundledCalibration(_Frozen):
    """How to read the scores of one artifact's files: what an app needs to decide."""

    label: Label
    mode: Mode
    models: tuple[BundlePath, ...]
    file: BundlePath = Field(description="the whole calibration, with flips, groups and Cllr")
    score: Literal["cosine", "as-norm"]
    cohort: BundlePath | None
    cohort_info: CohortInfo | None
    evaluation: Evaluation
    llr: LlrMap
    cllr: float
    thresholds: tuple[Threshold, ...]

    @model_validator(mode="after")
    def _cohort_where_scores_need_one(self) -> BundledCalibration:
        wanted = self.score == "as-norm"
        if (self.cohort is not None, self.cohort_info is not None) != (wanted, wanted):
            raise ValueError(f"a calibration of {self.score} scores {'without' if wanted else 'with'} a cohort")
        return self


class DeviceAccuracy(_Frozen):
    """Error rates of a model file, from the embeddings that a device gave."""

    model: BundlePath
    device: str
    evaluation: Evaluation


class DeviceLatency(_Frozen):
    """Time of a model file over that of the fp32 control of the same run on the same device."""

    model: BundlePath
    device: str
    processor: str
    control: str = Field(description="the stock fp32 file that the ratio is to")
    ratio: float = Field(description="median over rounds")
    ratio_low: float
    ratio_high: float
    runs: PositiveInt
    threads: PositiveInt
    report: BundlePath


def golden_key(label: str, mode: Mode) -> str:
    """Name of a model's embedding among the golden ones: its label, and its mode where that is not exact."""
    return label if mode == "exact" else f"{label}.{mode}"


class Golden(_Frozen):
    """Golden vectors: an utterance, its features, and its embeddings by name (see `golden_key`).

    Files of mode exact are compared with the embedding of their artifact's reference network.
    """

    wav: BundlePath
    fbank: BundlePath
    embeddings: BundlePath
    tolerance: float = Field(description="largest max|e - r| / max|r| allowed to a file")


class Manifest(_Frozen):
    """What a bundle says about itself (`manifest.json`)."""

    format: Literal["voxpress-bundle"] = "voxpress-bundle"
    format_version: Literal[1] = 1
    name: BundleName
    version: SemanticVersion
    licence: str
    created_by: str
    architecture: str
    embedding_dim: PositiveInt
    source: Source
    frontend: FrontEndSpec
    artifacts: Annotated[tuple[BundledArtifact, ...], Field(min_length=1)]
    models: Annotated[tuple[BundledModel, ...], Field(min_length=1)]
    primary: Label = Field(description="the artifact that an app takes unless it knows better")
    runtimes: tuple[TestedRuntime, ...]
    calibrations: tuple[BundledCalibration, ...]
    accuracy: tuple[DeviceAccuracy, ...]
    latency: tuple[DeviceLatency, ...]
    golden: Golden
    model_card: BundlePath | None = None
    changelog: BundlePath | None = None
    files: Annotated[
        dict[BundlePath, FileEntry], Field(max_length=MAX_FILES, json_schema_extra={"additionalProperties": False})
    ]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        labels = [artifact.label for artifact in self.artifacts]
        if len(set(labels)) != len(labels):
            raise ValueError("two artifacts have one label")
        for label in (self.primary, *(model.label for model in self.models), *(c.label for c in self.calibrations)):
            if label not in labels:
                raise ValueError(f"label {label} names no artifact")
        if MANIFEST_FILE in self.files:
            raise ValueError("the manifest lists itself")
        if len({name.lower() for name in self.files}) != len(self.files):
            raise ValueError("two files differ only in capitals")
        if sum(entry.bytes for entry in self.files.values()) > MAX_BUNDLE_BYTES:
            raise ValueError(f"files of more than {MAX_BUNDLE_BYTES} bytes")
        for name in self._named_files():
            if name not in self.files:
                raise ValueError(f"{name} is not among the files")
        for entry in self.calibrations:
            info = entry.cohort_info
            if entry.cohort is not None and info is not None and self.files[entry.cohort].sha256 != info.sha256:
                raise ValueError(
                    f"{entry.cohort} is not the cohort that the calibration of {entry.label} was made with"
                )
        return self

    def _named_files(self) -> list[str]:
        named: list[str | None] = [
            self.source.recipe,
            *(artifact.plan for artifact in self.artifacts),
            *(name for model in self.models for name in (model.file, model.weights)),
            *(name for entry in self.calibrations for name in (entry.file, entry.cohort, *entry.models)),
            *(entry.model for entry in self.accuracy),
            *(name for entry in self.latency for name in (entry.model, entry.report)),
            *(self.golden.wav, self.golden.fbank, self.golden.embeddings),
            *(self.model_card, self.changelog),
        ]
        return [name for name in named if name is not None]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files but the manifest and its signature."""
        return sum(entry.bytes for entry in self.files.values())

    def artifact(self, label: str) -> BundledArtifact:
        """The artifact of a label, which must be one of the bundle's."""
        return next(artifact for artifact in self.artifacts if artifact.label == label)

    def calibration(self, label: str, mode: Mode = "exact") -> BundledCalibration | None:
        """The calibration of an artifact's files; None: there is none."""
        return next((c for c in self.calibrations if (c.label, c.mode) == (label, mode)), None)

    def models_of(self, label: str) -> list[BundledModel]:
        """The model files of an artifact."""
        return [model for model in self.models if model.label == label]

    def json_bytes(self) -> bytes:
        """The bytes of `manifest.json`."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def bundled_calibration(
    calibration: Calibration, *, label: str, models: tuple[str, ...], folder: str
) -> BundledCalibration:
    """What the manifest says of a calibration that lies in `folder` of the bundle."""
    return BundledCalibration(
        label=label,
        mode=calibration.mode,
        models=models,
        file=f"{folder}/{CALIBRATION_FILE}",
        score=calibration.score,
        cohort=None if calibration.cohort is None else f"{folder}/{COHORT_FILE}",
        cohort_info=calibration.cohort,
        evaluation=calibration.evaluation,
        llr=calibration.llr,
        cllr=calibration.cllr,
        thresholds=calibration.thresholds,
    )


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a manifest of format version 1."""
    schema = Manifest.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "VoxPress bundle, version 1"}


def schema_text() -> str:
    """The text of `manifest.v1.schema.json`."""
    return json.dumps(manifest_schema(), indent=1, sort_keys=True) + "\n"


class _FormatVersion(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format: str
    format_version: NonNegativeInt


def parse_manifest_json(text: bytes) -> Manifest:
    """The manifest in `manifest.json`, of any format version that VoxPress has written.

    Raises pydantic.ValidationError if it is malformed, ValueError for a bundle of a newer format.
    """
    stated = _FormatVersion.model_validate_json(text)
    reader = _READERS.get(stated.format_version)
    if stated.format == "voxpress-bundle" and reader is None:
        known = ", ".join(map(str, _READERS))
        raise ValueError(f"format version {stated.format_version}; this VoxPress reads {known}")
    return (reader or Manifest).model_validate_json(text)


# One reader for each format version that was ever released.
_READERS: dict[int, type[Manifest]] = {1: Manifest}
