"""From a device run to its report: figures, tables, plots and one self-contained page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device_tests.gates import Gates, Verdicts, judge
from device_tests.records import Embedding, ModelRun, RunRecord, read_embeddings
from device_tests.report.decision import Decision
from device_tests.report.figures import (
    FEW_TARGETS,
    Difference,
    ModelFigures,
    Report,
    conditions,
    latency,
    memory,
    model_notes,
    parity,
    size_twin,
)
from device_tests.report.junit import junit_xml
from device_tests.report.page import render
from device_tests.report.plots import DetSeries, det_plot, latency_plot, size_plot, widths
from device_tests.report.tables import (
    accuracy_table,
    all_notes,
    difference_table,
    environment_rows,
    latency_table,
    markdown,
    memory_table,
    parity_table,
    provenance_table,
    report_table,
    summary_table,
    verdict_table,
)
from exporters.bundle.manifest import golden_key
from pipeline.corpus.trials import Trial
from pipeline.errors import InputError
from pipeline.files import read_json, write_atomically
from pipeline.scoring.metrics import (
    DEFAULT_RESAMPLING,
    Interval,
    Resampling,
    bootstrap_values,
    det_curve,
    percentile_interval,
)
from pipeline.scoring.score import Evaluation, cosine_scores, evaluate_scores, trial_labels, trial_speakers

__all__ = ["build_report", "read_report", "report_table"]

REPORT_FILE = "report.json"


def build_report(
    run: RunRecord,
    run_folder: Path,
    reference: Mapping[str, Embedding],
    artifact_references: Mapping[str, Mapping[str, Embedding]],
    trials: Sequence[Trial],
    out: Path,
    *,
    title: str,
    speakers: Mapping[str, str] | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
    golden: Golden | None = None,
    decisions: Mapping[str, Decision] | None = None,
    gates: Gates | None = None,
    reference_label: str = "fp32",
) -> Report:
    """Compute every figure of a run and write `report.json`, `report.md` and `report.html` into `out`.

    With `gates` also the verdicts, as `verdicts.json` and `junit.xml`.

    `reference`: embeddings [E] of the fp32 network by utterance, or of the artifact that `reference_label` names;
    `artifact_references`: the same of each decoded artifact, by bits label. With `speakers` (the speaker of every
    utterance) intervals come from resampled speakers.
    `decisions`: the bundle's calibrated thresholds by file name; without one, decisions are flipped at the threshold
    of the EER of what the device is compared with. AS-Norm ones are for comparison with the artifact only, whose cohort
    they have: against the reference it is the EER's threshold of cosines.
    Raises InputError if embeddings are missing or malformed, if their utterances are not those of their reference, or
    if the trials do not fit them.
    """
    if not run.models:
        raise InputError(run_folder, expected="a run of at least one model file", found="none")
    labels = trial_labels(trials)

    def evaluate(embeddings: Mapping[str, Embedding]) -> Evaluation:
        scores = cosine_scores(embeddings, trials)
        return evaluate_scores(scores, trials, speakers=speakers, resampling=resampling)

    pairs = None if speakers is None else trial_speakers(trials, speakers)

    def resampled(scores: NDArray[np.float64]) -> _Resampled:
        values = [
            bootstrap_values(scores, labels, metric=metric, speakers=pairs, resampling=resampling)
            for metric in ("eer", "min_dcf")
        ]
        return _Resampled(values[0], values[1])

    reference_scores = cosine_scores(reference, trials)
    reference_rates = resampled(reference_scores)
    artifact_scores = {bits: cosine_scores(value, trials) for bits, value in artifact_references.items()}
    artifact_rates = {bits: resampled(value) for bits, value in artifact_scores.items()}
    reference_figures = evaluate(reference)
    used = {model.bits for model in run.models}
    artifacts = {bits: evaluate(value) for bits, value in artifact_references.items() if bits in used}
    controls = {model.format: model for model in run.models if model.is_control}

    figures = []
    device_scores = {}
    for model in run.models:
        path = run_folder / model.embeddings
        embeddings = read_embeddings(path)
        to_reference = parity(embeddings, reference, name=str(path))
        artifact = artifact_references.get(model.bits)
        scores = device_scores[model.file] = cosine_scores(embeddings, trials)
        timings = latency(model, controls.get(model.format))
        twin = size_twin(model, run.models)
        figured = evaluate_scores(scores, trials, speakers=speakers, resampling=resampling)
        rates = resampled(scores)
        own = artifacts.get(model.bits)
        decision = (decisions or {}).get(model.file)
        plain = decision if decision is not None and decision.cohort is None else None
        figures.append(
            ModelFigures(
                file=model.file,
                sha256=model.sha256,
                bits=model.bits,
                format=model.format,
                lowering=model.lowering,
                mode=model.mode,
                input=model.input,
                is_control=model.is_control,
                file_bytes=model.file_bytes,
                size_ratio=model.file_bytes / twin.file_bytes if twin else None,
                device=figured,
                artifact=own,
                reference_parity=to_reference,
                artifact_parity=parity(embeddings, artifact, name=str(path)) if artifact is not None else None,
                to_reference=_difference(figured, reference_figures, rates, reference_rates, pairs, resampling),
                to_artifact=_difference(figured, own, rates, artifact_rates[model.bits], pairs, resampling)
                if own is not None
                else None,
                golden_relative_error=golden.error(model, embeddings) if golden is not None else None,
                calibrated_score=None if decision is None else decision.score,
                flips=(plain or Decision(reference_figures.threshold)).flips(reference, embeddings, trials, labels),
                artifact_flips=(decision or Decision(own.threshold)).flips(artifact, embeddings, trials, labels)
                if own is not None and artifact is not None
                else None,
                conditions=conditions(model),
                latency=timings,
                load_ns=round(median(record.load_ns for record in model.rounds)),
                first_ns=round(median(record.first_ns for record in model.rounds)),
                memory=memory(model),
                runtime=_runtime(model),
                kernels=model.kernels,
                delegates=model.delegates,
                notes=model_notes(model, timings, has_artifact=artifact is not None),
            )
        )
    report = Report(
        title=title,
        created_at=datetime.now(UTC),
        device=run.device,
        started_at=run.started_at,
        environment=run.environment,
        protocol=run.protocol,
        device_class=run.device_class,
        latency_valid=run.latency_valid,
        bundle=run.bundle,
        front_end_difference=golden.front_end_difference if golden is not None else None,
        trials_sha256=_trials_sha256(trials),
        reference=reference_figures,
        reference_label=reference_label,
        models=tuple(figures),
        missing=run.missing,
        notes=(*run.notes, *_trial_notes(reference_figures)),
    )
    order = widths(report.models)
    curves = [
        DetSeries(f"{reference_label} reference", None, reference_figures.eer, det_curve(reference_scores, labels))
    ]
    for place, bits in enumerate(order):
        # The first file of a width stands for it: its twins differ by rounding, as the parity table shows.
        first = next(model for model in report.models if model.bits == bits)
        curve = det_curve(device_scores[first.file], labels)
        curves.append(DetSeries(f"{bits} .{first.format}", place, first.device.eer, curve))
    verdicts = None if gates is None else judge(report, gates)
    _write(report, run, curves, out, verdicts)
    return report


@dataclass(frozen=True)
class Golden:
    """What a bundle's golden utterance gives: on the host by the front end, and by the reference networks."""

    utterance: str  # its name among a run's embeddings
    front_end_difference: float  # largest |features of the golden wav - golden features|
    embeddings: Mapping[str, Embedding]  # float32 [E] by `golden_key`

    def error(self, model: ModelRun, embeddings: Mapping[str, Embedding]) -> float | None:
        """max|e - g| / max|g| of a model's embedding e of the golden features; None if it has made none."""
        wanted, found = self.embeddings.get(golden_key(model.bits, model.mode)), embeddings.get(self.utterance)
        if wanted is None or found is None:
            return None
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@dataclass(frozen=True)
class _Resampled:
    """EER and minDCF on every resample: float64 [draws] each."""

    eer: NDArray[np.float64]
    min_dcf: NDArray[np.float64]


def _trials_sha256(trials: Sequence[Trial]) -> str:
    lines = sorted(f"{int(trial.target)} {trial.enrolment} {trial.test}\n" for trial in trials)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _difference(
    device: Evaluation,
    reference: Evaluation,
    rates: _Resampled,
    reference_rates: _Resampled,
    pairs: Sequence[tuple[str, str]] | None,
    resampling: Resampling,
) -> Difference:
    unit: Literal["speakers", "trials"] = "trials" if pairs is None else "speakers"

    def interval(values: NDArray[np.float64], others: NDArray[np.float64]) -> Interval:
        return percentile_interval(values - others, unit=unit, level=resampling.level)

    return Difference(
        eer=device.eer - reference.eer,
        eer_interval=interval(rates.eer, reference_rates.eer),
        min_dcf=device.min_dcf - reference.min_dcf,
        min_dcf_interval=interval(rates.min_dcf, reference_rates.min_dcf),
    )


def read_report(folder: Path) -> Report:
    """The `report.json` of a folder. Raises InputError if it is missing or malformed."""
    return read_json(folder / REPORT_FILE, Report, what="a device report")


def _write(report: Report, run: RunRecord, curves: Sequence[DetSeries], out: Path, verdicts: Verdicts | None) -> None:
    detail = [
        *((verdict_table(verdicts),) if verdicts is not None else ()),
        accuracy_table(report),
        parity_table(report),
        difference_table(report),
        latency_table(report),
        memory_table(report),
        provenance_table(report),
    ]
    summary = summary_table(report)
    page = render(
        "report.html.j2",
        title=report.title,
        report=report,
        summary=summary,
        tables=detail,
        notes=all_notes(report),
        failed=[result.line() for result in verdicts.failed] if verdicts is not None else None,
        environment=environment_rows(report),
        det=det_plot(curves),
        size=size_plot(report),
        latency=latency_plot(report, run),
    )
    write_atomically(out / "report.html", page)
    write_atomically(out / "report.md", markdown(report, [summary, *detail]))
    if verdicts is not None:
        verdicts.write(out)
        write_atomically(out / "junit.xml", junit_xml([(report, verdicts)]))
    write_atomically(out / REPORT_FILE, report.model_dump_json(indent=2) + "\n")


def _trial_notes(reference: Evaluation) -> list[str]:
    if reference.target_trials >= FEW_TARGETS:
        return []
    step = 100 / reference.target_trials
    return [
        f"few trials: {reference.target_trials} target trials, so a single miss moves the miss rate by {step:.2f} %"
    ]


def _runtime(model: ModelRun) -> str:
    versions = sorted({f"{record.engine} {record.runtime_version}" for record in (model.accuracy, *model.rounds)})
    return ", ".join(versions)
