from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_tests.trial_set import read_trial_set
from pipeline.corpus.read import read_corpus, write_cuts
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.progress import Progress
from tests.device_tests.released import Voices, make_voices

QUIET = Progress.silent()


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Voices:
    return make_voices(tmp_path_factory.mktemp("trials"))


def test_a_manifest_stands_for_its_folder(voices: Voices, tmp_path: Path) -> None:
    write_cuts(read_corpus(voices.audio), tmp_path / "cuts.jsonl.gz")
    one, other = (read_trial_set(audio, voices.trials) for audio in (voices.audio, tmp_path / "cuts.jsonl.gz"))
    assert (one.trials, one.utterances, one.speakers) == (other.trials, other.utterances, other.speakers)
    assert len(one.utterances) == 32
    features = [found.features(FrontEndSpec(), QUIET) for found in (one, other)]
    assert features[0].keys() == features[1].keys() == set(one.utterances)
    for name, value in features[0].items():
        np.testing.assert_array_equal(features[1][name], value)


def test_utterances_are_cut(voices: Voices) -> None:
    cut = read_trial_set(voices.audio, voices.trials, crop_seconds=0.4).features(FrontEndSpec(), QUIET)
    assert {len(value) for value in cut.values()} == {38}


def test_an_utterance_that_the_manifest_lacks(voices: Voices, tmp_path: Path) -> None:
    write_cuts(read_corpus(voices.audio), tmp_path / "cuts.jsonl.gz")
    (tmp_path / "list.txt").write_text("1 s000/nothing.wav s000/none.wav\n")
    with pytest.raises(InputError, match=r"list.txt:1: expected an utterance of .*cuts.jsonl.gz"):
        read_trial_set(tmp_path / "cuts.jsonl.gz", tmp_path / "list.txt")
