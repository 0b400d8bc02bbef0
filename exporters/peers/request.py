"""What every peer is built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.artifact.store import LoadedArtifact

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PeerRequest:
    """A network to be converted into `folder`.

    `artifact` gives the weights (palettes are looked up: every peer starts from floats), `calibration` features
    float32 [frames, mel], each for batch 1, from which int8 peers take their activation ranges; `frames` is the length
    of a peer that takes only one, and `max_seconds` the longest utterance of one that plans its memory.
    """

    artifact: LoadedArtifact
    calibration: Sequence[Floats]
    folder: Path
    frames: int
    max_seconds: float
