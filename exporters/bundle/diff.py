"""What changed between two bundles: facts first, then figures, then files."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from exporters.bundle.manifest import BundledCalibration, Manifest

Kind = Literal["identity", "network", "bits", "accuracy", "threshold", "latency", "file"]


class Change(BaseModel):
    """One thing that is not the same; None: it is not there on this side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    what: str
    old: str | None
    new: str | None


class BundleDiff(BaseModel):
    """Everything that two bundles do not share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    old: str
    new: str
    same_weights: bool  # of the primary artifacts
    changes: tuple[Change, ...]


def diff_manifests(old: Manifest, new: Manifest) -> BundleDiff:
    """The changes from one manifest to another. Figures are as the bundles state them, each with its own trials."""
    found: list[Change] = []
    for kind, sides in (
        ("identity", (_identity(old), _identity(new))),
        ("network", (_network(old), _network(new))),
        ("bits", (_bits(old), _bits(new))),
        ("accuracy", (_accuracy(old), _accuracy(new))),
        ("threshold", (_thresholds(old), _thresholds(new))),
        ("latency", (_latency(old), _latency(new))),
        ("file", (_files(old), _files(new))),
    ):
        found += _changes(kind, *sides)  # type: ignore[arg-type]
    return BundleDiff(
        old=f"{old.name} {old.version}",
        new=f"{new.name} {new.version}",
        same_weights=old.artifact(old.primary).weights_sha256 == new.artifact(new.primary).weights_sha256,
        changes=tuple(found),
    )


def _changes(kind: Kind, old: dict[str, str], new: dict[str, str]) -> list[Change]:
    names = [*old, *(name for name in new if name not in old)]
    return [
        Change(kind=kind, what=name, old=old.get(name), new=new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _identity(manifest: Manifest) -> dict[str, str]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "licence": manifest.licence,
        "created by": manifest.created_by,
        "primary artifact": manifest.primary,
        **{f"runtime {entry.runtime}": f"{entry.minimum} to {entry.maximum}" for entry in manifest.runtimes},
    }


def _network(manifest: Manifest) -> dict[str, str]:
    frontend: dict[str, Any] = manifest.frontend.model_dump(mode="json")
    ops = sorted({f"{op} {version}" for model in manifest.models for op, version in model.ops.items()})
    return {
        "architecture": manifest.architecture,
        "embedding size": str(manifest.embedding_dim),
        "pre-trained weights": manifest.source.model_sha256[:12],
        "checkpoint": (manifest.source.checkpoint_sha256 or "trained by VoxPress")[:24],
        "artifacts": ", ".join(artifact.label for artifact in manifest.artifacts),
        "ops": ", ".join(ops),
        **{f"front end {key}": str(value) for key, value in frontend.items()},
    }


def _bits(manifest: Manifest) -> dict[str, str]:
    """Of the primary artifact, whatever its label: what an app notices is that the artifact it takes has changed."""
    artifact = manifest.artifact(manifest.primary)
    return {
        "bits per weight": f"{artifact.bits_per_weight:.3f}",
        "bytes of weights": f"{artifact.weights_bytes}",
        "weights": artifact.weights_sha256[:12],
        **{f"layer {name}": str(bits) for name, bits in artifact.bits.items()},
    }


def _primary_calibration(manifest: Manifest) -> BundledCalibration | None:
    return manifest.calibration(manifest.primary)


def _accuracy(manifest: Manifest) -> dict[str, str]:
    found = {}
    calibration = _primary_calibration(manifest)
    if calibration is not None:
        one = calibration.evaluation
        counts = f"of {one.target_trials} + {one.nontarget_trials} trials"
        low, high = 100 * one.eer_interval.low, 100 * one.eer_interval.high
        found["EER %"] = f"{100 * one.eer:.2f} [{low:.2f}, {high:.2f}] {counts}"
        found[f"minDCF({one.p_target:g})"] = f"{one.min_dcf:.3f} {counts}"
        found["Cllr"] = f"{calibration.cllr:.3f}"
    for entry in manifest.accuracy:
        if entry.model in {model.file for model in manifest.models_of(manifest.primary)}:
            suffix = entry.model.rpartition(".")[2]
            found[f"EER % on {entry.device}, .{suffix}"] = f"{100 * entry.evaluation.eer:.2f}"
    return found


def _thresholds(manifest: Manifest) -> dict[str, str]:
    calibration = _primary_calibration(manifest)
    if calibration is None:
        return {}
    return {point.name: f"{point.threshold:.4f} (FRR {100 * point.frr:.2f} %)" for point in calibration.thresholds}


def _latency(manifest: Manifest) -> dict[str, str]:
    files = {model.file for model in manifest.models_of(manifest.primary)}
    return {
        f"{entry.device}, .{entry.model.rpartition('.')[2]}, of fp32": (
            f"{entry.ratio:.2f} [{entry.ratio_low:.2f}, {entry.ratio_high:.2f}]"
        )
        for entry in manifest.latency
        if entry.model in files
    }


def _files(manifest: Manifest) -> dict[str, str]:
    return {name: f"{entry.bytes} bytes, sha256 {entry.sha256[:12]}" for name, entry in manifest.files.items()}
