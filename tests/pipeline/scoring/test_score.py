from __future__ import annotations

import numpy as np
import pytest

from pipeline.corpus.trials import Trial
from pipeline.errors import InputError
from pipeline.scoring.metrics import DetectionCost, Resampling, eer, min_dcf
from pipeline.scoring.score import (
    Evaluation,
    cosine_scores,
    evaluate_embeddings,
    trial_labels,
    trial_speakers,
)


def _system(seed: int = 0, speakers: int = 6, utterances: int = 4) -> tuple[dict, list[Trial], dict[str, str]]:
    rng = np.random.default_rng(seed)
    who = {f"s{s}/{u}": f"s{s}" for s in range(speakers) for u in range(utterances)}
    means = {f"s{s}": rng.normal(size=8) for s in range(speakers)}
    embeddings = {name: (means[speaker] + rng.normal(size=8)).astype(np.float32) for name, speaker in who.items()}
    names = list(who)
    trials = [Trial(who[a] == who[b], a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    return embeddings, trials, who


def test_cosines() -> None:
    embeddings = {
        "x": np.array([1.0, 0.0]),
        "y": np.array([0.0, 2.0], dtype=np.float32),
        "z": np.array([-3.0, 0.0]),
        "d": np.array([1e-200, 1e-200]),
        "big": np.array([1e200, 0.0]),
    }
    trials = [Trial(False, *pair) for pair in (("x", "y"), ("x", "z"), ("x", "x"), ("x", "d"), ("big", "d"))]
    found = cosine_scores(embeddings, trials)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [0, -1, 1, np.sqrt(0.5), np.sqrt(0.5)], atol=1e-15)


def test_scores_do_not_depend_on_length_or_order() -> None:
    embeddings, trials, _ = _system()
    scores = cosine_scores(embeddings, trials)
    longer = {name: 17 * embedding for name, embedding in embeddings.items()}
    np.testing.assert_allclose(cosine_scores(longer, trials), scores, atol=1e-6)
    np.testing.assert_array_equal(cosine_scores(embeddings, trials[::-1]), scores[::-1])


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (np.array([np.nan, 1.0]), "NaN or infinite"),
        (np.array([np.inf, 1.0]), "NaN or infinite"),
        (np.zeros(2), "all zero"),
        (np.ones(3), r"\(3,\)"),
        (np.ones((1, 2)), r"\(1, 2\)"),
    ],
)
def test_bad_embeddings_are_named(bad: np.ndarray, found: str) -> None:
    with pytest.raises(InputError, match=f"utt: expected .* found .*{found}"):
        cosine_scores({"a": np.ones(2), "utt": bad}, [Trial(True, "a", "utt")])


def test_missing_embedding_and_no_trials() -> None:
    with pytest.raises(InputError, match="gone: expected an embedding among 1"):
        cosine_scores({"a": np.ones(2)}, [Trial(True, "a", "gone")])
    with pytest.raises(InputError, match="at least one trial"):
        cosine_scores({"a": np.ones(2)}, [])


def test_evaluation_says_what_the_metrics_say() -> None:
    embeddings, trials, who = _system()
    scores, labels = cosine_scores(embeddings, trials), trial_labels(trials)
    found = evaluate_embeddings(embeddings, trials, speakers=who, resampling=Resampling(draws=300))
    assert found.eer == eer(scores, labels).rate
    assert found.threshold == eer(scores, labels).threshold
    assert found.min_dcf == min_dcf(scores, labels)
    assert (found.target_trials, found.nontarget_trials) == (36, 240)
    assert (found.utterances, found.speakers) == (24, 6)
    assert found.eer_interval.unit == "speakers"
    assert found.eer_interval.low <= found.eer <= found.eer_interval.high
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_without_speakers_trials_are_resampled() -> None:
    embeddings, trials, _ = _system()
    found = evaluate_embeddings(embeddings, trials, cost=DetectionCost(p_target=0.5))
    assert found.speakers is None
    assert found.eer_interval.unit == "trials"
    assert found.p_target == 0.5


def test_labels_that_contradict_the_speakers() -> None:
    with pytest.raises(InputError, match=r"trial a b: expected a target trial's speakers, found s1 and s2"):
        trial_speakers([Trial(True, "a", "b")], {"a": "s1", "b": "s2"})
    with pytest.raises(InputError, match="b: expected an utterance whose speaker is known"):
        trial_speakers([Trial(True, "a", "b")], {"a": "s1"})
