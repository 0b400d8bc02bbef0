"""The Kotlin API and its JNI layer on the desktop JVM, over the host's build of the core."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporters.bundle.archive import zip_bundle
from tests.android.jvm_session import build, session, write_samples
from tests.device_tests.core.signed import Reference, Signed, public_pem, synthetic_voices, trials_of
from tests.factories import speech_like

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("javac") is None, reason="needs Debian's openjdk-17-jdk-headless"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("jvm"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem())
    return path


# ExecuTorch, and LiteRT 1's interpreter, found by the name of its library in the AAR.
ENGINES = {"pte": ("executorch", "1.5.1"), "tflite": ("litert", "2.17.1")}


@pytest.mark.parametrize("model_format", ENGINES)
def test_decisions_equal_the_reference_for_every_trial(
    built: Path, signed: Signed, key: Path, tmp_path: Path, model_format: str
) -> None:
    reference = Reference(signed.artifact, signed.manifest)
    accepted = []
    for speaker, enrolment, tests in trials_of(synthetic_voices(tmp_path / "voices")):
        files = write_samples(tmp_path / speaker, [*enrolment, *tests])
        system = (f"-Dvoxpress.format={model_format}",)
        info, *found = session(built, "trials", signed.folder, key, *files, system=system)
        assert (info["engine"], info["runtime"]) == ENGINES[model_format]
        assert (info["model"], info["threshold"]) == (f"models/tiny-4bit.{model_format}", reference.threshold)
        voice = reference.enroll(*enrolment)
        for decision, samples in zip(found, tests, strict=True):
            expected = reference.verify(voice, samples)
            assert decision["accepted"] == expected.accepted
            assert decision["score"] == pytest.approx(expected.score, abs=2e-5)
            assert decision["llr"] == pytest.approx(expected.llr, abs=2e-5 * (1 + abs(reference.llr.slope)))
            accepted.append(decision["accepted"])
    assert len(accepted) == 28
    assert 0 < sum(accepted) < len(accepted)


def test_errors_are_exceptions_with_one_line(built: Path, signed: Signed, key: Path, tmp_path: Path) -> None:
    (file,) = write_samples(tmp_path, [speech_like(0.5)])
    found = {name: text for line in session(built, "errors", signed.folder, key, file) for name, text in line.items()}
    refused, closed = "org.voxpress.VoxPressException: ", "java.lang.IllegalStateException: "
    expected = {
        "no bundle": f"{refused}{signed.folder}/nothing: expected a bundle's folder or zip, found no such folder",
        "no storage": f"{refused}{signed.folder}/manifest.json: expected a folder of the app to unpack this zip into, "
        "found no storage",
        "no key": f"{refused}public key: expected an Ed25519 public key (PEM), found no whole PEM block",
        "verifier throws": f"{closed}broken",
        "no voice": f"{refused}voice: expected an enrolled voice, found none",
        "no utterance": f"{refused}enrolment: expected at least one utterance, found none",
        "too short": f"{refused}utterance: expected at least 4800 samples, found 100",
        "not a number": f"{refused}utterance: expected samples that are numbers, found NaN or infinite",
        "no such voice": f"{refused}voice: expected an enrolled voice, found 3 bytes",
        "stored": "no exception: true",
        "closed": f"{closed}expected an open bundle, found one that was closed",
        "closed too": f"{closed}expected an open bundle, found one that was closed",
        "signature of no length": "no exception: false",
    }
    assert {name: found[name] for name in expected} == expected
    assert found["refused"].endswith("found a signature of other bytes")
    assert "a threshold named far-????, found" in found["other point"]
    assert set(found) == {*expected, "refused", "other point"}


def test_a_changed_bundle_is_refused(built: Path, signed: Signed, key: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(signed.folder, tmp_path / "bundle"))
    (bundle / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes().replace(b"1.2.0", b"1.2.1"))
    (file,) = write_samples(tmp_path, [speech_like(0.5)])
    with pytest.raises(AssertionError, match=r"VoxPressException: .*found a signature of other bytes"):
        session(built, "trials", bundle, key, file)


@pytest.mark.parametrize("model_format", ENGINES)
def test_coroutines_get_what_one_gets(
    built: Path, signed: Signed, key: Path, tmp_path: Path, model_format: str
) -> None:
    files = write_samples(tmp_path, [speech_like(0.4 + 0.1 * n, seed=n) for n in range(4)])
    assert session(built, "threads", signed.folder, key, *files, system=(f"-Dvoxpress.format={model_format}",)) == [
        {"same": True}
    ]


@pytest.mark.parametrize("model_format", ENGINES)
def test_closing_during_use_ends_with_an_exception(
    built: Path, signed: Signed, key: Path, tmp_path: Path, model_format: str
) -> None:
    files = write_samples(tmp_path, [speech_like(3.0)])
    ends = session(built, "close", signed.folder, key, *files, system=(f"-Dvoxpress.format={model_format}",))
    expected = "java.lang.IllegalStateException: expected an open bundle, found one that was closed"
    assert ends == [{"end": expected}] * 20


def test_the_delegate_opens_and_closes(built: Path, signed: Signed, key: Path) -> None:
    opened, closed = session(built, "delegate", signed.folder, key)
    assert opened == {"open": True}
    assert closed == {
        "closed": "java.lang.IllegalStateException: delegate: expected an open one, found one that was closed"
    }


def test_the_example_of_the_page_runs(built: Path, signed: Signed, tmp_path: Path) -> None:
    """As it stands in android/README.md, with assets from a folder."""
    assets = tmp_path / "app" / "assets"
    assets.mkdir(parents=True)
    (assets / "key.pem").write_bytes(public_pem())
    zip_bundle(signed.folder, assets / "bundle.zip")
    reference = Reference(signed.artifact, signed.manifest)
    decided = set()
    for speaker, enrolment, tests in trials_of(synthetic_voices(tmp_path / "voices")):
        voice = reference.enroll(*enrolment)
        decisions = {reference.verify(voice, samples).accepted: samples for samples in tests}
        for expected, samples in decisions.items():
            files = write_samples(tmp_path / speaker / str(expected), [*enrolment, samples])
            assert session(built, "example", tmp_path / "app", assets / "key.pem", *files) == [{"accepted": expected}]
            decided.add(expected)
    assert decided == {True, False}
    kept = tmp_path / "app" / "no_backup" / "voxpress"
    assert [path.name for path in kept.rglob("*.pte")] == ["tiny-4bit.pte"]
    assert not list((tmp_path / "app" / "cache").iterdir())
