"""Features of a corpus: whole utterances or crops, from memory or from the samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from lhotse import MonoCut
from numpy.typing import NDArray

from pipeline.corpus.audio import read_utterance
from pipeline.corpus.read import Progress
from pipeline.errors import InputError
from pipeline.features.fbank import fbank, frames_of, mean_normalise, samples_of
from pipeline.features.spec import FrontEndSpec


class FeatureSource:
    """Log-mel features (without mean normalisation) of the cuts of a corpus, by cut id.

    Cuts may be whole recordings or windows of them. With cache "memory" the fbank of a cut is kept once computed (about
    32 kB per second of audio with 80 mel bins and a 10 ms shift); with "none" a crop reads and computes only its own
    samples. Both give the same numbers. Audio faults surface as `read_utterance`'s InputErrors.
    """

    def __init__(
        self, cuts: Iterable[MonoCut], spec: FrontEndSpec, cache: Literal["memory", "none"] = "memory"
    ) -> None:
        """Raises InputError if two cuts have one id or a cut is shorter than `spec.min_seconds`."""
        self.spec = spec
        self.cache = cache
        self._cuts: dict[str, MonoCut] = {}
        self._kept: dict[str, NDArray[np.float32]] = {}
        for cut in cuts:
            if cut.id in self._cuts:
                raise InputError("cuts", expected="distinct ids", found=f"{cut.id} twice")
            if cut.num_samples < round(spec.min_seconds * spec.sample_rate_hz):
                raise InputError(cut.id, expected=f"at least {spec.min_seconds:g} s", found=f"{cut.duration:.4g} s")
            self._cuts[cut.id] = cut

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the cuts, in the order in which they came."""
        return tuple(self._cuts)

    def frames(self, cut_id: str) -> int:
        """Frames of a cut, from its length alone."""
        return frames_of(self._cut(cut_id).num_samples, self.spec)

    def full(self, cut_id: str) -> NDArray[np.float32]:
        """Fbank of a whole cut: float32 [frames, mel]. Do not write into it: it may be the cached array."""
        kept = self._kept.get(cut_id)
        if kept is None:
            kept = fbank(_samples(self._cut(cut_id), self.spec), self.spec)
            if self.cache == "memory":
                self._kept[cut_id] = kept
        return kept

    def crop(self, cut_id: str, offset: int, frames: int) -> NDArray[np.float32]:
        """Frames [offset, offset + frames) of a cut's fbank: float32 [frames, mel].

        Raises InputError if the cut does not have them.
        """
        available = self.frames(cut_id)
        if offset < 0 or frames < 1 or offset + frames > available:
            raise InputError(cut_id, expected=f"frames {offset} to {offset + frames}", found=f"{available} frames")
        if self.cache == "memory":
            return self.full(cut_id)[offset : offset + frames]
        first = offset * self.spec.shift_samples
        samples = _samples(self._cut(cut_id), self.spec, first, samples_of(frames, self.spec))
        return fbank(samples, self.spec)

    def sample_count(self, cut_id: str) -> int:
        """Samples of a cut."""
        return int(self._cut(cut_id).num_samples)

    def samples(self, cut_id: str, first: int, count: int) -> NDArray[np.float32]:
        """Samples [first, first + count) of a cut, never cached: float32 [count] in [-1, 1]."""
        return _samples(self._cut(cut_id), self.spec, first, count)

    def preload(self, progress: Progress | None = None) -> None:
        """Compute the fbank of every cut now, for workers forked later to share. No effect without cache."""
        if self.cache == "memory":
            for done, cut_id in enumerate(self._cuts, start=1):
                self.full(cut_id)
                if progress is not None:
                    progress(done, len(self._cuts))

    def _cut(self, cut_id: str) -> MonoCut:
        if cut_id not in self._cuts:
            raise InputError(cut_id, expected=f"one of {len(self._cuts)} cuts", found="no such cut")
        return self._cuts[cut_id]


def extract_features(
    cuts: Iterable[MonoCut], spec: FrontEndSpec, progress: Progress | None = None
) -> dict[str, NDArray[np.float32]]:
    """Network input of every cut by id: mean-normalised log-mel, float32 [frames, mel].

    Raises InputError for faulty audio, two cuts of one id and cuts shorter than `spec.min_seconds`.
    """
    source = FeatureSource(cuts, spec, cache="none")
    extracted = {}
    for done, cut_id in enumerate(source.ids, start=1):
        extracted[cut_id] = mean_normalise(source.full(cut_id))
        if progress is not None:
            progress(done, len(source.ids))
    return extracted


def _samples(cut: MonoCut, spec: FrontEndSpec, first: int = 0, count: int | None = None) -> NDArray[np.float32]:
    """Samples [first, first + count) of a cut, or all of it, read from the cut's place in its recording."""
    start = round(cut.start * cut.sampling_rate) + first
    frames = int(cut.num_samples) if count is None else count
    path = cut.recording.sources[0].source
    return read_utterance(path, spec.sample_rate_hz, spec.min_seconds, start=start, frames=frames)
