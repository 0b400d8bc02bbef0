from __future__ import annotations

from pathlib import Path

from calibration.record import GroupFigures, RefusedRate
from exporters.bundle.diff import diff_manifests
from exporters.bundle.version import Version
from exporters.release.rule import Step
from exporters.release.settings import CardSettings
from exporters.release.texts import bits_chart, changelog, changelog_entry, model_card
from tests.exporters.bundle.made import made_bundle
from tests.exporters.release.test_gates import calibration
from tests.exporters.release.test_rule import compatibility, evaluation


def test_a_card_says_what_is_known_and_what_is_not(tmp_path: Path) -> None:
    manifest = made_bundle(tmp_path / "net")
    made = calibration(
        groups=(
            GroupFigures(group="female", target_trials=50, nontarget_trials=500, evaluation=evaluation(0.04)),
            GroupFigures(group="across", target_trials=0, nontarget_trials=500, evaluation=None),
        ),
        refused=(RefusedRate(far=0.001, nontarget_trials=1000, needs_trials=30000),),
    )
    words = CardSettings(training_data="An hour of read speech.", limits=("Read speech only.",))
    text = model_card(manifest, made, words, compatibility("undecided"))
    for part in (
        "# net 1.0.0",
        "An hour of read speech.",
        "| all | 100 | 1000 | 5.00 | 2.50–10.00 |",
        "| female | 50 | 500 | 4.00 | 2.00–8.00 |",
        "| across | 0 | 500 | – | trials of one class only |",
        "| far-1% | 0.6000 | 1.00 | 1.00–20.00 | 20.00 | 1.00–20.00 |",
        "20 of 1000 trials, 12 newly wrong and 8 newly right",
        "conv1      4 ████",
        "| models/net-4bit.tflite | 4.00 | 6 | – |",
        "Undecided with voices enrolled by net 1.2.3",
        "- Read speech only.",
        "- Error rates are of 10 speakers: others may do much worse.",
        "it takes 30000 non-target trials, there were 1000.",
        "- Latency was not measured",
    ):
        assert part in text, part
    bare = model_card(manifest, None, CardSettings(), None)
    assert "Not calibrated." in bare
    assert "No threshold is given" in bare


def test_bars_of_bits() -> None:
    assert bits_chart({"a": 1, "long": 8, "x": 32}) == "a     1 █\nlong  8 ████████\nx    32 ████████"


def test_a_changelog_grows_at_its_top(tmp_path: Path) -> None:
    old = made_bundle(tmp_path / "old")
    new = made_bundle(tmp_path / "new", version="1.1.0", salt="other", licence="MIT")
    first = changelog(changelog_entry(Step(Version(1, 0, 0), None, "first release"), None, ()), None)
    assert first == "# Changelog\n\n## 1.0.0\n\nFirst: first release.\n"
    step = Step(Version(1, 1, 0), "minor", "other weights")
    second = changelog(changelog_entry(step, diff_manifests(old, new), ("Quieter rooms.",)), first)
    assert second.startswith(
        "# Changelog\n\n## 1.1.0\n\nMinor: other weights.\n\n- Quieter rooms.\n- licence: CC-BY-4.0 -> MIT\n"
    )
    assert second.endswith("\n## 1.0.0\n\nFirst: first release.\n")
    assert second.count("# Changelog\n") == 1
    assert "sha256" not in second
    assert "version: " not in second
