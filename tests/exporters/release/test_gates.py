from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calibration.llr import LlrMap
from calibration.record import Calibration, CalibrationTrials, PointFlips, ReferenceFlips, Subject, Threshold
from calibration.threshold import DecisionFlips
from exporters.bundle.manifest import DeviceLatency, Manifest
from exporters.release.gates import failed_gates
from exporters.release.settings import GateSettings, ReleaseSettings, read_release_settings
from pipeline.errors import InputError
from pipeline.scoring.metrics import Interval
from tests.exporters.bundle.made import made_bundle
from tests.exporters.release.test_rule import compatibility, evaluation

INTERVAL = Interval(0.01, 0.2, 100, "speakers")


def calibration(**fields: Any) -> Calibration:
    subject = Subject(name="4bit", kind="artifact", sha256="0" * 64)
    flips = DecisionFlips(
        trials=1000,
        total=20,
        harmful=12,
        helpful=8,
        newly_missed=2,
        newly_accepted_nontargets=10,
        reference_threshold=0.5,
        other_threshold=0.5,
    )
    values: dict[str, Any] = {
        "created_by": "tests",
        "subject": subject,
        "runtime": "torch",
        "score": "cosine",
        "cohort": None,
        "trials": CalibrationTrials(
            list_sha256="0" * 64, target_trials=100, nontarget_trials=1000, utterances=50, speakers=10
        ),
        "evaluation": evaluation(0.05),
        "llr": LlrMap(slope=10.0, intercept=-3.0),
        "cllr": 0.3,
        "cllr_interval": INTERVAL,
        "cllr_min": 0.25,
        "cllr_other_speakers": None,
        "thresholds": (
            Threshold(
                name="far-1%",
                threshold=0.6,
                threshold_interval=INTERVAL,
                threshold_llr=3.0,
                false_acceptances=10,
                false_rejections=20,
                far=0.01,
                far_interval=INTERVAL,
                far_needs_trials=None,
                frr=0.2,
                frr_interval=INTERVAL,
            ),
        ),
        "refused": (),
        "flips": ReferenceFlips(
            reference=subject, reference_eer=0.04, points=(PointFlips(point="eer", flips=flips, by_distance=()),)
        ),
    }
    return Calibration.model_validate(values | fields)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    latency = DeviceLatency(
        model="models/net-4bit.pte",
        device="host",
        processor="a processor",
        control="net-fp32.pte",
        ratio=0.8,
        ratio_low=0.7,
        ratio_high=0.9,
        runs=30,
        threads=1,
        report="frontend.json",
    )
    return made_bundle(tmp_path / "net", latency=(latency,))


GATES = [
    ({"max_eer": 0.04}, "max_eer: expected at most 0.04, found 0.05", {"max_eer": 0.05}),
    ({"max_eer_high": 0.09}, "max_eer_high: expected at most 0.09, found 0.1", {"max_eer_high": 0.1}),
    ({"max_min_dcf": 0.4}, "max_min_dcf", {"max_min_dcf": 0.5}),
    ({"max_frr": {"far-1%": 0.1}}, "max_frr at far-1%: expected at most 0.1, found 0.2", {"max_frr": {"far-1%": 0.2}}),
    ({"max_frr": {"far-0.1%": 1.0}}, "max_frr: expected a threshold far-0.1%, found far-1%", {}),
    ({"min_target_trials": 101}, "min_target_trials", {"min_target_trials": 100}),
    ({"min_nontarget_trials": 1001}, "min_nontarget_trials", {"min_nontarget_trials": 1000}),
    ({"min_speakers": 11}, "min_speakers: expected at least 11, found 10", {"min_speakers": 10}),
    (
        {"max_model_bytes": 5},
        "max_model_bytes: expected models/net-4bit.tflite of at most 5, found 6",
        {"max_model_bytes": 6},
    ),
    ({"max_latency_ratio": 0.7}, "max_latency_ratio", {"max_latency_ratio": 0.8}),
    ({"max_harmful_flips": 0.01}, "max_harmful_flips: expected at most 0.01 of 1000", {"max_harmful_flips": 0.02}),
    ({"max_eer_increase": 0.005}, "max_eer_increase: expected at most 0.005, found 0.01", {"max_eer_increase": 0.02}),
]


@pytest.mark.parametrize(("refusing", "words", "passing"), GATES)
def test_each_gate(manifest: Manifest, refusing: dict[str, Any], words: str, passing: dict[str, Any]) -> None:
    def failed(settings: dict[str, Any]) -> list[str]:
        gates = GateSettings.model_validate(settings)
        return failed_gates(manifest, calibration(), gates, compatibility("compatible"))

    (line,) = failed(refusing)
    assert words in line
    assert failed(passing) == []


def test_what_is_always_asked(manifest: Manifest) -> None:
    unlicensed = manifest.model_copy(update={"licence": "Unspecified"})
    lines = failed_gates(unlicensed, None, GateSettings(), None)
    assert [line.split(":")[0] for line in lines] == ["licence", "calibration"]


def test_a_limit_on_what_is_not_stated_is_not_passed(manifest: Manifest) -> None:
    silent = manifest.model_copy(update={"latency": ()})
    gates = GateSettings(max_latency_ratio=9.0, max_harmful_flips=1.0)
    lines = failed_gates(silent, calibration(flips=None), gates, None)
    assert [line.split(":")[0] for line in lines] == ["max_harmful_flips", "max_latency_ratio"]


def test_settings_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "release.toml"
    path.write_text('[gates]\nmax_eer = 0.05\nmax_frr = {"far-1%" = 0.1}\n[card]\ntraining_data = "An hour."\n')
    settings = read_release_settings(path)
    assert (settings.gates.max_eer, settings.gates.max_frr) == (0.05, {"far-1%": 0.1})
    assert settings.card.training_data == "An hour."
    assert read_release_settings(None) == ReleaseSettings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gates]\nmax_er = 1", r"known keys \(gates.max_eer\?\)"),
        ("[gates]\nmax_eer = 2", "gates.max_eer"),
        ("[gates", "expected TOML"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "release.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_release_settings(path)
    with pytest.raises(InputError, match=r"nowhere.toml: expected release settings, found No such file"):
        read_release_settings(tmp_path / "nowhere.toml")
