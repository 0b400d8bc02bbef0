from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from device_tests.bench.subject import features_digest, make_subject
from pipeline.artifact.store import read_artifact, write_artifact
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.models.store import ModelHeader, write_pretrained
from pipeline.progress import Progress
from tests.factories import tiny_artifact


def _subject(model: object, work: Path, *, audio: Path | None = None, bits: tuple[int, ...] = (4, 1)) -> object:
    return make_subject(str(model), bits=bits, audio=audio, frames=60, seed=0, work=work, progress=Progress.silent())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that the synthetic voices are made once."""
    return tmp_path_factory.mktemp("work")


def test_an_artifact_is_taken_as_it_is(tmp_path: Path, work: Path) -> None:
    artifact = tiny_artifact(4)
    write_artifact(tmp_path / "artifact", artifact)
    subject = _subject(tmp_path / "artifact", work)
    assert subject.pressed == {"4bit": tmp_path / "artifact"}
    assert subject.audio == "synthetic voices"
    assert (len(subject.calibration), len(subject.compared)) == (32, 8)
    assert not set(subject.calibration) & set(subject.compared)
    for crop in (*subject.calibration.values(), *subject.compared.values()):
        assert (crop.shape, crop.dtype) == ((60, 80), np.float32)
        assert np.abs(crop.mean(axis=0)).max() < 1e-4
    longer = subject.compared_at(130)
    for name, crop in subject.compared.items():
        assert np.array_equal(longer[name][:60], crop)
        assert np.array_equal(longer[name][60:120], crop)
    assert {value.shape for value in subject.reference_embeddings(60).values()} == {(16,)}


def test_a_network_is_pressed_once_to_every_width(tmp_path: Path, work: Path) -> None:
    spec = ModelSpec(architecture="resnet10", base_channels=4, embedding_dim=8)
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    network = build_model(spec).eval()
    write_pretrained(tmp_path / "model", ModelHeader(spec=spec, created_by="tests"), network, FrontEndSpec(), None)
    subject = _subject(tmp_path / "model", work)
    assert list(subject.pressed) == ["4bit", "1bit"]
    assert {node.bits for node in read_artifact(subject.pressed["1bit"]).header.layers} == {1}
    assert {node.bits for node in subject.reference.header.layers} == {32}
    (name, crop), *_ = subject.compared.items()
    with torch.inference_mode():
        wanted = network(torch.from_numpy(crop)[None])[0].numpy()
    assert np.abs(subject.reference_embeddings(60)[name] - wanted).max() < 1e-4 * np.abs(wanted).max()
    before = [path.stat().st_mtime_ns for path in sorted((work / "pressed").rglob("*")) if path.is_file()]
    _subject(tmp_path / "model", work)
    assert before == [path.stat().st_mtime_ns for path in sorted((work / "pressed").rglob("*")) if path.is_file()]


def test_words_that_are_no_model_and_too_little_speech(tmp_path: Path, work: Path) -> None:
    with pytest.raises(InputError, match=r"--model: expected a model folder, an artifact folder or one of resnet10,"):
        _subject("resnet35", work)
    write_artifact(tmp_path / "artifact", tiny_artifact(4))
    with pytest.raises(InputError, match="at least 8 utterances, found 5"):
        _subject(tmp_path / "artifact", work, audio=next(work.glob("voices-*")) / "s000")


def test_digest_depends_on_names_shapes_and_values() -> None:
    crop = np.arange(6, dtype=np.float32)
    crops = [
        {"a": crop.reshape(2, 3)},
        {"b": crop.reshape(2, 3)},
        {"a": crop.reshape(3, 2)},
        {"a": 2 * crop.reshape(2, 3)},
    ]
    assert len({features_digest(one) for one in crops}) == 4
    assert features_digest(crops[0]) == features_digest({"a": crop.reshape(2, 3).copy()})
