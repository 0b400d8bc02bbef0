from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from rich.console import Console

from pipeline.corpus.read import read_corpus, speakers_of
from pipeline.corpus.shar import is_shards, read_shards, shard_count, write_shards
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource
from pipeline.progress import Progress
from pipeline.recipe import load_recipe
from pipeline.stages.run import run_recipe

RATE = 16000


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for speaker in ("id10001", "id10002", "id10003", "id10004"):
        for take in range(2):
            path = tmp_path / "corpus" / speaker / "video" / f"0000{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, rng.integers(-(2**15), 2**15, 9000).astype(np.int16), RATE)
    return tmp_path / "corpus"


def test_shards_hold_the_same_samples(corpus: Path, tmp_path: Path) -> None:
    cuts = read_corpus(corpus)
    folder = tmp_path / "shards"
    assert not is_shards(folder)
    assert write_shards(cuts, folder, shard_utterances=3) == shard_count(8, 3) == 3
    assert is_shards(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"cuts.00000{k}.jsonl.gz" for k in range(3)),
        *(f"recording.00000{k}.tar" for k in range(3)),
    ]
    found = read_shards(folder)
    assert [cut.id for cut in found] == [cut.id for cut in cuts]
    assert speakers_of(found) == speakers_of(cuts)
    files, shards = (FeatureSource(each, FrontEndSpec(), "none") for each in (cuts, found))
    for name in files.ids:
        np.testing.assert_array_equal(shards.samples(name, 100, 5000), files.samples(name, 100, 5000))
        np.testing.assert_array_equal(shards.crop(name, 7, 20), files.crop(name, 7, 20))


def test_lhotse_streams_them(corpus: Path, tmp_path: Path) -> None:
    write_shards(read_corpus(corpus), tmp_path / "shards", shard_utterances=3)
    streamed = {cut.id: cut.load_audio()[0] for cut in CutSet.from_shar(in_dir=tmp_path / "shards")}
    assert len(streamed) == 8
    name = "id10002/video/00001.wav"
    np.testing.assert_array_equal(streamed[name], soundfile.read(corpus / name, dtype="float32")[0])


def test_finished_shards_are_kept(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_shards(read_corpus(corpus), folder, shard_utterances=3)
    (folder / "cuts.000001.jsonl.gz").unlink()  # a run killed between the two files
    first = (folder / "recording.000000.tar").stat().st_mtime_ns
    second = (folder / "recording.000001.tar").stat().st_mtime_ns
    write_shards(read_corpus(corpus), folder, shard_utterances=3)
    assert (folder / "recording.000000.tar").stat().st_mtime_ns == first
    assert (folder / "recording.000001.tar").stat().st_mtime_ns > second
    with pytest.raises(InputError, match=r"expected utterances from id10001/video/00001.wav on, found others"):
        write_shards(CutSet.from_cuts(list(read_corpus(corpus))[1:]), folder, shard_utterances=3)
    with pytest.raises(InputError, match=r"cuts.000002.jsonl.gz: expected a folder for 2 shards"):
        write_shards(CutSet.from_cuts(list(read_corpus(corpus))[:6]), folder, shard_utterances=3)


def test_damaged_shards_are_named(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_shards(read_corpus(corpus), folder, shard_utterances=3)
    cuts = read_shards(folder)
    archive = folder / "recording.000001.tar"
    whole = archive.read_bytes()
    archive.write_bytes(b"\0" * len(whole))
    with pytest.raises(InputError, match="FLAC"):
        FeatureSource(cuts, FrontEndSpec(), "none").samples(cuts[4].id, 0, 100)
    with pytest.raises(
        InputError, match=r"recording.000001.tar: expected audio of id10002/video/00001.wav, found none"
    ):
        read_shards(folder)
    archive.unlink()
    with pytest.raises(InputError, match=r"recording.000001.tar: expected an archive of recordings, found no such"):
        read_shards(folder)
    (folder / "cuts.000001.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"cuts.000001.jsonl.gz: expected 2 shards in a row"):
        read_shards(folder)


def test_a_recipe_runs_on_shards(corpus: Path, tmp_path: Path) -> None:
    write_shards(read_corpus(corpus), tmp_path / "shards")
    (tmp_path / "r.toml").write_text('name = "r"\ncorpus = { heldout_share = 0.1 }\npretrain = { steps = 1 }\n')
    run_recipe(
        load_recipe(str(tmp_path / "r.toml")),
        corpus_folder=tmp_path / "shards",
        out=tmp_path / "run",
        until="corpus",
        progress=Progress(Console(quiet=True)),
    )
    assert (tmp_path / "run" / "corpus" / "trials.txt").is_file()
