import json
from pathlib import Path

import pytest
import torch

from calibration.plan import PLAN_FILE, described_plan, make_plan, read_plan, rounding_errors, uniform_bytes, write_plan
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.models.network import lower
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.quantize.apply import attach_palettes, press


def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(ModelSpec(architecture="resnet10", base_channels=2, embedding_dim=8)).eval()


@pytest.mark.parametrize("average_bits", [1, 1.3, 2, 3, 5.5, 8])
def test_the_artifact_has_the_planned_bytes(average_bits: float) -> None:
    network = _network()
    layers = lower(network).layers
    nodes = [layer.node for layer in layers]
    budget = uniform_bytes(nodes, average_bits)
    plan = make_plan(nodes, dict.fromkeys([node.name for node in nodes], 1.0), rounding_errors(layers), budget)
    attach_palettes(network, plan.layers)
    artifact = press(
        network, name="x", architecture="x", frontend=FrontEndSpec(), created_by="t", source_sha256="0" * 64
    )
    assert artifact.weights_bytes == plan.bytes
    assert plan.bytes is not None
    assert plan.bytes <= budget
    assert artifact.bits_per_weight == pytest.approx(plan.average_bits)


def test_wider_palettes_round_less() -> None:
    for errors in rounding_errors(lower(_network()).layers).values():
        assert all(errors[bits] >= errors[bits + 1] for bits in range(1, 8))


def test_a_sensitive_layer_gets_more_bits() -> None:
    layers = lower(_network()).layers
    nodes = [layer.node for layer in layers]
    traces = dict.fromkeys([node.name for node in nodes], 1.0)
    budget = uniform_bytes(nodes, 2)
    plain = make_plan(nodes, traces, rounding_errors(layers), budget)
    raised = make_plan(nodes, traces | {"layer3.0.conv1": 1e4}, rounding_errors(layers), budget)
    assert raised.layers["layer3.0.conv1"] > plain.layers["layer3.0.conv1"]


def test_a_plan_may_be_edited_by_hand(tmp_path: Path) -> None:
    nodes = [layer.node for layer in lower(_network()).layers]
    write_plan(tmp_path, described_plan(nodes, dict.fromkeys([node.name for node in nodes], 3), None))
    content = json.loads((tmp_path / PLAN_FILE).read_text())
    content["layers"]["conv1"] = 8
    (tmp_path / "mine.json").write_text(json.dumps({"layers": content["layers"]}))
    assert read_plan(tmp_path / "mine.json", nodes).layers["conv1"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers.update(layer9=3), "unknown layer layer9"),
        (lambda layers: layers.pop("seg_1"), "expected a width for layer seg_1, found none"),
        (lambda layers: layers.update(conv1=9), "layers.conv1: Input should be less than or equal to 8"),
        (lambda layers: layers.update(conv1=0), "layers.conv1: Input should be greater than or equal to 1"),
    ],
)
def test_a_bad_plan_is_named(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    nodes = [layer.node for layer in lower(_network()).layers]
    layers = dict.fromkeys([node.name for node in nodes], 3)
    change(layers)
    (tmp_path / "mine.json").write_text(json.dumps({"layers": layers}))
    with pytest.raises(InputError, match=rf"mine\.json: .*{message}"):
        read_plan(tmp_path / "mine.json", nodes)
