from __future__ import annotations

import struct
from typing import Any

import pytest
import torch

import exporters.pte.emit as emit
from exporters.fast import Algorithm, FastProgram, Quantization
from exporters.manifest import CONV2D_U8_VERSION, model_manifest
from exporters.pte.emit import PressedNetwork, emit_pte
from exporters.pte.run import PteRunner
from pipeline.artifact.decode import decode
from pipeline.errors import InputError
from tests.exporters.pte.models import MAX_FRAMES, MAX_SECONDS, fast_pte, utterance
from tests.exporters.pte.test_ops import TRACING, conv_arguments
from tests.factories import noise_program, noise_utterances, tiny_artifact

IN, RESIDUAL, OUT = Quantization(0.03, 100), Quantization(0.05, 7), Quantization(0.04, 60)


def as_bytes(real: torch.Tensor, q: Quantization) -> torch.Tensor:
    return (real / q.scale).round().add(q.zero).clamp(0, 255).to(torch.uint8)


def real(q8: torch.Tensor, q: Quantization) -> torch.Tensor:
    return (q8.float() - q.zero) * q.scale


def arguments(*, x_u8: bool = True, residual: str | None = "u8", out_u8: bool = True) -> list[Any]:
    common = conv_arguments(residual=residual is not None)[:-1]
    if x_u8:
        common[0] = as_bytes(common[0], IN)
    if residual == "u8":
        common[5] = as_bytes(common[5], RESIDUAL)
    q = (IN.scale, IN.zero, RESIDUAL.scale, RESIDUAL.zero, out_u8, OUT.scale, OUT.zero)
    return [*common, *q, int(Algorithm.AUTO), CONV2D_U8_VERSION]


@pytest.mark.parametrize("x_u8", [False, True])
@pytest.mark.parametrize("residual", [None, "f32", "u8"])
@pytest.mark.parametrize("out_u8", [False, True])
def test_it_is_conv2d_on_the_real_numbers_rounded(x_u8: bool, residual: str | None, out_u8: bool) -> None:
    given = arguments(x_u8=x_u8, residual=residual, out_u8=out_u8)
    exact = [*given[:12], 1]
    exact[0] = real(given[0], IN) if x_u8 else given[0]
    exact[5] = real(given[5], RESIDUAL) if residual == "u8" else given[5]
    y = torch.ops.voxpress.conv2d(*exact)
    expected = as_bytes(y, OUT) if out_u8 else y
    torch.testing.assert_close(torch.ops.voxpress.conv2d_u8(*given), expected, rtol=0, atol=0)


@pytest.mark.parametrize("out_u8", [False, True])
def test_out_variant_and_shapes_for_tracing_agree_with_the_op(out_u8: bool) -> None:
    given = arguments(out_u8=out_u8)
    expected = torch.ops.voxpress.conv2d_u8(*given)
    out = torch.empty(0, dtype=expected.dtype)
    torch.testing.assert_close(torch.ops.voxpress.conv2d_u8.out(*given, out=out), expected, rtol=0, atol=0)
    torch.library.opcheck(torch.ops.voxpress.conv2d_u8.default, tuple(given), test_utils=TRACING)


def test_a_version_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="conv2d_u8: expected op version 1, found 2"):
        torch.ops.voxpress.conv2d_u8(*arguments()[:-1], CONV2D_U8_VERSION + 1)


def test_the_u8_network_is_near_the_reference() -> None:
    artifact = tiny_artifact(4)
    features = torch.from_numpy(noise_utterances()["u2"])[None]
    with torch.no_grad():
        found, wanted = PressedNetwork(artifact, noise_program(artifact))(features)[0], decode(artifact)(features)[0]
    assert torch.cosine_similarity(found, wanted, dim=0) > 0.9999
    assert not torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)  # it does round


def test_the_file_says_what_its_bytes_stand_for() -> None:
    artifact = tiny_artifact(4)
    program = noise_program(artifact)
    manifest = PteRunner(fast_pte()).manifest
    assert manifest == model_manifest(artifact, "voxpress", max_frames=MAX_FRAMES, fast=program)
    assert (manifest.mode, manifest.ops) == ("fast", {"voxpress.conv2d_u8": 1, "voxpress.stats_pool": 1})
    assert manifest.fast is not None
    assert manifest.fast.activations.keys() == program.bytes_of.keys()


def refused(data: bytes, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    runner = PteRunner(data)
    capfd.readouterr()
    with pytest.raises(InputError, match="expected a model that runs"):
        runner.embed(utterance(60))
    assert reason in capfd.readouterr().err


@pytest.mark.parametrize("scale", [0.0, -0.1, float("nan"), float("inf"), 1e300, 1e-300])
def test_hostile_scales_are_refused_with_a_reason(scale: float, capfd: pytest.CaptureFixture[str]) -> None:
    written = struct.pack("<d", noise_program(tiny_artifact(4)).bytes_of["conv1"].scale)
    assert written in fast_pte()
    data = fast_pte().replace(written, struct.pack("<d", scale))
    refused(data, "a quantization scale is not positive and finite", capfd)


@pytest.mark.parametrize(
    ("zero", "algorithm", "reason"),
    [
        (2**40, Algorithm.AUTO, "a zero point is not 0..255"),
        (256, Algorithm.AUTO, "a zero point is not 0..255"),
        (0, 256, "the algorithm is unknown"),  # of which the low byte would be good
        (0, Algorithm.WINOGRAD4, "this layer cannot be run by it"),  # its input is float
    ],
)
def test_hostile_numbers_are_refused_with_a_reason(
    zero: int, algorithm: int, reason: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = tiny_artifact(4)
    program = noise_program(artifact)
    altered = {**program.bytes_of, "conv1": Quantization(program.bytes_of["conv1"].scale, zero)}
    hostile = FastProgram(program.ranges, altered, {"conv1": algorithm})  # type: ignore[dict-item]
    monkeypatch.setattr(
        emit, "PressedNetwork", lambda of, _, *rest, **names: PressedNetwork(of, hostile, *rest, **names)
    )  # the manifest's stays good
    refused(emit_pte(artifact, lowering="voxpress", max_seconds=MAX_SECONDS, fast=program), reason, capfd)


def test_an_op_version_of_the_future_is_an_error_and_no_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit, "CONV2D_U8_VERSION", 2)
    artifact = tiny_artifact(4)
    runner = PteRunner(
        emit.emit_pte(artifact, lowering="voxpress", max_seconds=MAX_SECONDS, fast=noise_program(artifact))
    )
    with pytest.raises(InputError, match="expected a model that runs"):
        runner.embed(utterance(100))
