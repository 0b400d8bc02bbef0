from __future__ import annotations

import hashlib

import pytest
from lhotse import CutSet

from pipeline.corpus.read import speakers_of
from pipeline.corpus.split import held_out_speakers, segment_cuts, speaker_hash, split_speakers
from pipeline.errors import InputError
from tests.pipeline.corpus.corpora import cut


def _cuts(speakers: int, utterances: int, seconds: float = 10.0) -> CutSet:
    return CutSet.from_cuts(cut(f"s{s:03d}/u{u}.wav", seconds) for s in range(speakers) for u in range(utterances))


def test_hash_is_that_of_the_name() -> None:
    assert speaker_hash("id10270") == pytest.approx(int(hashlib.sha256(b"id10270").hexdigest(), 16) / 2**256)


def test_about_the_fraction_is_held_out_whatever_the_others_are() -> None:
    names = [f"s{s:03d}" for s in range(400)]
    held = held_out_speakers(names, 0.25)
    assert 70 < len(held) < 130
    assert held_out_speakers(names[::2], 0.25) == held & set(names[::2])
    assert held_out_speakers(names, 0.1) < held


def test_two_are_held_out_of_few() -> None:
    assert len(held_out_speakers(["a", "b", "c", "d"], 0.001)) == 2


def test_speakers_are_apart() -> None:
    split = split_speakers(_cuts(20, 2), 0.3)
    train, held = (set(speakers_of(cuts).values()) for cuts in (split.train, split.held_out))
    assert not train & held
    assert len(train | held) == 20
    assert len(split.train) + len(split.held_out) == 40


def test_segments_make_targets_of_single_utterances() -> None:
    with pytest.raises(InputError, match=r"my corpus: expected at least 2 .* held-out speakers with two utterances"):
        split_speakers(_cuts(20, 1), 0.3, corpus="my corpus")
    split = split_speakers(_cuts(20, 1), 0.3, segment_seconds=3.0)
    assert all(held.duration == 3.0 for held in split.held_out)
    assert all(trained.duration == 10.0 for trained in split.train)


@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_too_few_speakers(speakers: int) -> None:
    with pytest.raises(InputError, match="at least 2 speakers to train on and 2 to hold out"):
        split_speakers(_cuts(speakers, 3), 0.5)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        split_speakers(_cuts(20, 2), fraction)


def test_windows_are_whole_and_named() -> None:
    segments = list(segment_cuts([cut("a/x.wav", 10.0), cut("b/short.wav", 2.9), cut("b/y.wav", 3.0)], 3.0))
    assert [segment.id for segment in segments] == ["a/x.wav#0", "a/x.wav#1", "a/x.wav#2", "b/y.wav#0"]
    assert [segment.start for segment in segments] == [0.0, 3.0, 6.0, 0.0]
    assert {segment.num_samples for segment in segments} == {48000}
    assert speakers_of(segments)["a/x.wav#2"] == "a"


def test_odd_lengths_give_windows_of_the_same_number_of_samples() -> None:
    segments = list(segment_cuts([cut("a/x.wav", 123457 / 16000)], 0.7))
    assert len(segments) == 11
    assert {segment.num_samples for segment in segments} == {11200}


def test_nothing_long_enough() -> None:
    with pytest.raises(InputError, match=r"one of at least 3 s, found 2.5 s at most"):
        segment_cuts([cut("a/x.wav", 2.5)], 3.0)
