"""Augmented training crops: another speed, and noise, music, babble or a room, all drawn from a generator it is given.

Speeds, mixing and reverberation are lhotse's own transforms; what is drawn, and how, is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from lhotse import MonoCut
from lhotse.audio.mixer import AudioMixer
from lhotse.augmentation import ReverbWithImpulseResponse, Speed
from numpy.typing import NDArray

from pipeline.corpus.audio import read_utterance
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.training.settings import AugmentationSettings

Samples = NDArray[np.float32]
Sound = Literal["noise", "music", "speech"]
SOUNDS: tuple[Sound, ...] = ("noise", "music", "speech")


class Augmentation:
    """Alters the samples of crops. `sounds` and `rooms` are cuts of noises and of impulse responses."""

    def __init__(
        self,
        settings: AugmentationSettings,
        sounds: Mapping[Sound, Sequence[MonoCut]],
        rooms: Sequence[MonoCut],
        spec: FrontEndSpec,
    ) -> None:
        self._settings, self._sounds, self._rooms, self._spec = settings, sounds, rooms, spec
        self.speeds = (1.0, *settings.speeds)
        alterations: list[tuple[bool, Callable[[Samples, np.random.Generator], Samples]]] = [
            (bool(sounds.get("noise")), self._noise),
            (bool(sounds.get("music")), self._music),
            (bool(sounds.get("speech")), self._babble),
            (bool(rooms), self._reverb),
        ]
        self._alterations = [alter for possible, alter in alterations if possible]

    def draw_speed(self, rng: np.random.Generator) -> int:
        """Position in `speeds` of a crop's speed, all equally likely."""
        return int(rng.integers(len(self.speeds)))

    def samples_for(self, count: int, speed: int) -> int:
        """Samples that `at_speed` needs to give `count`."""
        return int(np.ceil(count * self.speeds[speed]))

    def at_speed(self, samples: Samples, speed: int, count: int) -> Samples:
        """The first `count` samples of `samples` played at `speeds[speed]`: tempo and pitch change together."""
        if self.speeds[speed] == 1.0:
            return samples[:count]
        faster: Samples = Speed(self.speeds[speed])(samples[None], self._spec.sample_rate_hz)[0, :count]
        return faster

    def alter(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """With the settings' probability one alteration, drawn among those there are sounds for: [count] -> [count].

        Digital silence stays as it is: it has no level that a signal-to-noise ratio could refer to.
        """
        if rng.random() >= self._settings.probability or not self._alterations or not samples.any():
            return samples
        return self._alterations[int(rng.integers(len(self._alterations)))](samples, rng)

    def _noise(self, samples: Samples, rng: np.random.Generator) -> Samples:
        return self._mixed(samples, self._piece("noise", len(samples), rng), self._settings.noise_snr_db, rng)

    def _music(self, samples: Samples, rng: np.random.Generator) -> Samples:
        return self._mixed(samples, self._piece("music", len(samples), rng), self._settings.music_snr_db, rng)

    def _babble(self, samples: Samples, rng: np.random.Generator) -> Samples:
        low, high = self._settings.babble_voices
        voices = [self._piece("speech", len(samples), rng) for _ in range(int(rng.integers(low, high + 1)))]
        babble: Samples = np.sum(voices, axis=0, dtype=np.float32)
        return self._mixed(samples, babble, self._settings.babble_snr_db, rng)

    def _reverb(self, samples: Samples, rng: np.random.Generator) -> Samples:
        room = self._rooms[int(rng.integers(len(self._rooms)))]
        reverberated: Samples = ReverbWithImpulseResponse(rir=room.recording)(samples[None], self._spec.sample_rate_hz)[
            0
        ]
        if not np.isfinite(reverberated).all() or not reverberated.any():
            raise InputError(room.recording.sources[0].source, expected="an impulse response", found="silence")
        return reverberated

    def _piece(self, sound: Sound, count: int, rng: np.random.Generator) -> Samples:
        """`count` samples from a random place of a random sound, repeated if it is shorter."""
        cuts = self._sounds[sound]
        cut = cuts[int(rng.integers(len(cuts)))]
        take = min(count, int(cut.num_samples))
        first = int(rng.integers(cut.num_samples - take + 1))
        path = cut.recording.sources[0].source
        piece = read_utterance(path, self._spec.sample_rate_hz, 0.0, start=first, frames=take)
        return np.resize(piece, count)

    def _mixed(
        self, samples: Samples, noise: Samples, snr_db: tuple[float, float], rng: np.random.Generator
    ) -> Samples:
        mixer = AudioMixer(samples[None], self._spec.sample_rate_hz)
        mixer.add_to_mix(noise[None], snr=rng.uniform(*snr_db))
        mixed: Samples = mixer.mixed_audio[0]
        return mixed
