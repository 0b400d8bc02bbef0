from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from device_tests.records import RunRecord, read_embeddings, read_engine_record, read_run
from pipeline.errors import InputError
from tests.device_tests.report.run_factory import engine_record, make_run


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    return make_run(tmp_path / "made", bits=("fp32", "4bit"), speakers=3).run


def test_run_round_trip(tmp_path: Path, run: RunRecord) -> None:
    (tmp_path / "run.json").write_text(run.model_dump_json())
    assert read_run(tmp_path) == run
    assert read_run(tmp_path).models[0].latency_ns == run.models[0].latency_ns


def test_engine_record_round_trip(tmp_path: Path) -> None:
    record = engine_record("4bit.pte", 10, [1, 2], utterances=3, base=0)
    (tmp_path / "engine.json").write_text(record.model_dump_json())
    assert read_engine_record(tmp_path) == record


def test_unknown_field_is_refused(tmp_path: Path, run: RunRecord) -> None:
    content = json.loads(run.model_dump_json())
    content["models"][1]["median_ms"] = 3
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"run\.json: expected a run record, found models\.1\.median_ms: Extra inputs"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embeddings": "../secret.safetensors"}, "embeddings"),
        ({"embeddings": "embeddings/../../x.safetensors"}, "embeddings"),
        ({"file": "a/b.pte"}, "file"),
        ({"sha256": "00"}, "sha256"),
        ({"format": "onnx"}, "format"),
        ({"file_bytes": 0}, "file_bytes"),
    ],
)
def test_hostile_fields_are_refused(run: RunRecord, change: dict[str, object], words: str) -> None:
    content = json.loads(run.model_dump_json())
    content["models"][0].update(change)
    with pytest.raises(ValidationError, match=words):
        RunRecord.model_validate_json(json.dumps(content))


def test_inconsistent_runs_are_refused(run: RunRecord) -> None:
    for spoil, words in (
        (lambda models: models[1].update(file=models[0]["file"]), "listed twice"),
        (lambda models: models[2].update(is_control=True), "more than one control"),
        (lambda models: models[0]["rounds"].pop(), "has not 3 rounds of 10 runs"),
        (lambda models: models[0]["rounds"][1]["latency_ns"].pop(), "has not 3 rounds of 10 runs"),
    ):
        content = json.loads(run.model_dump_json())
        spoil(content["models"])
        with pytest.raises(ValidationError, match=words):
            RunRecord.model_validate_json(json.dumps(content))


def test_kernels_and_delegates_are_those_of_all_processes(run: RunRecord) -> None:
    model = run.models[2]
    odd = model.rounds[0].model_copy(update={"kernels": ("a_kernel",), "delegates": ("zeta",)})
    model = model.model_copy(update={"rounds": (odd, *model.rounds[1:])})
    assert model.kernels == ("a_kernel", "conv2d_f32_pal_portable", "stats_pool_f32_portable")
    assert model.delegates == ("zeta",)


def test_embeddings_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.safetensors"
    good = {"b": np.ones(4, np.float32), "a": np.zeros(4, np.float32)}
    save_file(good, path)
    assert set(read_embeddings(path)) == {"a", "b"}
    for wrong, words in (
        ({**good, "c": np.ones(5, np.float32)}, "float32 (5,) for 'c'"),
        ({**good, "c": np.ones(4)}, "float64 (4,) for 'c'"),
        ({"a": np.ones((1, 4), np.float32)}, "float32 (1, 4) for 'a'"),
        ({**good, "c": np.array([1, 2, np.nan, 4], np.float32)}, "NaN or infinity for 'c'"),
        ({}, "no embeddings"),
    ):
        save_file(wrong, path)
        with pytest.raises(InputError, match=re.escape(words)):
            read_embeddings(path)
    path.write_bytes(path.read_bytes()[:5])
    with pytest.raises(InputError, match="expected a safetensors file"):
        read_embeddings(path)
    with pytest.raises(InputError, match="no such file"):
        read_embeddings(tmp_path / "none")
