"""A release: from a candidate bundle to a published version."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from calibration.record import Calibration, read_calibration
from device_tests.compat import CompatOptions, compare_versions
from device_tests.golden import run_golden
from exporters.bundle.archive import opened_bundle, zip_bundle
from exporters.bundle.contents import check_contents
from exporters.bundle.diff import diff_manifests
from exporters.bundle.manifest import MANIFEST_FILE, Manifest
from exporters.bundle.signature import (
    SIGNATURE_FILE,
    check_signature,
    read_private_key,
    read_signature,
    write_signature,
)
from exporters.bundle.trust import Trust
from exporters.bundle.version import Bump
from exporters.bundle.write import list_files
from exporters.release.cache import fetch
from exporters.release.compatibility import Compatibility
from exporters.release.gates import failed_gates
from exporters.release.registry import LATEST, Registry, version_record
from exporters.release.rule import Step, needs_trials, next_version
from exporters.release.settings import ReleaseSettings
from exporters.release.texts import CARD_FILE, CHANGELOG_FILE, changelog, changelog_entry, model_card
from pipeline.errors import GateError, InputError
from pipeline.files import sha256_file, write_atomically
from pipeline.progress import Progress


@dataclass(frozen=True)
class CompatTrials:
    """Trials for the cross-version EER."""

    audio: Path
    file: Path
    options: CompatOptions


@dataclass(frozen=True)
class ReleaseRequest:
    """What `voxpress release` is asked for beside the bundle."""

    registry: Registry
    cache: Path
    out: Path  # where the released zip is kept
    settings: ReleaseSettings
    key: Path | None  # private; None: unsigned
    channel: str = LATEST
    bump: Bump | None = None
    notes: Sequence[str] = ()
    trials: CompatTrials | None = None
    dry_run: bool = False


class ReleaseResult(BaseModel):
    """What a release did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    previous: str | None
    bump: Bump | None
    reason: str
    published: bool  # False: it was published before, or this was a dry run
    channel: str
    channel_version: str | None
    archive: str | None
    sha256: str | None
    signed_by: str | None
    compatibility: Compatibility | None


def release(bundle: Path, request: ReleaseRequest, progress: Progress) -> ReleaseResult:
    """Check a bundle, give it its version, card, changelog and signature, and publish it.

    The version follows from what changed since the highest one published (`exporters.release.rule`), whatever the
    bundle's own says. A release that was stopped is gone on with by the same command; a bundle that is published
    already is not published again.

    Raises GateError, and publishes nothing, if a gate is not passed; InputError naming what is not as it should be.
    """
    if request.key is not None:
        private = read_private_key(request.key)
    with opened_bundle(bundle) as folder:
        candidate = check_contents(folder)
        signature = read_signature(folder)
        if signature is not None:
            if request.key is None:
                raise InputError(bundle, expected="--key, to sign the release of a signed bundle", found="none")
            check_signature((folder / MANIFEST_FILE).read_bytes(), signature, [private.public_key()], bundle)
        previous = _previous(candidate.name, request, progress)
        before = None if previous is None else check_contents(previous)
        if before is not None and _same_release(before, candidate):
            return _released_before(before, request)
        compatibility = _compatibility(previous, before, folder, candidate, request, progress)
        step = next_version(before, candidate, compatibility, request.bump)
        calibration = _calibration(folder, candidate)
        failed = failed_gates(candidate, calibration, request.settings.gates, compatibility)
        missing = [r for r in run_golden(folder, candidate, progress) if r.outcome == "not run"]
        failed += [f"golden vectors: expected {r.model} to run here, found {r.reason}" for r in missing]
        if failed:
            raise GateError(f"{bundle}: {len(failed)} gate(s) refuse the release: {'; '.join(failed)}")
        with tempfile.TemporaryDirectory(prefix="voxpress-") as scratch:
            made = Path(scratch) / "bundle"
            shutil.copytree(folder, made)
            manifest = _rewrite(made, candidate, step, request, previous, before, calibration, compatibility)
            signed_by = None
            if request.key is not None:
                signed_by = write_signature(made, manifest.json_bytes(), private).key_id
            return _publish(made, manifest, step, signed_by, before, compatibility, request, progress)


def _previous(name: str, request: ReleaseRequest, progress: Progress) -> Path | None:
    """Folder of the highest version that is published; None: there is none."""
    versions = request.registry.versions(name)
    if not versions:
        return None
    return fetch(f"{name}@{versions[-1]}", request.registry, request.cache, Trust(), progress).folder


def _same_release(before: Manifest, candidate: Manifest) -> bool:
    """Whether the candidate is what is published already, but for what a release adds."""
    texts = {before.model_card, before.changelog, CARD_FILE, CHANGELOG_FILE}

    def essence(manifest: Manifest) -> Manifest:
        files = {name: entry for name, entry in manifest.files.items() if name not in texts}
        return manifest.model_copy(update={"version": "0.0.0", "model_card": None, "changelog": None, "files": files})

    return essence(before) == essence(candidate)


def _released_before(before: Manifest, request: ReleaseRequest) -> ReleaseResult:
    record = request.registry.record(before.name, before.version)
    stands_at = (
        request.registry.channel(before.name, request.channel)
        if request.dry_run
        else request.registry.advance(before.name, request.channel, before.version)
    )
    return ReleaseResult(
        name=before.name,
        version=before.version,
        previous=before.version,
        bump=None,
        reason="published already",
        published=False,
        channel=request.channel,
        channel_version=stands_at,
        archive=None,
        sha256=record.sha256,
        signed_by=record.signed_by,
        compatibility=None,
    )


def _compatibility(
    previous: Path | None,
    before: Manifest | None,
    folder: Path,
    candidate: Manifest,
    request: ReleaseRequest,
    progress: Progress,
) -> Compatibility | None:
    if previous is None or before is None or request.trials is None or not needs_trials(before, candidate):
        return None
    trials = request.trials
    return compare_versions(
        previous, folder, audio=trials.audio, trials_file=trials.file, options=trials.options, progress=progress
    )


def _calibration(folder: Path, manifest: Manifest) -> Calibration | None:
    entry = manifest.calibration(manifest.primary)
    return None if entry is None else read_calibration((folder / entry.file).parent)


def _rewrite(
    made: Path,
    candidate: Manifest,
    step: Step,
    request: ReleaseRequest,
    previous: Path | None,
    before: Manifest | None,
    calibration: Calibration | None,
    compatibility: Compatibility | None,
) -> Manifest:
    """Give the copy of a bundle its version, card and changelog."""
    versioned = candidate.model_copy(update={"version": str(step.version)})
    diff = None if before is None else diff_manifests(before, versioned)
    older = None
    if previous is not None and before is not None and before.changelog is not None:
        older = (previous / before.changelog).read_text(encoding="utf-8")
    write_atomically(made / CHANGELOG_FILE, changelog(changelog_entry(step, diff, request.notes), older))
    write_atomically(made / CARD_FILE, model_card(versioned, calibration, request.settings.card, compatibility))
    for name in (MANIFEST_FILE, SIGNATURE_FILE):
        (made / name).unlink(missing_ok=True)
    manifest = Manifest.model_validate(
        versioned.model_dump() | {"model_card": CARD_FILE, "changelog": CHANGELOG_FILE, "files": list_files(made)}
    )
    write_atomically(made / MANIFEST_FILE, manifest.json_bytes())
    return manifest


def _publish(
    made: Path,
    manifest: Manifest,
    step: Step,
    signed_by: str | None,
    before: Manifest | None,
    compatibility: Compatibility | None,
    request: ReleaseRequest,
    progress: Progress,
) -> ReleaseResult:
    request.out.mkdir(parents=True, exist_ok=True)
    archive = request.out / f"{manifest.name}-{manifest.version}.zip"
    zip_bundle(made, archive)
    record = version_record(
        archive,
        sha256_file(made / MANIFEST_FILE),
        name=manifest.name,
        version=manifest.version,
        signed_by=signed_by,
    )
    published, stands_at = False, request.registry.channel(manifest.name, request.channel)
    if not request.dry_run:
        published = request.registry.publish(archive, record, progress)
        stands_at = request.registry.advance(manifest.name, request.channel, manifest.version)
    return ReleaseResult(
        name=manifest.name,
        version=manifest.version,
        previous=None if before is None else before.version,
        bump=step.bump,
        reason=step.reason,
        published=published,
        channel=request.channel,
        channel_version=stands_at,
        archive=str(archive),
        sha256=record.sha256,
        signed_by=signed_by,
        compatibility=compatibility,
    )
