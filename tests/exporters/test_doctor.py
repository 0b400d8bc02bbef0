from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from exporters.doctor import PHONE_BUILDS, WillNotRunError, examine, require_well
from exporters.inspect_model import inspect_model
from exporters.runtimes import RUNTIMES, run_model
from exporters.tflite.emit import emit_tflite
from pipeline.cli import app
from pipeline.errors import InputError, MissingToolError
from tests.exporters.pte.models import tiny_pte
from tests.exporters.tflite.models import altered, set_option
from tests.factories import speech_like, tiny_artifact


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(emit_tflite(tiny_artifact(3), lowering="voxpress"))
    return path


def _verdicts(path: Path, *runtimes: str) -> dict[str, str]:
    return {diagnosis.runtime: diagnosis.verdict for diagnosis in examine(path, runtimes).diagnoses}


def test_contents_of_a_tflite(model: Path) -> None:
    contents = inspect_model(model)
    ops = {op.name: op for op in contents.ops}
    assert (contents.format, contents.bytes, contents.backends) == ("tflite", model.stat().st_size, ())
    assert ops["voxpress.conv2d"].bits == {3: 7}
    assert (ops["voxpress.conv2d"].version, ops["voxpress.stats_pool"].count) == (1, 1)
    assert {name for name, op in ops.items() if op.ours} == {"voxpress.conv2d", "voxpress.stats_pool"}
    assert (contents.inputs[0].name, contents.inputs[0].shape) == ("features", (1, -1, 80))
    assert (contents.outputs[0].name, contents.outputs[0].shape) == ("embedding", (1, 16))
    assert contents.manifest is not None
    assert contents.manifest.artifact == "tiny-3bit"


@pytest.mark.slow
def test_contents_of_a_pte(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pte"
    path.write_bytes(tiny_pte(4))
    contents = inspect_model(path)
    ops = {op.name: op for op in contents.ops}
    assert ops["voxpress::conv2d.out"].bits == {4: 7}
    assert (ops["voxpress::conv2d.out"].version, ops["voxpress::stats_pool.out"].version) == (1, 1)
    assert contents.inputs[0].shape == (1, -1, 80)
    assert contents.manifest is not None
    report = examine(path, ["executorch"])
    assert report.is_well
    assert report.diagnoses[0].tried
    path.write_bytes(tiny_pte(4, "stock"))
    stock = examine(path, ["executorch", "executorch-android"])
    assert (stock.contents.backends, stock.is_well) == (("XnnpackBackend",), True)
    assert stock.diagnoses[0].verdict == "runs"


def test_our_ops_need_a_library_here_and_on_phones(model: Path) -> None:
    verdicts = _verdicts(model, "litert", "tflite-runtime")
    assert verdicts["litert"] == verdicts["tflite-runtime"] == verdicts["tflite-android"] == "needs a library"
    assert verdicts["tflite-play-services"] == "does not run"
    assert verdicts["executorch-ios"] == "other format"
    require_well(examine(model, ["litert"]))
    with pytest.raises(WillNotRunError, match=r"tflite-play-services runs, found: does not run: .*--fallback"):
        require_well(examine(model, ["tflite-play-services"]))


def test_stock_ops_run_everywhere(model: Path) -> None:
    model.write_bytes(emit_tflite(tiny_artifact(3), lowering="stock"))
    verdicts = _verdicts(model, "litert", "tflite-runtime")
    assert {verdicts[name] for name in ("litert", "tflite-runtime", "tflite-android", "tflite-play-services")} == {
        "runs"
    }


def _rename(model: Any) -> None:
    for code in model.operatorCodes:
        if code.customCode == b"voxpress.stats_pool":
            code.customCode = b"someone.else"


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (
            lambda m: set_option(m, 4, struct.pack("<H", 2)),
            "voxpress.conv2d version 2: this build knows version 1 to 1",
        ),
        (_rename, "someone.else: a custom op of others"),
    ],
    ids=["newer op", "foreign op"],
)
def test_ops_that_nothing_here_knows(change: Callable[[Any], None], advice: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.tflite"
    path.write_bytes(altered(change))
    with pytest.raises(WillNotRunError, match=advice):
        require_well(examine(path, ["litert"]))


def test_what_a_runtime_says_is_told(tmp_path: Path) -> None:
    path = tmp_path / "odd.tflite"
    path.write_bytes(altered(lambda m: set_option(m, 6, b"\x09")))  # 9 bits
    (diagnosis, *_) = examine(path, ["litert"]).diagnoses
    assert (diagnosis.verdict, diagnosis.tried) == ("does not run", True)
    assert "bits is not 1..8 or 32" in diagnosis.advice


def test_the_command_line(model: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["doctor", str(model), "--runtime", "litert", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert report["contents"]["ops"][0]["name"]
    assert {diagnosis["runtime"] for diagnosis in report["diagnoses"]} >= {build.name for build in PHONE_BUILDS}
    assert "voxpress.conv2d" in runner.invoke(app, ["doctor", str(model), "--runtime", "litert"]).output
    refused = runner.invoke(app, ["doctor", str(model), "--runtime", "executorch-ios"])
    assert isinstance(refused.exception, WillNotRunError)
    assert refused.exception.exit_code == 3
    assert "Example: voxpress doctor" in runner.invoke(app, ["doctor", "--help"]).output


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\0" * 64, b"\x1c\0\0\0TFL3", b"\x1c\0\0\0ET12"])
def test_what_is_no_model_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "no.tflite"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"no\.tflite: expected a "):
        examine(path)
    with pytest.raises(InputError, match="No such file"):
        examine(tmp_path / "none")


def test_an_unknown_runtime_is_refused(model: Path) -> None:
    with pytest.raises(InputError, match=r"--runtime: expected one of executorch, .*, found windows-phone"):
        examine(model, ["windows-phone"])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_mutated_file_is_described_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = emit_tflite(tiny_artifact(3), lowering="voxpress")
    raw = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=8)):
        raw[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("mutated") / "m.tflite"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    with suppress(InputError):
        inspect_model(path)


@pytest.mark.slow  # TensorFlow takes its time to import
def test_the_three_tflite_runtimes_give_the_same_bits(model: Path, tmp_path: Path) -> None:
    model.write_bytes(emit_tflite(tiny_artifact(4), lowering="voxpress", model_input="waveform"))
    inputs = {
        f"{seconds}": np.stack([speech_like(seconds)] * batch) for seconds, batch in ((0.3, 1), (2.5, 1), (1.0, 4))
    }
    found = {name: run_model(RUNTIMES[name], model, inputs) for name in ("litert", "tensorflow", "tflite-runtime")}
    for name, outputs in found.items():
        for key, value in outputs.items():
            np.testing.assert_array_equal(value, found["litert"][key], err_msg=f"{name} {key}")
    assert found["litert"]["1.0"].shape == (4, 16)
    threaded = run_model(RUNTIMES["tflite-runtime"], model, inputs, threads=2)
    for key, value in threaded.items():
        np.testing.assert_array_equal(value, found["litert"][key])


def test_a_runtime_that_is_not_there_is_named(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOXPRESS_TFLITE_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(
        MissingToolError, match="tflite-runtime: expected the runtime on this machine, found none; run `make"
    ):
        run_model(RUNTIMES["tflite-runtime"], model, {})
    with pytest.raises(WillNotRunError, match=r"found: not on this machine: run `make tflite-runtime`"):
        require_well(examine(model, ["tflite-runtime"]))
