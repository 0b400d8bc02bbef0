"""Held-out speakers and fixed-length segments."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike

from lhotse import CutSet, MonoCut

from pipeline.corpus.read import speaker_of
from pipeline.errors import InputError

_MIN_SPEAKERS = 2  # to tell apart in training, and to make non-target trials of when held out


@dataclass(frozen=True)
class Split:
    """Cuts to train on and cuts of other speakers to evaluate on."""

    train: CutSet
    held_out: CutSet


def speaker_hash(speaker: str) -> float:
    """A number in [0, 1) that depends on nothing but the name: the first 8 bytes of its sha256, divided by 2^64."""
    return int.from_bytes(hashlib.sha256(speaker.encode()).digest()[:8], "big") / 2.0**64


def held_out_speakers(speakers: Iterable[str], fraction: float) -> frozenset[str]:
    """The speakers whose hash lies below `fraction`; if fewer than two do, the two of lowest hash.

    So about `fraction` of the speakers are held out, a speaker stays on its side when others join the corpus, and
    small corpora have the two speakers that non-target trials need.
    """
    ordered = sorted(set(speakers), key=lambda name: (speaker_hash(name), name))
    below = sum(speaker_hash(name) < fraction for name in ordered)
    return frozenset(ordered[: max(below, _MIN_SPEAKERS)])


def split_speakers(
    cuts: CutSet, fraction: float, *, segment_seconds: float | None = None, corpus: str | PathLike[str] = "corpus"
) -> Split:
    """Hold out about `fraction` of the speakers (see `held_out_speakers`).

    With `segment_seconds` the held-out utterances are cut into segments of that length, which makes target trials of
    corpora with one utterance per speaker.

    Raises InputError naming `corpus` if `fraction` is not in (0, 1), if fewer than two speakers are left to train on or
    held out, or if fewer than two of the held-out speakers have the two cuts that a target trial takes.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError("held-out fraction", expected="a number between 0 and 1", found=str(fraction))
    cuts = cuts.to_eager()
    speakers = {speaker_of(cut) for cut in cuts}
    held = held_out_speakers(speakers, fraction)
    if len(speakers - held) < _MIN_SPEAKERS or len(held) < _MIN_SPEAKERS:
        raise InputError(
            corpus,
            expected=f"at least {_MIN_SPEAKERS} speakers to train on and {_MIN_SPEAKERS} to hold out",
            found=f"{len(speakers - held)} and {len(held)}",
        )
    train = CutSet.from_cuts(cut for cut in cuts if speaker_of(cut) not in held)
    held_out = CutSet.from_cuts(cut for cut in cuts if speaker_of(cut) in held)
    if segment_seconds is not None:
        held_out = segment_cuts(held_out, segment_seconds)
    with_target = sum(count >= 2 for count in Counter(speaker_of(cut) for cut in held_out).values())
    if with_target < _MIN_SPEAKERS:
        pieces = "utterances" if segment_seconds is None else f"segments of {segment_seconds:g} s"
        raise InputError(
            corpus,
            expected=f"at least {_MIN_SPEAKERS} of the {len(held)} held-out speakers with two {pieces} or more",
            found=f"{with_target}",
        )
    return Split(train, held_out)


def segment_cuts(cuts: Iterable[MonoCut], seconds: float) -> CutSet:
    """Consecutive windows of exactly `seconds` of every cut, named `<utterance>#0`, `#1`, ...; short tails are dropped.

    Raises InputError if `seconds` is not positive or no cut is that long.
    """
    if not seconds > 0:
        raise InputError("segment length", expected="more than 0 s", found=f"{seconds} s")
    segments, longest = [], 0.0
    for cut in cuts:
        longest = max(longest, cut.duration)
        samples = round(seconds * cut.sampling_rate)
        if cut.num_samples < samples:
            continue
        whole = (window for window in cut.cut_into_windows(seconds) if window.num_samples >= samples)
        segments += [window.with_id(f"{cut.id}#{k}") for k, window in enumerate(whole)]
    if not segments:
        raise InputError("utterances", expected=f"one of at least {seconds:g} s", found=f"{longest:.4g} s at most")
    return CutSet.from_cuts(segments)
