"""A report's tables, as text: one source for the page, the Markdown file and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table as RichTable

from device_tests.gates import Verdicts
from device_tests.report.figures import ModelFigures, Report
from device_tests.report.table import NONE, Table, interval_text, markdown_document, milliseconds, terminal_table
from pipeline.scoring.score import Evaluation


def summary_table(report: Report) -> Table:
    """Bytes, accuracy and speed of every file, on one line each."""
    return Table(
        "Summary",
        ("bits", "file", "bytes", "× fp32", "EER %", "95 %", "cosine", "p50 ms", "× control"),
        tuple(
            (
                model.bits,
                _kind(model),
                f"{model.file_bytes:,}",
                _ratio(model.size_ratio, 3),
                _percent(model.device.eer),
                interval_text(model.device),
                f"{model.reference_parity.cosine_mean:.5f}",
                milliseconds(model.latency.p50_ns) + ("*" if model.notes else ""),
                _ratio(model.latency.ratio, 2),
            )
            for model in report.models
        ),
        "Bytes and latency against the fp32 control of the same format in the same run; 95 %: bootstrap "
        "interval of the EER; cosine of device embeddings to the fp32 reference, mean over utterances. * has a note.",
        left=2,
    )


def accuracy_table(report: Report) -> Table:
    """EER and minDCF of the reference, of each decoded artifact and of each file on the device; decision flips."""
    rows = [(report.reference_label, "reference, torch", *_rates(report.reference), NONE, NONE)]
    shown: set[str] = set()
    for model in report.models:
        if model.artifact is not None and model.bits not in shown:
            shown.add(model.bits)
            rows.append((model.bits, "artifact, torch", *_rates(model.artifact), NONE, NONE))
        flips = model.flips
        rows.append((model.bits, _kind(model), *_rates(model.device), str(flips.harmful), str(flips.helpful)))
    reference = report.reference
    who = f" of {reference.speakers} speakers" if reference.speakers is not None else ""
    return Table(
        "Accuracy",
        ("bits", "run as", "EER %", "95 % interval", "minDCF", "harmful flips", "helpful flips"),
        tuple(rows),
        f"{reference.target_trials:,} target and {reference.nontarget_trials:,} non-target trials over "
        f"{reference.utterances:,} utterances{who}; the interval resamples {reference.eer_interval.unit} "
        f"{reference.eer_interval.draws:,} times. minDCF at p_target {reference.p_target:g}. A flip is a trial decided "
        f"otherwise than by the {report.reference_label} reference, both at the threshold below; harmful: the "
        "reference was right.",
        left=2,
    )


def verdict_table(verdicts: Verdicts) -> Table:
    """Every gate's verdict on every file, the failed ones first."""
    order = {"failed": 0, "not judged": 2}
    results = sorted(verdicts.results, key=lambda result: order.get(result.verdict, 1))
    return Table(
        "Gates",
        ("verdict", "file", "gate", "expected", "found"),
        tuple((one.verdict, one.subject, one.gate, one.limit, one.found) for one in results),
        f"Limits from {verdicts.gates}.",
        left=5,
    )


def parity_table(report: Report) -> Table:
    """How near the device's embeddings are to the fp32 reference and to the decoded artifact."""
    return Table(
        "Parity of embeddings",
        ("bits", "file", f"to {report.reference_label}: mean", "min", "to artifact: mean", "min", "max rel. error"),
        tuple(
            (
                model.bits,
                _kind(model),
                f"{model.reference_parity.cosine_mean:.6f}",
                f"{model.reference_parity.cosine_min:.6f}",
                f"{model.artifact_parity.cosine_mean:.6f}" if model.artifact_parity else NONE,
                f"{model.artifact_parity.cosine_min:.6f}" if model.artifact_parity else NONE,
                f"{model.artifact_parity.max_relative_error:.1e}" if model.artifact_parity else NONE,
            )
            for model in report.models
        ),
        f"Cosines over all utterances. To {report.reference_label}: what pressing cost. To the artifact: what the "
        "runtime adds, which "
        "should be rounding only, of fast files that of u8 activations; relative error is max|x − a| / max|a| per "
        "utterance, the largest of all.",
        left=2,
    )


def difference_table(report: Report) -> Table:
    """Error rates against the fp32 reference and against the decoded artifact, with paired intervals, and flips."""
    rows = []
    for model in report.models:
        calibrated = "*" if model.calibrated_score == "cosine" else ""
        normalised = " AS-Norm*" if model.calibrated_score == "as-norm" else calibrated
        for to, difference, flips, mark in (
            (report.reference_label, model.to_reference, model.flips, calibrated),
            ("artifact", model.to_artifact, model.artifact_flips, normalised),
        ):
            if difference is None or flips is None:
                continue
            rows.append(
                (
                    model.bits,
                    _kind(model),
                    to,
                    f"{100 * difference.eer:+.2f}",
                    f"{100 * difference.eer_interval.low:+.2f} .. {100 * difference.eer_interval.high:+.2f}",
                    f"{difference.min_dcf:+.3f}",
                    f"{difference.min_dcf_interval.low:+.3f} .. {difference.min_dcf_interval.high:+.3f}",
                    f"{flips.harmful} + {flips.helpful}",
                    f"{flips.reference_threshold:.4f}{mark}",
                )
            )
    return Table(
        "Differences",
        ("bits", "file", "to", "ΔEER, points", "95 %", "ΔminDCF", "95 %", "flips", "threshold"),
        tuple(rows),
        "Device minus reference on the same trials; intervals are paired bootstrap intervals. Flips: harmful + helpful "
        "decisions that the device takes otherwise, both at the threshold: * is the bundle's calibrated one, else that "
        "of the EER of what is compared with. Scores are cosines unless the threshold is said to be of AS-Norm.",
        left=3,
    )


def latency_table(report: Report) -> Table:
    """Quantiles of the timings, the ratio to the control with its range over rounds, loading and first inference."""
    protocol = report.protocol
    return Table(
        "Latency",
        ("bits", "file", "p50 ms", "p90", "p99", "× control", "over rounds", "load ms", "first ms", "runs"),
        tuple(
            (
                model.bits,
                _kind(model),
                milliseconds(model.latency.p50_ns),
                milliseconds(model.latency.p90_ns),
                milliseconds(model.latency.p99_ns),
                _ratio(model.latency.ratio, 3),
                NONE
                if model.latency.ratio_low is None or model.latency.ratio_high is None
                else f"{model.latency.ratio_low:.3f}–{model.latency.ratio_high:.3f}",
                milliseconds(model.load_ns),
                milliseconds(model.first_ns),
                str(model.latency.runs),
            )
            for model in report.models
        ),
        f"{protocol.rounds} rounds over all files in turn, each {protocol.warmup} warm-up and {protocol.runs} timed "
        f"runs of {protocol.speed_frames} frames, {protocol.threads} thread{'s' if protocol.threads > 1 else ''}"
        f"{', low memory' if protocol.low_memory else ''}. × "
        "control: median over rounds of the ratio of medians to the fp32 control of the format.",
        left=2,
    )


def memory_table(report: Report) -> Table:
    """Bytes of the file and of the process."""
    return Table(
        "Memory",
        ("bits", "file", "file bytes", "× fp32", "growth: load", "growth: run", "resident", "peak"),
        tuple(
            (
                model.bits,
                _kind(model),
                f"{model.file_bytes:,}",
                _ratio(model.size_ratio, 3),
                f"{model.memory.load_growth_bytes:,}",
                f"{model.memory.run_growth_bytes:,}",
                f"{model.memory.resident_bytes:,}",
                f"{model.memory.peak_bytes:,}",
            )
            for model in report.models
        ),
        "Bytes. Growth of resident memory from just before the model is loaded: the model's own. Resident and peak are "
        "the whole process, with its runtime, and compare within a format only.",
        left=2,
    )


def provenance_table(report: Report) -> Table:
    """Which file, by which runtime, and what of VoxPress ran in it."""
    return Table(
        "What ran",
        ("file", "runtime", "VoxPress kernels", "delegates", "sha256"),
        tuple(
            (
                model.file,
                model.runtime,
                ", ".join(model.kernels) or "none",
                ", ".join(model.delegates) or "none",
                model.sha256[:12],
            )
            for model in report.models
        ),
        "Kernels as the runtime's process names them after running.",
        left=5,
    )


def environment_rows(report: Report) -> tuple[tuple[str, str], ...]:
    """The machine, as pairs of name and value."""
    environment = report.environment
    clock = f"{environment.clock_hz / 1e9:.2f} GHz" if environment.clock_hz else "not readable"
    crop = report.protocol.crop_seconds
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    return (
        ("device", f"{report.device} ({report.device_class})"),
        ("measured", report.started_at.strftime("%Y-%m-%d %H:%M UTC")),
        ("system", f"{environment.os}, kernel {environment.kernel}"),
        ("processor", f"{environment.cpu_model}, {environment.cores} cores"),
        ("clock", f"{clock}, governor {environment.governor or 'not readable'}"),
        ("memory", f"{environment.memory_bytes:,} bytes"),
        ("load at start", NONE if environment.load_average is None else f"{environment.load_average:.2f}"),
        ("utterances", "whole" if crop is None else f"at most their first {crop:g} s"),
        ("software", f"VoxPress {environment.voxpress}, Python {environment.python}, {packages}"),
    )


def report_table(report: Report) -> RichTable:
    """The summary for a terminal of 100 columns."""
    source = summary_table(report)
    # The width is said once for the files that share it.
    said = [row[0] for row in source.rows]
    rows = tuple(
        ("" if index > 0 and said[index - 1] == row[0] else row[0], *row[1:]) for index, row in enumerate(source.rows)
    )
    brief = replace(source, rows=rows)
    return terminal_table(brief, title=False, caption=_terminal_caption(report), wrap_words=False)


def markdown(report: Report, tables: Sequence[Table]) -> str:
    """The whole report in Markdown."""
    return markdown_document(report.title, environment_rows(report), all_notes(report), tables)


def all_notes(report: Report) -> list[str]:
    """Notes on the run, then those on single files, with the file's name; the same note of several files once."""
    files: dict[str, list[str]] = {}
    for model in report.models:
        for note in model.notes:
            files.setdefault(note, []).append(model.file)
    return [*report.notes, *(f"{', '.join(names)}: {note}" for note, names in files.items())]


def _terminal_caption(report: Report) -> str:
    reference = report.reference
    notes = len(all_notes(report))
    starred = f"; {notes} note{'s' if notes > 1 else ''} in the report (*)" if notes else ""
    found = [(model.mode, model.artifact_parity) for model in report.models if model.artifact_parity]
    errors = [parity.max_relative_error for mode, parity in found if mode == "exact"]
    cosines = [parity.cosine_min for mode, parity in found if mode == "fast"]
    parity = f"; device within {max(errors):.1e} of the artifacts' reference networks" if errors else ""
    parity += f", fast files at a cosine of {min(cosines):.4f} or more" if cosines else ""
    rate = f"EER {_percent(reference.eer)} % [{interval_text(reference)}]"
    return f"{report.reference_label} reference: {rate}{parity}{starred}"


def _rates(evaluation: Evaluation) -> tuple[str, str, str]:
    return _percent(evaluation.eer), interval_text(evaluation), f"{evaluation.min_dcf:.3f}"


def _kind(model: ModelFigures) -> str:
    return f".{model.format}" + "".join(
        f" {word}" for word in (model.lowering, model.mode, model.input) if word in ("stock", "fast", "waveform")
    )


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f}"


def _ratio(ratio: float | None, digits: int) -> str:
    return NONE if ratio is None else f"{ratio:.{digits}f}"
