"""`voxpress bench` from the command line, whole, on a tiny network and peers that come with VoxPress."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from device_tests.bench.records import read_bench
from exporters.peers.catalogue import peer_named
from pipeline.artifact.store import write_artifact
from tests.factories import tiny_artifact


def _bench(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", "bench", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_our_files_and_peers_are_measured_and_reported(tmp_path: Path) -> None:
    write_artifact(tmp_path / "artifact", tiny_artifact(4))
    out = tmp_path / "out"
    words = ["--model", tmp_path / "artifact", "--peers", "onnxruntime-fp32,litert-int8,ncnn", "--modes", "exact"]
    words += ["--threads", 1, "--frames", 60, "--seconds", 1, "--rounds", 2, "--runs", 2, "--layers", "--out", out]
    done = _bench(*words, "--json")
    assert done.returncode == 0, done.stderr
    record = read_bench(out)
    assert json.loads(done.stdout) == json.loads(record.model_dump_json())
    rows = {contender.name: contender for contender in record.contenders}
    names = ["voxpress-4bit-exact.pte", "voxpress-4bit-exact.tflite", "litert-int8", "onnxruntime-fp32", "ncnn-fp32"]
    assert sorted(rows) == sorted(names)
    for name in names[:4]:
        assert [(one.frames, one.threads, one.failure) for one in rows[name].measured] == [(60, 1, None), (98, 1, None)]
        assert [len(turn) for turn in rows[name].at(60, 1).rounds] == [2, 2]
        assert rows[name].file_bytes > 0
        assert min(rows[name].cosines.values()) > 0.99
    assert rows["voxpress-4bit-exact.pte"].file_bytes < rows["onnxruntime-fp32"].file_bytes / 2
    assert min(rows["voxpress-4bit-exact.tflite"].cosines.values()) > 0.99999
    assert (rows["ncnn-fp32"].failure is None) == (not peer_named("ncnn-fp32").missing_packages())
    assert [layers.bits for layers in record.layers] == [4]
    for name in ("bench.md", "bench.html", "trade-1.svg", "growth.svg"):
        assert (out / name).stat().st_size > 0

    table = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "report", str(out)], capture_output=True, text=True, check=True
    )
    assert "VoxPress .pte 4bit exact" in table.stdout


def test_bad_words_are_one_line_and_make_nothing(tmp_path: Path) -> None:
    for words, said in (
        (("--peers", "tvm"), "--peers: expected some of all, none"),
        (("--bits", "9"), "--bits: expected different numbers from 1 to 8"),
        (("--modes", "quick"), "--modes: expected some of all, exact"),
        (("--seconds", "0"), "--seconds: expected none, or different lengths"),
    ):
        done = _bench(*words, "--out", tmp_path / "out")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"voxpress: {said}")
    assert not (tmp_path / "out").exists()
