"""Whether a bundle is whole, from whom we think it is, and runs here as it should."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from device_tests.golden import GoldenResult, run_golden
from exporters.bundle.archive import opened_bundle
from exporters.bundle.manifest import Manifest
from exporters.bundle.trust import Trust, check_bundle
from exporters.doctor import unknown_op
from exporters.inspect_model import inspect_model
from pipeline.errors import GateError, VerificationError
from pipeline.progress import Progress


class BundleVerdict(BaseModel):
    """What was checked of a bundle; there is none of a bundle that failed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    name: str
    version: str
    files: int
    bytes: int
    signed_by: str | None  # id of the key whose signature was checked
    unchecked_signature: str | None  # id of the key that a signature names which no --key was given for
    golden: tuple[GoldenResult, ...]


def verify_bundle(
    bundle: Path, trust: Trust, *, progress: Progress, golden: bool = True, every_runtime: bool = False
) -> BundleVerdict:
    """Check a bundle's folder or zip: schema, hashes, signature, version, ops, and golden vectors on runtimes at hand.

    Raises InputError or VerificationError with the reason for a bundle that is not as it should be; GateError if
    `every_runtime` is asked for and one of those that the bundle's files need is not here.
    """
    with opened_bundle(bundle) as folder:
        trusted = check_bundle(folder, trust, name=bundle)
        _check_ops(folder, trusted.manifest)
        results = run_golden(folder, trusted.manifest, progress) if golden else []
    missing = [result for result in results if result.outcome == "not run"]
    if every_runtime and missing:
        raise GateError(f"{bundle}: expected golden vectors on every runtime, found {missing[0].reason}")
    manifest = trusted.manifest
    return BundleVerdict(
        bundle=str(bundle),
        name=manifest.name,
        version=manifest.version,
        files=len(manifest.files),
        bytes=manifest.total_bytes,
        signed_by=trusted.signed_by,
        unchecked_signature=None if trusted.signed_by else trusted.claims,
        golden=tuple(results),
    )


def _check_ops(folder: Path, manifest: Manifest) -> None:
    for model in manifest.models:
        problem = unknown_op(inspect_model(folder / model.file))
        if problem is not None:
            raise VerificationError(f"{model.file}: expected ops that this build knows, found {problem}")
