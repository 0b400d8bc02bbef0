from __future__ import annotations

from exporters.speed import random_resnet34, time_in_turns, time_models
from tests.factories import tiny_artifact


def test_runs_take_turns_after_one_to_warm_up() -> None:
    calls: list[str] = []
    samples = time_in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert calls == ["a", "b"] * 4
    assert {name: len(values) for name, values in samples.items()} == {"a": 3, "b": 3}


def test_models_are_timed_and_compared() -> None:
    result = time_models(tiny_artifact(4), frames=60, repeats=2)
    assert set(result["models"]) == {"voxpress.pte", "voxpress.tflite", "stock.pte", "stock.tflite"}
    for model in result["models"].values():
        assert len(model["samples_ns"]) == 2
        assert model["relative_error"] < 1e-5
    assert min(model["ratio"] for name, model in result["models"].items() if name.startswith("stock")) == 1.0


def test_random_artifact_has_every_layer_of_its_width() -> None:
    artifact = random_resnet34(3)
    assert {node.bits for node in artifact.header.layers} == {3}
    assert len(artifact.layers) == 37
