"""Is an emitted model the network it was made from? Its embeddings are compared with the reference's."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from exporters.long_audio import embed_long
from exporters.manifest import ModelInput
from exporters.pte.run import PteRunner
from exporters.tflite.run import TfliteRunner
from pipeline.artifact.decode import decode
from pipeline.artifact.store import LoadedArtifact
from pipeline.errors import VerificationError
from pipeline.features.fbank import features, max_frames, min_frames, samples_of
from pipeline.features.spec import FrontEndSpec

TOLERANCE = 1e-4  # relative; fp32 sums in another order stay well below it, a wrong layout or padding far above

Floats = npt.NDArray[np.float32]

# Lengths around everything that could round differently: odd, even, one more than a multiple of the total stride of 8.
_FRAME_COUNTS = (98, 200, 301)


def verify_model(
    data: bytes, file_format: Literal["pte", "tflite"], artifact: LoadedArtifact, *, max_seconds: float, name: str
) -> float:
    """Largest relative error max|e - r| / max|r| of the model's embeddings e to the reference's r.

    Checked on seeded noise of the shortest and the longest length allowed (at most 1000 frames) and some between, and
    of two and a half chunks if the model has a policy for long audio. What a model that takes samples is compared with
    are the reference's embeddings of the features that training computes (kaldi-native-fbank).
    Raises VerificationError if it exceeds 1e-4.
    """
    with _native_chatter_held_back():
        return _largest_error(data, file_format, artifact, max_seconds, name)


def _largest_error(
    data: bytes, file_format: Literal["pte", "tflite"], artifact: LoadedArtifact, max_seconds: float, name: str
) -> float:
    reference = decode(artifact)
    spec = artifact.header.frontend
    longest = max_frames(max_seconds, spec)
    counts = {min_frames(spec), min(longest, 1000), *(count for count in _FRAME_COUNTS if count <= longest)}
    runner = PteRunner(data) if file_format == "pte" else TfliteRunner(data)
    manifest = runner.manifest
    if manifest.long_audio is not None:
        counts.add(manifest.long_audio.chunk_frames * 5 // 2)
    worst = 0.0
    rng = np.random.default_rng(0)

    def wanted_of(chunk: Floats) -> Floats:
        with torch.inference_mode():
            frames = chunk if chunk.ndim == 2 else features(chunk, spec)
            embedding: Floats = reference(torch.from_numpy(frames)[None])[0].numpy()
        return embedding

    for count in sorted(counts):
        utterance = _noise(rng, count, spec, manifest.input)
        wanted = embed_long(wanted_of, utterance, manifest)
        error = float(np.abs(embed_long(runner.embed, utterance, manifest) - wanted).max() / np.abs(wanted).max())
        if not error <= TOLERANCE:  # also catches NaN
            what = f"embeddings within {TOLERANCE:g} of the reference's at {count} frames"
            raise VerificationError(f"{name}: expected {what}, found {error:.3g}")
        worst = max(worst, error)
    return worst


def _noise(rng: np.random.Generator, frames: int, spec: FrontEndSpec, model_input: ModelInput) -> Floats:
    """Features [frames, mel] or as many samples as give so many frames."""
    if model_input == "fbank":
        return rng.normal(0.0, 2.0, (frames, spec.num_mel_bins)).astype(np.float32)
    samples = rng.normal(0.0, 0.1, samples_of(frames, spec)) * np.abs(np.sin(np.arange(samples_of(frames, spec)) / 2e3))
    return np.clip(samples, -1, 1).astype(np.float32)


@contextmanager
def _native_chatter_held_back() -> Iterator[None]:
    """Both runtimes greet on the process's stderr from C++; it is shown only if something fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BaseException:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
