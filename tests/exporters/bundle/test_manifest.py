from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from exporters.bundle.manifest import SCHEMA_FILE, Manifest, schema_text
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


def test_a_mode_and_its_ops_are_carried(manifest: Manifest) -> None:
    fast = made_model("pte", mode="fast", input="waveform", ops={"voxpress.conv2d_u8": 1, "voxpress.fbank": 2})
    values = {name: getattr(manifest, name) for name in Manifest.model_fields} | {"models": (fast,)}
    read = Manifest.model_validate_json(Manifest.model_validate(values).json_bytes())
    assert (read.models[0].mode, read.models[0].input, read.models[0].ops["voxpress.fbank"]) == ("fast", "waveform", 2)
