"""The two-valued palettes of binary layers, beside the adaptive one that k-means with K = 2 gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Floats = npt.NDArray[np.float32]


def static_palette(weights: Floats) -> Floats:
    """[-a, a] with a = mean |w|: the scale of XNOR-Net, which minimises ||W - a sign(W)||^2.

    Raises InputError for weights that are empty or not finite.
    """
    scale = float(np.abs(weights.astype(np.float64)).mean()) if weights.size else float("nan")
    if not np.isfinite(scale):
        raise InputError("weights of a layer", expected="finite values", found="none, NaN or infinity")
    return np.array([-scale, scale], np.float32)


def sign_palette() -> Floats:
    """[-1, 1]: the naive sign, without any scale."""
    return np.array([-1.0, 1.0], np.float32)
