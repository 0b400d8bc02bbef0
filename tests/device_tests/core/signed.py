"""A signed bundle of a small network with a calibration of its own, and what Python makes of the same trials."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from calibration.calibrate import CalibrationRequest
from device_tests.calibrate import CalibrateOptions, calibrate
from exporters.bundle.manifest import MANIFEST_FILE, Manifest
from exporters.bundle.signature import write_signature
from exporters.bundle.write import BundleContent, list_files, write_bundle
from exporters.export import ExportRequest, export_artifact
from exporters.long_audio import chunks
from pipeline.artifact.decode import decode
from pipeline.artifact.store import LoadedArtifact
from pipeline.corpus.audio import read_utterance
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.features.fbank import features, mean_normalise
from pipeline.progress import Progress
from pipeline.scoring.metrics import Resampling
from tests.device_tests.core.capi import Decision
from tests.device_tests.released import make_voices, write_tiny
from tests.factories import speech_like, tiny_artifact

Floats = npt.NDArray[np.float32]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CHUNK_SECONDS = 2.0


def public_pem(key: Ed25519PrivateKey = KEY) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class Signed:
    """A bundle's folder and the artifact it was made from."""

    folder: Path
    artifact: LoadedArtifact
    manifest: Manifest


def signed_bundle(folder: Path) -> Signed:
    """A bundle of both formats in `folder`/bundle, long audio in chunks, thresholds from synthetic voices."""
    artifact = tiny_artifact()
    voices = make_voices(folder)
    calibrate(
        write_tiny(folder / "artifact", artifact),
        audio=voices.audio,
        trials_file=voices.trials,
        out=folder / "calibration",
        options=CalibrateOptions(request=CalibrationRequest(resampling=Resampling(draws=20))),
        progress=Progress.silent(),
    )
    exported = [
        export_artifact(
            ExportRequest(artifact, "4bit", suffix, "voxpress", chunk_seconds=CHUNK_SECONDS),
            folder / "models",
            max_seconds=CHUNK_SECONDS,
        )
        for suffix in ("pte", "tflite")
    ]
    manifest = write_bundle(
        folder / "bundle",
        BundleContent(
            name="tiny",
            version="1.2.0",
            licence="CC0-1.0",
            created_by="tests",
            models=folder / "models",
            exported=exported,
            artifacts={"4bit": artifact},
            primary="4bit",
            golden=speech_like(0.5),
            calibrations=(folder / "calibration",),
        ),
    )
    write_signature(folder / "bundle", manifest.json_bytes(), KEY)
    return Signed(folder / "bundle", artifact, manifest)


def changed(signed: Signed, folder: Path, **fields: object) -> Path:
    """A copy of a bundle whose manifest says something else and is signed again."""
    shutil.copytree(signed.folder, folder)
    (folder / MANIFEST_FILE).unlink()
    (folder / "signature.json").unlink()
    manifest = signed.manifest.model_copy(update={**fields, "files": list_files(folder)})
    (folder / MANIFEST_FILE).write_bytes(manifest.json_bytes())
    write_signature(folder, manifest.json_bytes(), KEY)
    return folder


class Reference:
    """The same trials in Python: the front end of training, the decoded artifact, the manifest's calibration."""

    def __init__(self, artifact: LoadedArtifact, manifest: Manifest, point: str = "eer") -> None:
        self.spec = artifact.header.frontend
        self.network = decode(artifact)
        self.chunk_frames = manifest.models[0].chunk_frames
        calibration = manifest.calibration(manifest.primary)
        assert calibration is not None
        self.llr = calibration.llr
        self.threshold = next(entry.threshold for entry in calibration.thresholds if entry.name == point)

    def embed(self, samples: Floats) -> Floats:
        whole = features(samples, self.spec)
        if self.chunk_frames is None or len(whole) <= self.chunk_frames:
            return self._run(whole)
        units = [_unit(self._run(mean_normalise(part))) for part in chunks(whole, self.chunk_frames, self.spec)]
        return np.mean(units, axis=0).astype(np.float32)

    def _run(self, values: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(self.network(torch.from_numpy(values)[None])[0].numpy(), np.float32)

    def enroll(self, *utterances: Floats) -> npt.NDArray[np.float64]:
        return _unit(np.mean([_unit(self.embed(samples)) for samples in utterances], axis=0))

    def verify(self, voice: npt.NDArray[np.float64], samples: Floats) -> Decision:
        score = float(voice @ _unit(self.embed(samples)))
        return Decision(score, float(self.llr.llr([score])[0]), score >= self.threshold)


def _unit(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    wide = values.astype(np.float64)
    return wide / np.linalg.norm(wide)


def synthetic_voices(folder: Path, *, speakers: int = 4, each: int = 5) -> dict[str, list[Floats]]:
    """Utterances of synthetic voices by speaker, some longer than a chunk."""
    seconds = (0.6, 1.2 * CHUNK_SECONDS)
    make_synthetic_corpus(folder, speakers=speakers, seed=3, sessions=1, utterances_per_session=each, seconds=seconds)
    return read_voices(folder)


def read_voices(folder: Path) -> dict[str, list[Floats]]:
    """Utterances [S] by speaker, of a folder `<speaker>/**/*.flac` or `.wav`."""
    speakers: dict[str, list[Floats]] = {}
    for path in sorted((*folder.rglob("*.flac"), *folder.rglob("*.wav"))):
        speaker = path.relative_to(folder).parts[0]
        speakers.setdefault(speaker, []).append(read_utterance(path, 16000, 0.3))
    return speakers


def trials_of(voices: dict[str, list[Floats]], count: int = 3) -> Sequence[tuple[str, list[Floats], list[Floats]]]:
    """Two enrolments of `count` utterances each, and all utterances that neither of them used."""
    enrolled = sorted(voices)[:2]
    rest = [u for name in sorted(voices) for u in (voices[name][count:] if name in enrolled else voices[name])]
    return [(name, voices[name][:count], rest) for name in enrolled]
