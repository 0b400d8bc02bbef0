from __future__ import annotations

import numpy as np
import pytest

from pipeline.corpus.trials import Trial
from pipeline.errors import InputError
from pipeline.scoring.metrics import DetectionCost, Resampling, eer, min_dcf
from pipeline.scoring.score import (
    Evaluation,
    as_norm_scores,
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


def _cohort(count: int = 40, seed: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"c{k}": rng.normal(size=8).astype(np.float32) for k in range(count)}


@pytest.mark.parametrize("top", [2, 7, 40])
def test_as_norm_is_its_formula(top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.scoring.score._COHORT_BLOCK", 3 * 40)  # several blocks, the last one ragged
    embeddings, trials, _ = _system()
    cohort = _cohort()

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.dot(a.astype(float), b) / np.linalg.norm(a.astype(float)) / np.linalg.norm(b.astype(float)))

    def moments(name: str) -> tuple[float, float]:
        nearest = sorted((cosine(embeddings[name], other) for other in cohort.values()), reverse=True)[:top]
        mean = sum(nearest) / top
        return mean, (sum((value - mean) ** 2 for value in nearest) / top) ** 0.5

    found = as_norm_scores(embeddings, trials, cohort, top=top)
    for trial, score in zip(trials, found, strict=True):
        raw = cosine(embeddings[trial.enrolment], embeddings[trial.test])
        (mean_e, std_e), (mean_t, std_t) = moments(trial.enrolment), moments(trial.test)
        assert score == pytest.approx(((raw - mean_e) / std_e + (raw - mean_t) / std_t) / 2, rel=1e-6)


def test_as_norm_mends_levels_that_differ_between_speakers() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=32)
    embeddings, speakers = {}, {}
    for s in range(20):
        # Half of the speakers share a direction, so that strangers among them score high.
        mean = rng.normal(size=32) + (1.5 * common if s % 2 else 0)
        for u in range(5):
            embeddings[f"s{s}/{u}"] = mean + 0.8 * rng.normal(size=32)
            speakers[f"s{s}/{u}"] = f"s{s}"
    cohort = {f"c{k}": rng.normal(size=32) + (1.5 * common if k % 2 else 0) for k in range(200)}
    names = list(embeddings)
    trials = [Trial(speakers[a] == speakers[b], a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    raw = evaluate_embeddings(embeddings, trials, resampling=Resampling(draws=10))
    normalised = evaluate_embeddings(embeddings, trials, cohort=cohort, cohort_top=50, resampling=Resampling(draws=10))
    assert raw.eer > 0.02
    assert normalised.eer < 0.7 * raw.eer


def test_cohorts_that_do_not_fit() -> None:
    embeddings, trials, _ = _system()
    with pytest.raises(InputError, match="cohort: expected at least 300 embeddings, found 40"):
        as_norm_scores(embeddings, trials, _cohort())
    with pytest.raises(InputError, match="cohort: expected embeddings of 8 values, found 5"):
        as_norm_scores(embeddings, trials, {k: v[:5] for k, v in _cohort().items()}, top=3)
    with pytest.raises(InputError, match="expected different cosines with the cohort, found all the same"):
        as_norm_scores(embeddings, trials, {f"c{k}": np.ones(8) for k in range(5)}, top=3)
    with pytest.raises(InputError, match="c7: expected a finite embedding"):
        as_norm_scores(embeddings, trials, _cohort() | {"c7": np.zeros(8)}, top=3)
