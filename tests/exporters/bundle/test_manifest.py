from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from exporters.bundle.manifest import SCHEMA_FILE, FileEntry, Manifest, schema_text
from tests.exporters.bundle.made import made_bundle, made_model


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return made_bundle(tmp_path / "net")


def test_the_schema_beside_the_code_is_that_of_the_code() -> None:
    """After a change that a new format version allows: write `schema_text()` into the file."""
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text()


def test_the_schema_takes_manifests_and_refuses_others(manifest: Manifest) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    good = json.loads(manifest.json_bytes())
    validator.validate(good)
    for change in ({"version": "1.0"}, {"format_version": 2}, {"models": []}, {"extra": 1}, {"files": {"../x": {}}}):
        assert not validator.is_valid(good | change), change


def test_a_manifest_is_read_back_as_it_was_written(manifest: Manifest) -> None:
    assert Manifest.model_validate_json(manifest.json_bytes()) == manifest
    assert manifest.json_bytes() == Manifest.model_validate_json(manifest.json_bytes()).json_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"primary": "8bit"},
        {"models": (made_model("pte", label="8bit"),)},
        {"models": (made_model("pte", file="models/other.pte"),)},
        {"name": "With Space"},
        {"version": "01.0.0"},
        {"model_card": "MODEL_CARD.md"},
        {"embedding_dim": 0},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(manifest: Manifest, change: dict[str, Any]) -> None:
    values = {name: getattr(manifest, name) for name in Manifest.model_fields}
    Manifest.model_validate(values)
    with pytest.raises(ValidationError):
        Manifest.model_validate(values | change)


def test_files_that_differ_only_in_capitals_are_refused(manifest: Manifest) -> None:
    values = {name: getattr(manifest, name) for name in Manifest.model_fields}
    files = {**manifest.files, "FRONTEND.json": manifest.files["frontend.json"]}
    with pytest.raises(ValidationError, match="only in capitals"):
        Manifest.model_validate(values | {"files": files})


INTERVAL = {"low": 0.0, "high": 0.2, "draws": 20, "unit": "trials"}
COHORT = {"sha256": "1" * 64, "speakers": 4, "top": 2}


def calibration(**change: Any) -> dict[str, Any]:
    """A calibration of AS-Norm scores, as JSON has it."""
    rates = {"eer": 0.1, "min_dcf": 0.5, "p_target": 0.01, "threshold": 0.3}
    counts = {"target_trials": 9, "nontarget_trials": 9, "utterances": 6, "speakers": None}
    made = {"label": "4bit", "mode": "exact", "models": (), "file": "frontend.json", "score": "as-norm"}
    made |= {"cohort": "calibration/4bit/cohort.safetensors", "cohort_info": COHORT, "cllr": 0.5, "thresholds": ()}
    made |= {"llr": {"slope": 1.0, "intercept": 0.0}}
    made |= {"evaluation": {**rates, **counts, "eer_interval": INTERVAL, "interval_level": 0.95}}
    return made | change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"score": "cosine", "cohort": None, "cohort_info": None}, None),
        ({"cohort": None}, "a calibration of as-norm scores without a cohort"),
        ({"cohort_info": None}, "a calibration of as-norm scores without a cohort"),
        ({"cohort": None, "cohort_info": None}, "a calibration of as-norm scores without a cohort"),
        ({"score": "cosine"}, "a calibration of cosine scores with a cohort"),
        ({"cohort": "frontend.json"}, "frontend.json is not the cohort that the calibration of 4bit was made with"),
    ],
)
def test_normalised_scores_have_their_cohort_and_no_others_do(
    manifest: Manifest, change: dict[str, Any], words: str | None
) -> None:
    values = {name: getattr(manifest, name) for name in Manifest.model_fields}
    cohort = {"calibration/4bit/cohort.safetensors": FileEntry(sha256=COHORT["sha256"], bytes=1)}
    values |= {"files": manifest.files | cohort, "calibrations": (calibration(**change),)}
    if words is None:
        Manifest.model_validate(values)
        return
    with pytest.raises(ValidationError, match=words):
        Manifest.model_validate(values)


def test_a_mode_and_its_ops_are_carried(manifest: Manifest) -> None:
    fast = made_model("pte", mode="fast", input="waveform", ops={"voxpress.conv2d_u8": 1, "voxpress.fbank": 2})
    values = {name: getattr(manifest, name) for name in Manifest.model_fields} | {"models": (fast,)}
    read = Manifest.model_validate_json(Manifest.model_validate(values).json_bytes())
    assert (read.models[0].mode, read.models[0].input, read.models[0].ops["voxpress.fbank"]) == ("fast", "waveform", 2)
