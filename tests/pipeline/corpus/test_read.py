from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from lhotse import CutSet

from pipeline.corpus.read import read_corpus, read_cuts, speakers_of, write_cuts
from pipeline.errors import InputError
from tests.pipeline.corpus.corpora import write_corpus, write_noise

IDS = ["id1/v1/00001.wav", "id1/v2/00001.wav", "id2/a.flac", "id2/b.WAV"]


def test_ids_are_sorted_relative_paths_and_the_first_folder_is_the_speaker(tmp_path: Path) -> None:
    write_corpus(tmp_path, reversed(IDS))
    (tmp_path / "README.txt").write_text("not audio")
    write_noise(tmp_path / "id2" / "._a.flac")
    calls: list[tuple[int, int]] = []
    cuts = read_corpus(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert [cut.id for cut in cuts] == sorted(IDS)
    assert speakers_of(cuts) == {name: name.split("/")[0] for name in IDS}
    assert all(cut.num_samples == 16000 for cut in cuts)
    assert calls == [(k, 4) for k in (1, 2, 3, 4)]


def test_lhotse_itself_reads_the_audio(tmp_path: Path) -> None:
    write_corpus(tmp_path, IDS[:1])
    assert next(iter(read_corpus(tmp_path))).load_audio().shape == (1, 16000)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_corpus(tmp_path / "none")


def test_no_speakers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 folders and no audio"):
        read_corpus(tmp_path)


def test_speakers_without_audio(tmp_path: Path) -> None:
    (tmp_path / "id1").mkdir()
    with pytest.raises(InputError, match="1 folders and no audio"):
        read_corpus(tmp_path)


def test_audio_without_a_speaker(tmp_path: Path) -> None:
    write_corpus(tmp_path, ["a.wav", *IDS])
    with pytest.raises(InputError, match=r"a\.wav: expected <speaker>.*without a speaker"):
        read_corpus(tmp_path)


def test_the_one_bad_file_is_named(tmp_path: Path) -> None:
    write_corpus(tmp_path, IDS)
    (tmp_path / "id2" / "a.flac").write_bytes(b"nonsense")
    with pytest.raises(InputError) as caught:
        read_corpus(tmp_path)
    assert caught.value.what == str((tmp_path / "id2" / "a.flac").resolve())


def test_another_sample_rate_is_named(tmp_path: Path) -> None:
    write_corpus(tmp_path, IDS[:1])
    write_noise(tmp_path / "id3" / "x.wav", rate=8000)
    with pytest.raises(InputError, match=r"id3/x\.wav: expected a sample rate of 16000 Hz, found 8000 Hz"):
        read_corpus(tmp_path)


def test_manifests_come_back_and_have_reproducible_bytes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", IDS)
    cuts = read_corpus(tmp_path / "corpus")
    first, second = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    write_cuts(cuts, first)
    write_cuts(read_cuts(first), second)
    assert first.read_bytes() == second.read_bytes()
    assert list(read_cuts(first)) == list(cuts)
    assert list(CutSet.from_file(first)) == list(cuts)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "no cuts"),
        (b"plain text", "[Nn]ot a gzipped file"),
        (gzip.compress(b"{}\n"), "something else"),
        (gzip.compress(b"[]\n"), "pop"),
        (gzip.compress(b"not json\n"), "Expecting value"),
        (gzip.compress(b'{"type": "MonoCut", "id": "a"}\n'), "missing"),
        (gzip.compress(b"x" * 1000)[:-9], "ended before"),
    ],
)
def test_damaged_manifests_are_named(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "cuts.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=found) as caught:
        read_cuts(path)
    assert caught.value.what.startswith(str(path))


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_cuts(tmp_path / "cuts.jsonl.gz")
