"""Which part of the version moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporters.bundle.manifest import Manifest
from exporters.bundle.version import Version
from exporters.release.compatibility import ComparedModel, Compatibility, Verdict, judge
from exporters.release.rule import needs_trials, next_version
from pipeline.errors import GateError, InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.scoring.metrics import Interval
from pipeline.scoring.score import Evaluation
from tests.exporters.bundle.made import made_bundle, made_model


def evaluation(eer: float) -> Evaluation:
    return Evaluation(
        eer=eer,
        eer_interval=Interval(eer / 2, eer * 2, 100, "speakers"),
        interval_level=0.95,
        min_dcf=0.5,
        p_target=0.01,
        threshold=0.5,
        target_trials=100,
        nontarget_trials=1000,
        utterances=50,
        speakers=10,
    )


def compatibility(verdict: Verdict) -> Compatibility:
    side = ComparedModel(bundle="net 1.2.3", model="net-4bit.pte", runtime="executorch 1.5.1")
    return Compatibility(
        old=side,
        new=side,
        trials_sha256="0" * 64,
        margin=0.01,
        old_alone=evaluation(0.02),
        new_alone=evaluation(0.03),
        across=evaluation(0.03),
        loss=Interval(-0.01, 0.005, 1000, "speakers"),
        cosine_mean=0.99,
        points=(),
        verdict=verdict,
    )


@pytest.fixture
def old(tmp_path: Path) -> Manifest:
    return made_bundle(tmp_path / "old", version="1.2.3")


def _new(tmp_path: Path, **fields: Any) -> Manifest:
    return made_bundle(tmp_path / "new", version="0.1.0", **fields)


def test_the_first_release_is_1_0_0(tmp_path: Path) -> None:
    assert next_version(None, _new(tmp_path), None).version == Version(1, 0, 0)


def test_the_same_network_anew_is_a_patch(tmp_path: Path, old: Manifest) -> None:
    new = _new(tmp_path, licence="MIT", padding=10)
    assert not needs_trials(old, new)
    step = next_version(old, new, None)
    assert (str(step.version), step.bump) == ("1.2.4", "patch")


def test_another_op_is_a_minor(tmp_path: Path, old: Manifest) -> None:
    models = tuple(made_model(suffix, ops={"voxpress.conv2d": 2}) for suffix in ("pte", "tflite"))
    assert str(next_version(old, _new(tmp_path, models=models), None).version) == "1.3.0"


@pytest.mark.parametrize(
    ("verdict", "version"), [("compatible", "1.3.0"), ("undecided", "2.0.0"), ("incompatible", "2.0.0")]
)
def test_other_weights_are_a_minor_only_if_shown(tmp_path: Path, old: Manifest, verdict: Verdict, version: str) -> None:
    new = _new(tmp_path, salt="other")
    assert needs_trials(old, new)
    step = next_version(old, new, compatibility(verdict))
    assert str(step.version) == version
    assert "EER 3.00 % (old 2.00 %, new 3.00 %)" in step.reason


def test_without_trials_only_a_major_can_be_released(tmp_path: Path, old: Manifest) -> None:
    new = _new(tmp_path, salt="other")
    for asked in (None, "minor", "patch"):
        with pytest.raises(GateError, match=r"expected trials \(--audio, --trials\)"):
            next_version(old, new, None, asked)
    assert str(next_version(old, new, None, "major").version) == "2.0.0"


def test_another_front_end_needs_trials_too(tmp_path: Path, old: Manifest) -> None:
    assert needs_trials(old, _new(tmp_path, frontend=FrontEndSpec(window="povey")))


def test_embeddings_of_another_size_are_a_major(tmp_path: Path, old: Manifest) -> None:
    new = _new(tmp_path, salt="other", embedding_dim=32)
    assert not needs_trials(old, new)
    step = next_version(old, new, None)
    assert (str(step.version), step.reason) == ("2.0.0", "embeddings of 32 values instead of 16")


def test_a_higher_part_may_be_asked_for_and_a_lower_may_not(tmp_path: Path, old: Manifest) -> None:
    new = _new(tmp_path, salt="other")
    assert str(next_version(old, new, compatibility("compatible"), "major").version) == "2.0.0"
    with pytest.raises(GateError, match="--bump patch: expected minor or higher"):
        next_version(old, new, compatibility("compatible"), "patch")
    with pytest.raises(GateError, match="--bump minor: expected major or higher"):
        next_version(old, new, compatibility("undecided"), "minor")


def test_verdicts_are_of_the_whole_interval() -> None:
    assert judge(Interval(-0.02, 0.009, 10, "trials"), 0.01) == "compatible"
    assert judge(Interval(-0.02, 0.011, 10, "trials"), 0.01) == "undecided"
    assert judge(Interval(0.011, 0.02, 10, "trials"), 0.01) == "incompatible"
    assert judge(None, 0.01) == "incompatible"


def test_versions_are_ordered_as_numbers() -> None:
    assert Version.parse("1.10.0", "x") > Version.parse("1.9.9", "x")
    assert str(Version(1, 2, 3).bumped("minor")) == "1.3.0"
    for bad in ("1.0", "1.0.0.0", "v1.0.0", "01.0.0", "1.0.x", "", "-1.0.0", "1.0.0\n", "9999999999.0.0"):
        with pytest.raises(InputError, match="x: expected a version"):
            Version.parse(bad, "x")
