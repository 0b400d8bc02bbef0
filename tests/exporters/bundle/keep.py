"""Keeps a small bundle of the format version that VoxPress writes now, as text, for the tests of all later versions.

    .venv/bin/python -m tests.exporters.bundle.keep tests/exporters/bundle/kept/v<format version>

Run it once, when a format version is about to be released, and never again for that version: what is kept has to stay
what users have. Text files are kept as they are, the others (a two-layer network's model files, tensors of a few
numbers, 0.3 s of a synthetic voice) as base64 of at most 100 characters a line, so that nothing binary lies in the
repository. The key that signs is made from a fixed seed: it vouches for nothing.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from calibration.calibrate import CalibrationRequest, ScoredTrials, calibration_figures
from calibration.record import Calibration, CalibrationTrials, Subject, write_calibration
from exporters.bundle.signature import write_signature
from exporters.bundle.write import BundleContent, write_bundle
from exporters.export import ExportRequest, export_artifact
from pipeline.artifact.schema import Artifact, Conv2dNode, StatsPoolNode
from pipeline.artifact.store import WEIGHTS_FILE, LoadedArtifact, write_artifact
from pipeline.corpus.synthesis import draw_session, draw_voice, synthesise
from pipeline.corpus.trials import Trial
from pipeline.features.spec import FrontEndSpec
from pipeline.files import sha256_file
from pipeline.scoring.metrics import Resampling
from tests.factories import random_layer

TEXT = {".json", ".md"}
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def small_artifact() -> LoadedArtifact:
    """Two layers of 2 bits over 8 mel bins at 8 kHz."""
    header = Artifact(
        name="kept-2bit",
        architecture="tiny",
        embedding_dim=4,
        frontend=FrontEndSpec(sample_rate_hz=8000, num_mel_bins=8),
        program=(
            Conv2dNode(
                name="conv1",
                input="features",
                in_channels=1,
                out_channels=2,
                kernel=(3, 3),
                padding=(1, 1),
                relu=True,
                bits=2,
            ),
            StatsPoolNode(name="pool", input="conv1"),
            Conv2dNode(name="embedding", input="pool", in_channels=32, out_channels=4, kernel=(1, 1), bits=2),
        ),
        created_by="tests",
        source_sha256="0" * 64,
    )
    rng = np.random.default_rng(0)
    return LoadedArtifact(header, {node.name: random_layer(node, rng) for node in header.layers})


def write_small_bundle(folder: Path) -> None:
    """A signed bundle of both formats."""
    artifact = small_artifact()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch)
        exported = [
            export_artifact(ExportRequest(artifact, "2bit", suffix, "voxpress"), models, max_seconds=1.0)
            for suffix in ("pte", "tflite")
        ]
        write_artifact(models / "artifact", artifact)
        _write_small_calibration(models / "calibration", sha256_file(models / "artifact" / WEIGHTS_FILE))
        manifest = write_bundle(
            folder,
            BundleContent(
                name="kept",
                version="1.2.3",
                licence="CC0-1.0",
                created_by="voxpress 0.1.0",
                models=models,
                exported=exported,
                artifacts={"2bit": artifact},
                primary="2bit",
                golden=synthesise(draw_voice(rng), draw_session(rng), 2400, rng)[:2400],
                calibrations=(models / "calibration",),
                recipe_json='{"name": "kept"}\n',
            ),
        )
    write_signature(folder, manifest.json_bytes(), KEY)


def _write_small_calibration(folder: Path, weights_sha256: str) -> None:
    """Of scores that were drawn, not measured."""
    rng = np.random.default_rng(0)
    trials = [Trial(number < 50, f"a/{number}", f"{'a' if number < 50 else 'b'}/{number}") for number in range(400)]
    speakers = {name: name[0] for trial in trials for name in (trial.enrolment, trial.test)}
    scored = ScoredTrials(trials, np.where(np.arange(400) < 50, 1.0, 0.0) + 0.5 * rng.normal(size=400), speakers)
    request = CalibrationRequest(rates=(0.1,), resampling=Resampling(draws=20))
    write_calibration(
        folder,
        Calibration(
            created_by="voxpress 0.1.0",
            subject=Subject(name="2bit", kind="artifact", sha256=weights_sha256),
            runtime="torch",
            score="cosine",
            cohort=None,
            trials=CalibrationTrials(
                list_sha256="0" * 64, target_trials=50, nontarget_trials=350, utterances=800, speakers=2
            ),
            **calibration_figures(scored, request),
        ),
    )


def as_text(bundle: Path, kept: Path) -> None:
    """Write a bundle's folder as text files."""
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        target = kept / path.relative_to(bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in TEXT:
            target.write_bytes(path.read_bytes())
            continue
        text = base64.b64encode(path.read_bytes()).decode()
        lines = [text[start : start + 100] for start in range(0, len(text), 100)]
        target.with_name(f"{target.name}.base64").write_text("\n".join(lines) + "\n")


def from_text(kept: Path, bundle: Path) -> None:
    """The way back."""
    for path in sorted(path for path in kept.rglob("*") if path.is_file()):
        target = bundle / path.relative_to(kept)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".base64":
            target.with_suffix("").write_bytes(base64.b64decode(path.read_text()))
        else:
            target.write_bytes(path.read_bytes())


def public_key(path: Path) -> Path:
    """Write the public half of the key that kept bundles are signed with."""
    path.write_bytes(
        KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        write_small_bundle(Path(name) / "bundle")
        as_text(Path(name) / "bundle", Path(sys.argv[1]))
