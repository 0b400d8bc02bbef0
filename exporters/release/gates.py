"""What a bundle must show before it is released."""

from __future__ import annotations

from collections.abc import Iterator

from calibration.record import Calibration
from exporters.bundle.manifest import Manifest
from exporters.release.compatibility import Compatibility
from exporters.release.settings import GateSettings


def failed_gates(
    manifest: Manifest, calibration: Calibration | None, gates: GateSettings, compatibility: Compatibility | None
) -> list[str]:
    """Every gate that a bundle does not pass, one line each; empty: it may be released.

    calibration: that of the primary artifact. A limit on something that the bundle does not state is not passed.
    """
    return [
        *_always(manifest, calibration),
        *(_of_calibration(calibration, gates) if calibration is not None else ()),
        *_of_files(manifest, gates),
        *_of_compatibility(compatibility, gates),
    ]


def _always(manifest: Manifest, calibration: Calibration | None) -> Iterator[str]:
    if manifest.licence.strip().lower() in ("", "unspecified"):
        yield "licence: expected one, found unspecified (`bundle create --licence`)"
    if calibration is None:
        yield (
            f"calibration: expected one of the primary artifact {manifest.primary}, found none (`voxpress calibrate`, "
            "`bundle create --calibration`)"
        )


def _of_calibration(calibration: Calibration, gates: GateSettings) -> Iterator[str]:
    one, trials = calibration.evaluation, calibration.trials
    for name, limit, found in (
        ("max_eer", gates.max_eer, one.eer),
        ("max_eer_high", gates.max_eer_high, one.eer_interval.high),
        ("max_min_dcf", gates.max_min_dcf, one.min_dcf),
    ):
        if limit is not None and found > limit:
            yield f"{name}: expected at most {limit:g}, found {found:.4g}"
    for name, least, count in (
        ("min_target_trials", gates.min_target_trials, trials.target_trials),
        ("min_nontarget_trials", gates.min_nontarget_trials, trials.nontarget_trials),
        ("min_speakers", gates.min_speakers, trials.speakers or 0),
    ):
        if count < least:
            yield f"{name}: expected at least {least}, found {count}"
    for point, limit in gates.max_frr.items():
        threshold = calibration.threshold(point)
        if threshold is None:
            known = ", ".join(entry.name for entry in calibration.thresholds)
            yield f"max_frr: expected a threshold {point}, found {known}"
        elif threshold.frr > limit:
            yield f"max_frr at {point}: expected at most {limit:g}, found {threshold.frr:.4g}"
    if gates.max_harmful_flips is not None:
        if calibration.flips is None:
            yield "max_harmful_flips: expected flips against fp32, found none (`voxpress calibrate --reference`)"
        else:
            flips = calibration.flips.points[0].flips
            if flips.harmful > gates.max_harmful_flips * flips.trials:
                yield (
                    f"max_harmful_flips: expected at most {gates.max_harmful_flips:g} of {flips.trials} trials, "
                    f"found {flips.harmful}"
                )


def _of_files(manifest: Manifest, gates: GateSettings) -> Iterator[str]:
    files = [model.file for model in manifest.models_of(manifest.primary)]
    if gates.max_model_bytes is not None:
        for file in files:
            if manifest.files[file].bytes > gates.max_model_bytes:
                found = manifest.files[file].bytes
                yield f"max_model_bytes: expected {file} of at most {gates.max_model_bytes}, found {found}"
    if gates.max_latency_ratio is not None:
        measured = [entry for entry in manifest.latency if entry.model in files]
        if not measured:
            yield "max_latency_ratio: expected a device report with an fp32 control, found none"
        for entry in measured:
            if entry.ratio > gates.max_latency_ratio:
                yield (
                    f"max_latency_ratio: expected {entry.model} on {entry.device} at most {gates.max_latency_ratio:g} "
                    f"of fp32, found {entry.ratio:.3g}"
                )


def _of_compatibility(compatibility: Compatibility | None, gates: GateSettings) -> Iterator[str]:
    if gates.max_eer_increase is None or compatibility is None:
        return
    increase = compatibility.new_alone.eer - compatibility.old_alone.eer
    if increase > gates.max_eer_increase:
        yield f"max_eer_increase: expected at most {gates.max_eer_increase:g}, found {increase:.4g}"
