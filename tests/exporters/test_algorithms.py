from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

import exporters.algorithms as algorithms
from exporters.algorithms import AlgorithmChoice, choose_algorithms
from exporters.export import prepare_fast
from exporters.exported import Agreement
from exporters.fast import Algorithm, FastProgram
from pipeline.progress import Progress
from tests.factories import noise_ranges, noise_utterances, tiny_artifact

WINOGRAD = ("block.conv1", "block.conv2", "down.conv2")


COST = {"block.conv1": 4e-4, "block.conv2": 1e-4, "down.conv2": 9e-4}


class FakeMeasure:
    """Costs of layers under Winograd's algorithms, added up to a loss of cosine."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, program: FastProgram) -> Agreement:
        loss = 2e-4
        for name, cost in COST.items():
            algorithm = program.algorithms.get(name, Algorithm.AUTO)
            loss += {Algorithm.DIRECT: 0.0, Algorithm.WINOGRAD2: 0.25}.get(algorithm, 1.0) * cost
        return Agreement(checked=1, max_relative_error=0, cosine_mean=1 - loss, cosine_min=1 - 2 * loss)


def choose(monkeypatch: pytest.MonkeyPatch, least_mean: float) -> tuple[FastProgram, AlgorithmChoice]:
    monkeypatch.setattr(algorithms, "_Measure", FakeMeasure)
    monkeypatch.setattr(algorithms, "LEAST_MEAN_COSINE", least_mean)
    artifact = tiny_artifact(4)
    with Progress.silent().task("x", 1) as task:
        return choose_algorithms(artifact, artifact, noise_ranges(artifact), noise_utterances(), task)


def test_the_kernels_choose_as_long_as_that_is_accurate_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    program, choice = choose(monkeypatch, 0.998)
    assert not program.algorithms
    assert choice.chosen == choice.kernels_choice


def test_the_layer_that_costs_most_for_what_it_saves_is_slowed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    program, choice = choose(monkeypatch, 0.999)  # a loss of 1.6e-3 must come down to 1e-3
    assert program.algorithms.keys() == {"down.conv2"}
    assert choice.algorithms == {"down.conv2": program.algorithms["down.conv2"].name.lower()}
    assert choice.chosen.cosine_mean >= 0.999 > choice.kernels_choice.cosine_mean


def test_all_are_direct_if_nothing_is_accurate_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = choose(monkeypatch, 0.9999)
    assert program.algorithms == dict.fromkeys(WINOGRAD, Algorithm.DIRECT)


def test_measured_on_the_runtime_and_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(algorithms, "LEAST_MEAN_COSINE", 1.0000001)  # out of reach
    artifact, stream = tiny_artifact(4), (tmp_path / "said").open("w")
    progress = Progress(Console(file=stream, width=200))
    fast = prepare_fast(artifact, noise_utterances(), tmp_path, max_seconds=4.0, progress=progress)
    stream.close()
    assert fast.program.algorithms == dict.fromkeys(WINOGRAD, Algorithm.DIRECT)
    assert "tiny-4bit: 3 layers run by slower algorithms for accuracy: mean cosine" in (tmp_path / "said").read_text()
    found = AlgorithmChoice.model_validate_json((tmp_path / "tiny-4bit-algorithms.json").read_text())
    assert found.algorithms == dict.fromkeys(WINOGRAD, "direct")
    assert 0.999 < found.chosen.cosine_min <= 1
