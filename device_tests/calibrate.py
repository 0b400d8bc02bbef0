"""Calibrates one model: embeddings of a trial list by the model itself, thresholds from its own scores."""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from calibration.calibrate import CalibrationRequest, ScoredTrials, calibration_figures, point_flips, refused_rates
from calibration.record import (
    CALIBRATION_PLOT,
    COHORT_FILE,
    Calibration,
    CalibrationTrials,
    CohortInfo,
    ReferenceFlips,
    write_calibration,
)
from device_tests.evaluate import read_cohort
from device_tests.report.calibration_plot import calibration_plot
from device_tests.subjects import Embeddings, How, one_runnable
from device_tests.trial_set import TrialSet, read_trial_set
from pipeline.errors import InputError
from pipeline.files import folder_written_whole, sha256_file, write_atomically
from pipeline.progress import Progress
from pipeline.scoring.metrics import eer
from pipeline.scoring.score import DEFAULT_COHORT_TOP, as_norm_scores, cosine_scores, trial_labels


@dataclass(frozen=True)
class Normalisation:
    """AS-Norm: the cohort's file, made by the model that is calibrated, and how many of it count."""

    file: Path
    top: int = DEFAULT_COHORT_TOP


@dataclass(frozen=True)
class CalibrateOptions:
    """What `voxpress calibrate` is asked for beside the model and the trials."""

    request: CalibrationRequest = field(default_factory=CalibrationRequest)
    reference: Path | None = None  # the fp32 model whose decisions are compared
    only: str | None = None
    crop_seconds: float = 0.0
    threads: int = 1
    cohort: Normalisation | None = None


def calibrate(
    model: Path, *, audio: Path, trials_file: Path, out: Path, options: CalibrateOptions, progress: Progress
) -> Calibration:
    """Write the calibration of a model into the folder `out`: `calibration.json`, its plot, the cohort if there is one.

    model: as `device_tests.subjects.runnables` takes it, one model; audio: as `read_trial_set` takes it. With
    `options.reference`, scored by plain cosines, the record says which decisions differ from its.

    Raises GateError, and writes nothing, if a rate that was named is more than the trials support; InputError naming
    the file for anything that is not what it should be, and if `out` holds something else than a calibration.
    """
    _check_replaceable(out)
    trial_set = read_trial_set(audio, trials_file, crop_seconds=options.crop_seconds)
    labels = trial_labels(trial_set.trials)
    refused_rates(int((~labels).sum()), options.request)  # before an hour of embedding, not after it
    cohort = None if options.cohort is None else read_cohort(options.cohort.file)
    with one_runnable(model, options.only) as runnable:
        made = runnable.embed(
            trial_set.inputs(runnable.frontend, runnable.input, progress), How(options.threads), progress
        )
        subject, mode = runnable.subject, runnable.mode
    scored = _scored(trial_set, made.embeddings, cohort, options)
    calibration = Calibration(
        created_by=f"voxpress {importlib.metadata.version('voxpress')}",
        subject=subject,
        mode=mode,
        runtime=made.runtime,
        score="cosine" if cohort is None else "as-norm",
        cohort=None
        if options.cohort is None or cohort is None
        else CohortInfo(sha256=sha256_file(options.cohort.file), speakers=len(cohort), top=options.cohort.top),
        trials=CalibrationTrials(
            list_sha256=trial_set.sha256,
            target_trials=int(labels.sum()),
            nontarget_trials=int((~labels).sum()),
            utterances=len(trial_set.utterances),
            speakers=None if trial_set.speakers is None else len(set(trial_set.speakers.values())),
            crop_seconds=options.crop_seconds or None,
        ),
        **calibration_figures(scored, options.request),
    )
    if options.reference is not None:
        flips = _flips(trial_set, scored, calibration, options.reference, options, progress)
        calibration = calibration.model_copy(update={"flips": flips})
    with folder_written_whole(out) as folder:
        write_calibration(folder, calibration)
        write_atomically(folder / CALIBRATION_PLOT, calibration_plot(scored, calibration))
        if options.cohort is not None:
            shutil.copyfile(options.cohort.file, folder / COHORT_FILE)
    return calibration


def _scored(
    trial_set: TrialSet, embeddings: Embeddings, cohort: Embeddings | None, options: CalibrateOptions
) -> ScoredTrials:
    if cohort is None or options.cohort is None:
        scores = cosine_scores(embeddings, trial_set.trials)
    else:
        scores = as_norm_scores(embeddings, trial_set.trials, cohort, top=options.cohort.top)
    return ScoredTrials(trial_set.trials, scores, trial_set.speakers)


def _flips(
    trial_set: TrialSet,
    scored: ScoredTrials,
    calibration: Calibration,
    reference: Path,
    options: CalibrateOptions,
    progress: Progress,
) -> ReferenceFlips:
    with one_runnable(reference) as runnable:
        made = runnable.embed(
            trial_set.inputs(runnable.frontend, runnable.input, progress), How(options.threads), progress
        )
        subject = runnable.subject
    own = ScoredTrials(trial_set.trials, cosine_scores(made.embeddings, trial_set.trials), trial_set.speakers)
    return ReferenceFlips(
        reference=subject,
        reference_eer=eer(own.scores, own.labels).rate,
        points=point_flips(own, scored, calibration.thresholds, options.request),
    )


def _check_replaceable(out: Path) -> None:
    ours = {"calibration.json", CALIBRATION_PLOT, COHORT_FILE}
    if not out.exists():
        return
    if not out.is_dir() or not {path.name for path in out.iterdir()} <= ours:
        found = "other files in it" if out.is_dir() else "a file"
        raise InputError(out, expected="a new or empty folder, or a calibration to be replaced", found=found)


def calibration_tables(calibration: Calibration) -> list[Table]:
    """A calibration for the terminal: thresholds, and what flips against the reference."""
    trials, one = calibration.trials, calibration.evaluation
    thresholds = Table(
        "threshold",
        "score",
        "95 %",
        "llr",
        "FAR %",
        "95 %",
        "FRR %",
        "95 %",
        "errors",
        title=(
            f"{calibration.subject.name}: EER {100 * one.eer:.2f} % "
            f"[{100 * one.eer_interval.low:.2f}, {100 * one.eer_interval.high:.2f}], "
            f"minDCF({one.p_target:g}) {one.min_dcf:.3f}, Cllr {calibration.cllr:.3f} "
            f"(min {calibration.cllr_min:.3f}), {trials.target_trials} target and "
            f"{trials.nontarget_trials} non-target trials"
        ),
        caption="; ".join(
            f"{100 * entry.far:g} % FAR refused: {entry.nontarget_trials} non-target trials, "
            f"it takes {entry.needs_trials}"
            for entry in calibration.refused
        )
        or None,
    )
    for point in calibration.thresholds:
        far = "-" if point.far is None else f"{100 * point.far:.3g}"
        far_interval = (
            f"takes {point.far_needs_trials} trials"
            if point.far_interval is None
            else f"{100 * point.far_interval.low:.2f} .. {100 * point.far_interval.high:.2f}"
        )
        thresholds.add_row(
            point.name,
            f"{point.threshold:.4f}",
            f"{point.threshold_interval.low:.4f} .. {point.threshold_interval.high:.4f}",
            f"{point.threshold_llr:+.2f}",
            far,
            far_interval,
            f"{100 * point.frr:.2f}",
            f"{100 * point.frr_interval.low:.2f} .. {100 * point.frr_interval.high:.2f}",
            f"{point.false_acceptances} + {point.false_rejections}",
        )
    tables = [thresholds]
    if calibration.groups:
        groups = Table("group", "targets", "non-targets", "EER %", "95 %")
        for group in calibration.groups:
            found = group.evaluation
            groups.add_row(
                group.group,
                str(group.target_trials),
                str(group.nontarget_trials),
                "-" if found is None else f"{100 * found.eer:.2f}",
                "-" if found is None else f"{100 * found.eer_interval.low:.2f} .. {100 * found.eer_interval.high:.2f}",
            )
        tables.append(groups)
    if calibration.flips is not None:
        flips = Table(
            "at", "|llr - threshold|", "trials", "flips", "%", "harmful", "helpful",
            title=f"decisions that differ from {calibration.flips.reference.name} "
            f"(EER {100 * calibration.flips.reference_eer:.2f} %)",
        )  # fmt: skip
        for place in calibration.flips.points:
            for part in place.by_distance:
                span = f"{part.low:g} .. {part.high:g}" if part.high is not None else f"{part.low:g} .."
                share = f"{100 * part.flips / part.trials:.2f}" if part.trials else "-"
                flips.add_row(
                    place.point, span, str(part.trials), str(part.flips), share, str(part.harmful), str(part.helpful)
                )
        tables.append(flips)
    return tables
