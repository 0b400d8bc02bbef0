"""Utterances of noise that a network can learn to tell apart."""

import numpy as np

from pipeline.features.spec import FrontEndSpec


class Noise:
    """Stands in for a FeatureSource: six utterances of three speakers, each speaker with a mean of its own."""

    spec = FrontEndSpec()
    ids = tuple(f"{speaker}/{take}" for speaker in "abc" for take in "01")

    def frames(self, utterance: str) -> int:
        return 20 if utterance == "a/0" else 60

    def crop(self, utterance: str, offset: int, frames: int) -> np.ndarray:
        rng = np.random.default_rng(self.ids.index(utterance))
        speaker = np.random.default_rng(ord(utterance[0])).normal(0, 2, (1, 80))
        whole = rng.normal(size=(60, 80)) + speaker * np.linspace(-1, 1, 60)[:, None]
        return whole[offset : offset + frames].astype(np.float32)


SPEAKERS = {utterance: utterance[0] for utterance in Noise.ids}
