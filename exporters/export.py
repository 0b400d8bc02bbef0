"""Artifacts to model files: emit, check against the reference network, and only then write."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypedDict, get_args

import numpy as np
import numpy.typing as npt

from calibration.activations import CalibrationFeatures, measure_ranges
from calibration.int8 import with_int8_palettes
from calibration.ranges import (
    MIN_UTTERANCES,
    ActivationRanges,
    Mode,
    RangeChoice,
    RangeMethod,
    read_ranges,
    write_ranges,
)
from exporters.algorithms import AlgorithmChoice, choose_algorithms
from exporters.exported import Agreement, ExportedFile, Format, check_max_seconds, ranges_file
from exporters.fast import FastProgram
from exporters.manifest import LongAudio, Lowering, ModelInput
from exporters.pte.emit import emit_pte, emit_split_pte, weights_file_name
from exporters.tflite.emit import emit_tflite
from exporters.verify import FastReference, verify_model
from pipeline.artifact.store import LoadedArtifact, read_artifact
from pipeline.corpus.read import read_corpus
from pipeline.errors import InputError
from pipeline.features.fbank import max_frames
from pipeline.files import sha256_file, write_atomically
from pipeline.progress import Progress

Floats = npt.NDArray[np.float32]

FORMATS: tuple[Format, ...] = ("pte", "tflite")
DEFAULT_UTTERANCES = 32  # for activation ranges
VERIFIED_UTTERANCES = 8  # that palettes and algorithms of mode fast are chosen on and its files are checked on
PALETTE_FRAMES = 300  # of each
MAX_BATCH = 64

DEFAULT_CHOICE = RangeChoice()


class _EmitOptions(TypedDict):
    lowering: Lowering
    model_input: ModelInput
    long_audio: LongAudio | None
    fast: FastProgram | None


class _PteOptions(_EmitOptions):
    max_seconds: float
    max_batch: int


@dataclass(frozen=True)
class ExportRequest:
    """One model file to be written.

    lowering: "voxpress" keeps codes and palettes and needs our ops; "stock" dequantizes and runs anywhere. fast: for
    mode fast, what the file is made by and checked against.
    """

    artifact: LoadedArtifact
    label: str  # the width as tables show it: "4bit", "fp32"
    format: Format
    lowering: Lowering
    fast: FastReference | None = None
    input: ModelInput = "fbank"
    chunk_seconds: float | None = None  # longer utterances are embedded as the mean of chunks of this length
    max_batch: int = 1  # utterances of one length that a call of a .pte takes at most; a .tflite takes any number
    split_weights: bool = False  # of a .pte with our ops: into a .ptd that all programs of the artifact share

    @property
    def mode(self) -> Mode:
        """The arithmetic of the file's activations."""
        return "exact" if self.fast is None else "fast"

    @property
    def file_name(self) -> str:
        """<net>-<width>.<format>, with what is not the usual in between.

        `-waveform`: takes samples; `-fallback`: a palettized network written with stock ops; `-fast`: mode fast;
        `-batch<N>`: a .pte that takes up to N utterances at once; `-split`: the weights lie in a .ptd beside it.
        """
        quantized = any(node.bits < 32 for node in self.artifact.header.layers)
        fallback = "-fallback" if self.lowering == "stock" and quantized else ""
        waveform = "-waveform" if self.input == "waveform" else ""
        fast = "" if self.fast is None else "-fast"
        batch = f"-batch{self.max_batch}" if self.format == "pte" and self.max_batch > 1 else ""
        split = "-split" if self.split_weights else ""
        return f"{self.artifact.header.name}{waveform}{fallback}{fast}{batch}{split}.{self.format}"

    def long_audio(self, max_seconds: float) -> LongAudio | None:
        """The policy for long audio. Raises InputError if a chunk is not between the shortest and longest utterance."""
        if self.chunk_seconds is None:
            return None
        spec = self.artifact.header.frontend
        if not spec.min_seconds <= self.chunk_seconds <= max_seconds:
            expected = f"{spec.min_seconds:g} to {max_seconds:g} (--max-seconds)"
            raise InputError("--chunk-seconds", expected=expected, found=f"{self.chunk_seconds:g}")
        return LongAudio(chunk_frames=max_frames(self.chunk_seconds, spec))

    def emit(self, max_seconds: float) -> tuple[bytes, bytes | None]:
        """The file, and its weights if they are split off; not checked yet."""
        options: _EmitOptions = {
            "lowering": self.lowering,
            "model_input": self.input,
            "long_audio": self.long_audio(max_seconds),
            "fast": None if self.fast is None else self.fast.program,
        }
        source = self.artifact if self.fast is None else self.fast.rounded
        if self.format == "tflite":
            return emit_tflite(source, **options), None
        pte_options: _PteOptions = {**options, "max_seconds": max_seconds, "max_batch": self.max_batch}
        return emit_split_pte(source, **pte_options) if self.split_weights else (emit_pte(source, **pte_options), None)


def export_artifact(request: ExportRequest, folder: Path, *, max_seconds: float) -> ExportedFile:
    """Write one model file into `folder`, and, where they are split off, its weights, unless they are there already.

    Raises VerificationError, and writes nothing, if the runtime's embeddings differ from the reference network's by
    more than the mode allows (see `exporters.verify`).
    """
    if request.split_weights and (request.format != "pte" or request.lowering != "voxpress"):
        found = f".{request.format}, {request.lowering} ops"
        raise InputError("--split-weights", expected="a .pte with VoxPress ops", found=found)
    data, weights = request.emit(max_seconds)
    with tempfile.TemporaryDirectory(prefix="voxpress-") as scratch:
        beside = None
        if weights is not None:
            place = folder / weights_file_name(request.artifact)
            if place.exists() and place.read_bytes() != weights:
                raise InputError(place, expected="the weights of this artifact", found="other bytes under their name")
            beside = Path(scratch) / place.name
            beside.write_bytes(weights)
        agreement = _verify(request, data, max_seconds, beside)
    if weights is not None:
        write_atomically(place, weights)
    return _written(request, folder, data, agreement, max_seconds)


def _verify(request: ExportRequest, data: bytes, max_seconds: float, weights: Path | None) -> Agreement:
    artifact, fast, name = request.artifact, request.fast, request.file_name
    if fast is None:
        return verify_model(data, request.format, artifact, max_seconds=max_seconds, name=name, weights=weights)
    if request.input == "fbank":
        return fast.verify(data, request.format, name=name, weights=weights)
    # The network on speech, then the front end before it on noise.
    network, _ = replace(request, input="fbank", split_weights=False).emit(max_seconds)
    agreement = fast.verify(network, request.format, name=name)
    fast.verify_waveform(data, request.format, name=name, max_seconds=max_seconds, weights=weights)
    return agreement


def _written(
    request: ExportRequest, folder: Path, data: bytes, agreement: Agreement, max_seconds: float
) -> ExportedFile:
    name, path = request.file_name, folder / request.file_name
    write_atomically(path, data)
    return ExportedFile(
        file=name,
        label=request.label,
        format=request.format,
        weights=weights_file_name(request.artifact) if request.split_weights else None,
        lowering=request.lowering,
        input=request.input,
        mode=request.mode,
        bytes=len(data),
        sha256=sha256_file(path),
        max_seconds=max_seconds,
        agreement=agreement,
    )


def prepare_fast(
    artifact: LoadedArtifact,
    utterances: Mapping[str, Floats],
    folder: Path,
    *,
    max_seconds: float,
    progress: Progress,
    choice: RangeChoice = DEFAULT_CHOICE,
    ranges: ActivationRanges | None = None,
) -> FastReference:
    """What the files of an artifact in mode fast are made by: ranges, measured unless given, palettes and algorithms.

    utterances: calibration features [frames, mel] by name, whose first 8 the files will be checked on. Writes the
    ranges into `folder` as `<net>-activations.json`, and, where the kernels' own choice of algorithms was not accurate
    enough, the other one and what it costs as `<net>-algorithms.json`. Raises InputError as `measure_ranges`.
    """
    name = artifact.header.name
    with progress.task(f"activations {name}", 1 if ranges is not None else len(utterances)) as task:
        if ranges is None:
            ranges = measure_ranges(artifact, utterances.items(), choice, task.advance)
        task.note("palettes")
        few = dict(islice(utterances.items(), VERIFIED_UTTERANCES))
        rounded = with_int8_palettes(artifact, (features[:PALETTE_FRAMES] for features in few.values()))
        program, algorithms = choose_algorithms(artifact, rounded, ranges, few, task)
    write_ranges(folder / ranges_file(artifact), ranges)
    if algorithms.algorithms:
        progress.say(_algorithms_text(name, algorithms))
        write_atomically(folder / f"{name}-algorithms.json", algorithms.model_dump_json(indent=1) + "\n")
    return FastReference(artifact, rounded, program, few, max_seconds=max_seconds)


def _algorithms_text(name: str, choice: AlgorithmChoice) -> str:
    before, after = choice.kernels_choice, choice.chosen
    return (
        f"{name}: {len(choice.algorithms)} layers run by slower algorithms for accuracy: mean cosine "
        f"{before.cosine_mean:.5f} -> {after.cosine_mean:.5f}, least {before.cosine_min:.5f} -> {after.cosine_min:.5f}"
    )


@dataclass(frozen=True)
class FastOptions:
    """How `export_files` makes mode fast. audio: a folder of speakers, to calibrate and check on."""

    audio: Path
    utterances: int = DEFAULT_UTTERANCES
    choice: RangeChoice = DEFAULT_CHOICE
    activations: Path | None = None  # ranges measured before, to be taken over

    def __post_init__(self) -> None:
        if self.utterances < MIN_UTTERANCES:
            raise InputError("--utterances", expected=f"at least {MIN_UTTERANCES}", found=str(self.utterances))


def fast_options(
    mode: str,
    *,
    fallback: bool,
    audio: Path | None,
    utterances: int,
    method: str,
    percentile: float,
    activations: Path | None,
) -> FastOptions | None:
    """Options of `voxpress export`, as they are typed; None for mode exact. Raises InputError naming a bad one."""
    if mode not in ("exact", "fast"):
        raise InputError("--mode", expected="exact or fast", found=mode)
    if mode == "exact":
        for option, given in (("--audio", audio), ("--activations", activations)):
            if given is not None:
                raise InputError(option, expected="--mode fast with it", found="--mode exact")
        return None
    if fallback:
        raise InputError("--fallback", expected="mode exact: stock ops compute in fp32", found="--mode fast")
    if audio is None:
        raise InputError("--audio", expected="a folder of utterances, for mode fast", found="none")
    if method not in get_args(RangeMethod):
        raise InputError("--ranges", expected=f"one of {', '.join(get_args(RangeMethod))}", found=method)
    if not 50 < percentile <= 100:
        raise InputError("--percentile", expected="above 50 and up to 100", found=f"{percentile:g}")
    choice = RangeChoice.model_validate({"method": method, "percentile": percentile})
    return FastOptions(audio, utterances, choice, activations)


def chosen_formats(word: str) -> tuple[Format, ...]:
    """The formats of a word, "pte", "tflite" or "both". Raises InputError for another one."""
    if word not in (*FORMATS, "both"):
        raise InputError("--format", expected="pte, tflite, both or coreml", found=word)
    return tuple(one for one in FORMATS if word in (one, "both"))


def export_files(
    artifact_folder: Path,
    *,
    file_format: str,
    fallback: bool,
    max_seconds: float,
    out: Path,
    progress: Progress,
    fast: FastOptions | None = None,
    model_input: str = "fbank",
    chunk_seconds: float | None = None,
    split_weights: bool = False,
    max_batch: int = 1,
) -> list[ExportedFile]:
    """Write an artifact in `file_format` ("pte", "tflite" or "both") into `out`; with `fast`, in mode fast."""
    if not 1 <= max_batch <= MAX_BATCH:
        raise InputError("--max-batch", expected=f"1 to {MAX_BATCH}", found=str(max_batch))
    formats = chosen_formats(file_format)
    if model_input not in ("fbank", "waveform"):
        raise InputError("--input", expected="fbank or waveform", found=model_input)
    takes: ModelInput = "fbank" if model_input == "fbank" else "waveform"
    artifact = read_artifact(artifact_folder)
    check_max_seconds(max_seconds, artifact.header.frontend)
    label = artifact.header.name.rpartition("-")[2]
    reference = None if fast is None else _fast_reference(artifact, fast, out, max_seconds, progress)
    written = []
    with progress.task("export", len(formats)) as task:
        for one in formats:
            lowering: Lowering = "stock" if fallback else "voxpress"
            request = ExportRequest(
                artifact, label, one, lowering, reference, takes, chunk_seconds, max_batch, split_weights
            )
            written.append(export_artifact(request, out, max_seconds=max_seconds))
            task.advance()
    return written


def _fast_reference(
    artifact: LoadedArtifact, fast: FastOptions, out: Path, max_seconds: float, progress: Progress
) -> FastReference:
    spec = artifact.header.frontend
    ranges = None if fast.activations is None else read_ranges(fast.activations, artifact)
    cuts = list(read_corpus(fast.audio, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds))
    if len(cuts) < MIN_UTTERANCES:
        raise InputError(fast.audio, expected=f"at least {MIN_UTTERANCES} utterances", found=str(len(cuts)))
    return prepare_fast(
        artifact,
        CalibrationFeatures(cuts, spec, fast.utterances),
        out,
        max_seconds=max_seconds,
        progress=progress,
        choice=fast.choice,
        ranges=ranges,
    )
