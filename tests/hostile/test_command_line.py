"""Bad input at the command line: one line that names the file, exit code 2, no traceback, nothing written."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from calibration.ranges import write_ranges
from pipeline.artifact.store import WEIGHTS_FILE, write_artifact
from pipeline.cli import main
from tests.factories import noise_ranges, tiny_artifact

RATE = 16000


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def _voxpress(*words: object, cwd: Path) -> Done:
    """Run a command in this process: importing torch anew for each would take most of the time."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["voxpress", *map(str, words)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", argv)
        patch.chdir(cwd)
        with pytest.raises(SystemExit) as ended:
            main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def _refused(done: Done, *parts: str) -> None:
    """Exit code 2 and, as the last and only line of ours, a message with all the parts."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("voxpress: ")]
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0], lines[0]


def _noise(seconds: float, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (int(seconds * RATE), channels)).astype(np.float32)


def _write_stereo(path: Path) -> None:
    soundfile.write(path, _noise(1, 2), RATE)


def _write_8_khz(path: Path) -> None:
    soundfile.write(path, _noise(1), 8000)


def _write_nan(path: Path) -> None:
    soundfile.write(path, np.where(np.arange(RATE) == 500, np.nan, _noise(1)[:, 0]), RATE, subtype="FLOAT")


def _write_empty(path: Path) -> None:
    path.write_bytes(b"")


def _write_no_samples(path: Path) -> None:
    soundfile.write(path, _noise(0), RATE)


def _write_text(path: Path) -> None:
    path.write_text("this is not audio\n" * 50)


def _write_10_ms(path: Path) -> None:
    soundfile.write(path, _noise(0.01), RATE)


def _write_truncated(path: Path) -> None:
    soundfile.write(path, _noise(1), RATE)
    path.write_bytes(path.read_bytes()[:-5000])


BAD_AUDIO = [
    (_write_stereo, "2 channels"),
    (_write_8_khz, "8000 Hz"),
    (_write_nan, "nan at sample 500"),
    (_write_empty, ""),
    (_write_no_samples, ""),
    (_write_text, ""),
    (_write_10_ms, "0.01 s"),
    (_write_truncated, ""),
]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "artifact", tiny_artifact())
    return tmp_path / "artifact"


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    for speaker in "ab":
        for take in "01":
            path = tmp_path / "audio" / speaker / f"{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.random.default_rng(ord(speaker) + int(take)).normal(0, 0.1, RATE), RATE)
    return tmp_path / "audio"


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    path = tmp_path / "trials.txt"
    path.write_text("1 a/0.wav a/1.wav\n1 b/0.wav b/1.wav\n0 a/0.wav b/1.wav\n")
    return path


def test_good_input_is_evaluated(tmp_path: Path, artifact: Path, audio: Path, trials: Path) -> None:
    done = _voxpress("evaluate", artifact, "--audio", audio, "--trials", trials, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert result["evaluation"]["target_trials"] == 2
    assert result["evaluation"]["nontarget_trials"] == 1
    assert 0.0 <= result["evaluation"]["eer"] <= 1.0
    assert result["runtime"].startswith("torch ")


@pytest.mark.parametrize(("write", "found"), BAD_AUDIO, ids=lambda value: getattr(value, "__name__", ""))
def test_bad_audio_in_a_trial_list(
    tmp_path: Path, artifact: Path, audio: Path, trials: Path, write: Callable[[Path], None], found: str
) -> None:
    write(audio / "b" / "1.wav")
    done = _voxpress("evaluate", artifact, "--audio", audio, "--trials", trials, cwd=tmp_path)
    _refused(done, "b/1.wav: expected ", found)
    assert done.stdout == ""


@pytest.mark.parametrize(("write", "found"), BAD_AUDIO[:2], ids=lambda value: getattr(value, "__name__", ""))
def test_bad_audio_in_a_corpus(tmp_path: Path, audio: Path, write: Callable[[Path], None], found: str) -> None:
    write(audio / "b" / "1.wav")
    done = _voxpress("run", "demo", "--corpus", audio, "--out", tmp_path / "out", "--until", "corpus", cwd=tmp_path)
    _refused(done, "b/1.wav: expected ", found)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("1 a/0.wav a/9.wav", ("trials.txt:4", "a/9.wav")),
        ("2 a/0.wav a/1.wav", ("trials.txt:4",)),
        ("1 a/0.wav", ("trials.txt:4",)),
        ("1 a/0.wav ../../etc/passwd", ("trials.txt:4", "passwd")),
    ],
)
def test_a_bad_trial_list(
    tmp_path: Path, artifact: Path, audio: Path, trials: Path, line: str, parts: tuple[str, ...]
) -> None:
    trials.write_text(trials.read_text() + line + "\n")
    _refused(_voxpress("evaluate", artifact, "--audio", audio, "--trials", trials, cwd=tmp_path), *parts)


def test_an_empty_trial_list(tmp_path: Path, artifact: Path, audio: Path, trials: Path) -> None:
    trials.write_text("")
    _refused(_voxpress("evaluate", artifact, "--audio", audio, "--trials", trials, cwd=tmp_path), "trials.txt")


def test_a_truncated_artifact(tmp_path: Path, artifact: Path, audio: Path, trials: Path) -> None:
    weights = artifact / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    done = _voxpress("evaluate", artifact, "--audio", audio, "--trials", trials, cwd=tmp_path)
    _refused(done, WEIGHTS_FILE, "expected a whole safetensors file")
    _refused(_voxpress("export", artifact, "--out", tmp_path / "models", cwd=tmp_path), WEIGHTS_FILE)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["model.pte", "model.tflite", "bundle.zip", "nothing"])
def test_a_model_that_is_none(tmp_path: Path, audio: Path, trials: Path, name: str) -> None:
    if name != "nothing":
        (tmp_path / name).write_bytes(b"no model" * 100)
    done = _voxpress("evaluate", tmp_path / name, "--audio", audio, "--trials", trials, cwd=tmp_path)
    _refused(done, f"{name}: expected ")


def test_the_process_itself_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "run", "nowhere.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "voxpress: nowhere.toml: expected a recipe, found no such file\n"
    assert done.stdout == ""


def test_a_recipe_with_an_unknown_key(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n[pretrain]\nsteps = 1\nstpes = 2\n')
    done = _voxpress("run", recipe, "--out", tmp_path / "out", cwd=tmp_path)
    _refused(done, "mine.toml: ", "unknown key pretrain.stpes", "pretrain.steps")
    assert not (tmp_path / "out").exists()


def test_a_stage_that_is_none(tmp_path: Path) -> None:
    _refused(_voxpress("run", "demo", "--until", "quantise", cwd=tmp_path), "--until", "uniform", "quantise")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("demo",), ("demo", "a recipe with a section [msft]")),
        (("sweep-mini", "--audio", "somewhere"), ("--audio and --trials", "both or neither", "only --audio")),
        (("sweep-mini", "--trials", "list.txt"), ("--audio and --trials", "both or neither", "only --trials")),
        (("sweep-mini", "--audio", ".", "--trials", "list.txt"), ("list.txt", "a trial list", "no such file")),
        (("sweep-mini", "--corpus", "nowhere"), ("nowhere", "no such folder")),
    ],
)
def test_a_sweep_that_cannot_be_made(tmp_path: Path, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    _refused(_voxpress("sweep", *words, "--out", tmp_path / "out", cwd=tmp_path), *parts)
    assert not (tmp_path / "out" / "sweep.json").exists()


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.touch()])
def test_a_corpus_that_is_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "corpus")
    done = _voxpress("run", "demo", "--corpus", tmp_path / "corpus", "--out", tmp_path / "out", cwd=tmp_path)
    _refused(done, "corpus: expected ")


def test_a_corpus_of_one_speaker(tmp_path: Path, audio: Path) -> None:
    for path in (audio / "b").iterdir():
        path.unlink()
    done = _voxpress("run", "demo", "--corpus", audio, "--out", tmp_path / "out", cwd=tmp_path)
    _refused(done, "audio: expected ", "speakers")


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    _refused(_voxpress("run", "demo", "--out", tmp_path / "out", "--until", "corpus", cwd=tmp_path), "out")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--mode", "quick"), ("--mode: expected exact or fast, found quick",)),
        (("--mode", "fast"), ("--audio: expected a folder of utterances, for mode fast, found none",)),
        (("--audio", "audio"), ("--audio: expected --mode fast with it",)),
        (("--activations", "activations.json"), ("--activations: expected --mode fast with it",)),
        (("--mode", "fast", "--audio", "audio", "--fallback"), ("--fallback: expected mode exact",)),
        (("--mode", "fast", "--audio", "nowhere"), ("nowhere: expected a corpus folder", "no such folder")),
        (("--mode", "fast", "--audio", "audio/a"), ("an audio file without a speaker's folder",)),
        (("--mode", "fast", "--audio", "audio", "--ranges", "entropy"), ("--ranges: expected one of", "entropy")),
        (("--mode", "fast", "--audio", "audio", "--percentile", "50"), ("--percentile: expected above 50",)),
        (("--mode", "fast", "--audio", "audio", "--percentile", "nan"), ("--percentile: expected above 50",)),
        (("--mode", "fast", "--audio", "audio", "--utterances", "3"), ("--utterances: expected at least 4, found 3",)),
        (("--mode", "fast", "--audio", "audio", "--activations", "no.json"), ("no.json", "no such file")),
        (("--max-seconds", "nan"), ("--max-seconds: expected 0.3 to 600, found nan",)),
        (("--max-seconds", "0.2"), ("--max-seconds: expected 0.3 to 600, found 0.2",)),
        (("--max-seconds", "601"), ("--max-seconds: expected 0.3 to 600, found 601",)),
        (("--format", "coreml", "--max-seconds", "0"), ("--max-seconds: expected 0.3 to 600, found 0",)),
        (("--chunk-seconds", "inf"), ("--chunk-seconds: expected 0.3 to 10 (--max-seconds), found inf",)),
        (("--chunk-seconds", "nan"), ("--chunk-seconds: expected 0.3 to 10 (--max-seconds), found nan",)),
        (("--chunk-seconds", "11"), ("--chunk-seconds: expected 0.3 to 10 (--max-seconds), found 11",)),
        (("--mode", "fast", "--audio", "audio", "--format", "onnx"), ("--format: expected pte, tflite, both or",)),
    ],
)
def test_an_export_that_cannot_be_made(
    tmp_path: Path, artifact: Path, audio: Path, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    _refused(_voxpress("export", artifact, *words, "--out", tmp_path / "models", cwd=tmp_path), *parts)
    assert not (tmp_path / "models").exists()


def test_activation_ranges_of_another_artifact(tmp_path: Path, artifact: Path, audio: Path) -> None:
    ranges = tmp_path / "activations.json"
    write_ranges(ranges, noise_ranges(tiny_artifact(seed=1)))
    words = ("--mode", "fast", "--audio", audio, "--activations", ranges, "--out", tmp_path / "models")
    _refused(_voxpress("export", artifact, *words, cwd=tmp_path), "activations.json: expected ranges of tiny-4bit")
    assert not (tmp_path / "models").exists()


def test_too_few_calibration_utterances(tmp_path: Path, artifact: Path, audio: Path) -> None:
    (audio / "b" / "1.wav").unlink()
    done = _voxpress("export", artifact, "--mode", "fast", "--audio", audio, "--out", tmp_path / "models", cwd=tmp_path)
    _refused(done, "audio: expected at least 4 utterances, found 3")


@pytest.mark.parametrize(("write", "found"), BAD_AUDIO[2:3], ids=lambda value: getattr(value, "__name__", ""))
def test_bad_audio_in_calibration(
    tmp_path: Path, artifact: Path, audio: Path, write: Callable[[Path], None], found: str
) -> None:
    write(audio / "b" / "1.wav")
    done = _voxpress("export", artifact, "--mode", "fast", "--audio", audio, "--out", tmp_path / "models", cwd=tmp_path)
    _refused(done, "b/1.wav: expected ", found)
    assert not (tmp_path / "models").exists()


def test_ranges_that_are_too_narrow_write_no_model(tmp_path: Path, artifact: Path, audio: Path) -> None:
    words = ("--mode", "fast", "--audio", audio, "--ranges", "percentile", "--percentile", "51")
    done = _voxpress("export", artifact, *words, "--format", "tflite", "--out", tmp_path / "models", cwd=tmp_path)
    _refused(done, "tiny-4bit-fast.tflite: expected embeddings of a cosine of at least")
    assert not list((tmp_path / "models").glob("*.tflite"))


def test_mode_fast_end_to_end(tmp_path: Path, artifact: Path, audio: Path, trials: Path) -> None:
    words = ("--mode", "fast", "--audio", audio, "--format", "tflite", "--out", tmp_path / "models")
    done = _voxpress("export", artifact, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model, ranges = (tmp_path / "models" / f"tiny-4bit-{name}" for name in ("fast.tflite", "activations.json"))
    first = model.read_bytes()
    done = _voxpress("export", artifact, *words, "--activations", ranges, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert model.read_bytes() == first
    for options in ((), ("--low-memory",)):
        words = ("--audio", audio, "--trials", trials, "--json", "--reference", artifact, *options)
        done = _voxpress("evaluate", model, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (result,) = json.loads(done.stdout)
        assert any("_u8" in kernel for kernel in result["kernels"])
        assert result["reference"] == "artifact"
        assert 0.99 < result["to_reference"]["cosine_min"] <= 1
