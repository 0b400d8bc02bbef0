from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from exporters.manifest import Lowering, model_manifest
from exporters.tflite import graph
from exporters.tflite.emit import emit_tflite
from exporters.tflite.run import TfliteRunner
from pipeline.artifact.decode import decode
from pipeline.artifact.schema import Artifact, Conv2dNode, StatsPoolNode
from pipeline.artifact.store import LoadedArtifact
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from tests.exporters.pte.models import resnet34_artifact
from tests.exporters.tflite.models import code_name, custom_nodes, unpack
from tests.factories import code_places, random_layer, tiny_artifact

LOWERINGS: tuple[Lowering, ...] = ("voxpress", "stock")


def _features(frames: int, mel: int = 80) -> np.ndarray:
    return np.random.default_rng(frames).normal(size=(frames, mel)).astype(np.float32)


def _assert_matches(artifact: LoadedArtifact, runner: TfliteRunner, frames: int) -> None:
    x = _features(frames, artifact.header.frontend.num_mel_bins)
    expected = decode(artifact)(torch.from_numpy(x)[None])[0].numpy()
    got = runner.embed(x)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def _artifact(program: tuple[Any, ...], mel: int, embedding_dim: int) -> LoadedArtifact:
    header = Artifact(
        name="odd",
        architecture="odd",
        embedding_dim=embedding_dim,
        frontend=FrontEndSpec(num_mel_bins=mel),
        program=program,
        created_by="tests",
        source_sha256="0" * 64,
    )
    rng = np.random.default_rng(0)
    return LoadedArtifact(header, {node.name: random_layer(node, rng) for node in header.layers})


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize(("bits", "depthwise"), [(1, False), (3, True), (4, False), (8, True), (32, False), (32, True)])
def test_agrees_with_the_reference_while_the_length_changes(lowering: Lowering, bits: int, depthwise: bool) -> None:
    artifact = tiny_artifact(bits, depthwise=depthwise)
    runner = TfliteRunner(emit_tflite(artifact, lowering=lowering))
    for frames in (30, 98, 200, 301, 30):
        _assert_matches(artifact, runner, frames)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("bits", [2, 5, 6, 7])
def test_every_other_width_agrees_with_the_reference(lowering: Lowering, bits: int) -> None:
    artifact = tiny_artifact(bits, seed=bits)
    _assert_matches(artifact, TfliteRunner(emit_tflite(artifact, lowering=lowering)), 64)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_grouped_and_unevenly_padded_convolutions_agree_with_the_reference(lowering: Lowering) -> None:
    program = (
        Conv2dNode(name="a", input="features", in_channels=1, out_channels=6, kernel=(5, 3), padding=(2, 0), bits=4),
        Conv2dNode(
            name="b", input="a", in_channels=6, out_channels=12, kernel=(3, 3), padding=(1, 2), groups=3, bits=2
        ),
        Conv2dNode(
            name="c", input="b", in_channels=12, out_channels=24, kernel=(3, 2), stride=(2, 1), groups=12, bits=8
        ),
        Conv2dNode(
            name="d",
            input="c",
            in_channels=24,
            out_channels=8,
            kernel=(2, 2),
            padding=(1, 1),
            stride=(1, 3),
            bits=1,
            relu=True,
        ),
        StatsPoolNode(name="pool", input="d"),
        Conv2dNode(
            name="hidden", input="pool", in_channels=2 * 5 * 8, out_channels=7, kernel=(1, 1), bits=4, relu=True
        ),
        Conv2dNode(name="out", input="hidden", in_channels=7, out_channels=5, kernel=(1, 1), bits=4),
    )
    artifact = _artifact(program, mel=13, embedding_dim=5)
    runner = TfliteRunner(emit_tflite(artifact, lowering=lowering))
    for frames in (20, 41):
        _assert_matches(artifact, runner, frames)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_a_single_frame_at_the_pooling_gives_the_floor_of_the_deviation(lowering: Lowering) -> None:
    program = (StatsPoolNode(name="pool", input="features"),)
    artifact = _artifact(program, mel=8, embedding_dim=16)
    runner = TfliteRunner(emit_tflite(artifact, lowering=lowering))
    x = _features(1, 8)
    np.testing.assert_allclose(runner.embed(x)[8:], np.sqrt(1e-7), rtol=1e-3)
    np.testing.assert_allclose(runner.embed(x)[:8], x[0], rtol=1e-6)


def test_a_stock_file_has_builtin_ops_only_and_ours_packed_codes() -> None:
    artifact = tiny_artifact(2)
    stock, pressed = (emit_tflite(artifact, lowering=lowering) for lowering in ("stock", "voxpress"))
    assert custom_nodes(unpack(stock)) == []
    model = unpack(pressed)
    names = [code_name(model, node) for node in custom_nodes(model)]
    assert names == ["voxpress.conv2d"] * 6 + ["voxpress.stats_pool", "voxpress.conv2d"]
    held = {bytes(buffer.data) for buffer in model.buffers if buffer.data is not None}
    for layer in artifact.layers.values():
        assert layer.codes is not None
        assert layer.codes.tobytes() in held
    # Per tensor: its table, its name, its buffer's table and up to 63 bytes of alignment.
    tensors = len(model.subgraphs[0].tensors)
    assert len(pressed) < artifact.weights_bytes + tensors * 256 + 2048


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_constants_lie_on_64_byte_boundaries(lowering: Lowering) -> None:
    data = emit_tflite(tiny_artifact(4), lowering=lowering)
    start = np.frombuffer(data, np.uint8).ctypes.data
    model = schema.Model.GetRootAs(data, 0)
    offsets = [
        model.Buffers(i).DataAsNumpy().ctypes.data - start
        for i in range(model.BuffersLength())
        if model.Buffers(i).DataLength() >= 64
    ]
    assert offsets
    assert all(offset % 64 == 0 for offset in offsets)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_the_file_says_what_it_is(lowering: Lowering) -> None:
    artifact = tiny_artifact(4)
    manifest = TfliteRunner(emit_tflite(artifact, lowering=lowering)).manifest
    assert manifest == model_manifest(artifact, lowering, max_frames=None, max_batch=None)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_signature_and_dynamic_time_axis(lowering: Lowering) -> None:
    interpreter = Interpreter(model_content=emit_tflite(tiny_artifact(4), lowering=lowering))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["features"], "outputs": ["embedding"]}}
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert list(source["shape_signature"]) == [1, -1, 80]
    assert list(target["shape"]) == [1, 16]


def test_the_same_artifact_gives_the_same_bytes() -> None:
    for lowering in LOWERINGS:
        first, second = (emit_tflite(tiny_artifact(4), lowering=lowering) for _ in range(2))
        assert first == second


def test_a_program_that_does_not_end_in_one_vector_is_refused() -> None:
    node = Conv2dNode(name="a", input="features", in_channels=1, out_channels=3, kernel=(1, 8), bits=4)
    with pytest.raises(InputError, match=r"a program that ends in \[N, 1, 1, 3\], found \[N, T, 1, 3\]"):
        emit_tflite(_artifact((node,), mel=8, embedding_dim=3), lowering="stock")


def test_an_unknown_lowering_is_refused() -> None:
    with pytest.raises(InputError, match="expected voxpress or stock, found 'fast'"):
        emit_tflite(tiny_artifact(4), lowering="fast")  # type: ignore[arg-type]


def test_codes_lie_packed_in_the_file_of_a_resnet34() -> None:
    stock, four, one = (
        len(emit_tflite(resnet34_artifact(bits), lowering=lowering))
        for bits, lowering in ((32, "stock"), (4, "voxpress"), (1, "voxpress"))
    )
    assert four <= 0.14 * stock
    assert one <= 0.045 * stock


def test_constants_off_their_alignment_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tiny_artifact(3)
    aligned = emit_tflite(artifact, lowering="voxpress")
    monkeypatch.setattr(graph, "BUFFER_ALIGNMENT", 1)
    packed = emit_tflite(artifact, lowering="voxpress")
    assert code_places(artifact, aligned, 64) == {0}
    assert code_places(artifact, packed, 16) - {0}
    for frames in (30, 98, 200, 301, 3000):
        x = _features(frames)
        assert TfliteRunner(packed).embed(x).tobytes() == TfliteRunner(aligned).embed(x).tobytes()
