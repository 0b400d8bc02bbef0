"""Bundles: everything a device needs to run a network and to prove that it runs it rightly, with a manifest of hashes.

manifest.json      what is in here: models, front end, sha256 and bytes of every file
models/            .pte and .tflite files
artifacts/<width>/ the artifacts they were made from, with activation ranges (activations.json) if there are any
golden/            one utterance (wav), its features, and the embedding by each artifact's reference network
report/            the device run and its report
frontend.json      the front-end specification
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt
from safetensors.numpy import save

from calibration.ranges import ACTIVATIONS_FILE
from exporters.exported import ExportedFile, ranges_file, read_export_list
from pipeline.artifact.decode import decode
from pipeline.artifact.store import LoadedArtifact, write_artifact
from pipeline.corpus.audio import read_utterance
from pipeline.errors import InputError
from pipeline.features.fbank import features
from pipeline.features.spec import FrontEndSpec
from pipeline.files import read_json, sha256_file, write_atomically

MANIFEST_FILE = "manifest.json"
GOLDEN_WAV = "golden/utterance.wav"
GOLDEN_FBANK = "golden/fbank.safetensors"
GOLDEN_EMBEDDINGS = "golden/embeddings.safetensors"

# What zipfile raises for broken archives: its own error, and those of everything that it calls.
_BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
)

# zip knows no time before this one; a fixed time makes the same bundle the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

# Paths inside a bundle: plain names with slashes between them, no way out of the folder.
BundlePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Frozen):
    """One file of a bundle."""

    sha256: Sha256
    bytes: NonNegativeInt


class BundledModel(_Frozen):
    """One model file of a bundle."""

    file: BundlePath
    label: str  # "4bit", "fp32"
    format: Literal["pte", "tflite"]
    lowering: Literal["voxpress", "stock"]
    mode: Literal["exact", "fast"] = "exact"
    max_seconds: float
    bits_per_weight: float
    max_relative_error: float  # of the embeddings that were checked, to those of the artifact's reference network
    cosine_min: float | None = None


class Manifest(_Frozen):
    """What a bundle says about itself."""

    format: Literal["voxpress-bundle"] = "voxpress-bundle"
    format_version: Literal[1] = 1
    name: str
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    licence: str
    created_by: str
    architecture: str
    embedding_dim: int
    source_sha256: Sha256
    frontend: FrontEndSpec
    models: tuple[BundledModel, ...]
    files: dict[BundlePath, FileEntry]


@dataclass(frozen=True)
class BundleContent:
    """What goes into a bundle."""

    name: str
    version: str
    licence: str
    created_by: str
    exports: Path  # folder of an export, with its exports.json
    artifacts: Mapping[str, LoadedArtifact]  # by label; those of the exported files
    report: Path  # folder of a device run with its report
    golden: npt.NDArray[np.float32]  # samples in [-1, 1)


def write_bundle(folder: Path, content: BundleContent) -> Manifest:
    """Write a bundle's files into `folder`, the manifest last, and return it."""
    exported = read_export_list(content.exports)
    header = next(iter(content.artifacts.values())).header
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for entry in exported:
        shutil.copyfile(content.exports / entry.file, folder / "models" / entry.file)
    for label, artifact in content.artifacts.items():
        write_artifact(folder / "artifacts" / label, artifact)
        ranges = content.exports / ranges_file(artifact)
        if ranges.is_file():
            shutil.copyfile(ranges, folder / "artifacts" / label / ACTIVATIONS_FILE)
    shutil.copytree(content.report, folder / "report", ignore=shutil.ignore_patterns("stamp.json"))
    header.frontend.write(folder)
    _write_golden(folder, content, header.frontend)
    manifest = Manifest(
        name=content.name,
        version=content.version,
        licence=content.licence,
        created_by=content.created_by,
        architecture=header.architecture,
        embedding_dim=header.embedding_dim,
        source_sha256=header.source_sha256,
        frontend=header.frontend,
        models=tuple(_bundled(entry, content.artifacts[entry.label]) for entry in exported),
        files={
            path.relative_to(folder).as_posix(): FileEntry(sha256=sha256_file(path), bytes=path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    )
    write_atomically(folder / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Manifest of a bundle. Raises InputError naming the file if it is missing or malformed."""
    return read_json(folder / MANIFEST_FILE, Manifest, what="a bundle's manifest")


def checked_file(folder: Path, manifest: Manifest, name: str) -> Path:
    """Path of a bundle's file whose bytes are what the manifest says; InputError naming the file if they are not."""
    path, entry = folder / name, manifest.files.get(name)
    if entry is None:
        raise InputError(folder / MANIFEST_FILE, expected=f"an entry for {name}", found="none")
    if not path.is_file() or path.is_symlink():
        raise InputError(path, expected="a file of the bundle", found="no such file")
    found = sha256_file(path)
    if found != entry.sha256:
        raise InputError(path, expected=f"sha256 {entry.sha256}", found=found)
    return path


def verify_bundle(folder: Path) -> Manifest:
    """Check that every file of the manifest is there with its hash, and no other. Returns the manifest."""
    manifest = read_manifest(folder)
    for name in manifest.files:
        checked_file(folder, manifest, name)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in manifest.files and name != MANIFEST_FILE:
            raise InputError(path, expected="only files that the manifest names", found="an extra file")
    return manifest


def zip_bundle(folder: Path, archive: Path, names: Sequence[str]) -> None:
    """Zip the named files and the manifest, sorted and with fixed times: the same bundle gives the same bytes."""
    beside = archive.with_suffix(".zip.tmp")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as stream:
        for name in sorted({*names, MANIFEST_FILE}):
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            stream.writestr(entry, (folder / name).read_bytes())
    beside.replace(archive)


def unzip_bundle(archive: Path, folder: Path) -> None:
    """Unpack a bundle's zip into an empty folder: exactly the files its manifest names, of the sizes it names.

    Raises InputError naming the archive for anything that is no such zip.
    """
    try:
        with zipfile.ZipFile(archive) as stream:
            try:
                text = _read_entry(stream, MANIFEST_FILE, archive, limit=1 << 24)
            except KeyError:
                raise InputError(archive, expected="a bundle with manifest.json", found="no such entry") from None
            (folder / MANIFEST_FILE).write_bytes(text)
            for name, entry in read_manifest(folder).files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                data = _read_entry(stream, name, archive, limit=entry.bytes)
                if hashlib.sha256(data).hexdigest() != entry.sha256:
                    raise InputError(f"{archive}:{name}", expected=f"sha256 {entry.sha256}", found="other bytes")
                path.write_bytes(data)
    except _BROKEN_ZIP as error:
        raise InputError(archive, expected="a whole bundle zip", found=str(error)) from None


def _read_entry(stream: zipfile.ZipFile, name: str, archive: Path, limit: int) -> bytes:
    with stream.open(name) as entry:
        data = entry.read(limit + 1)  # never more than the manifest announces, whatever the zip would inflate to
    if len(data) > limit:
        raise InputError(f"{archive}:{name}", expected=f"at most {limit} bytes", found="more")
    return data


def _bundled(entry: ExportedFile, artifact: LoadedArtifact) -> BundledModel:
    return BundledModel(
        file=f"models/{entry.file}",
        label=entry.label,
        format=entry.format,
        lowering=entry.lowering,
        mode=entry.mode,
        max_seconds=entry.max_seconds,
        bits_per_weight=artifact.bits_per_weight,
        max_relative_error=entry.agreement.max_relative_error,
        cosine_min=entry.agreement.cosine_min,
    )


def _write_golden(folder: Path, content: BundleContent, spec: FrontEndSpec) -> None:
    (folder / "golden").mkdir()
    soundfile.write(folder / GOLDEN_WAV, content.golden, spec.sample_rate_hz, subtype="PCM_16")
    # The features are those of the file as written: 16-bit samples, not the floats before rounding.
    fbank = features(read_utterance(folder / GOLDEN_WAV, spec.sample_rate_hz, spec.min_seconds), spec)
    (folder / GOLDEN_FBANK).write_bytes(save({"fbank": fbank}))
    embeddings = {}
    with torch.inference_mode():
        for label, artifact in content.artifacts.items():
            embeddings[label] = decode(artifact)(torch.from_numpy(fbank)[None])[0].numpy()
    (folder / GOLDEN_EMBEDDINGS).write_bytes(save(embeddings))
