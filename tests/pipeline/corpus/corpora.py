"""Small corpora on disk and in memory, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment

RATE = 16000


def write_noise(path: Path, seconds: float = 1.0, seed: int = 0, rate: int = RATE) -> None:
    """A file of seeded noise, 16 bit, mono."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate))
    soundfile.write(path, samples, rate, subtype="PCM_16")


def write_corpus(folder: Path, ids: Iterable[str], seconds: float = 1.0) -> None:
    """A corpus of noise with these utterance ids."""
    for seed, utterance in enumerate(ids):
        write_noise(folder / utterance, seconds, seed)


def cut(utterance: str, seconds: float = 10.0) -> MonoCut:
    """A cut without audio; its speaker is the first part of its id."""
    recording = Recording(utterance, [], RATE, round(seconds * RATE), seconds, channel_ids=[0])
    supervision = SupervisionSegment(
        utterance, utterance, 0.0, seconds, channel=0, speaker=utterance.split("/", maxsplit=1)[0]
    )
    return MonoCut(utterance, 0.0, seconds, 0, supervisions=[supervision], recording=recording)
