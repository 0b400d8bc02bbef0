from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.corpus.audio import read_utterance
from pipeline.corpus.read import read_corpus, speakers_of
from pipeline.corpus.split import split_speakers
from pipeline.corpus.synthetic import DESCRIPTION, README_NAME, make_synthetic_corpus, synthetic_utterances
from pipeline.corpus.trials import all_pairs_trials
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import extract_features
from pipeline.scoring.metrics import Resampling
from pipeline.scoring.score import Evaluation, evaluate_embeddings


def _hash(*, speakers: int = 2, seed: int = 5) -> str:
    digest = hashlib.sha256()
    for utterance in synthetic_utterances(speakers, 2, 1, (0.6, 0.9), seed):
        digest.update(utterance.id.encode() + utterance.samples.tobytes())
    return digest.hexdigest()


def test_same_seed_same_samples() -> None:
    assert _hash() == _hash()
    assert _hash() != _hash(seed=6)


def test_an_utterance_does_not_depend_on_the_counts() -> None:
    few = {u.id: u.samples for u in synthetic_utterances(1, 1, 1, (0.6, 0.9), 0)}
    many = {u.id: u.samples for u in synthetic_utterances(2, 2, 2, (0.6, 0.9), 0)}
    assert len(many) == 8
    for name, samples in few.items():
        np.testing.assert_array_equal(many[name], samples)


def test_utterances_differ_and_are_usable() -> None:
    utterances = list(synthetic_utterances(2, 2, 2, (1.0, 1.5), 0))
    assert len({u.samples[:8000].tobytes() for u in utterances}) == 8
    for utterance in utterances:
        assert 16000 <= len(utterance.samples) <= 24000
        assert np.isfinite(utterance.samples).all()
        assert np.abs(utterance.samples).max() < 1.0
        assert 0.005 < utterance.samples.std() < 0.2


def test_written_corpus_reads_as_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    calls: list[tuple[int, int]] = []
    make_synthetic_corpus(
        folder,
        speakers=2,
        sessions=2,
        utterances_per_session=1,
        seconds=(0.6, 0.9),
        seed=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(k, 4) for k in (1, 2, 3, 4)]
    cuts = read_corpus(folder)
    assert sorted(set(speakers_of(cuts).values())) == ["s000", "s001"]
    assert next(iter(cuts)).id == "s000/session0/s000-0-00.flac"
    for utterance in synthetic_utterances(2, 2, 1, (0.6, 0.9), 3):
        written = read_utterance(folder / utterance.id, 16000, 0.3)
        np.testing.assert_allclose(written, utterance.samples, atol=1 / 32768)
    readme = (folder / README_NAME).read_text()
    assert DESCRIPTION in readme
    assert "2 speakers" in readme
    assert "synthetic" in DESCRIPTION.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="new or empty folder"):
        make_synthetic_corpus(tmp_path, speakers=1, sessions=1, utterances_per_session=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((0, 1, 1, (1.0, 2.0), 0), "speakers: expected at least 1, found 0"),
        ((1, 1, -1, (1.0, 2.0), 0), "utterances per session: expected at least 1"),
        ((1, 1, 1, (2.0, 1.0), 0), "rising lengths"),
        ((1, 1, 1, (0.1, 1.0), 0), "rising lengths"),
        ((1, 1, 1, (1.0, 2.0), -1), "seed"),
    ],
)
def test_arguments_out_of_range(arguments: tuple, found: str) -> None:
    with pytest.raises(InputError, match=found):
        next(synthetic_utterances(*arguments))


def _discriminant_evaluation(folder: Path) -> Evaluation:
    """Held-out EER of the plainest learned system: log-mel quantiles over time, and linear discriminants of them."""
    cuts = read_corpus(folder)
    split = split_speakers(cuts, 0.25)
    who = speakers_of(cuts)
    statistics = {
        name: np.concatenate([found.std(axis=0), *np.percentile(found, (10, 50, 90), axis=0)])
        for name, found in extract_features(cuts, FrontEndSpec()).items()
    }
    train = np.stack([statistics[cut.id] for cut in split.train])
    _, speakers = np.unique([who[cut.id] for cut in split.train], return_inverse=True)
    mean, spread = train.mean(axis=0), train.std(axis=0)
    points = (train - mean) / spread
    centres = np.stack([points[speakers == k].mean(axis=0) for k in range(speakers.max() + 1)])
    within = np.cov((points - centres[speakers]).T) + 0.3 * np.eye(points.shape[1])
    whitener = np.linalg.inv(np.linalg.cholesky(within))
    _, directions = np.linalg.eigh(whitener @ np.cov(centres.T) @ whitener.T)
    projection = whitener.T @ directions[:, -20:]
    embeddings = {name: ((found - mean) / spread) @ projection for name, found in statistics.items()}
    return evaluate_embeddings(
        embeddings, all_pairs_trials(split.held_out), speakers=who, resampling=Resampling(draws=200)
    )


@pytest.mark.slow
def test_speakers_can_be_told_apart_but_not_without_error(tmp_path: Path) -> None:
    make_synthetic_corpus(tmp_path / "corpus")
    found = _discriminant_evaluation(tmp_path / "corpus")
    assert found.target_trials > 100
    assert 0.02 < found.eer < 0.25
