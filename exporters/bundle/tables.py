"""Bundles and their differences as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from exporters.bundle.diff import BundleDiff
from exporters.bundle.manifest import Manifest


def manifest_tables(manifest: Manifest, signed_by: str | None) -> list[Table]:
    """What a bundle says about itself. `signed_by`: the id that its signature names."""
    head = Table(show_header=False, title=f"{manifest.name} {manifest.version}")
    source = manifest.source
    origin = f"pre-trained weights {source.model_sha256[:12]}"
    if source.checkpoint_sha256:
        origin += f", imported from checkpoint {source.checkpoint_sha256[:12]}"
    for row in (
        ("network", f"{manifest.architecture}, embedding of {manifest.embedding_dim}"),
        ("source", origin),
        ("licence", manifest.licence),
        ("created by", manifest.created_by),
        ("signature", f"of key {signed_by}" if signed_by else "none"),
        ("primary artifact", manifest.primary),
        ("files", f"{len(manifest.files)}, {manifest.total_bytes:,} bytes"),
        ("runtimes", ", ".join(f"{r.runtime} {r.minimum} to {r.maximum}" for r in manifest.runtimes) or "not tested"),
    ):
        head.add_row(*row)
    models = Table("model", "mode", "bits", "bytes", "ops", "EER % (trials)", "time / fp32 (device)", title="models")
    for model in manifest.models:
        artifact = manifest.artifact(model.label)
        accuracy = [
            f"{100 * e.evaluation.eer:.2f} ({e.evaluation.target_trials} + {e.evaluation.nontarget_trials})"
            for e in manifest.accuracy
            if e.model == model.file
        ]
        latency = [f"{e.ratio:.2f} ({e.device})" for e in manifest.latency if e.model == model.file]
        models.add_row(
            model.file,
            model.mode,
            "32" if model.lowering == "stock" else f"{artifact.bits_per_weight:.2f}",
            f"{manifest.files[model.file].bytes:,}",
            ", ".join(f"{op} {version}" for op, version in model.ops.items()) or "stock",
            ", ".join(accuracy) or "-",
            ", ".join(latency) or "-",
        )
    thresholds = Table("artifact", "threshold", "score", "llr", "FAR %", "FRR %", "EER %", "Cllr", title="thresholds")
    for calibration in manifest.calibrations:
        for point in calibration.thresholds:
            thresholds.add_row(
                calibration.label,
                point.name,
                f"{point.threshold:.4f}",
                f"{point.threshold_llr:+.2f}",
                "-" if point.far is None else f"{100 * point.far:.3g}",
                f"{100 * point.frr:.2f}",
                f"{100 * calibration.evaluation.eer:.2f}",
                f"{calibration.cllr:.3f}",
            )
    return [head, models, *([thresholds] if manifest.calibrations else [])]


def diff_table(diff: BundleDiff) -> Table:
    """The changes from one bundle to another."""
    weights = "the same weights" if diff.same_weights else "other weights"
    table = Table("", "what", diff.old, diff.new, title=f"{diff.old} -> {diff.new}: {weights}")
    for change in diff.changes:
        table.add_row(change.kind, change.what, change.old or "-", change.new or "-")
    return table
