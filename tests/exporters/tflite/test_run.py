from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporters.tflite.emit import emit_tflite
from exporters.tflite.run import TfliteRunner
from pipeline.errors import InputError, MissingToolError
from tests.exporters.tflite.models import altered, pack, unpack
from tests.factories import tiny_artifact


@pytest.fixture(scope="module")
def pressed() -> bytes:
    return emit_tflite(tiny_artifact(4), lowering="voxpress")


def _features(frames: int = 40) -> np.ndarray:
    return np.random.default_rng(frames).normal(size=(frames, 80)).astype(np.float32)


def test_a_file_and_its_bytes_give_the_same_embedding(pressed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(pressed)
    np.testing.assert_array_equal(TfliteRunner(path).embed(_features()), TfliteRunner(pressed).embed(_features()))


def test_embeddings_are_copies(pressed: bytes) -> None:
    runner = TfliteRunner(pressed, threads=2)
    first = runner.embed(_features(40))
    kept = first.copy()
    runner.embed(_features(50))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("lowering", ["voxpress", "stock"])
@pytest.mark.parametrize("keep", [0, 1, 7, 8, 15, 16, 40, 400, 0.5, 0.99, -1])
def test_a_cut_file_is_refused_by_name(lowering: str, keep: float, tmp_path: Path) -> None:
    data = emit_tflite(tiny_artifact(4), lowering=lowering)  # type: ignore[arg-type]
    path = tmp_path / "cut.tflite"
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match=r"cut\.tflite: expected"):
        TfliteRunner(path)


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"PK\x03\x04"])
def test_garbage_behind_a_right_beginning_is_refused(pressed: bytes, filler: bytes, tmp_path: Path) -> None:
    path = tmp_path / "garbage.tflite"
    path.write_bytes(pressed[:8] + filler * 2000)
    with pytest.raises(InputError, match=r"garbage\.tflite: expected"):
        TfliteRunner(path)


def test_a_file_of_another_kind_or_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    with pytest.raises(InputError, match="no such file"):
        TfliteRunner(path)
    path.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(InputError, match="identifier TFL3"):
        TfliteRunner(path)
    with pytest.raises(InputError, match=r"m\.tflite"):
        TfliteRunner(path.parent / "m.tflite" / "below")


def test_a_foreign_custom_op_is_refused() -> None:
    def rename(model: object) -> None:
        for code in model.operatorCodes:  # type: ignore[attr-defined]
            if code.customCode == b"voxpress.conv2d":
                code.customCode = b"someone.else"

    with pytest.raises(InputError, match=r"expected stock ops and those of VoxPress, found custom op 'someone\.else'"):
        TfliteRunner(altered(rename))  # type: ignore[arg-type]


def test_a_model_without_our_signature_is_refused(pressed: bytes) -> None:
    model = unpack(pressed)
    model.signatureDefs = None
    with pytest.raises(InputError, match=r"expected signature serving_default\(features\) -> embedding, found none"):
        TfliteRunner(pack(model))


def test_a_missing_delegate_is_named_and_a_stock_model_needs_none(
    pressed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXPRESS_NATIVE_DIR", str(tmp_path))
    with pytest.raises(MissingToolError, match="libvoxpress_tflite_delegate"):
        TfliteRunner(pressed)
    assert TfliteRunner(emit_tflite(tiny_artifact(4), lowering="stock")).embed(_features()).shape == (16,)
    (tmp_path / "libvoxpress_tflite_delegate.so").write_bytes(b"no library")
    with pytest.raises(MissingToolError, match="expected a delegate that loads"):
        TfliteRunner(pressed)


@pytest.mark.parametrize(
    "features",
    [
        np.zeros((0, 80), np.float32),
        np.zeros((40, 79), np.float32),
        np.zeros((1, 40, 80), np.float32),
        np.zeros(80, np.float32),
        np.zeros((40, 80), np.float64),
    ],
)
def test_features_of_another_shape_or_type_are_refused(pressed: bytes, features: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"features: expected float32 \[T, 80\]"):
        TfliteRunner(pressed).embed(features)


def test_threads_below_one_are_refused(pressed: bytes) -> None:
    with pytest.raises(InputError, match="threads: expected at least 1, found 0"):
        TfliteRunner(pressed, threads=0)
