"""Voices, trials and bundles that are small enough to calibrate, compare and release within seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifact.store import LoadedArtifact, StoredLayer, write_artifact
from pipeline.corpus.read import read_corpus
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.corpus.trials import all_pairs_trials, write_trials
from pipeline.progress import Progress
from pipeline.stages.bundle import BundleRequest, create_bundle
from tests.factories import tiny_artifact

QUIET = Progress.silent()


@dataclass(frozen=True)
class Voices:
    """A folder of speech and the list of all pairs."""

    audio: Path
    trials: Path


def make_voices(folder: Path) -> Voices:
    make_synthetic_corpus(
        folder / "voices", speakers=8, seed=1, sessions=1, utterances_per_session=4, seconds=(0.5, 0.6)
    )
    write_trials(all_pairs_trials(read_corpus(folder / "voices")), folder / "trials.txt")
    return Voices(folder / "voices", folder / "trials.txt")


def write_tiny(folder: Path, artifact: LoadedArtifact | None = None) -> Path:
    folder.mkdir(parents=True)
    write_artifact(folder, artifact or tiny_artifact())
    return folder


def nudged(artifact: LoadedArtifact, by: float) -> LoadedArtifact:
    """The same network with its last layer's palette moved a little: other weights, nearly the same embeddings."""
    name = artifact.header.layers[-1].name
    last = artifact.layers[name]
    assert last.palette is not None
    rng = np.random.default_rng(0)
    palette = (last.palette * (1 + by * rng.normal(size=last.palette.shape))).astype(np.float32)
    moved = StoredLayer(last.node, last.scale, last.bias, codes=last.codes, palette=palette)
    return LoadedArtifact(artifact.header, {**artifact.layers, name: moved})


def bundled(artifact: Path, out: Path, *calibrations: Path, licence: str = "CC0-1.0") -> Path:
    """A bundle's zip of one artifact."""
    request = BundleRequest(name="tiny", licence=licence, calibrations=calibrations, max_seconds=1.0)
    return create_bundle(artifact, request, out, progress=QUIET)[0]
