"""A corpus that needs no download: synthetic voices, for the demo and for tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipeline.corpus.read import Progress
from pipeline.corpus.synthesis import SAMPLE_RATE_HZ, draw_session, draw_voice, synthesise
from pipeline.errors import InputError, VoxPressError
from pipeline.files import folder_written_whole

DESCRIPTION = (
    "Synthetic voices made by VoxPress's own source-filter synthesiser, not recordings of people. Each speaker has "
    "drawn vocal-tract, pitch, glottal and articulation parameters; each session has its own microphone, room, noise "
    "and level; each utterance its own sequence of speech-like sounds without words. For demonstration and tests only: "
    "error rates measured on it say that the software works and nothing about real speech."
)

README_NAME = "README.txt"

# What a random stream is for; part of its seed, so that streams never coincide.
_VOICE, _SESSION, _UTTERANCE = range(3)


@dataclass(frozen=True)
class SyntheticUtterance:
    """One utterance of the corpus; `id` is its path below the corpus folder."""

    id: str
    samples: NDArray[np.float32]


def make_synthetic_corpus(
    folder: str | PathLike[str],
    *,
    speakers: int = 48,
    sessions: int = 3,
    utterances_per_session: int = 3,
    seconds: tuple[float, float] = (2.5, 4.0),
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Write a synthetic corpus: `<speaker>/<session>/<utterance>.flac`, 16 kHz, 16 bit, mono, and a README.txt.

    Lengths are drawn evenly from `seconds`. The same arguments give the same samples, and a speaker, session or
    utterance is the same whatever the counts are. The folder appears whole or not at all.

    Raises InputError if `folder` is there and not empty, if a count is less than 1, or if `seconds` are not two rising
    lengths of at least 0.5 s; VoxPressError if the folder cannot be written.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(target, expected="a new or empty folder", found="something there already")
    total = speakers * sessions * utterances_per_session
    stream = synthetic_utterances(speakers, sessions, utterances_per_session, seconds, seed)
    with folder_written_whole(target) as partial:
        for done, utterance in enumerate(stream, start=1):
            path = partial / utterance.id
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                soundfile.write(path, utterance.samples, SAMPLE_RATE_HZ, subtype="PCM_16")
            except soundfile.SoundFileError as error:
                raise VoxPressError(f"{target / utterance.id}: could not be written: {error}") from error
            if progress is not None:
                progress(done, total)
        (partial / README_NAME).write_text(
            f"{DESCRIPTION}\n\n{speakers} speakers x {sessions} sessions x {utterances_per_session} utterances of "
            f"{seconds[0]:g} to {seconds[1]:g} s, seed {seed}.\n",
            encoding="utf-8",
        )


def synthetic_utterances(
    speakers: int, sessions: int, utterances_per_session: int, seconds: tuple[float, float], seed: int
) -> Iterator[SyntheticUtterance]:
    """The utterances of `make_synthetic_corpus`, one after the other. Raises InputError as that."""
    for name, count in (
        ("speakers", speakers),
        ("sessions", sessions),
        ("utterances per session", utterances_per_session),
    ):
        if count < 1:
            raise InputError(name, expected="at least 1", found=str(count))
    if not 0.5 <= seconds[0] <= seconds[1]:
        raise InputError("seconds", expected="two rising lengths of at least 0.5 s", found=str(seconds))
    if seed < 0:
        raise InputError("seed", expected="0 or more", found=str(seed))
    for s in range(speakers):
        voice = draw_voice(np.random.default_rng([seed, _VOICE, s]))
        for r in range(sessions):
            session = draw_session(np.random.default_rng([seed, _SESSION, s, r]))
            for u in range(utterances_per_session):
                rng = np.random.default_rng([seed, _UTTERANCE, s, r, u])
                samples = round(float(rng.uniform(*seconds)) * SAMPLE_RATE_HZ)
                name = f"s{s:03d}/session{r}/s{s:03d}-{r}-{u:02d}.flac"
                yield SyntheticUtterance(name, synthesise(voice, session, samples, rng))
