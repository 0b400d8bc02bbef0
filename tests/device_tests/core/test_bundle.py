"""What the core refuses to open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from exporters.bundle.contents import check_contents
from exporters.bundle.signature import key_id, write_signature
from pipeline.errors import InputError
from tests.device_tests.core.capi import CoreError, VerifySignature, open_bundle
from tests.device_tests.core.signed import KEY, Signed, changed, public_pem
from tests.exporters.bundle.keep import from_text
from tests.exporters.bundle.test_kept import KEPT
from tests.factories import speech_like

OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.fixture
def bundle(signed: Signed, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(signed.folder, tmp_path / "bundle"))


def refused(bundle: Path, keys: bytes | None = None, **options: object) -> str:
    with pytest.raises(CoreError) as caught:
        open_bundle(bundle, public_pem() if keys is None else keys, **options).close()
    return str(caught.value)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target.with_name("elsewhere"))
    shutil.move(target, path.parents[2] / "outside")
    path.symlink_to(path.parents[2] / "outside")


SPOILT: dict[str, Callable[[Path], object]] = {
    "a changed model": lambda b: flip_a_byte(b / "models/tiny-4bit.pte"),
    "a changed file that is not run": lambda b: flip_a_byte(b / "golden/utterance.wav"),
    "a shorter model": lambda b: (b / "models/tiny-4bit.pte").write_bytes(b"short"),
    "an extra file": lambda b: (b / "models/extra.pte").write_bytes(b"x"),
    "an extra folder": lambda b: (b / "more").mkdir(),
    "a changed manifest": lambda b: flip_a_byte(b / "manifest.json"),
    "no manifest": lambda b: (b / "manifest.json").unlink(),
    "no signature": lambda b: (b / "signature.json").unlink(),
    "another key's signature": lambda b: write_signature(b, (b / "manifest.json").read_bytes(), OTHER),
    "a linked model": lambda b: link(b / "models/tiny-4bit.pte"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_bundle_is_refused_in_one_line_as_python_refuses_it(bundle: Path, what: str) -> None:
    SPOILT[what](bundle)
    line = refused(bundle)
    assert line.startswith(str(bundle))
    assert ": expected " in line
    assert ", found " in line
    if what not in ("no signature", "another key's signature", "a changed manifest"):
        with pytest.raises(InputError):
            check_contents(bundle)


def test_a_signature_is_checked_before_anything_is_believed(bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(b"not even JSON")
    assert refused(bundle).endswith("found a signature of other bytes")


def test_the_platform_decides_about_signatures(bundle: Path) -> None:
    seen = []

    @VerifySignature
    def never(_context: object, key: object, message: object, size: int, signature: object) -> int:
        seen.append((bytes(key[:32]), bytes(message[:size])))  # type: ignore[index]
        return 0

    assert refused(bundle, verify=never).endswith("found a signature of other bytes")
    raw = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert seen == [(raw, b"voxpress bundle manifest, signature 1\n" + (bundle / "manifest.json").read_bytes())]
    assert "verify_signature" in refused(bundle, verify=VerifySignature(0))


def test_one_of_several_keys_is_enough(bundle: Path) -> None:
    open_bundle(bundle, public_pem(OTHER) + public_pem()).close()
    line = refused(bundle, public_pem(OTHER))
    ids = [key_id(key.public_key()) for key in (OTHER, KEY)]
    assert line == f"{bundle}: expected a signature of key {ids[0]}, found one of key {ids[1]}"


def test_text_that_is_no_key_is_refused(bundle: Path) -> None:
    other_curve = X25519PrivateKey.generate().public_key()
    pem = other_curve.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for keys in (b"no key", public_pem()[:60], pem, public_pem().replace(b"MC", b"!C")):
        assert "expected an Ed25519 public key (PEM)" in refused(bundle, keys)
    assert refused(bundle, b"") == "public_keys: expected a text, found none"


@pytest.mark.parametrize(
    "text", ["[]", "{}", "x", '{"format":"voxpress-signature","format_version":1,"algorithm":"ed25519","key_id":"0"}']
)
def test_a_malformed_signature_is_refused(bundle: Path, text: str) -> None:
    (bundle / "signature.json").write_text(text)
    assert "expected a bundle's signature" in refused(bundle)


@pytest.mark.parametrize("spoil", [lambda s: s[:-4], lambda s: "A" + s, lambda s: s[:-3] + "B==", lambda s: "=" * 88])
def test_a_signature_that_is_not_64_bytes_is_refused(bundle: Path, spoil: Callable[[str], str]) -> None:
    signature = json.loads((bundle / "signature.json").read_text())
    signature["signature"] = spoil(signature["signature"])
    (bundle / "signature.json").write_text(json.dumps(signature))
    assert "64 bytes in base64" in refused(bundle)


def test_an_older_bundle_is_refused(bundle: Path) -> None:
    open_bundle(bundle, public_pem(), min_version="1.2.0").close()
    assert refused(bundle, min_version="1.10.0") == f"{bundle}: expected version 1.10.0 or later, found 1.2.0"
    for bad in ("1.2", "1.2.x", "01.2.0", "1.2.0.1", "-1.0.0"):
        assert refused(bundle, min_version=bad).startswith("the lowest version: expected a version")


def test_an_app_may_leave_out_what_it_does_not_run(bundle: Path) -> None:
    for name in ("artifacts", "golden", "calibration"):
        shutil.rmtree(bundle / name)
    (bundle / "models/tiny-4bit.tflite").unlink()
    opened = open_bundle(bundle, public_pem())
    opened.enroll(speech_like(0.5))
    opened.close()
    (bundle / "models/tiny-4bit.pte").unlink()
    assert refused(bundle) == f"{bundle}/models/tiny-4bit.pte: expected a file, found No such file or directory"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"calibrations": ()}, "expected a calibration of models/tiny-4bit.pte, found none"),
        ({"models": ()}, "expected a model of 4bit in mode exact"),
        ({"embedding_dim": 17}, "embeddings of 17"),
        ({"format_version": 2}, "format version 2; this build reads 1"),
        ({"primary": "8bit"}, "expected a model of 8bit"),
        ({"version": "1.2"}, "expected a version such as 1.2.0"),
    ],
)
def test_a_signed_manifest_that_does_not_fit_is_refused(
    signed: Signed, tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    assert reason in refused(changed(signed, tmp_path / "other", **fields))


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "models/../../x", ".hidden", "a//b", "a/"])
def test_a_path_out_of_the_bundle_is_refused(signed: Signed, bundle: Path, path: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["models"][0]["file"] = path
    manifest["files"][path] = manifest["files"]["models/tiny-4bit.pte"]
    text = json.dumps(manifest).encode()
    (bundle / "manifest.json").write_bytes(text)
    write_signature(bundle, text, KEY)
    assert refused(bundle).endswith("found a path that does not lie in the bundle")


def test_what_is_asked_for_must_be_there(bundle: Path) -> None:
    assert "mode fast" in refused(bundle, mode="fast")
    assert "of 2bit" in refused(bundle, label="2bit")
    assert "as .onnx" in refused(bundle, format="onnx")
    assert refused(bundle, threads=1000) == "threads: expected 0 to 256, found 1000"
    assert refused(bundle / "nothing").endswith("expected a bundle's folder or zip, found no such folder")


def test_kept_bundles_open(tmp_path: Path) -> None:
    from tests.exporters.bundle.keep import KEY as KEPT_KEY

    for kept in sorted(KEPT.iterdir()):
        from_text(kept, tmp_path / kept.name)
        opened = open_bundle(tmp_path / kept.name, public_pem(KEPT_KEY))
        assert opened.info().sample_rate_hz == 8000
        voice = opened.enroll(speech_like(0.5, sample_rate_hz=8000))
        assert opened.verify(voice, speech_like(0.5, sample_rate_hz=8000)).score == pytest.approx(1, abs=1e-6)
        opened.close()
