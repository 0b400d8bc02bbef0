"""Enrolment and decisions of the core that apps share, against Python."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from device_tests.drive.build import host_build
from exporters.bundle.signature import key_id
from exporters.native import native_path
from tests.device_tests.core.capi import BAD_INPUT, CLOSED, CoreError, Speaker, benchmark, open_bundle
from tests.device_tests.core.signed import (
    CHUNK_SECONDS,
    KEY,
    Reference,
    Signed,
    changed,
    public_pem,
    synthetic_voices,
    trials_of,
)
from tests.device_tests.interpreter import interpreter_library
from tests.factories import speech_like

RATE = 16000


def refused(call: object, *arguments: object, status: int = BAD_INPUT, **options: object) -> str:
    with pytest.raises(CoreError) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    assert caught.value.status == status
    return str(caught.value)


def test_info_says_what_was_opened(signed: Signed, speaker: Speaker) -> None:
    info, calibration = speaker.info(), signed.manifest.calibration("4bit")
    assert calibration is not None
    assert (info.name, info.version, info.model) == (b"tiny", b"1.2.0", b"models/tiny-4bit.pte")
    assert (info.engine, info.operating_point) == (b"executorch", b"eer")
    assert info.signed_by.decode() == key_id(KEY.public_key())
    assert info.threshold == calibration.thresholds[0].threshold
    assert (info.sample_rate_hz, info.embedding_dim, info.min_samples, info.max_samples) == (RATE, 16, 4800, 0)


def test_decisions_equal_the_reference_for_every_trial(signed: Signed, speaker: Speaker, tmp_path: Path) -> None:
    reference = Reference(signed.artifact, signed.manifest)
    accepted = []
    for _, enrolment, tests in trials_of(synthetic_voices(tmp_path / "voices")):
        voice, expected_voice = speaker.enroll(*enrolment), reference.enroll(*enrolment)
        for samples in tests:
            found, expected = speaker.verify(voice, samples), reference.verify(expected_voice, samples)
            assert found.accepted == expected.accepted
            assert found.score == pytest.approx(expected.score, abs=2e-5)
            assert found.llr == pytest.approx(expected.llr, abs=2e-5 * (1 + abs(reference.llr.slope)))
            accepted.append(found.accepted)
    assert len(accepted) == 28
    assert 0 < sum(accepted) < len(accepted)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.999, CHUNK_SECONDS, 2.02, 5.0])
def test_embeddings_of_any_length_equal_the_reference(signed: Signed, speaker: Speaker, seconds: float) -> None:
    samples = speech_like(seconds, seed=4)
    expected = Reference(signed.artifact, signed.manifest).embed(samples)
    np.testing.assert_allclose(speaker.embed(samples), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def litert(signed: Signed, runtime: Path) -> Speaker:
    libraries = {"runtime_library": str(runtime), "delegate_library": str(native_path("tflite_delegate"))}
    return open_bundle(signed.folder, public_pem(), format="tflite", **libraries)


@pytest.mark.parametrize("runtime", [host_build("tflite").runtime, interpreter_library()], ids=lambda path: path.name)
def test_both_engines_decide_alike_on_one_voice(signed: Signed, speaker: Speaker, runtime: Path) -> None:
    """In one process, where both runtimes have their own kernels; with LiteRT 2 and with LiteRT 1's interpreter."""
    other = litert(signed, runtime)
    assert (other.info().engine, other.info().model) == (b"litert", b"models/tiny-4bit.tflite")
    voice = speaker.enroll(speech_like(1.0))
    for seed in range(4):
        samples = speech_like(0.7 + seed, seed=seed)
        found, expected = other.verify(voice, samples), speaker.verify(voice, samples)
        assert (found.accepted, found.score) == (expected.accepted, pytest.approx(expected.score, abs=1e-5))
    other.close()


def test_a_runtime_that_is_not_there_is_named(signed: Signed) -> None:
    line = refused(open_bundle, signed.folder, public_pem(), format="tflite", runtime_library="/nowhere/libLiteRt.so")
    assert line.startswith(f"{signed.folder}/models/tiny-4bit.tflite: expected a model that the engine can load, found")
    assert "/nowhere/libLiteRt.so" in line


def test_the_runner_runs_within_an_app(signed: Signed, tmp_path: Path) -> None:
    features = tmp_path / "features.safetensors"
    safetensors.numpy.save_file({"u": np.zeros((100, 80), np.float32)}, features)
    words = ("--features", features, "--out", tmp_path / "out", "--runs", "2", "--speed-frames", "60")
    assert benchmark("--model", signed.folder / "models/tiny-4bit.pte", *words) == (0, "")
    assert len(json.loads((tmp_path / "out" / "engine.json").read_text())["latency_ns"]) == 2
    assert list(safetensors.numpy.load_file(tmp_path / "out" / "embeddings.safetensors")) == ["u"]
    nothing = tmp_path / "nothing.pte"
    code, text = benchmark("--model", nothing, *words)
    assert (code, text.startswith(f"{nothing}: expected a")) == (2, True)
    assert benchmark("--model", "m.onnx") == (2, "--model: expected a file of .pte or .tflite, found m.onnx")


def test_a_voice_is_the_mean_direction(speaker: Speaker) -> None:
    utterances = [speech_like(0.5, seed=seed) for seed in range(3)]
    embedding = np.frombuffer(speaker.enroll(*utterances)[120:], np.float32)
    mean = sum(e / np.linalg.norm(e) for e in map(speaker.embed, utterances))
    np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), atol=1e-6)
    # Loudness of an embedding does not count, and the same utterance has a cosine of 1.
    assert speaker.verify(speaker.enroll(utterances[0]), utterances[0]).score == pytest.approx(1, abs=1e-6)


def test_another_operating_point_decides_by_its_threshold(signed: Signed) -> None:
    calibration = signed.manifest.calibration("4bit")
    assert calibration is not None
    point = calibration.thresholds[-1]
    opened = open_bundle(signed.folder, public_pem(), operating_point=point.name)
    assert opened.info().threshold == point.threshold
    opened.close()
    names = ", ".join(entry.name for entry in calibration.thresholds)
    line = refused(open_bundle, signed.folder, public_pem(), operating_point="far-0.5%")
    assert line == f"{signed.folder}: expected a threshold named far-0.5%, found {names}"


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(4799, np.float32), "expected at least 4800 samples, found 4799"),
        (np.zeros(0, np.float32), "expected at least 4800 samples, found 0"),
        (np.full(8000, np.nan, np.float32), "NaN or infinite"),
        (np.full(8000, np.inf, np.float32), "NaN or infinite"),
    ],
)
def test_samples_that_are_none_are_refused(speaker: Speaker, samples: np.ndarray, reason: str) -> None:
    voice = speaker.enroll(speech_like(0.5))
    for call in (speaker.embed, speaker.enroll, lambda utterance: speaker.verify(voice, utterance)):
        assert reason in refused(call, samples)
    assert refused(speaker.enroll) == "enrolment: expected at least one utterance, found none"


def test_a_voice_that_is_none_is_refused(signed: Signed, speaker: Speaker) -> None:
    samples, voice = speech_like(0.5), speaker.enroll(speech_like(0.5))
    for bad in (b"", voice[:100], voice[:-1], voice + b"\0", b"x" * len(voice)):
        assert refused(speaker.verify, bad, samples).startswith("voice: expected an enrolled voice, found")
    assert "one of version 2" in refused(speaker.verify, voice[:4] + b"\2" + voice[5:], samples)
    assert "one of no numbers" in refused(speaker.verify, voice[:8] + b"\0" * 4 + voice[12:120], samples)
    # Dimension 2^32 - 1: the size that this claims is not the size that there is.
    assert "bytes" in refused(speaker.verify, voice[:8] + b"\xff" * 4 + voice[12:], samples)
    nan = voice[:120] + b"\xff" * 64
    assert refused(speaker.verify, nan, samples).endswith("NaN or infinite")


def test_a_voice_of_another_major_version_is_refused(signed: Signed, speaker: Speaker, tmp_path: Path) -> None:
    samples, voice = speech_like(0.5), speaker.enroll(speech_like(0.5))
    same = open_bundle(changed(signed, tmp_path / "minor", version="1.9.3"), public_pem())
    assert same.verify(voice, samples) == speaker.verify(voice, samples)
    other = open_bundle(changed(signed, tmp_path / "major", version="2.0.0"), public_pem())
    expected = "voice: expected one enrolled with tiny 2.x, 4bit, of 16, found one of tiny 1.x, 4bit, of 16"
    assert refused(other.verify, voice, samples) == expected
    same.close()
    other.close()


def test_a_closed_handle_answers_and_does_not_crash(signed: Signed) -> None:
    opened = open_bundle(signed.folder, public_pem())
    voice, samples = opened.enroll(speech_like(0.5)), speech_like(0.5)
    opened.close()
    opened.close()
    for call in (opened.info, lambda: opened.verify(voice, samples)):
        assert refused(call, status=CLOSED) == "expected an open bundle, found one that was closed"
    assert refused(Speaker(0).info, status=CLOSED)
    assert refused(Speaker(1 << 63).info, status=CLOSED)


def test_two_threads_get_what_one_gets(signed: Signed, speaker: Speaker) -> None:
    """On one handle and on two, whose models share the runtime."""
    utterances = [speech_like(0.4 + 0.05 * n, seed=n) for n in range(6)]
    expected = [speaker.embed(samples).tobytes() for samples in utterances]
    second = open_bundle(signed.folder, public_pem())
    found: dict[int, list[bytes]] = {}

    def work(index: int, one: Speaker) -> None:
        found[index] = [one.embed(samples).tobytes() for _ in range(5) for samples in utterances]

    threads = [threading.Thread(target=work, args=(i, one)) for i, one in enumerate((speaker, speaker, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(3), expected * 5)
    second.close()


def test_closing_during_use_ends_with_an_error_not_a_crash(signed: Signed) -> None:
    samples = speech_like(5.0)
    for _ in range(5):
        opened = open_bundle(signed.folder, public_pem())
        expected, outcomes = opened.embed(samples).tobytes(), set()
        begun = threading.Barrier(3)

        def work(opened: Speaker = opened, begun: threading.Barrier = begun, outcomes: set = outcomes) -> None:
            begun.wait()
            try:
                while True:
                    outcomes.add(opened.embed(samples).tobytes())
            except CoreError as error:
                outcomes.add(error.status)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        opened.close()
        for thread in threads:
            thread.join()
        assert outcomes <= {expected, CLOSED}
        assert CLOSED in outcomes
