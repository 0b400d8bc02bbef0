"""The whole way from audio to an error rate on real speech, where there is some."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.corpus.read import read_corpus, speakers_of
from pipeline.corpus.split import split_speakers
from pipeline.corpus.trials import all_pairs_trials, check_trials_against, read_trials
from pipeline.features.fbank import fbank
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource, extract_features
from pipeline.scoring.score import evaluate_embeddings
from tests.pipeline.features.kaldi_reference import reference_fbank

ROOT = Path(__file__).resolve().parents[3]
SPEECH = Path(os.environ.get("VOXPRESS_SPEECH") or ROOT.parent / "shared" / "speech")

pytestmark = pytest.mark.skipif(
    not (SPEECH / "dev_trials.txt").is_file(),
    reason=f"no real speech: {SPEECH / 'dev_trials.txt'} is not there (set VOXPRESS_SPEECH)",
)


def test_dev_trials_and_corpus_fit() -> None:
    cuts = read_corpus(SPEECH / "dev")
    trials = read_trials(SPEECH / "dev_trials.txt")
    check_trials_against(trials, speakers_of(cuts), trials_path=SPEECH / "dev_trials.txt", corpus=SPEECH / "dev")
    assert len(cuts) == 40
    assert (sum(trial.target for trial in trials), len(trials)) == (180, 780)
    assert {(t.target, t.enrolment, t.test) for t in trials} == {
        (t.target, t.enrolment, t.test) for t in all_pairs_trials(cuts)
    }


def test_front_end_on_real_speech() -> None:
    spec = FrontEndSpec()
    cuts = read_corpus(SPEECH / "dev").subset(first=2)
    source = FeatureSource(cuts, spec, "none")
    for cut in cuts:
        samples = cut.load_audio()[0]
        np.testing.assert_allclose(source.full(cut.id), reference_fbank(samples, spec), atol=1e-3)
        np.testing.assert_array_equal(source.crop(cut.id, 37, 100), fbank(samples, spec)[37:137])


def test_even_the_plainest_statistics_tell_speakers_apart() -> None:
    cuts = read_corpus(SPEECH / "dev")
    embeddings = {
        name: np.concatenate([found.std(axis=0), *np.percentile(found, (10, 50, 90), axis=0)])
        for name, found in extract_features(cuts, FrontEndSpec()).items()
    }
    centre = np.mean(list(embeddings.values()), axis=0)
    centred = {name: found - centre for name, found in embeddings.items()}
    found = evaluate_embeddings(centred, read_trials(SPEECH / "dev_trials.txt"), speakers=speakers_of(cuts))
    assert 0.0 < found.eer < 0.4
    assert found.eer_interval.low <= found.eer <= found.eer_interval.high


def test_single_utterances_of_training_speakers_split_into_segments() -> None:
    split = split_speakers(read_corpus(SPEECH / "train"), 0.2, segment_seconds=3.0)
    trials = all_pairs_trials(split.held_out, max_trials=4000, seed=1)
    assert len(trials) == 4000
    segments = Counter(speakers_of(split.held_out).values())
    # Fewer than half of the list: all of them are kept.
    assert sum(trial.target for trial in trials) == sum(n * (n - 1) // 2 for n in segments.values()) > 200
