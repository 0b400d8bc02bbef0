"""The compatibility table: every runtime of this machine on every kind of model file, against the reference network.

The network is a small ResNet with random weights, its utterances are synthetic voices: what is compared is arithmetic,
not accuracy. Files are made by the ordinary export, so each was checked once already.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

from exporters.export import ExportRequest, export_artifact, prepare_fast
from exporters.exported import Format
from exporters.manifest import Lowering, ModelInput
from exporters.runtimes import RUNTIMES, run_models
from exporters.verify import FastReference
from pipeline.artifact.decode import decode
from pipeline.artifact.store import LoadedArtifact
from pipeline.corpus.read import read_corpus
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.errors import InputError, VoxPressError
from pipeline.features.fbank import features, samples_of
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource
from pipeline.files import write_atomically
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.progress import Progress
from pipeline.quantize.apply import attach_palettes, press, weight_layers

Floats = npt.NDArray[np.float32]
Mode = Literal["exact", "fast", "fallback"]

BITS = ("8", "4", "2", "1", "mixed")
MODES: tuple[Mode, ...] = ("exact", "fast", "fallback")
INPUTS: tuple[ModelInput, ...] = ("fbank", "waveform")
FRAMES = (30, 98, 200, 301, 3000)
BATCH = 4
MAX_SECONDS = 31.0

# What is promised: relative error to the reference in fp32 arithmetic, cosine to it in mode fast.
TOLERANCE = 1e-4
LEAST_COSINE = 0.99
AGREEMENT = 1e-5  # between .pte and .tflite in fp32 arithmetic


class NotAsPromisedError(VoxPressError):
    """A runtime gives something else than is promised."""

    exit_code = 3


class Cell(BaseModel):
    """One runtime on one model file, over all lengths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str
    max_relative_error: float
    cosine_min: float


class Row(BaseModel):
    """One kind of model file in every runtime."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode
    bits: str
    input: ModelInput
    cells: tuple[Cell, ...]
    same_bits: bool  # in all TFLite runtimes, at every length
    batch_error: float  # of a batch of 4 to its utterances one by one, the worst runtime's; relative
    formats_error: float  # between .pte and .tflite; relative

    @property
    def is_well(self) -> bool:
        """Whether everything that is promised holds."""
        if self.mode == "fast":
            near = all(cell.cosine_min >= LEAST_COSINE for cell in self.cells)
            return near and self.same_bits and self.batch_error == 0
        near = all(cell.max_relative_error <= TOLERANCE for cell in self.cells)
        # Stock kernels are the runtimes' own business; their bits may differ.
        ours = self.mode == "fallback" or (self.same_bits and self.formats_error <= AGREEMENT)
        return near and ours and self.batch_error <= AGREEMENT


class Compatibility(BaseModel):
    """The whole table, and the runtimes' versions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: dict[str, str]
    frames: tuple[int, ...]
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()  # runtimes that are not on this machine: nothing is said of them

    @property
    def is_well(self) -> bool:
        """Whether every row is."""
        return all(row.is_well for row in self.rows)


@dataclass(frozen=True)
class _Voices:
    """Samples [S] by name: utterances of the lengths compared, and of speakers to calibrate mode fast on."""

    compared: Mapping[int, Floats]
    calibration: Mapping[str, Floats]


def compare(
    progress: Progress,
    *,
    bits: Sequence[str] = BITS,
    modes: Sequence[Mode] = MODES,
    inputs: Sequence[ModelInput] = INPUTS,
) -> Compatibility:
    """Make every kind of file and run it in every runtime of this machine."""
    spec = FrontEndSpec()
    versions = {name: runtime.version for name, runtime in RUNTIMES.items()}
    kinds = [(m, b, i) for m in modes for b in bits for i in inputs if not (m == "fallback" and i == "waveform")]
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="voxpress-") as name,
        progress.task("compatibility", len(kinds) + 4) as task,
    ):
        folder = Path(name)
        voices = _voices(folder / "voices", spec)
        artifacts = {width: _artifact(width, spec) for width in bits}
        fast = {
            width: prepare_fast(artifact, voices.calibration, folder, max_seconds=MAX_SECONDS, progress=progress)
            for width, artifact in artifacts.items()
            if "fast" in modes
        }
        files: dict[tuple[Mode, str, ModelInput], dict[Format, Path]] = {}
        for mode, width, model_input in kinds:
            task.note(f"{mode}, {width} bit, {model_input}")
            reference = fast.get(width) if mode == "fast" else None
            files[mode, width, model_input] = _export(artifacts[width], mode, model_input, reference, folder)
            task.advance()
        outputs = {}
        for runtime in RUNTIMES.values():
            task.note(runtime.name)
            if runtime.version is not None:
                jobs = [(paths[runtime.format], _inputs(key[2], voices, spec)) for key, paths in files.items()]
                outputs[runtime.name] = dict(zip(files, run_models(runtime, jobs), strict=True))
            task.advance()
        wanted = {width: _reference(artifact, voices, spec) for width, artifact in artifacts.items()}
        rows = [_row(key, wanted[key[1]], {name: found[key] for name, found in outputs.items()}) for key in files]
    return Compatibility(
        versions={name: found for name, found in versions.items() if found is not None},
        frames=FRAMES,
        rows=tuple(rows),
        missing=tuple(name for name, found in versions.items() if found is None),
    )


def markdown(table: Compatibility) -> str:
    """The table as a document."""
    names = list(table.versions)
    lines = [
        "# Which model runs where",
        "",
        "Made by `voxpress compatibility --out exporters/COMPATIBILITY.md`: a small ResNet with random weights,",
        f"synthetic voices of {', '.join(map(str, table.frames))} frames, one process for each runtime. `exact` and",
        f"`fallback`: largest relative error to the reference network (promised: {TOLERANCE:g}); `fast`: least cosine",
        f"to it (promised: {LEAST_COSINE:g}). *same bits*: all TFLite runtimes give the same bytes. *batch*: relative",
        f"error of a batch of {BATCH} to its utterances one by one, in any runtime (a `.pte` made with --max-batch",
        f"{BATCH}). *.pte ~ .tflite*: relative difference of the two formats (promised in `exact`: {AGREEMENT:g}). The",
        "fallback takes features only.",
        *([f"**Not on this machine, so not tried: {', '.join(table.missing)}.**"] if table.missing else []),
        "",
        "| mode | bits | input | "
        + " | ".join(f"{name} {table.versions[name]}" for name in names)
        + " | same bits | batch | .pte ~ .tflite | |",
        "|---|---|---|" + "--:|" * len(names) + "---|--:|--:|---|",
    ]
    for row in table.rows:
        cells = {cell.runtime: cell for cell in row.cells}
        values = [
            (f"{cells[name].cosine_min:.5f}" if row.mode == "fast" else f"{cells[name].max_relative_error:.1e}")
            for name in names
        ]
        same = "yes" if row.same_bits else "no"
        lines.append(
            f"| {row.mode} | {row.bits} | {row.input} | {' | '.join(values)} | {same} | {row.batch_error:.1e} | "
            f"{row.formats_error:.1e} | {'ok' if row.is_well else 'NOT AS PROMISED'} |"
        )
    return "\n".join(lines) + "\n"


def parse_kinds(bits: Sequence[str] | None, modes: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[Mode, ...]]:
    """Widths and modes as a user names them; all of them where none is named. Raises InputError for an unknown one."""
    for what, names, known in (("--bits", bits, BITS), ("--mode", modes, MODES)):
        for name in names or ():
            if name not in known:
                raise InputError(what, expected=f"one of {', '.join(known)}", found=name)
    chosen = tuple(mode for mode in MODES if not modes or mode in modes)
    return tuple(bits or BITS), chosen


def require_well(table: Compatibility) -> None:
    """Raise NotAsPromisedError, exit code 3, naming the first row that is not as promised."""
    for row in table.rows:
        if not row.is_well:
            what = f"{row.mode}, {row.bits} bit, {row.input}"
            raise NotAsPromisedError(f"compatibility: expected {what} as promised, found {row.model_dump_json()}")


def write_table(table: Compatibility, out: Path) -> None:
    """Write the document."""
    write_atomically(out, markdown(table))


def _artifact(width: str, spec: FrontEndSpec) -> LoadedArtifact:
    torch.manual_seed(0)
    network = build_model(ModelSpec(architecture="resnet18", base_channels=8, embedding_dim=64)).eval()
    layers = list(weight_layers(network))
    cycle = (8, 4, 2, 1)
    widths = {layer: cycle[i % 4] if width == "mixed" else int(width) for i, layer in enumerate(layers)}
    attach_palettes(network, widths)
    return press(
        network,
        name=f"compatibility-{width if width == 'mixed' else f'{width}bit'}",
        architecture="resnet18",
        frontend=spec,
        created_by="voxpress compatibility",
        source_sha256="0" * 64,
    )


def _voices(folder: Path, spec: FrontEndSpec) -> _Voices:
    make_synthetic_corpus(folder, speakers=4, seed=1, sessions=1, utterances_per_session=4, seconds=(2.0, 3.0))
    source = FeatureSource(read_corpus(folder), spec, cache="none")
    samples = {name: source.samples(name, 0, source.sample_count(name)) for name in source.ids}
    endless = np.concatenate(list(samples.values()))
    endless = np.tile(endless, -(-samples_of(max(FRAMES), spec) // len(endless)))
    return _Voices(
        compared={frames: endless[: samples_of(frames, spec)] for frames in FRAMES},
        calibration={name: features(value, spec) for name, value in samples.items()},
    )


def _export(
    artifact: LoadedArtifact, mode: Mode, model_input: ModelInput, reference: FastReference | None, folder: Path
) -> dict[Format, Path]:
    lowering: Lowering = "stock" if mode == "fallback" else "voxpress"
    formats: tuple[Format, ...] = ("pte", "tflite")
    return {
        one: folder
        / export_artifact(
            ExportRequest(artifact, "compatibility", one, lowering, reference, model_input, max_batch=BATCH),
            folder,
            max_seconds=MAX_SECONDS,
        ).file
        for one in formats
    }


def _inputs(model_input: ModelInput, voices: _Voices, spec: FrontEndSpec) -> dict[str, Floats]:
    utterances = {str(f): s if model_input == "waveform" else features(s, spec) for f, s in voices.compared.items()}
    inputs = {name: utterance[None] for name, utterance in utterances.items()}
    first = utterances[str(FRAMES[1])]
    batch = [first * np.float32(level) for level in (1.0, 0.5, -1.0, 0.25)]
    inputs["batch"] = np.stack(batch)
    return inputs | {f"alone {index}": one[None] for index, one in enumerate(batch)}


def _reference(artifact: LoadedArtifact, voices: _Voices, spec: FrontEndSpec) -> dict[str, Floats]:
    network, found = decode(artifact), {}
    with torch.inference_mode():
        for frames, samples in voices.compared.items():
            found[str(frames)] = network(torch.from_numpy(features(samples, spec))[None]).numpy()
    return found


def _row(
    key: tuple[Mode, str, ModelInput], wanted: Mapping[str, Floats], outputs: Mapping[str, Mapping[str, Floats]]
) -> Row:
    mode, width, model_input = key
    tflite = [outputs[name] for name in outputs if RUNTIMES[name].format == "tflite"]
    first = tflite[0]
    alone = {name: np.concatenate([f[f"alone {index}"] for index in range(BATCH)]) for name, f in outputs.items()}
    others = [found for name, found in outputs.items() if RUNTIMES[name].format == "pte"]
    return Row(
        mode=mode,
        bits=width,
        input=model_input,
        cells=tuple(
            Cell(
                runtime=name,
                max_relative_error=max(_error(found[length], value) for length, value in wanted.items()),
                cosine_min=min(_cosine(found[length], value) for length, value in wanted.items()),
            )
            for name, found in outputs.items()
        ),
        same_bits=all(other[name].tobytes() == first[name].tobytes() for other in tflite for name in first),
        batch_error=max(_error(found["batch"], alone[name]) for name, found in outputs.items()),
        formats_error=max(_error(found[length], first[length]) for found in others for length in wanted),
    )


def _error(found: Floats, wanted: Floats) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _cosine(found: Floats, wanted: Floats) -> float:
    a, b = found.ravel().astype(np.float64), wanted.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
