from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from exporters.native import native_path
from tests.kernels.capi import isas


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = native_path("kernels_capi").with_name("voxpress_kernel_bench")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("weights", ["packed", "codes"])
def test_times_every_layer_of_every_instruction_set(mode: str, weights: str) -> None:
    options = ["--codes"] if weights == "codes" else []
    done = _bench("--mode", mode, "--frames", "24", "--repeats", "2", "--bits", "3", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["mode"] == mode
    assert (result["frames"], result["bits"], result["weights"]) == (24, 3, weights)
    assert {run["isa"] for run in result["isas"]} == set(isas())
    for run in result["isas"]:
        assert len(run["roof"]["samples_ns"]) == 2
        assert min(run["roof"]["samples_ns"]) > 0
        assert len(run["layers"]) == 37
        for layer in run["layers"]:
            assert len(layer["samples_ns"]) == 2
            # An instruction set that has no kernel of its own for a layer takes that of a narrower one.
            assert layer["kernel"].rpartition("_")[2] in isas()
    # 4.53 GMAC for 200 frames, in proportion, up to the rounding of 24 frames and the linear layer.
    assert sum(layer["macs"] for layer in result["isas"][0]["layers"]) == pytest.approx(4.53e9 * 24 / 200, rel=0.02)


def test_one_instruction_set_alone_and_what_is_not_understood() -> None:
    done = _bench("--frames", "16", "--repeats", "1", "--isa", "portable")
    assert [run["isa"] for run in json.loads(done.stdout)["isas"]] == ["portable"]
    assert _bench("--isa", "sse9").returncode == 1
    for arguments in (["--frames"], ["--frames", "0"], ["--bits", "9"], ["--unknown", "1"]):
        done = _bench(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("expected [--mode exact|fast] [--frames n]")


def test_layers_of_a_file_in_the_widest_instruction_set(tmp_path: Path) -> None:
    program = tmp_path / "layers.txt"
    program.write_text("stem 30 20 1 8 3 3 1 1 1 1 1 1 0\ndepthwise 30 20 8 8 3 3 2 2 1 1 8 0 0\n")
    done = _bench("--program", str(program), "--isa", "widest", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["isas"]
    # Floats are held against a roof of floats.
    assert run["isa"] == [isa for isa in isas() if isa != "avx512vnni"][-1]
    assert [(layer["name"], layer["macs"]) for layer in run["layers"]] == [
        ("stem", 30 * 20 * 8 * 9),
        ("depthwise", 15 * 10 * 8 * 9),
    ]
    for text in ("", "stem 30 20\n", "stem 30 20 1 8 3 3 1 1 1 1 0 1 0\n", "stem 30 20 1 8 0 3 1 1 1 1 1 1 0\n"):
        program.write_text(text)
        done = _bench("--program", str(program), "--isa", "widest")
        assert done.returncode == 2
        assert done.stderr.startswith(f"{program}: expected a")
