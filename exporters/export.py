"""Artifacts to model files: emit, check against the reference network, and only then write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporters.exported import ExportedFile, Format
from exporters.manifest import Lowering, LongAudio, ModelInput
from exporters.pte.emit import emit_pte
from exporters.tflite.emit import emit_tflite
from exporters.verify import verify_model
from pipeline.artifact.store import LoadedArtifact, read_artifact
from pipeline.errors import InputError
from pipeline.features.fbank import max_frames, min_frames
from pipeline.files import sha256_file, write_atomically
from pipeline.progress import Progress

FORMATS: tuple[Format, ...] = ("pte", "tflite")


@dataclass(frozen=True)
class ExportRequest:
    """One model file to be written.

    lowering: "voxpress" keeps codes and palettes and needs our ops; "stock" dequantizes and runs anywhere.
    """

    artifact: LoadedArtifact
    label: str  # the width as tables show it: "4bit", "fp32"
    format: Format
    lowering: Lowering
    input: ModelInput = "fbank"
    chunk_seconds: float | None = None  # longer utterances are embedded as the mean of chunks of this length

    @property
    def file_name(self) -> str:
        """<net>-<width>.<format>, with what is not the usual in between.

        `-waveform`: takes samples; `-fallback`: a palettized network written with stock ops.
        """
        quantized = any(node.bits < 32 for node in self.artifact.header.layers)
        fallback = "-fallback" if self.lowering == "stock" and quantized else ""
        waveform = "-waveform" if self.input == "waveform" else ""
        return f"{self.artifact.header.name}{waveform}{fallback}.{self.format}"

    def long_audio(self, max_seconds: float) -> LongAudio | None:
        """The policy for long audio. Raises InputError if a chunk is not between the shortest and longest utterance."""
        if self.chunk_seconds is None:
            return None
        spec = self.artifact.header.frontend
        chunk_frames = max_frames(self.chunk_seconds, spec)
        if not min_frames(spec) <= chunk_frames <= max_frames(max_seconds, spec):
            expected = f"{spec.min_seconds:g} to {max_seconds:g} (--max-seconds)"
            raise InputError("--chunk-seconds", expected=expected, found=f"{self.chunk_seconds:g}")
        return LongAudio(chunk_frames=chunk_frames)


def export_artifact(request: ExportRequest, folder: Path, *, max_seconds: float) -> ExportedFile:
    """Write one model file into `folder`.

    Raises VerificationError, and writes nothing, if the runtime's embeddings differ from the reference network's.
    """
    if request.format == "pte":
        data = emit_pte(
            request.artifact,
            lowering=request.lowering,
            max_seconds=max_seconds,
            model_input=request.input,
            long_audio=request.long_audio(max_seconds),
        )
    else:
        data = emit_tflite(
            request.artifact,
            lowering=request.lowering,
            model_input=request.input,
            long_audio=request.long_audio(max_seconds),
        )
    error = verify_model(data, request.format, request.artifact, max_seconds=max_seconds, name=request.file_name)
    path = folder / request.file_name
    write_atomically(path, data)
    return ExportedFile(
        file=request.file_name,
        label=request.label,
        format=request.format,
        lowering=request.lowering,
        input=request.input,
        bytes=len(data),
        sha256=sha256_file(path),
        max_seconds=max_seconds,
        max_relative_error=error,
    )


def export_files(
    artifact_folder: Path,
    *,
    file_format: str,
    fallback: bool,
    max_seconds: float,
    out: Path,
    progress: Progress,
    model_input: str = "fbank",
    chunk_seconds: float | None = None,
) -> list[ExportedFile]:
    """Write an artifact in `file_format` ("pte", "tflite" or "both") into `out`."""
    if file_format not in ("pte", "tflite", "both"):
        raise InputError("--format", expected="pte, tflite or both", found=file_format)
    if model_input not in ("fbank", "waveform"):
        raise InputError("--input", expected="fbank or waveform", found=model_input)
    takes: ModelInput = "fbank" if model_input == "fbank" else "waveform"
    artifact = read_artifact(artifact_folder)
    formats: tuple[Format, ...] = tuple(f for f in FORMATS if file_format in (f, "both"))
    label = artifact.header.name.rpartition("-")[2]
    written = []
    with progress.task("export", len(formats)) as task:
        for one in formats:
            request = ExportRequest(artifact, label, one, "stock" if fallback else "voxpress", takes, chunk_seconds)
            written.append(export_artifact(request, out, max_seconds=max_seconds))
            task.advance()
    return written
