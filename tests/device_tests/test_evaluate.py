from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from device_tests.evaluate import evaluate, evaluation_table, make_cohort
from exporters.pte.emit import emit_pte
from pipeline.artifact.decode import decode
from pipeline.artifact.embed import embed
from pipeline.artifact.store import LoadedArtifact, write_artifact
from pipeline.corpus.read import read_corpus, write_cuts
from pipeline.corpus.shar import write_shards
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.corpus.trials import all_pairs_trials, write_trials
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import extract_features
from pipeline.progress import Progress
from pipeline.scoring.score import as_norm_scores, evaluate_scores
from tests.factories import tiny_artifact

QUIET = Progress(Console(quiet=True))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, voices to try it on, and voices of others for its cohort."""
    folder = tmp_path_factory.mktemp("evaluate")
    size = {"sessions": 1, "utterances_per_session": 2, "seconds": (0.5, 0.6)}
    make_synthetic_corpus(folder / "voices", speakers=4, seed=1, **size)
    make_synthetic_corpus(folder / "others", speakers=6, seed=2, **size)
    write_trials(all_pairs_trials(read_corpus(folder / "voices")), folder / "trials.txt")
    (folder / "model").mkdir()
    write_artifact(folder / "model", tiny_artifact())
    return folder


def _cohort(place: Path, corpus: Path, out: Path, utterances: int = 2) -> int:
    return make_cohort(place / "model", corpus=corpus, out=out, utterances_per_speaker=utterances, progress=QUIET)


def test_a_cohort_is_one_mean_direction_for_each_speaker(place: Path, tmp_path: Path) -> None:
    assert _cohort(place, place / "others", tmp_path / "c.safetensors") == 6
    cohort = load_file(tmp_path / "c.safetensors")
    cuts = read_corpus(place / "others")
    artifact = tiny_artifact()
    embeddings = embed(decode(artifact), extract_features(cuts, artifact.header.frontend), QUIET, "e")
    for speaker in ("s000", "s005"):
        own = [value / np.linalg.norm(value) for name, value in embeddings.items() if name.startswith(speaker)]
        assert len(own) == 2
        np.testing.assert_allclose(cohort[speaker], np.mean(own, axis=0), atol=1e-5)
    write_cuts(cuts, tmp_path / "others.jsonl.gz")
    _cohort(place, tmp_path / "others.jsonl.gz", tmp_path / "again.safetensors")
    write_shards(cuts, tmp_path / "shards")
    _cohort(place, tmp_path / "shards", tmp_path / "from-shards.safetensors")
    for again in ("again", "from-shards"):
        assert (tmp_path / f"{again}.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()
    _cohort(place, place / "others", tmp_path / "one.safetensors", utterances=1)
    assert np.linalg.norm(load_file(tmp_path / "one.safetensors")["s000"]) == pytest.approx(1, abs=1e-5)


def test_evaluate_with_a_cohort_normalises_scores(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    _cohort(place, place / "others", file)
    arguments = {"audio": place / "voices", "trials_file": place / "trials.txt", "progress": QUIET}
    (raw,) = evaluate(place / "model", **arguments)
    (found,) = evaluate(place / "model", **arguments, cohort_file=file, cohort_top=4)
    cuts = read_corpus(place / "voices")
    artifact = tiny_artifact()
    embeddings = embed(decode(artifact), extract_features(cuts, artifact.header.frontend), QUIET, "e")
    trials = all_pairs_trials(cuts)
    wanted = evaluate_scores(as_norm_scores(embeddings, trials, load_file(file), top=4), trials)
    assert found.evaluation.threshold == pytest.approx(wanted.threshold, rel=1e-4)
    assert found.evaluation.eer == pytest.approx(wanted.eer)
    assert found.evaluation.threshold != pytest.approx(raw.evaluation.threshold, rel=1e-2)


def test_embeddings_are_compared_with_a_reference(place: Path, tmp_path: Path) -> None:
    other = tiny_artifact(seed=1)
    (tmp_path / "other").mkdir()
    write_artifact(tmp_path / "other", other)
    arguments = {"audio": place / "voices", "trials_file": place / "trials.txt", "progress": QUIET}
    (same,) = evaluate(place / "model", **arguments, reference=place / "model")
    (found,) = evaluate(place / "model", **arguments, reference=tmp_path / "other")
    assert same.to_reference is not None
    assert same.to_reference.cosine_min == pytest.approx(1)
    assert found.to_reference is not None
    assert found.reference == "other"
    cuts = read_corpus(place / "voices")
    one, two = (
        embed(decode(artifact), extract_features(cuts, artifact.header.frontend), QUIET, "e")
        for artifact in (tiny_artifact(), other)
    )
    cosines = [one[name] @ two[name] / np.linalg.norm(one[name]) / np.linalg.norm(two[name]) for name in one]
    assert found.to_reference.cosine_min == pytest.approx(min(cosines), abs=1e-5)
    assert found.to_reference.cosine_mean == pytest.approx(np.mean(cosines), abs=1e-5)
    titles = [str(column.header) for column in evaluation_table([found]).columns]
    assert titles[-2:] == ["cosine to other: mean", "least"]


def test_a_reference_of_another_front_end_is_refused(place: Path, tmp_path: Path) -> None:
    artifact = tiny_artifact()
    header = artifact.header.model_copy(update={"frontend": FrontEndSpec(window="povey")})
    (tmp_path / "other").mkdir()
    write_artifact(tmp_path / "other", LoadedArtifact(header, artifact.layers))
    arguments = {"audio": place / "voices", "trials_file": place / "trials.txt", "progress": QUIET}
    with pytest.raises(InputError, match="other: expected a model with the front end of model, found another"):
        evaluate(place / "model", **arguments, reference=tmp_path / "other")


def test_an_utterance_that_is_too_long_is_named_with_what_to_do(place: Path, tmp_path: Path) -> None:
    model = tmp_path / "short.pte"
    model.write_bytes(emit_pte(tiny_artifact(), lowering="voxpress", max_seconds=0.4))
    arguments = {"audio": place / "voices", "trials_file": place / "trials.txt", "progress": QUIET}
    words = r"flac: expected at most 0\.405 s, which short\.pte takes \(cut it with --crop-seconds, or.* found 0\.5"
    with pytest.raises(InputError, match=words):
        evaluate(model, **arguments)
    (one,) = evaluate(model, **arguments, crop_seconds=0.4)
    assert one.runtime.startswith("executorch")


def test_cohort_files_that_are_none(place: Path, tmp_path: Path) -> None:
    arguments = {"audio": place / "voices", "trials_file": place / "trials.txt", "progress": QUIET}
    with pytest.raises(InputError, match=r"c.safetensors: expected a cohort \(.safetensors\), found no such file"):
        evaluate(place / "model", **arguments, cohort_file=tmp_path / "c.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"nothing at all")
    with pytest.raises(InputError, match=r"c.safetensors: expected a cohort"):
        evaluate(place / "model", **arguments, cohort_file=tmp_path / "c.safetensors")
    _cohort(place, place / "others", tmp_path / "c.safetensors")
    with pytest.raises(InputError, match="cohort: expected at least 300 embeddings, found 6"):
        evaluate(place / "model", **arguments, cohort_file=tmp_path / "c.safetensors")
