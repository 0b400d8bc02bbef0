"""Enrolments of one bundle against tests of another: whether users must enrol again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from device_tests.subjects import Embedded, Embeddings, How, Runnable, runnables
from device_tests.trial_set import TrialSet, read_trial_set
from exporters.bundle.archive import opened_bundle
from exporters.bundle.contents import check_contents
from exporters.bundle.manifest import Manifest
from exporters.release.compatibility import (
    DEFAULT_MARGIN,
    ComparedModel,
    Compatibility,
    CrossPoint,
    judge,
)
from pipeline.corpus.trials import Trial
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.scoring.metrics import DEFAULT_RESAMPLING, bootstrap_values, percentile_interval, resampled_unit
from pipeline.scoring.operating import ERRORS_TO_SUPPORT_A_RATE
from pipeline.scoring.score import cosine_scores, evaluate_scores, trial_labels, trial_speakers, unit_rows

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class CompatOptions:
    """What `voxpress compat` is asked for beside the bundles and the trials."""

    margin: float = DEFAULT_MARGIN
    old_model: str | None = None  # file; None: the primary artifact's first
    new_model: str | None = None
    crop_seconds: float = 0.0
    threads: int = 1


@dataclass(frozen=True)
class _Side:
    manifest: Manifest
    model: str
    made: Embedded


def compare_versions(
    old: Path, new: Path, *, audio: Path, trials_file: Path, options: CompatOptions, progress: Progress
) -> Compatibility:
    """Score enrolments of the bundle `old` against tests of the bundle `new`, and each bundle by itself.

    Of each bundle one model file of the primary artifact is run by its device engine, by plain cosines. Raises
    InputError naming the file for anything that is not what it should be.
    """
    if not 0 <= options.margin < 1:
        raise InputError("--margin", expected="a rate, 0 or more and below 1", found=f"{options.margin:g}")
    trial_set = read_trial_set(audio, trials_file, crop_seconds=options.crop_seconds)
    first = _embedded(old, options.old_model, trial_set, options, progress)
    second = _embedded(new, options.new_model, trial_set, options, progress)
    trials, labels = trial_set.trials, trial_labels(trial_set.trials)
    pairs = None if trial_set.speakers is None else trial_speakers(trials, trial_set.speakers)
    alone = [cosine_scores(side.made.embeddings, trials) for side in (first, second)]
    across = loss = cosine_mean = None
    points: tuple[CrossPoint, ...] = ()
    if first.manifest.embedding_dim == second.manifest.embedding_dim:
        scores = cross_scores(first.made.embeddings, second.made.embeddings, trials)
        across = evaluate_scores(scores, trials, speakers=trial_set.speakers)
        values = [bootstrap_values(one, labels, speakers=pairs) for one in (scores, *alone)]
        loss = percentile_interval(
            values[0] - np.maximum(values[1], values[2]), unit=resampled_unit(pairs), level=DEFAULT_RESAMPLING.level
        )
        names = list(trial_set.utterances)
        rows = [unit_rows(side.made.embeddings, names) for side in (first, second)]
        cosine_mean = float((rows[0] * rows[1]).sum(axis=1).mean())
        points = _points(second.manifest, scores, alone[1], labels)
    return Compatibility(
        old=_compared(first),
        new=_compared(second),
        trials_sha256=trial_set.sha256,
        margin=options.margin,
        old_alone=evaluate_scores(alone[0], trials, speakers=trial_set.speakers),
        new_alone=evaluate_scores(alone[1], trials, speakers=trial_set.speakers),
        across=across,
        loss=loss,
        cosine_mean=cosine_mean,
        points=points,
        verdict=judge(loss, options.margin),
    )


def cross_scores(enrolments: Embeddings, tests: Embeddings, trials: Sequence[Trial]) -> Scores:
    """Cosine of the enrolment's embedding by one system and the test's by another: [trials].

    enrolments, tests: [E] each, by utterance, of one E. Raises InputError as `cosine_scores`.
    """
    names = sorted({name for trial in trials for name in (trial.enrolment, trial.test)})
    row_of = {name: row for row, name in enumerate(names)}
    one, other = unit_rows(enrolments, names), unit_rows(tests, names)
    enrolled = np.array([row_of[trial.enrolment] for trial in trials])
    tested = np.array([row_of[trial.test] for trial in trials])
    cosines: Scores = np.einsum("ij,ij->i", one[enrolled], other[tested]).clip(-1.0, 1.0)
    return cosines


def _embedded(
    bundle: Path, model: str | None, trial_set: TrialSet, options: CompatOptions, progress: Progress
) -> _Side:
    with opened_bundle(bundle) as folder:
        manifest = check_contents(folder)
        chosen = model or Path(manifest.models_of(manifest.primary)[0].file).name
        with runnables(folder, chosen) as found:
            runnable: Runnable = found[0]
            made = runnable.embed(
                trial_set.inputs(runnable.frontend, runnable.input, progress), How(options.threads), progress
            )
    return _Side(manifest, chosen, made)


def _compared(side: _Side) -> ComparedModel:
    return ComparedModel(
        bundle=f"{side.manifest.name} {side.manifest.version}", model=side.model, runtime=side.made.runtime
    )


def _points(manifest: Manifest, across: Scores, alone: Scores, labels: NDArray[np.bool_]) -> tuple[CrossPoint, ...]:
    calibration = manifest.calibration(manifest.primary)
    if calibration is None or calibration.score != "cosine":
        return ()  # thresholds of normalised scores do not apply to plain cosines
    points = []
    for point in calibration.thresholds:
        false_acceptances = int((across[~labels] >= point.threshold).sum())
        points.append(
            CrossPoint(
                name=point.name,
                threshold=point.threshold,
                far=false_acceptances / int((~labels).sum()) if false_acceptances >= ERRORS_TO_SUPPORT_A_RATE else None,
                frr=float((across[labels] < point.threshold).mean()),
                frr_enrolled_anew=float((alone[labels] < point.threshold).mean()),
            )
        )
    return tuple(points)


def compatibility_tables(found: Compatibility) -> list[Table]:
    """A comparison for the terminal."""
    advice: Mapping[str, str] = {
        "compatible": "compatible: old enrolments keep working",
        "incompatible": "INCOMPATIBLE: users must enrol again",
        "undecided": "UNDECIDED: these trials do not show that old enrolments keep working",
    }
    table = Table("enrolment", "test", "EER %", "95 %", "minDCF(0.01)", title=advice[found.verdict])
    rows = [(found.old, found.old, found.old_alone), (found.new, found.new, found.new_alone)]
    if found.across is not None:
        rows.insert(1, (found.old, found.new, found.across))
    for enrolment, test, one in rows:
        interval = f"{100 * one.eer_interval.low:.2f} .. {100 * one.eer_interval.high:.2f}"
        table.add_row(enrolment.bundle, test.bundle, f"{100 * one.eer:.2f}", interval, f"{one.min_dcf:.3f}")
    table.caption = found.sentence()
    if not found.points:
        return [table]
    points = Table("threshold of the new version", "score", "FAR %", "FRR %, old enrolments", "FRR %, enrolled anew")
    for point in found.points:
        points.add_row(
            point.name,
            f"{point.threshold:.4f}",
            "-" if point.far is None else f"{100 * point.far:.3g}",
            f"{100 * point.frr:.2f}",
            f"{100 * point.frr_enrolled_anew:.2f}",
        )
    return [table, points]
