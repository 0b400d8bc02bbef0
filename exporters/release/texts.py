"""The texts of a release: model card and changelog, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from calibration.record import Calibration
from exporters.bundle.diff import BundleDiff
from exporters.bundle.manifest import Manifest
from exporters.release.compatibility import Compatibility
from exporters.release.rule import Step
from exporters.release.settings import CardSettings

CARD_FILE = "MODEL_CARD.md"
CHANGELOG_FILE = "CHANGELOG.md"

_FEW_SPEAKERS = 40
_CHANGELOG_HEAD = "# Changelog\n"
_BAR = "█"


def model_card(
    manifest: Manifest, calibration: Calibration | None, words: CardSettings, compatibility: Compatibility | None
) -> str:
    """The model card of a bundle: use, data, error rates by group, bytes, bits of every layer, limits."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, not HTML; the figures are numbers and the words the publisher's own
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    artifact = manifest.artifact(manifest.primary)
    return environment.get_template("model_card.md.j2").render(
        manifest=manifest,
        artifact=artifact,
        calibration=calibration,
        words=words,
        compatibility=compatibility,
        bits_chart=bits_chart(artifact.bits),
        limits=[*words.limits, *_limits(manifest, calibration)],
        percent=lambda rate: f"{100 * rate:.2f}",
    )


def bits_chart(bits: dict[str, int]) -> str:
    """Width of every layer as bars of text, one layer a line; 32: not quantized."""
    longest = max(len(name) for name in bits)
    return "\n".join(f"{name:<{longest}} {width:>2} {_BAR * min(width, 8)}" for name, width in bits.items())


def changelog_entry(step: Step, diff: BundleDiff | None, notes: Sequence[str]) -> str:
    """The section of one version: why it is this version, the publisher's notes, what changed."""
    kind = step.bump or "first"
    lines = [f"## {step.version}", "", f"{kind[0].upper()}{kind[1:]}: {step.reason}.", ""]
    lines += [f"- {note}" for note in notes]
    if diff is not None:
        for change in diff.changes:
            if change.kind != "file" and change.what != "version":
                lines.append(f"- {change.what}: {change.old or 'none'} -> {change.new or 'none'}")
    return "\n".join(lines).rstrip() + "\n"


def changelog(entry: str, before: str | None) -> str:
    """A changelog with a new section on top. `before`: the text so far; None: there is none."""
    older = (before or _CHANGELOG_HEAD).removeprefix(_CHANGELOG_HEAD).strip("\n")
    return f"{_CHANGELOG_HEAD}\n{entry}" + (f"\n{older}\n" if older else "")


def _limits(manifest: Manifest, calibration: Calibration | None) -> list[str]:
    """What the figures themselves say about how far they reach."""
    found = []
    if calibration is None:
        found.append("No threshold is given: scores were not calibrated.")
    else:
        trials = calibration.trials
        if trials.speakers is None:
            found.append("Speakers of the trials are not known: intervals resample trials and are too narrow.")
        elif trials.speakers < _FEW_SPEAKERS:
            found.append(f"Error rates are of {trials.speakers} speakers: others may do much worse.")
        for refused in calibration.refused:
            found.append(
                f"No threshold for a false acceptance rate of {100 * refused.far:g} %: it takes "
                f"{refused.needs_trials} non-target trials, there were {refused.nontarget_trials}."
            )
        if not calibration.groups:
            found.append("Error rates by group of speakers are not known: the trial list has no labels.")
    if not manifest.latency:
        found.append("Latency was not measured against an fp32 control.")
    seconds = manifest.frontend.min_seconds
    found.append(
        f"Utterances shorter than {seconds:g} s are refused; accuracy on other lengths than the trials' is not known."
    )
    return found
