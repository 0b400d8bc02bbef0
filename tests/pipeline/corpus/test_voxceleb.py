"""A miniature tree in VoxCeleb's layout, as folders and as archives."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from pipeline.cli import main
from pipeline.corpus import voxceleb
from pipeline.corpus.audio import read_utterance
from pipeline.corpus.read import read_cuts, speakers_of
from pipeline.corpus.shar import read_shards
from pipeline.corpus.voxceleb import PARTS, Part, PreparedPart, prepare_voxceleb
from pipeline.errors import InputError, MissingToolError
from pipeline.progress import Progress
from pipeline.recipe import load_recipe
from pipeline.stages.run import run_recipe

RATE = 16000
QUIET = Progress(Console(quiet=True))
DEV = [f"id1000{s}/video{v}/0000{u}.wav" for s in (1, 2, 3, 4) for v in "ab" for u in (1, 2)]
TEST = ["id10270/video/00001.wav", "id10309/video/00001.wav"]
VOX2 = ["id00012/21Uxsk56VDQ/00001.m4a", "id00015/0fijmz4vTVU/00001.m4a"]
needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="needs Debian's ffmpeg to make and convert AAC"
)


def _samples(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def _write_wav(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, _samples(0.5, seed), RATE, subtype="PCM_16")


def _write_m4a(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1.5:sample_rate=16000"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *tone, "-c:a", "aac", "-ac", "1", str(path)], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "downloads"
    for seed, name in enumerate(DEV):
        _write_wav(source / "vox1" / "dev" / "wav" / name, seed)
    for seed, name in enumerate(TEST):
        _write_wav(source / "vox1" / "test" / "wav" / name, 100 + seed)
    (source / "vox1" / "vox1_meta.csv").write_text("a list\n")
    return source


def _prepare(source: Path, out: Path, *, allow_partial: bool = True) -> list[PreparedPart]:
    return prepare_voxceleb(source, out, allow_partial=allow_partial, jobs=2, progress=QUIET)


def test_published_counts() -> None:
    counts = {name: (part.speakers, part.utterances) for name, part in PARTS.items()}
    # VoxCeleb2's two parts make up the 6112 speakers and 1128246 utterances of its paper.
    assert [sum(pair) for pair in zip(counts["vox2_dev"], counts["vox2_test"], strict=True)] == [6112, 1128246]
    assert counts["vox1_dev"] == (1211, 148642)
    assert counts["vox1_test"] == (40, 4874)


def test_a_tree_becomes_manifests(tree: Path, tmp_path: Path) -> None:
    dev, test = _prepare(tree, tmp_path / "out")
    assert (dev.part, dev.speakers, dev.utterances, dev.whole) == ("vox1_dev", 4, 16, False)
    assert (test.part, test.speakers, test.utterances) == ("vox1_test", 2, 2)
    cuts = read_cuts(tmp_path / "out" / dev.manifest)
    assert [cut.id for cut in cuts] == DEV  # as trial lists name them
    assert speakers_of(cuts)[DEV[0]] == "id10001"
    stored = read_utterance(cuts[DEV[3]].recording.sources[0].source, RATE, 0.3)
    np.testing.assert_allclose(stored, _samples(0.5, 3), atol=1 / 32768)


def test_counts_that_are_not_the_published_ones(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"expected 1211 speakers and 148642 utterances of vox1_dev, .* found 4 and 16"
    ):
        _prepare(tree, tmp_path / "out", allow_partial=False)
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(voxceleb.PARTS, "vox1_dev", Part("vox1_dev", 4, 16))
    monkeypatch.setitem(voxceleb.PARTS, "vox1_test", Part("vox1_test", 2, 2))
    assert all(part.whole for part in _prepare(tree, tmp_path / "out", allow_partial=False))


def test_nothing_is_done_twice(tree: Path, tmp_path: Path) -> None:
    out = tree / "prepared"  # below the downloads, whose trees are searched again
    _prepare(tree, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    _prepare(tree, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    _write_wav(tree / "vox1" / "dev" / "wav" / "id10005" / "v" / "00001.wav")
    assert _prepare(tree, out)[0].utterances == 17
    assert len(read_cuts(out / "vox1_dev.jsonl.gz")) == 17
    (out / "vox1_dev.json").write_text("{}")
    assert _prepare(tree, out)[0].utterances == 17
    assert json.loads((out / "vox1_dev.json").read_text())["utterances"] == 17


def test_archives_are_unpacked(tree: Path, tmp_path: Path) -> None:
    archives = tmp_path / "archives"
    archives.mkdir()
    for split in ("dev", "test"):
        shutil.make_archive(str(archives / f"vox1_{split}_wav"), "zip", tree / "vox1" / split, "wav")
    out = tmp_path / "out"
    parts = _prepare(archives, out)
    assert [part.utterances for part in parts] == [16, 2]
    one = out / "unpacked" / "vox1_dev_wav" / "wav" / DEV[0]
    stamp = one.stat().st_mtime_ns
    (out / "unpacked" / "vox1_dev_wav" / "wav" / DEV[1]).write_bytes(b"cut short")  # what a full disk leaves
    _prepare(archives, out)
    assert one.stat().st_mtime_ns == stamp
    assert [cut.id for cut in read_cuts(out / "vox1_dev.jsonl.gz")] == DEV


def test_bad_archives(tmp_path: Path) -> None:
    source = tmp_path / "downloads"
    source.mkdir()
    (source / "vox1_dev_wav_partaa").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"cat vox1_dev_wav_part\* > vox1_dev_wav.zip"):
        _prepare(source, tmp_path / "out")
    (source / "vox1_dev_wav.zip").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"vox1_dev_wav.zip: expected a whole zip archive"):
        _prepare(source, tmp_path / "out")
    with zipfile.ZipFile(source / "vox1_dev_wav.zip", "w") as packed:
        packed.writestr("../../id10001/v/00001.wav", b"x")
    with pytest.raises(InputError, match=r"expected names below a folder, found ../../id10001"):
        _prepare(source, tmp_path / "out")
    assert not list(tmp_path.rglob("00001.wav"))


def test_faults_of_a_tree(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such folder"):
        _prepare(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found neither"):
        _prepare(tmp_path / "empty", tmp_path / "out")
    shutil.copytree(tree / "vox1" / "test", tree / "again")
    with pytest.raises(InputError, match="expected every utterance once, found it again at"):
        _prepare(tree, tmp_path / "out")
    shutil.rmtree(tree / "again")
    bad = tree / "vox1" / "dev" / "wav" / DEV[5]
    bad.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{DEV[5]}: expected an audio file, found an empty file"):
        _prepare(tree, tmp_path / "out")


def test_without_ffmpeg_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vox2" / "dev" / "aac" / VOX2[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=r"1 AAC files of vox2_dev need ffmpeg, which is not installed"):
        _prepare(tmp_path / "vox2", tmp_path / "out")


@needs_ffmpeg
def test_aac_is_converted_once(tmp_path: Path) -> None:
    source, out = tmp_path / "vox2", tmp_path / "out"
    for split, name in (("dev", VOX2[0]), ("dev", VOX2[1]), ("test", "id00017/vid/00001.m4a")):
        _write_m4a(source / split / "aac" / name)
    dev, test = _prepare(source, out)
    assert (dev.part, dev.utterances, test.part, test.utterances) == ("vox2_dev", 2, "vox2_test", 1)
    cuts = read_cuts(out / dev.manifest)
    assert [cut.id for cut in cuts] == [name.replace(".m4a", ".flac") for name in VOX2]
    converted = Path(cuts[0].recording.sources[0].source)
    samples = read_utterance(converted, RATE, 0.3)
    assert len(samples) == pytest.approx(1.5 * RATE, abs=2048)  # AAC comes in frames of 1024
    assert np.abs(np.fft.rfft(samples[:RATE])).argmax() == 440
    stamp = converted.stat().st_mtime_ns
    Path(cuts[1].recording.sources[0].source).unlink()
    (out / "vox2_dev.json").unlink()
    _prepare(source, out)
    assert converted.stat().st_mtime_ns == stamp
    assert len(list((out / "audio").rglob("*"))) == len(list((out / "audio").rglob("[!.]*")))


@needs_ffmpeg
def test_damaged_aac_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vox2" / "dev" / "aac" / VOX2[0]
    _write_m4a(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match=r"00001.m4a: expected an AAC file that ffmpeg can read"):
        _prepare(tmp_path / "vox2", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.flac"))


def test_the_command_says_what_is_partial(tree: Path, tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    words = ["voxpress", "prepare", "voxceleb", str(tree), "--out", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [*words, "--allow-partial", "--shar"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    assert "vox1_dev.jsonl.gz: 4 speakers, 16 utterances (PARTIAL, published are 1211 and 148642)" in out.getvalue()
    assert [cut.id for cut in read_shards(tmp_path / "out" / "shar" / "vox1_dev")] == DEV


def test_a_recipe_runs_on_the_manifest(tree: Path, tmp_path: Path) -> None:
    _prepare(tree, tmp_path / "out")
    (tmp_path / "r.toml").write_text('name = "r"\ncorpus = { heldout_share = 0.1 }\npretrain = { steps = 1 }\n')
    recipe = load_recipe(str(tmp_path / "r.toml"))
    manifest = tmp_path / "out" / "vox1_dev.jsonl.gz"

    def run() -> str:
        said = io.StringIO()
        progress = Progress(Console(file=said, width=200))
        run_recipe(recipe, corpus_folder=manifest, out=tmp_path / "run", until="corpus", progress=progress)
        return said.getvalue()

    assert "unchanged" not in run()
    cuts = [*read_cuts(tmp_path / "run" / "corpus" / "train.jsonl.gz")]
    cuts += [*read_cuts(tmp_path / "run" / "corpus" / "heldout.jsonl.gz")]
    assert sorted(cut.id for cut in cuts) == DEV
    assert "[corpus] unchanged" in run()
    os.utime(manifest)
    assert "[corpus] unchanged" in run()
    manifest.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"vox1_dev.jsonl.gz: expected a lhotse cut manifest"):
        run()
