"""Writes bundles: everything a device needs to run a network and to prove that it runs it rightly.

manifest.json           what is in here; sha256 and bytes of every file
signature.json          who vouches for the manifest, once it is signed
models/                 .pte and .tflite files
artifacts/<label>/      the artifacts they were made from, with plan.json where widths are mixed
calibration/<label>/    how to read scores: thresholds, plot, perhaps a cohort
golden/                 one utterance (wav), its features, and the embedding by each artifact's reference network
report/<device>/        device runs and their reports, without the embeddings of the people who spoke
frontend.json           the front-end specification
recipe.json             the recipe, with every default
MODEL_CARD.md CHANGELOG.md  written by a release
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from safetensors.numpy import save

from calibration.plan import PLAN_FILE
from calibration.ranges import ACTIVATIONS_FILE
from calibration.record import CALIBRATION_FILE, COHORT_FILE, read_calibration
from exporters.bundle.manifest import (
    MANIFEST_FILE,
    BundledArtifact,
    BundledCalibration,
    BundledModel,
    DeviceAccuracy,
    DeviceLatency,
    FileEntry,
    Golden,
    Manifest,
    Source,
    TestedRuntime,
    bundled_calibration,
    golden_key,
)
from exporters.exported import TOLERANCE, ExportedFile, ranges_file
from exporters.model_file import open_model, read_model_manifest
from pipeline.artifact.decode import decode
from pipeline.artifact.store import WEIGHTS_FILE, LoadedArtifact, write_artifact
from pipeline.corpus.audio import read_utterance
from pipeline.errors import InputError
from pipeline.features.fbank import features
from pipeline.features.spec import FrontEndSpec
from pipeline.files import sha256_file, write_atomically
from pipeline.recipe import RECIPE_FILE

GOLDEN_WAV = "golden/utterance.wav"
GOLDEN_FBANK = "golden/fbank.safetensors"
GOLDEN_EMBEDDINGS = "golden/embeddings.safetensors"


@dataclass(frozen=True)
class DeviceFigures:
    """A device run's report, as far as a manifest quotes it."""

    folder: Path  # of report.json and what else is to be shipped
    device: str
    accuracy: Sequence[DeviceAccuracy]  # `model` is the bare file name
    latency: Sequence[DeviceLatency]  # likewise, and `report` is left to the writer
    hashes: Mapping[str, str]  # sha256 of the files that ran, by bare name
    runtimes: Mapping[str, Sequence[str]]  # versions by runtime


@dataclass(frozen=True)
class BundleContent:
    """What goes into a bundle."""

    name: str
    version: str
    licence: str
    created_by: str
    models: Path  # folder of the exported files
    exported: Sequence[ExportedFile]
    artifacts: Mapping[str, LoadedArtifact]  # by label; those of the exported files
    primary: str  # label
    golden: npt.NDArray[np.float32]  # samples in [-1, 1)
    plans: Mapping[str, Path] = field(default_factory=dict)  # plan.json by label
    calibrations: Sequence[Path] = ()  # folders
    devices: Sequence[DeviceFigures] = ()
    recipe_json: str | None = None
    checkpoint_sha256: str | None = None


def write_bundle(folder: Path, content: BundleContent) -> Manifest:
    """Write a bundle's files into `folder`, the manifest last, and return it.

    Raises InputError if a calibration or a device report is about other files than those of the bundle.
    """
    header = next(iter(content.artifacts.values())).header
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for entry in content.exported:
        for name in (entry.file, entry.weights):
            if name is not None:
                shutil.copyfile(content.models / name, folder / "models" / name)
    for label, artifact in content.artifacts.items():
        write_artifact(folder / "artifacts" / label, artifact)
        if label in content.plans:
            shutil.copyfile(content.plans[label], folder / "artifacts" / label / PLAN_FILE)
        ranges = content.models / ranges_file(artifact)
        if ranges.is_file():
            shutil.copyfile(ranges, folder / "artifacts" / label / ACTIVATIONS_FILE)
    if content.recipe_json is not None:
        write_atomically(folder / RECIPE_FILE, content.recipe_json)
    header.frontend.write(folder)
    _write_golden(folder, content, header.frontend)
    artifacts = tuple(_bundled_artifact(folder, label, artifact) for label, artifact in content.artifacts.items())
    models = tuple(_bundled_model(folder, entry) for entry in content.exported)
    calibrations = tuple(_add_calibration(folder, source, artifacts, models) for source in content.calibrations)
    reports = [_add_report(folder, figures) for figures in content.devices]
    manifest = Manifest(
        name=content.name,
        version=content.version,
        licence=content.licence,
        created_by=content.created_by,
        architecture=header.architecture,
        embedding_dim=header.embedding_dim,
        source=Source(
            model_sha256=header.source_sha256,
            checkpoint_sha256=content.checkpoint_sha256,
            recipe=RECIPE_FILE if content.recipe_json is not None else None,
        ),
        frontend=header.frontend,
        artifacts=artifacts,
        models=models,
        primary=content.primary,
        runtimes=_runtimes(content.devices),
        calibrations=calibrations,
        accuracy=tuple(entry for accuracy, _ in reports for entry in accuracy),
        latency=tuple(entry for _, latency in reports for entry in latency),
        golden=Golden(wav=GOLDEN_WAV, fbank=GOLDEN_FBANK, embeddings=GOLDEN_EMBEDDINGS, tolerance=TOLERANCE),
        files=list_files(folder),
    )
    write_atomically(folder / MANIFEST_FILE, manifest.json_bytes())
    return manifest


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Hash and size of every file below a folder, by path, in the order of the paths."""
    paths = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    return {name: FileEntry(sha256=sha256_file(path), bytes=path.stat().st_size) for name, path in paths}


def _bundled_artifact(folder: Path, label: str, artifact: LoadedArtifact) -> BundledArtifact:
    inside = f"artifacts/{label}"
    return BundledArtifact(
        label=label,
        folder=inside,
        bits={node.name: node.bits for node in artifact.header.layers},
        bits_per_weight=artifact.bits_per_weight,
        weights_bytes=artifact.weights_bytes,
        weights_sha256=sha256_file(folder / inside / WEIGHTS_FILE),
        plan=f"{inside}/{PLAN_FILE}" if (folder / inside / PLAN_FILE).is_file() else None,
    )


def _bundled_model(folder: Path, entry: ExportedFile) -> BundledModel:
    file = f"models/{entry.file}"
    own = read_model_manifest(folder / file)
    return BundledModel(
        file=file,
        label=entry.label,
        format=entry.format,
        lowering=entry.lowering,
        mode=entry.mode,
        input=own.input,
        ops=own.ops,
        min_frames=own.min_frames,
        max_frames=own.max_frames,
        weights=None if own.weights_file is None else f"models/{own.weights_file}",
        chunk_frames=None if own.long_audio is None else own.long_audio.chunk_frames,
        max_relative_error=entry.agreement.max_relative_error,
        cosine_min=entry.agreement.cosine_min,
    )


def _add_calibration(
    folder: Path, source: Path, artifacts: Sequence[BundledArtifact], models: Sequence[BundledModel]
) -> BundledCalibration:
    """Copy a calibration in. It holds for the artifact whose weights it names, or for the model file whose bytes."""
    calibration = read_calibration(source)
    wanted = calibration.subject.sha256
    of_artifact = [artifact.label for artifact in artifacts if artifact.weights_sha256 == wanted]
    if of_artifact:
        label = of_artifact[0]
        files = tuple(model.file for model in models if model.label == label and model.mode == calibration.mode)
    else:
        of_file = [model for model in models if sha256_file(folder / model.file) == wanted]
        if not of_file:
            raise InputError(
                source / CALIBRATION_FILE,
                expected="the calibration of an artifact or a model file of this bundle",
                found=f"that of {calibration.subject.name}, sha256 {wanted[:12]}...",
            )
        label, files = of_file[0].label, (of_file[0].file,)
    inside = f"calibration/{label}" + ("" if calibration.mode == "exact" else f"-{calibration.mode}")
    if (folder / inside).exists():
        raise InputError(source, expected=f"one calibration of {label}", found="two")
    cohort = source / COHORT_FILE
    if calibration.cohort is not None:
        found = sha256_file(cohort) if cohort.is_file() else "no such file"
        if found != calibration.cohort.sha256:
            wanted = f"the cohort of {CALIBRATION_FILE}, sha256 {calibration.cohort.sha256}"
            raise InputError(cohort, expected=wanted, found=found)
    shutil.copytree(source, folder / inside)
    return bundled_calibration(calibration, label=label, models=files, folder=inside)


def _add_report(folder: Path, figures: DeviceFigures) -> tuple[list[DeviceAccuracy], list[DeviceLatency]]:
    inside = "report/" + (re.sub(r"[^a-z0-9]+", "-", figures.device.lower()).strip("-") or "device")
    if (folder / inside).exists():
        raise InputError(figures.folder, expected=f"one report of {figures.device}", found="two")
    # Embeddings of an utterance are as personal as a fingerprint; figures are all that a user of the bundle needs.
    shutil.copytree(figures.folder, folder / inside, ignore=shutil.ignore_patterns("stamp.json", "embeddings", ".*"))
    for name, sha256 in figures.hashes.items():
        path = folder / "models" / name
        if path.is_file() and sha256_file(path) != sha256:
            raise InputError(figures.folder, expected=f"a report on the bundle's {name}", found="one on other bytes")

    def here(name: str) -> bool:
        return (folder / "models" / name).is_file()

    accuracy = [
        entry.model_copy(update={"model": f"models/{entry.model}"}) for entry in figures.accuracy if here(entry.model)
    ]
    latency = [
        entry.model_copy(update={"model": f"models/{entry.model}", "report": f"{inside}/report.json"})
        for entry in figures.latency
        if here(entry.model)
    ]
    if not accuracy:
        raise InputError(figures.folder, expected="a report on files of this bundle", found="none of them in it")
    return accuracy, latency


def _runtimes(devices: Sequence[DeviceFigures]) -> tuple[TestedRuntime, ...]:
    versions: dict[str, set[str]] = {}
    for figures in devices:
        for runtime, found in figures.runtimes.items():
            versions.setdefault(runtime, set()).update(found)

    def parts(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", version))

    return tuple(
        TestedRuntime.model_validate(
            {"runtime": runtime, "minimum": min(found, key=parts), "maximum": max(found, key=parts)}
        )
        for runtime, found in sorted(versions.items())
    )


def _write_golden(folder: Path, content: BundleContent, spec: FrontEndSpec) -> None:
    (folder / "golden").mkdir()
    soundfile.write(folder / GOLDEN_WAV, content.golden, spec.sample_rate_hz, subtype="PCM_16")
    # The features are those of the file as written: 16-bit samples, not the floats before rounding.
    samples = read_utterance(folder / GOLDEN_WAV, spec.sample_rate_hz, spec.min_seconds)
    fbank = features(samples, spec)
    (folder / GOLDEN_FBANK).write_bytes(save({"fbank": fbank}))
    embeddings = {}
    with torch.inference_mode():
        for label, artifact in content.artifacts.items():
            embeddings[label] = decode(artifact)(torch.from_numpy(fbank)[None])[0].numpy()
    # Kernels of mode fast give the same bytes on every processor: one file of theirs is the reference of the others.
    for entry in content.exported:
        key = golden_key(entry.label, entry.mode)
        if key not in embeddings:
            embeddings[key] = open_model(folder / "models" / entry.file).embed(
                fbank if entry.input == "fbank" else samples
            )
    (folder / GOLDEN_EMBEDDINGS).write_bytes(save(embeddings))
