from __future__ import annotations

from pathlib import Path

import pytest

from exporters.inspect_model import inspect_model
from exporters.manifest import model_manifest
from exporters.pte import emit
from exporters.pte.emit import emit_pte, frame_range
from exporters.pte.run import PteRunner
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from tests.exporters.pte.models import (
    LENGTHS,
    MAX_FRAMES,
    MIN_FRAMES,
    reference,
    relative_error,
    resnet34_artifact,
    tiny_pte,
    utterance,
)
from tests.factories import code_places, tiny_artifact


@pytest.mark.parametrize("bits", [1, 3, 4, 8, 32])
def test_pressed_file_equals_the_reference_at_every_length(bits: int) -> None:
    runner = PteRunner(tiny_pte(bits))
    for frames in LENGTHS:
        features = utterance(frames)
        assert relative_error(runner.embed(features), reference(bits, features)) < 1e-5, frames


@pytest.mark.parametrize("bits", [4, 32])
def test_nothing_is_computed_outside_of_our_ops(bits: int, tmp_path: Path) -> None:
    (tmp_path / "m.pte").write_bytes(tiny_pte(bits))
    contents = inspect_model(tmp_path / "m.pte")
    others = {op.name for op in contents.ops if not op.ours}
    assert others <= {"aten::sym_size.int", "aten::view_copy.out", "executorch_prim::et_view.default"}
    assert contents.backends == ()


def test_depthwise_layers_equal_the_reference() -> None:
    runner = PteRunner(tiny_pte(4, depthwise=True))
    features = utterance(98)
    assert relative_error(runner.embed(features), reference(4, features, depthwise=True)) < 1e-5


def test_stock_file_equals_the_reference_at_every_length() -> None:
    runner = PteRunner(tiny_pte(4, "stock"))
    for frames in LENGTHS:
        features = utterance(frames)
        assert relative_error(runner.embed(features), reference(4, features)) < 1e-4, frames


def test_a_short_utterance_after_a_long_one_is_not_disturbed_by_it() -> None:
    features = utterance(MIN_FRAMES)
    runner = PteRunner(tiny_pte(4))
    first = runner.embed(features)
    runner.embed(utterance(MAX_FRAMES))
    assert (runner.embed(features) == first).all()


def test_the_file_says_what_it_is() -> None:
    artifact = tiny_artifact(4)
    for lowering in ("voxpress", "stock"):
        manifest = PteRunner(tiny_pte(4, lowering)).manifest
        assert manifest == model_manifest(artifact, lowering, max_frames=MAX_FRAMES)
        assert manifest.min_frames == MIN_FRAMES


def test_codes_lie_packed_and_aligned_in_the_file() -> None:
    data = tiny_pte(4)
    for layer in tiny_artifact(4).layers.values():
        assert layer.codes is not None
        offset = data.find(layer.codes.tobytes())
        assert offset > 0, layer.node.name
        assert offset % 64 == 0, layer.node.name


def test_frames_follow_the_front_end() -> None:
    limits = frame_range(FrontEndSpec(), 10.0)
    assert (limits.minimum, limits.maximum) == (28, 998)
    slower = frame_range(FrontEndSpec(frame_shift_ms=20.0, min_seconds=0.5), 10.0)
    assert (slower.minimum, slower.maximum) == (24, 499)


@pytest.mark.parametrize("seconds", [0.0, 0.3, -1.0])
def test_a_limit_below_the_shortest_utterance_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match=r"max_seconds: expected more than 0\.3"):
        emit_pte(tiny_artifact(4), lowering="voxpress", max_seconds=seconds)


@pytest.mark.slow
def test_resnet34_shrinks_in_the_file() -> None:
    stock, dense, four, one = (
        len(emit_pte(resnet34_artifact(bits), lowering=lowering, max_seconds=10))
        for bits, lowering in ((32, "stock"), (32, "voxpress"), (4, "voxpress"), (1, "voxpress"))
    )
    assert dense < stock * 1.01
    assert four <= 0.14 * stock
    assert one <= 0.045 * stock


def test_constants_off_their_alignment_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tiny_artifact(3)
    aligned = emit_pte(artifact, lowering="voxpress", max_seconds=4.0)
    monkeypatch.setattr(emit, "_CONSTANT_ALIGNMENT", 4)
    packed = emit_pte(artifact, lowering="voxpress", max_seconds=4.0)
    assert code_places(artifact, aligned, 64) == {0}
    assert code_places(artifact, packed, 16) - {0}
    for frames in (30, 98, 200, 301):
        features = utterance(frames)
        assert PteRunner(packed).embed(features).tobytes() == PteRunner(aligned).embed(features).tobytes()
