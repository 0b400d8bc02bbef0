"""Activation ranges measured: the reference network runs over calibration utterances, and each tensor is counted.

Only a histogram of each tensor is kept, so that memory does not grow with the number of utterances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from lhotse import MonoCut
from torch import Tensor

from calibration.ranges import LEVELS, MIN_UTTERANCES, ActivationRanges, RangeChoice, TensorRange, tensor_range
from pipeline.artifact.decode import decode
from pipeline.artifact.schema import INPUT_NAME
from pipeline.artifact.store import LoadedArtifact
from pipeline.errors import InputError
from pipeline.features.fbank import mean_normalise
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource

MAX_FRAMES = 1000  # of an utterance: what comes after ten seconds of one voice brings nothing new

_BINS = 8192  # of a histogram; a byte's step is worth 16 of them or more
_CLIPS = 256  # candidates for each end of a range in the search for the least error

Floats = npt.NDArray[np.float32]


class Histogram:
    """How often which values occurred, in equal bins over [-limit, limit]; the limit doubles as larger values come.

    Doubling merges bins pairwise, so that no value moves out of its bin. Zeros are counted apart: a byte has them
    exactly.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.zeros = 0
        self.limit = 0.0
        self.minimum, self.maximum = math.inf, -math.inf

    def add(self, values: Tensor) -> None:
        """Count values, float32 of any shape. Raises ValueError if one is NaN or infinite."""
        low, high = (float(extreme) for extreme in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN or infinity")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._widen(max(-low, high))
        zeros = values.numel() - int(torch.count_nonzero(values))
        self.zeros += zeros
        if self.limit == 0:
            return
        # The limit is a power of two, so that scaling is exact and equal values always fall into the same bin.
        half = _BINS // 2
        places = (values * (half / self.limit)).floor_().clamp_(max=half - 1).add_(0.5)
        counts = torch.histc(places, _BINS, -half, half).numpy().astype(np.int64)
        counts[half] -= zeros
        self.counts += counts

    def _widen(self, largest: float) -> None:
        if largest <= self.limit:
            return
        if self.limit == 0:
            # A power of two: its doublings and bin edges are exact.
            self.limit = 2.0 ** math.ceil(math.log2(max(largest, 1e-30)))
            return
        while self.limit < largest:
            self.limit *= 2
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(_BINS, np.int64)
            self.counts[_BINS // 4 : 3 * _BINS // 4] = merged

    def range(self, choice: RangeChoice) -> TensorRange:
        """The byte's scale and zero. Raises ValueError if nothing was added."""
        if self.minimum > self.maximum:
            raise ValueError("no values")
        low, high = min(self.minimum, 0.0), max(self.maximum, 0.0)
        if choice.method == "percentile":
            low, high = self._percentile(choice.percentile, low, high)
        elif choice.method == "mse":
            low, high = self._least_error(low, high)
        return tensor_range(self.minimum, self.maximum, low, high)

    def _percentile(self, percentile: float, low: float, high: float) -> tuple[float, float]:
        # The edges of the bins in which the two percentiles of all values, zeros included, lie.
        counts = self.counts.copy()
        counts[_BINS // 2] += self.zeros
        reached = np.cumsum(counts)
        tail = reached[-1] * (1 - percentile / 100)
        edges = np.linspace(-self.limit, self.limit, _BINS + 1)
        first = int(np.searchsorted(reached, tail, side="right"))
        last = int(np.searchsorted(reached, reached[-1] - tail, side="left"))
        return max(low, min(float(edges[min(first, _BINS - 1)]), 0.0)), min(high, max(float(edges[last + 1]), 0.0))

    def _least_error(self, low: float, high: float) -> tuple[float, float]:
        """Ends of the range of least summed squared error, each among 256 parts of the extreme value on its side."""
        edges = np.linspace(-self.limit, self.limit, _BINS + 1)
        centres = (edges[:-1] + edges[1:]) / 2
        parts = np.arange(1, _CLIPS + 1) / _CLIPS
        above, below = centres > 0, centres < 0
        highs, high_errors, high_inside = _clipped(centres[above], self.counts[above], high * parts)
        lows, low_errors, low_inside = _clipped(-centres[below][::-1], self.counts[below][::-1], -low * parts)
        scales = (highs[:, None] + lows[None, :]) / LEVELS
        rounded = scales**2 / 12 * (high_inside[:, None] + low_inside[None, :])
        total = high_errors[:, None] + low_errors[None, :] + rounded
        best_high, best_low = np.unravel_index(np.argmin(total), total.shape)
        return -float(lows[best_low]), float(highs[best_high])


def _clipped(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], clips: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """For values >= 0 in ascending order: the clips, the summed squares of what each cuts off, and how many it keeps.

    sum_{v > c} n (v - c)^2 = sum n v^2 - 2 c sum n v + c^2 sum n, over the values above c.
    """
    if clips[-1] == 0:
        return np.zeros(1), np.zeros(1), np.zeros(1)
    moments = [np.append(np.cumsum((counts * values**power)[::-1])[::-1], 0.0) for power in range(3)]
    first = np.searchsorted(values, clips, side="right")
    errors = moments[2][first] - 2 * clips * moments[1][first] + clips**2 * moments[0][first]
    return clips, np.maximum(errors, 0.0), moments[0][0] - moments[0][first]


def measure_ranges(
    artifact: LoadedArtifact,
    utterances: Iterable[tuple[str, Floats]],
    choice: RangeChoice,
    progress: Callable[[], None] | None = None,
) -> ActivationRanges:
    """Ranges of every tensor of an artifact's program over utterances.

    utterances: name and mean-normalised features, float32 [frames, mel], of each; only the first 1000 frames are used.
    `progress` is called after each.
    Raises InputError, naming the utterance, for features that are not finite or make a tensor that is not, and if there
    are fewer than 4 utterances.
    """
    network = decode(artifact)
    histograms = {name: Histogram() for name in (INPUT_NAME, *(node.name for node in artifact.header.program))}
    count = frames = 0
    for utterance, features in utterances:
        with torch.inference_mode():
            values = network.values(torch.from_numpy(features[:MAX_FRAMES])[None])
        for name, value in values.items():
            try:
                histograms[name].add(value)
            except ValueError as error:
                raise InputError(
                    f"activations of {utterance}", expected="finite values", found=f"{error} in {name}"
                ) from None
        count += 1
        frames += min(len(features), MAX_FRAMES)
        if progress is not None:
            progress()
    if count < MIN_UTTERANCES:
        expected = f"at least {MIN_UTTERANCES} calibration utterances"
        raise InputError("activation ranges", expected=expected, found=str(count))
    return ActivationRanges(
        artifact=artifact.header.name,
        artifact_sha256=artifact.sha256,
        frontend=artifact.header.frontend,
        utterances=count,
        frames=frames,
        choice=choice,
        tensors={name: histogram.range(choice) for name, histogram in histograms.items()},
    )


class CalibrationFeatures(Mapping[str, Floats]):
    """Mean-normalised features [frames, mel] of `count` of the cuts by id, spread evenly over them; all if fewer.

    Of each at most the first 1000 frames. Read and computed when asked for, and not kept. Getting one raises InputError
    for faulty audio.
    """

    def __init__(self, cuts: Sequence[MonoCut], spec: FrontEndSpec, count: int) -> None:
        chosen = [cuts[index * len(cuts) // count] for index in range(count)] if count < len(cuts) else cuts
        self._source = FeatureSource(chosen, spec, cache="none")

    def __getitem__(self, cut_id: str) -> Floats:
        frames = min(self._source.frames(cut_id), MAX_FRAMES)
        return mean_normalise(self._source.crop(cut_id, 0, frames))

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.ids)

    def __len__(self) -> int:
        return len(self._source.ids)
