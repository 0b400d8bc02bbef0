"""Training crops as a pure function of (seed, sample number).

Sample k belongs to epoch k // n and takes utterance perm_epoch[k % n] at a random offset, altered as a
generator seeded by (seed, k) says. Nothing else enters, so a
resumed run sees what an uninterrupted one sees, and any number of processes sees the same global batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pipeline.features.fbank import fbank, mean_normalise, samples_of
from pipeline.features.store import FeatureSource
from pipeline.training.augment import Augmentation


class CropDataset(Dataset[tuple[Tensor, int]]):
    """Sample k -> (mean-normalised features [frames, mel], speaker index)."""

    def __init__(
        self,
        source: FeatureSource,
        speakers: Mapping[str, str],
        frames: int,
        seed: int,
        augmentation: Augmentation | None = None,
    ) -> None:
        """`speakers` names the speaker of every utterance; labels are positions in `classes`."""
        self.source, self.frames, self.seed, self.augmentation = source, frames, seed, augmentation
        names = sorted(set(speakers.values()))
        indices = {speaker: index for index, speaker in enumerate(names)}
        self.ids = list(source.ids)
        self.labels = [indices[speakers[utterance]] for utterance in self.ids]
        self._speakers = len(names)
        # A voice at another speed is another voice.
        self.classes = names + [
            f"{name}@{speed:g}" for speed in (augmentation.speeds[1:] if augmentation else ()) for name in names
        ]

    def __getitem__(self, sample: int) -> tuple[Tensor, int]:
        """Crop of sample `sample`; an utterance shorter than the crop is repeated to fill it."""
        count = len(self.ids)
        index = int(_permutation(self.seed, sample // count, count)[sample % count])
        utterance = self.ids[index]
        if self.augmentation is not None:
            crop, speed = self._augmented(self.augmentation, utterance, sample)
            return torch.from_numpy(mean_normalise(crop)), speed * self._speakers + self.labels[index]
        total = self.source.frames(utterance)
        take = min(total, self.frames)
        offset = int(np.random.default_rng([self.seed, 1, sample]).integers(total - take + 1))
        crop = self.source.crop(utterance, offset, take)
        if take < self.frames:
            crop = np.tile(crop, (-(-self.frames // take), 1))[: self.frames]
        return torch.from_numpy(mean_normalise(crop)), self.labels[index]

    def _augmented(
        self, augmentation: Augmentation, utterance: str, sample: int
    ) -> tuple[npt.NDArray[np.float32], int]:
        """Features of a crop altered as samples, and the position of its speed."""
        rng = np.random.default_rng([self.seed, 2, sample])
        wanted = samples_of(self.frames, self.source.spec)
        speed = augmentation.draw_speed(rng)
        needed, total = augmentation.samples_for(wanted, speed), self.source.sample_count(utterance)
        take = min(needed, total)
        samples = self.source.samples(utterance, int(rng.integers(total - take + 1)), take)
        samples = augmentation.at_speed(np.resize(samples, needed), speed, wanted)
        return fbank(augmentation.alter(samples, rng), self.source.spec), speed


class StepSampler(Sampler[list[int]]):
    """Sample numbers of every step from `first_step` to `steps`: this process's share of each global batch."""

    def __init__(self, first_step: int, steps: int, batch: int, rank: int, world_size: int) -> None:
        self.first_step, self.steps, self.batch = first_step, steps, batch
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch // self.world_size
        for step in range(self.first_step, self.steps):
            start = step * self.batch + self.rank * share
            yield list(range(start, start + share))

    def __len__(self) -> int:
        return max(0, self.steps - self.first_step)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)
