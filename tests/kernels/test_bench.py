from __future__ import annotations

import json
import subprocess

import pytest

from exporters.native import native_path
from tests.kernels.capi import isas


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = native_path("kernels_capi").with_name("voxpress_kernel_bench")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("weights", ["packed", "codes"])
def test_times_every_layer_of_every_instruction_set(weights: str, mode: str) -> None:
    options = ["--mode", mode, *(["--codes"] if weights == "codes" else [])]
    done = _bench("--frames", "24", "--repeats", "2", "--bits", "3", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["frames"], result["bits"], result["weights"], result["mode"]) == (24, 3, weights, mode)
    assert {run["isa"] for run in result["isas"]} == set(isas())
    for run in result["isas"]:
        assert len(run["roof"]["samples_ns"]) == 2
        assert min(run["roof"]["samples_ns"]) > 0
        assert len(run["layers"]) == 37
        for layer in run["layers"]:
            assert len(layer["samples_ns"]) == 2
            # What an instruction set has no kernels of its own for runs on those of the one before it.
            own = {"exact": {"avx512vnni": "avx512", "neondot": "neon"}, "fast": {"avx512": "avx2"}}[mode]
            assert layer["kernel"].endswith(f"_{own.get(run['isa'], run['isa'])}")
    # 4.53 GMAC for 200 frames, in proportion, up to the rounding of 24 frames and the linear layer.
    assert sum(layer["macs"] for layer in result["isas"][0]["layers"]) == pytest.approx(4.53e9 * 24 / 200, rel=0.02)


def test_threads_and_the_other_network() -> None:
    done = _bench("--network", "dfresnet56", "--mode", "fast", "--frames", "24", "--repeats", "1", "--threads", "2")
    result = json.loads(done.stdout)
    assert (result["network"], result["threads"]) == ("dfresnet56", 2)
    for run in result["isas"]:
        assert len(run["layers"]) == 1 + 3 * 18 + 3 + 1


def test_one_instruction_set_alone_and_what_is_not_understood() -> None:
    done = _bench("--frames", "16", "--repeats", "1", "--isa", "portable")
    assert [run["isa"] for run in json.loads(done.stdout)["isas"]] == ["portable"]
    assert _bench("--isa", "sse9").returncode == 1
    for arguments in (["--frames"], ["--frames", "0"], ["--bits", "9"], ["--unknown", "1"], ["--network", "vgg"]):
        done = _bench(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("expected [--network")
