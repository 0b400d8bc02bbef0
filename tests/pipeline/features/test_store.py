from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from lhotse import CutSet

from pipeline.corpus.audio import read_utterance
from pipeline.corpus.read import read_corpus
from pipeline.corpus.split import segment_cuts
from pipeline.errors import InputError
from pipeline.features.fbank import fbank, features
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource, extract_features
from tests.pipeline.corpus.corpora import write_corpus

SPEC = FrontEndSpec()
Cache = Literal["memory", "none"]


@pytest.fixture
def cuts(tmp_path: Path) -> CutSet:
    write_corpus(tmp_path, ["a/1.flac", "a/2.wav"], seconds=1.5)
    return read_corpus(tmp_path)


def _samples(tmp_path: Path, cut_id: str) -> np.ndarray:
    return read_utterance(tmp_path / cut_id, 16000, 0.3)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_whole_cuts_and_crops(tmp_path: Path, cuts: CutSet, cache: Cache) -> None:
    source = FeatureSource(cuts, SPEC, cache)
    assert source.ids == ("a/1.flac", "a/2.wav")
    for cut_id in source.ids:
        whole = fbank(_samples(tmp_path, cut_id), SPEC)
        assert source.frames(cut_id) == len(whole)
        np.testing.assert_array_equal(source.crop(cut_id, 31, 50), whole[31:81])
        np.testing.assert_array_equal(source.full(cut_id), whole)
        np.testing.assert_array_equal(source.crop(cut_id, len(whole) - 1, 1), whole[-1:])


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_windows_of_recordings(tmp_path: Path, cuts: CutSet, cache: Cache) -> None:
    source = FeatureSource(segment_cuts(cuts, 0.7), SPEC, cache)
    second = fbank(_samples(tmp_path, "a/2.wav")[11200:22400], SPEC)
    np.testing.assert_array_equal(source.full("a/2.wav#1"), second)
    np.testing.assert_array_equal(source.crop("a/2.wav#1", 5, 20), second[5:25])


def test_memory_outlives_the_files_and_none_does_not(tmp_path: Path, cuts: CutSet) -> None:
    kept, unkept = FeatureSource(cuts, SPEC, "memory"), FeatureSource(cuts, SPEC, "none")
    calls: list[tuple[int, int]] = []
    kept.preload(lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    (tmp_path / "a" / "1.flac").unlink()
    assert kept.crop("a/1.flac", 0, 10).shape == (10, 80)
    with pytest.raises(InputError, match="no such file"):
        unkept.crop("a/1.flac", 0, 10)


@pytest.mark.parametrize(("offset", "frames"), [(-1, 5), (0, 0), (0, 149), (148, 1)])
def test_crops_outside_a_cut(cuts: CutSet, offset: int, frames: int) -> None:
    with pytest.raises(InputError, match=r"a/1\.flac: expected frames .* found 148 frames"):
        FeatureSource(cuts, SPEC).crop("a/1.flac", offset, frames)


def test_unknown_double_and_short_cuts(cuts: CutSet) -> None:
    with pytest.raises(InputError, match="no such cut"):
        FeatureSource(cuts, SPEC).full("a/3.flac")
    with pytest.raises(InputError, match=r"a/1\.flac twice"):
        FeatureSource([*cuts, *cuts], SPEC)
    with pytest.raises(InputError, match=r"at least 0.3 s, found 0.2 s"):
        FeatureSource(segment_cuts(cuts, 0.2), SPEC)


def test_extracted_features_are_mean_normalised(tmp_path: Path, cuts: CutSet) -> None:
    extracted = extract_features(cuts, SPEC)
    assert list(extracted) == ["a/1.flac", "a/2.wav"]
    for cut_id, found in extracted.items():
        np.testing.assert_array_equal(found, features(_samples(tmp_path, cut_id), SPEC))
