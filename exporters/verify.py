"""Is an emitted model the network it was made from? Its embeddings are compared with the reference's."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from exporters.exported import TOLERANCE
from exporters.native import native_chatter_held_back
from exporters.pte.run import PteRunner
from exporters.tflite.run import TfliteRunner
from pipeline.artifact.decode import decode
from pipeline.artifact.store import LoadedArtifact
from pipeline.errors import VerificationError
from pipeline.features.fbank import max_frames, min_frames

# Lengths around everything that could round differently: odd, even, one more than a multiple of the total stride of 8.
_FRAME_COUNTS = (98, 200, 301)


def verify_model(
    data: bytes, file_format: Literal["pte", "tflite"], artifact: LoadedArtifact, *, max_seconds: float, name: str
) -> float:
    """Largest relative error max|e - r| / max|r| of the model's embeddings e to the reference's r.

    Checked on seeded noise of the shortest and the longest length allowed (at most 1000 frames) and some between.
    Raises VerificationError if it exceeds 1e-4.
    """
    with native_chatter_held_back():
        return _largest_error(data, file_format, artifact, max_seconds, name)


def _largest_error(
    data: bytes, file_format: Literal["pte", "tflite"], artifact: LoadedArtifact, max_seconds: float, name: str
) -> float:
    reference = decode(artifact)
    spec = artifact.header.frontend
    longest = max_frames(max_seconds, spec)
    counts = {min_frames(spec), min(longest, 1000), *(count for count in _FRAME_COUNTS if count <= longest)}
    runner = PteRunner(data) if file_format == "pte" else TfliteRunner(data)
    worst = 0.0
    rng = np.random.default_rng(0)
    for count in sorted(counts):
        features = rng.normal(0.0, 2.0, (count, spec.num_mel_bins)).astype(np.float32)
        with torch.inference_mode():
            wanted = reference(torch.from_numpy(features)[None])[0].numpy()
        error = float(np.abs(runner.embed(features) - wanted).max() / np.abs(wanted).max())
        if not error <= TOLERANCE:  # also catches NaN
            what = f"embeddings within {TOLERANCE:g} of the reference's at {count} frames"
            raise VerificationError(f"{name}: expected {what}, found {error:.3g}")
        worst = max(worst, error)
    return worst
