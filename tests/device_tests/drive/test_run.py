from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from device_tests.drive.build import Build
from device_tests.drive.device import EngineCall
from device_tests.drive.inputs import features_digest
from device_tests.drive.process import HostDevice
from device_tests.drive.run import ModelFile, embed_with_engine, run_on_device
from device_tests.records import Protocol, read_embeddings, read_run
from pipeline.errors import InputError, VoxPressError
from pipeline.progress import Progress
from tests.device_tests.drive.fakes import fake_device

PROTOCOL = Protocol(warmup=1, runs=3, rounds=2, speed_frames=40)


def features(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"spk{i}/utt.wav": rng.normal(size=(30 + 15 * i, 8)).astype(np.float32) for i in range(3)}


def model(folder: Path, name: str, **behaviour: Any) -> ModelFile:
    path = folder / name
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps({"scale": 1.0, **behaviour}))
    stock = "fp32" in name
    return ModelFile(
        path=path,
        format="pte" if path.suffix == ".pte" else "tflite",
        bits=name.split(".")[0],
        lowering="stock" if stock else "voxpress",
        is_control=stock,
    )


def starts(model: ModelFile) -> list[str]:
    return model.path.with_suffix(".log").read_text().split()


def test_run_measures_every_model_in_turn_and_writes_the_record_last(tmp_path: Path) -> None:
    models = [
        model(tmp_path, "fp32.pte", latency_ns=5000),
        model(tmp_path, "4bit.pte", scale=2.0, kernels=["conv2d_x"], latency_ns=3000),
    ]
    text = io.StringIO()
    progress = Progress(Console(file=text, width=200))
    record = run_on_device(
        fake_device(tmp_path), models, features(), tmp_path / "out", protocol=PROTOCOL, progress=progress
    )

    assert read_run(tmp_path / "out") == record
    assert [entry.file for entry in record.models] == ["fp32.pte", "4bit.pte"]
    four = record.models[1]
    assert four.latency_ns == (3000, 3001, 3002) * 2
    assert four.kernels == ("conv2d_x",)
    assert four.accuracy.utterances == 3
    assert four.file_bytes == models[1].path.stat().st_size
    assert (four.bits, four.format, four.lowering, four.is_control) == ("4bit", "pte", "voxpress", False)
    assert record.models[0].is_control
    assert record.utterances == 3
    assert record.notes == tuple(note for note in record.notes if "taken over" not in note)
    embeddings = read_embeddings(tmp_path / "out" / four.embeddings)
    for utterance, value in features().items():
        np.testing.assert_allclose(embeddings[utterance], 2 * value.mean(axis=0), rtol=1e-6)
    assert starts(models[0]) == ["accuracy", "speed", "speed"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["embeddings", "run.json"]
    # 2 models x ((3 utterances + 1) + 2 rounds x (1 + 3))
    assert "24/24" in text.getvalue()


def test_portable_code_and_the_mode_are_in_the_record(tmp_path: Path) -> None:
    names = ["statspool_f32_none_1x64_portable", "conv2d_u8_pal_4x8_portable", "conv2d_f32_panel_14x32_avx512"]
    models = [
        replace(model(tmp_path, "4bit.pte", kernels=names), mode="fast"),
        model(tmp_path, "8bit.pte", kernels=names[2:]),
    ]
    record = run_on_device(fake_device(tmp_path), models, features(), tmp_path / "out", protocol=PROTOCOL)
    assert [entry.mode for entry in record.models] == ["fast", "exact"]
    portable = [note for note in record.notes if "portable" in note]
    assert portable == ["4bit.pte was run by portable code: conv2d_u8_pal_4x8_portable"]
    assert read_run(tmp_path / "out").notes == record.notes


def test_low_memory_is_passed_to_the_engines(tmp_path: Path) -> None:
    call = EngineCall(Path("m"), "pte", "0" * 64, Path("f"), Path("o"), Protocol(low_memory=True), skip_accuracy=True)
    assert "--low-memory" in call.options("m", "f", "o")
    assert "--low-memory" not in replace(call, protocol=Protocol()).options("m", "f", "o")


def test_engine_failure_is_its_own_line_and_leaves_no_record(tmp_path: Path) -> None:
    broken = model(tmp_path, "4bit.pte", complaint="4bit.pte: expected a .pte file, found garbage")
    with pytest.raises(VoxPressError, match=r"^4bit\.pte: expected a \.pte file, found garbage$"):
        run_on_device(fake_device(tmp_path), [broken], features(), tmp_path / "out", protocol=PROTOCOL)
    assert not (tmp_path / "out" / "run.json").exists()
    assert not list((tmp_path / "out").rglob("*.partial-*"))


def test_a_run_that_fails_leaves_the_results_before_it(tmp_path: Path) -> None:
    good, out = model(tmp_path, "4bit.pte"), tmp_path / "out"
    run_on_device(fake_device(tmp_path), [good], features(), out, protocol=PROTOCOL)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    broken = model(tmp_path, "4bit.pte", complaint="out: expected a place to write to, found No space left on device")
    with pytest.raises(VoxPressError, match="No space left on device"):
        run_on_device(fake_device(tmp_path), [broken], features(), out, protocol=PROTOCOL)
    assert {path: path.read_bytes() for path in before} == before


def test_engine_that_crashes_is_named_with_its_signal(tmp_path: Path) -> None:
    crashing = model(tmp_path, "4bit.tflite", signal=int(signal.SIGSEGV))
    with pytest.raises(
        VoxPressError,
        match=r"4bit\.tflite \(sha256 [0-9a-f]{64}\): .*SIGSEGV after saying: INFO: a runtime that talks$",
    ):
        run_on_device(fake_device(tmp_path), [crashing], features(), tmp_path / "out", protocol=PROTOCOL)


def test_engine_that_cannot_be_started(tmp_path: Path) -> None:
    missing = tmp_path / "no-such-engine"
    missing.write_text("not a program")
    with pytest.raises(VoxPressError, match="no-such-engine: could not be started"):
        run_on_device(
            HostDevice(builds=lambda _: Build(missing)),
            [model(tmp_path, "4bit.pte")],
            features(),
            tmp_path / "out",
            protocol=PROTOCOL,
        )


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"skip_utterance": "spk1/utt.wav"}, "spk1/utt.wav missing"),
        ({"nan": True}, "NaN or infinity for 'spk0/utt.wav'"),
    ],
)
def test_incomplete_or_broken_embeddings_are_refused(tmp_path: Path, behaviour: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_on_device(
            fake_device(tmp_path),
            [model(tmp_path, "2bit.pte", **behaviour)],
            features(),
            tmp_path / "out",
            protocol=PROTOCOL,
        )


def test_interrupted_run_keeps_what_was_done_and_says_so(tmp_path: Path) -> None:
    good = model(tmp_path, "fp32.pte")
    bad = model(tmp_path, "4bit.pte", signal=int(signal.SIGKILL), die_at=3)  # in its second round
    out = tmp_path / "out"
    with pytest.raises(VoxPressError, match="SIGKILL"):
        run_on_device(fake_device(tmp_path), [good, bad], features(), out, protocol=PROTOCOL)
    assert starts(bad) == ["accuracy", "speed", "speed"]

    record = run_on_device(fake_device(tmp_path), [good, bad], features(), out, protocol=PROTOCOL)
    # Embeddings and the first round are kept; the second round is measured again as a whole, the good model included.
    assert starts(bad) == ["accuracy", "speed", "speed", "speed"]
    assert starts(good)[:2] == ["accuracy", "speed"]
    assert starts(good).count("accuracy") == 1
    assert all(len(entry.latency_ns) == 6 for entry in record.models)
    taken = [note for note in record.notes if note.startswith("taken over")]
    assert taken == ["taken over from an interrupted run: embeddings of fp32.pte, embeddings of 4bit.pte, round 1"]


def test_changed_features_or_model_are_measured_again(tmp_path: Path) -> None:
    good = model(tmp_path, "fp32.pte")
    bad = model(tmp_path, "4bit.pte", complaint="not today")
    out = tmp_path / "out"
    for seed, accuracy_passes in ((0, 1), (0, 1), (1, 2)):
        with pytest.raises(VoxPressError, match="not today"):
            run_on_device(fake_device(tmp_path), [good, bad], features(seed), out, protocol=PROTOCOL)
        assert starts(good).count("accuracy") == accuracy_passes
    model(tmp_path, "fp32.pte", scale=3.0)
    with pytest.raises(VoxPressError, match="not today"):
        run_on_device(fake_device(tmp_path), [good, bad], features(1), out, protocol=PROTOCOL)
    assert starts(good).count("accuracy") == 3


def test_killed_driver_resumes(tmp_path: Path) -> None:
    good = model(tmp_path, "fp32.pte")
    slow = model(tmp_path, "4bit.pte", sleep_seconds=30)
    out = tmp_path / "out"
    save_file(features(), tmp_path / "f.safetensors")
    program = (
        "import sys; from pathlib import Path; from safetensors.numpy import load_file;"
        "from device_tests.drive.run import ModelFile, run_on_device; from device_tests.records import Protocol;"
        "from tests.device_tests.drive.fakes import fake_device;"
        "base = Path(sys.argv[1]);"
        "run_on_device(fake_device(base), [ModelFile(base / 'fp32.pte', 'pte', 'fp32', 'stock', True),"
        "ModelFile(base / '4bit.pte', 'pte', '4bit', 'voxpress')], load_file(base / 'f.safetensors'), base / 'out',"
        f"protocol=Protocol.model_validate_json('{PROTOCOL.model_dump_json()}'))"
    )
    driver = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not slow.path.with_suffix(".log").exists():
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not (out / "run.json").exists()

    slow = model(tmp_path, "4bit.pte")
    record = run_on_device(fake_device(tmp_path), [good, slow], features(), out, protocol=PROTOCOL)
    assert starts(good).count("accuracy") == 1
    assert any("embeddings of fp32.pte" in note for note in record.notes)
    assert not [path for path in out.rglob("*") if ".partial-" in path.name]


def test_a_finished_run_is_measured_afresh(tmp_path: Path) -> None:
    only = model(tmp_path, "fp32.pte")
    for _ in range(2):
        record = run_on_device(fake_device(tmp_path), [only], features(), tmp_path / "out", protocol=PROTOCOL)
    assert starts(only) == ["accuracy", "speed", "speed"] * 2
    assert not any("taken over" in note for note in record.notes)


def test_bad_requests_are_refused_before_anything_runs(tmp_path: Path) -> None:
    good, out = model(tmp_path, "4bit.pte"), tmp_path / "out"
    other = model(tmp_path / "other", "4bit.pte")
    empty = model(tmp_path, "empty.pte")
    empty.path.write_bytes(b"")
    for models, words in (
        ([], "at least one model file"),
        ([good, other], "4bit.pte twice"),
        ([empty], "an empty file"),
        ([ModelFile(tmp_path / "none.pte", "pte", "4bit", "stock")], "no such file"),
        ([ModelFile(good.path, "tflite", "4bit", "stock")], "expected a .tflite file"),
    ):
        with pytest.raises(InputError, match=words):
            run_on_device(fake_device(tmp_path), models, features(), out, protocol=PROTOCOL)
    for wrong, words in (
        ({}, "at least one utterance"),
        ({"a": np.zeros((0, 8), np.float32)}, "features of 'a'"),
        ({"a": np.zeros((4, 8), np.float32), "b": np.zeros((4, 9), np.float32)}, "features of 'b'"),
        ({"a": np.zeros((4, 8))}, "float64"),
    ):
        with pytest.raises(InputError, match=words):
            run_on_device(fake_device(tmp_path), [good], wrong, out, protocol=PROTOCOL)
    assert not out.exists()


def test_embed_with_engine_takes_views(tmp_path: Path) -> None:
    wide = {"a": np.arange(80, dtype=np.float32).reshape(10, 8)[:, ::2]}
    embeddings, record = embed_with_engine(fake_device(tmp_path), model(tmp_path, "4bit.pte").path, wide, threads=2)
    np.testing.assert_allclose(embeddings["a"], wide["a"].mean(axis=0))
    assert record.threads == 2
    assert record.utterances == 1


def test_digest_sees_names_shapes_and_values() -> None:
    base = {"a": np.zeros((2, 3), np.float32)}
    others = [
        {"b": np.zeros((2, 3), np.float32)},
        {"a": np.zeros((3, 2), np.float32)},
        {"a": np.ones((2, 3), np.float32)},
        {**base, "b": np.zeros((1, 3), np.float32)},
    ]
    digests = {features_digest(value) for value in (base, *others)}
    assert len(digests) == 5
    assert features_digest(dict(base)) in digests
