"""The int8 controls: an artifact's dequantized weights in each runtime's own int8, to compare with.

.pte: PT2E on XNNPACK, of any length. .tflite: torch -> ONNX -> onnx2tf -> LiteRT, of one length. Both take their
activation ranges from crops of utterances, and are written only if embeddings of other crops are near the reference's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter

from exporters.exported import Agreement, Format, check_max_seconds
from exporters.native import native_chatter_held_back
from exporters.peers.executorch_model import int8_pte
from exporters.peers.request import PeerRequest
from exporters.pte.run import PteRunner
from exporters.tflite.onnx2tf_route import check as check_tflite
from exporters.tflite.onnx2tf_route import check_length, convert
from exporters.verify import agreement
from pipeline.artifact.decode import decode
from pipeline.artifact.store import LoadedArtifact, read_artifact
from pipeline.corpus.read import read_corpus
from pipeline.errors import InputError, VerificationError
from pipeline.features.fbank import max_frames, mean_normalise
from pipeline.features.store import FeatureSource
from pipeline.files import sha256_file, write_atomically
from pipeline.progress import Progress

Floats = npt.NDArray[np.float32]

CALIBRATED, CHECKED = 64, 8  # utterances
LEAST_COSINE, LEAST_MEAN_COSINE = 0.95, 0.98  # of embeddings to the reference's


class Int8Control(BaseModel):
    """An int8 control that was written, and how far it was from the reference network on speech."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    format: Format
    frames: int | None  # the one length that it takes; None: any
    bytes: int
    sha256: str
    agreement: Agreement


def export_int8(
    artifact_folder: Path,
    *,
    formats: tuple[Format, ...],
    audio: Path,
    frames: int,
    max_seconds: float,
    out: Path,
    progress: Progress,
) -> list[Int8Control]:
    """Write `<net>-int8.pte` and `<net>-int8.tflite`, calibrated on `frames` frames of the middle of utterances.

    Raises InputError for a length that the front end or `max_seconds` excludes and for too few utterances,
    VerificationError, and writes nothing of that format, if a cosine to the reference is below 0.95 or their mean
    below 0.98.
    """
    artifact = read_artifact(artifact_folder)
    check_length(artifact, frames)
    check_max_seconds(max_seconds, artifact.header.frontend)
    longest = max_frames(max_seconds, artifact.header.frontend)
    if frames > longest:
        raise InputError("--frames", expected=f"at most {longest} (--max-seconds)", found=str(frames))
    calibration, others = speech_crops(audio, artifact, frames)
    written = []
    with progress.task("export int8", len(formats)) as task:
        for one in formats:
            name = f"{artifact.header.name}-int8.{one}"
            task.note(name)
            with native_chatter_held_back():
                if one == "pte":
                    data = int8_pte(PeerRequest(artifact, calibration, out, frames, max_seconds))
                    found = _check_pte(data, artifact, others)
                else:
                    data = convert(artifact, frames, calibration=calibration)
                    checked = check_tflite(data, artifact, others)
                    if checked is None:
                        what = f"an input float32 [1, {frames}, mel]"
                        raise VerificationError(f"{name}: expected {what}, found another")
                    found = checked
            _require_near(name, found)
            write_atomically(out / name, data)
            written.append(
                Int8Control(
                    file=name,
                    format=one,
                    frames=None if one == "pte" else frames,
                    bytes=len(data),
                    sha256=sha256_file(out / name),
                    agreement=found,
                )
            )
            task.advance()
    return written


def speech_crops(audio: Path, artifact: LoadedArtifact, frames: int) -> tuple[list[Floats], list[Floats]]:
    """Crops [frames, mel] of the middle of utterances, normalised: some to calibrate on, others to check on.

    Raises InputError if too few utterances are long enough.
    """
    spec = artifact.header.frontend
    cuts = read_corpus(audio, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds)
    source = FeatureSource(cuts, spec, cache="none")
    long = [name for name in source.ids if source.frames(name) >= frames]
    if len(long) < 2 * CHECKED:
        raise InputError(audio, expected=f"at least {2 * CHECKED} utterances of {frames} frames", found=str(len(long)))
    some = long[:: max(1, len(long) // (CALIBRATED + CHECKED))][: CALIBRATED + CHECKED]
    crops = [mean_normalise(source.crop(name, (source.frames(name) - frames) // 2, frames)) for name in some]
    every = len(crops) // CHECKED
    return [crop for i, crop in enumerate(crops) if i % every], crops[::every][:CHECKED]


def controls_json(controls: list[Int8Control]) -> str:
    """What was written as JSON text."""
    return TypeAdapter(list[Int8Control]).dump_json(controls, indent=1).decode()


def _check_pte(data: bytes, artifact: LoadedArtifact, utterances: list[Floats]) -> Agreement:
    runner, reference = PteRunner(data), decode(artifact)
    with torch.inference_mode():
        wanted = [reference(torch.from_numpy(features)[None])[0].numpy() for features in utterances]
    return agreement([(runner.embed(features), one) for features, one in zip(utterances, wanted, strict=True)])


def _require_near(name: str, found: Agreement) -> None:
    if not (found.cosine_min >= LEAST_COSINE and found.cosine_mean >= LEAST_MEAN_COSINE):
        what = f"cosines of at least {LEAST_COSINE:g}, {LEAST_MEAN_COSINE:g} on the mean, to the reference's embeddings"
        raise VerificationError(
            f"{name}: expected {what}, found {found.cosine_min:.5f}, {found.cosine_mean:.5f} on the mean"
        )
