"""Which part of the version a release moves, by what it changes for those who have enrolled.

major  the embedding space changed so that enrolled voices break, or may: a cross-version EER did not show otherwise
minor  other weights in a compatible space, shown by cross-version EER; another choice of artifacts or ops
patch  the same network packaged anew
"""

from __future__ import annotations

from dataclasses import dataclass

from exporters.bundle.manifest import Manifest
from exporters.bundle.version import Bump, Version
from exporters.release.compatibility import Compatibility
from pipeline.errors import GateError

FIRST_VERSION = Version(1, 0, 0)

_ORDER: tuple[Bump, ...] = ("patch", "minor", "major")


@dataclass(frozen=True)
class Step:
    """The next version and why."""

    version: Version
    bump: Bump | None  # None: the first release
    reason: str


def needs_trials(old: Manifest, new: Manifest) -> bool:
    """Whether only scores can tell if enrolled voices still work: other weights or features, embeddings of one size."""
    return old.embedding_dim == new.embedding_dim and not _same_network(old, new)


def next_version(
    old: Manifest | None, new: Manifest, compatibility: Compatibility | None, asked: Bump | None = None
) -> Step:
    """The version of a release after `old`.

    `asked` may move a higher part than the rule does, never a lower one. Raises GateError for a lower one, and where
    the rule needs a cross-version EER and there is none.
    """
    if old is None:
        return Step(FIRST_VERSION, None, "first release")
    bump, reason = _by_rule(old, new, compatibility, asked)
    if asked is not None and asked != bump:
        if _ORDER.index(asked) < _ORDER.index(bump):
            raise GateError(f"--bump {asked}: expected {bump} or higher, as this is {reason}, found {asked}")
        bump, reason = asked, f"{reason}; released as {asked} by choice"
    return Step(Version.parse(old.version, old.name).bumped(bump), bump, reason)


def _by_rule(old: Manifest, new: Manifest, compatibility: Compatibility | None, asked: Bump | None) -> tuple[Bump, str]:
    if old.embedding_dim != new.embedding_dim:
        return "major", f"embeddings of {new.embedding_dim} values instead of {old.embedding_dim}"
    if _same_network(old, new):
        moved = _labels(old) != _labels(new) or old.primary != new.primary or _ops(old) != _ops(new)
        return ("minor", "the same weights, other artifacts or ops") if moved else ("patch", "the same network")
    if compatibility is None:
        if asked == "major":
            return "major", "other weights, compatibility not tested"
        raise GateError(
            f"{new.name}: expected trials (--audio, --trials) that show whether enrolled voices still work, or "
            "--bump major, found other weights than those released"
        )
    if compatibility.verdict == "compatible":
        return "minor", f"other weights in a compatible space: {compatibility.sentence()}"
    return "major", f"enrolled voices {'break' if compatibility.verdict == 'incompatible' else 'may break'}: " + (
        compatibility.sentence()
    )


def _same_network(old: Manifest, new: Manifest) -> bool:
    one, other = old.artifact(old.primary), new.artifact(new.primary)
    same_weights = (one.weights_sha256, one.bits) == (other.weights_sha256, other.bits)
    return same_weights and old.frontend == new.frontend


def _labels(manifest: Manifest) -> dict[str, str]:
    return {artifact.label: artifact.weights_sha256 for artifact in manifest.artifacts}


def _ops(manifest: Manifest) -> set[tuple[str, int]]:
    return {(op, version) for model in manifest.models for op, version in model.ops.items()}
