import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pydantic import ValidationError
from rich.console import Console

from pipeline.corpus.read import read_corpus, speakers_of
from pipeline.errors import InputError
from pipeline.features.fbank import fbank, mean_normalise
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.stages import augmentation as stage
from pipeline.stages.job import JobContext
from pipeline.training.augment import Augmentation
from pipeline.training.crops import CropDataset
from pipeline.training.settings import AugmentationSettings

RATE = 16000
SPEC = FrontEndSpec()


def _write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.astype(np.float32), RATE, subtype="FLOAT")


def _tone(hertz: float, seconds: float) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for speaker, hertz in (("a", 300.0), ("b", 500.0)):
        for take in range(3):
            _write(root / "corpus" / speaker / f"{take}.wav", _tone(hertz, 0.995) + rng.normal(0, 0.01, 15920))
    _write(root / "musan" / "noise" / "n" / "short.wav", rng.normal(0, 0.1, 3000))
    _write(root / "musan" / "music" / "m.wav", _tone(1000, 4.0))
    _write(root / "musan" / "speech" / "s.wav", rng.normal(0, 0.1, 3 * RATE))
    (root / "musan" / "README").write_text("not audio")
    echo = np.zeros(1000)
    echo[[10, 810]] = 0.5, 0.25
    _write(root / "rirs" / "small" / "r.wav", echo)
    return root


def _augmentation(folders: Path, tmp_path: Path, **settings: object) -> Augmentation:
    recipe = Recipe.model_validate(
        {"name": "t", "corpus": {"cache": "none"}, "augmentation": settings, "pretrain": {"steps": 1}}
    )
    (job,) = stage.jobs(recipe)
    job.run(JobContext(recipe, tmp_path, {}, tmp_path, Progress(Console(quiet=True)), ""))
    return stage.read_augmentation(tmp_path, SPEC)


def _crops(folders: Path, augmentation: Augmentation | None, frames: int = 50) -> CropDataset:
    cuts = read_corpus(folders / "corpus")
    return CropDataset(FeatureSource(cuts, SPEC, "none"), speakers_of(cuts), frames, 7, augmentation)


def _snr_db(clean: np.ndarray, mixed: np.ndarray) -> float:
    return float(10 * np.log10(np.square(clean).mean() / np.square(mixed - clean).mean()))


@pytest.mark.parametrize("kind", ["noise", "music", "babble"])
def test_sounds_are_added_at_the_drawn_level(folders: Path, tmp_path: Path, kind: str) -> None:
    only = {"noise": "noise", "music": "music", "babble": "speech"}[kind]
    musan = tmp_path / "musan"
    shutil.copytree(folders / "musan" / only, musan / only)
    augmentation = _augmentation(folders, tmp_path, musan=str(musan), probability=1.0, **{f"{kind}_snr_db": [6.0, 6.5]})
    clean = _tone(200, 2.0).astype(np.float32)
    for seed in range(4):
        mixed = augmentation.alter(clean, np.random.default_rng(seed))
        assert mixed.shape == clean.shape
        assert 5.99 <= _snr_db(clean, mixed) <= 6.51


def test_a_room_adds_its_echo_and_keeps_the_power(folders: Path, tmp_path: Path) -> None:
    augmentation = _augmentation(folders, tmp_path, rirs=str(folders / "rirs"), probability=1.0)
    click = np.zeros(4000, dtype=np.float32)
    click[100] = 1.0
    out = augmentation.alter(click, np.random.default_rng(0))
    assert np.flatnonzero(np.abs(out) > 0.1).tolist() == [100, 900]
    assert out[900] / out[100] == pytest.approx(0.5, abs=1e-3)
    assert np.square(out).sum() == pytest.approx(1.0, rel=1e-3)


def test_a_crop_at_another_speed_has_its_pitch_and_its_own_class(folders: Path, tmp_path: Path) -> None:
    augmentation = _augmentation(folders, tmp_path, speeds=[0.9, 1.1])
    tone = _tone(1000, 1.0).astype(np.float32)
    for position, speed in enumerate((1.0, 0.9, 1.1)):
        count = 12000
        out = augmentation.at_speed(tone[: augmentation.samples_for(count, position)], position, count)
        assert len(out) == count
        peak = np.abs(np.fft.rfft(out)).argmax() * RATE / count
        assert peak == pytest.approx(1000 * speed, abs=2)
    data = _crops(folders, augmentation)
    assert data.classes == ["a", "b", "a@0.9", "b@0.9", "a@1.1", "b@1.1"]
    labels = [data[k][1] for k in range(90)]
    counts = np.bincount(labels, minlength=6)
    assert counts.min() >= 6  # 15 expected of each
    clean = _crops(folders, None)
    assert clean.classes == ["a", "b"]
    assert [label % 2 for label in labels] == [clean[k][1] for k in range(90)]


def test_crops_are_a_function_of_seed_and_sample_number(folders: Path, tmp_path: Path) -> None:
    settings = {"speeds": [0.9], "musan": str(folders / "musan"), "rirs": str(folders / "rirs"), "probability": 1.0}
    one = _crops(folders, _augmentation(folders, tmp_path, **settings))
    two = _crops(folders, stage.read_augmentation(tmp_path, SPEC))
    backwards = {k: two[k] for k in range(19, -1, -1)}
    for k in range(20):
        crop, label = one[k]
        assert crop.shape == (50, 80)
        assert torch.isfinite(crop).all()
        assert torch.equal(crop, backwards[k][0])
        assert label == backwards[k][1]
    assert not torch.equal(one[0][0], one[6][0])


def test_probability_nought_leaves_the_samples_alone(folders: Path, tmp_path: Path) -> None:
    augmentation = _augmentation(folders, tmp_path, musan=str(folders / "musan"), probability=0.0)
    crop, _ = _crops(folders, augmentation, frames=98)[0]  # all of an utterance: no offset to draw
    source = FeatureSource(read_corpus(folders / "corpus"), SPEC, "none")
    wholes = [mean_normalise(source.full(name)) for name in source.ids]
    assert any(np.array_equal(crop.numpy(), whole) for whole in wholes)


def test_short_utterances_are_repeated(folders: Path, tmp_path: Path) -> None:
    augmentation = _augmentation(folders, tmp_path, speeds=[1.1], probability=0.0)
    data = _crops(folders, augmentation, frames=300)
    assert {tuple(data[k][0].shape) for k in range(6)} == {(300, 80)}


def test_silence_stays_silence(folders: Path, tmp_path: Path) -> None:
    augmentation = _augmentation(folders, tmp_path, musan=str(folders / "musan"), probability=1.0)
    silence = np.zeros(8000, dtype=np.float32)
    assert not augmentation.alter(silence, np.random.default_rng(0)).any()
    assert np.isfinite(fbank(silence, SPEC)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"musan": "{}/nowhere"}, r"nowhere: expected a folder of sounds as MUSAN has them .*found no such folder"),
        ({"musan": "{}/corpus"}, r"corpus: expected a folder of sounds .*found none of these"),
        ({"rirs": "{}/nowhere"}, r"nowhere: expected a folder of WAV or FLAC files, found no such folder"),
    ],
)
def test_missing_folders_are_named(folders: Path, tmp_path: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _augmentation(folders, tmp_path, **{name: value.format(folders) for name, value in settings.items()})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "none of speeds, musan and rirs is given"),
        ({"speeds": [0.9, 1.0]}, "different from each other and from 1"),
        ({"speeds": [3.0]}, "less than or equal to 2"),
        ({"musan": "m", "noise_snr_db": [15, 0]}, "noise_snr_db goes from 15.0 down to 0.0"),
        ({"musan": "m", "babble_voices": [0, 3]}, "babble_voices"),
        ({"musan": "m", "probability": 1.5}, "probability"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AugmentationSettings.model_validate_json(json.dumps(settings))
