"""The one input that models are timed on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


def cut_for_speed(features: Mapping[str, npt.NDArray[np.float32]], frames: int) -> npt.NDArray[np.float32]:
    """The first utterance, by name, with at least `frames` frames, cut to [frames, mel]; samples [S] likewise.

    If none is long enough, the first utterance with its frames repeated.
    """
    names = sorted(features)
    name = next((name for name in names if len(features[name]) >= frames), names[0])
    chosen = features[name]
    repeats = -(-frames // len(chosen))
    return np.ascontiguousarray(np.concatenate([chosen] * repeats)[:frames])
