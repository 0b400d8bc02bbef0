from __future__ import annotations

import pytest

from device_tests.bench.contenders import (
    MODES,
    choose_formats,
    choose_modes,
    our_contenders,
    parse_numbers,
    parse_seconds,
    peer_contenders,
)
from exporters.peers.catalogue import PEERS, choose_peers
from pipeline.errors import InputError


def test_our_rows_are_every_combination_under_names_of_their_own() -> None:
    rows = our_contenders(["4bit", "1bit"], MODES, ("pte", "tflite"))
    assert len({row.name for row in rows}) == len(rows) == 2 * len(MODES) * 2
    low = next(row for row in rows if row.name == "voxpress-1bit-exact-low-memory.tflite")
    assert low.title == "VoxPress .tflite 1bit exact, low memory"
    assert low.low_memory
    assert not next(row for row in rows if row.name == "voxpress-1bit-fast.tflite").low_memory
    assert (low.runtime, low.kind, low.bits) == ("litert", "voxpress", "1bit")


def test_peers_are_rows() -> None:
    rows = peer_contenders(PEERS)
    assert [row.name for row in rows] == [peer.name for peer in PEERS]
    assert {row.kind for row in rows} == {"fp32", "int8", "weight-only"}
    assert not any(row.low_memory for row in rows)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("none", []),
        ("ncnn", ["ncnn-fp32"]),
        ("litert-int8,mnn", ["litert-int8", "mnn-fp32", "mnn-4bit"]),
        ("all", [peer.name for peer in PEERS]),
    ],
)
def test_peers_by_word(words: str, names: list[str]) -> None:
    assert [peer.name for peer in choose_peers(words)] == names


def test_words_that_are_none() -> None:
    with pytest.raises(InputError, match=r"--peers: expected some of all, none, executorch.*found 'tvm'"):
        choose_peers("litert,tvm")
    with pytest.raises(InputError, match="--modes: expected some of all, exact"):
        choose_modes("exact,quick")
    with pytest.raises(InputError, match="--formats: expected some of pte, tflite, found 'onnx'"):
        choose_formats("onnx")
    assert [mode.name for mode in choose_modes("exact")] == ["exact"]
    assert choose_formats("tflite,pte") == ("pte", "tflite")


@pytest.mark.parametrize("words", ["", "0", "9", "4,4", "4,x", "-1", "4,"])
def test_numbers_that_are_not_widths(words: str) -> None:
    with pytest.raises(InputError, match="--bits: expected different numbers from 1 to 8"):
        parse_numbers("--bits", words, low=1, high=8)


def test_numbers_and_lengths() -> None:
    assert parse_numbers("--bits", "4,1,8", low=1, high=8) == (4, 1, 8)
    assert parse_seconds("--seconds", "10,0.5,2") == (0.5, 2.0, 10.0)
    for words in ("", "nan", "0", "-1", "2,2", "601", "a"):
        with pytest.raises(InputError, match="--seconds: expected none, or different lengths"):
            parse_seconds("--seconds", words)
