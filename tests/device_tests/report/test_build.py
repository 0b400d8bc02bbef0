from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from device_tests.records import Protocol
from device_tests.report.build import build_report, report_table
from device_tests.report.figures import Report, parity, quantile
from pipeline.corpus.trials import Trial
from pipeline.errors import InputError
from pipeline.scoring.metrics import Resampling
from tests.device_tests.report.run_factory import Made, engine_record, make_run

FEW_DRAWS = Resampling(draws=50)


def build(made: Made, out: Path, title: str = "A run") -> Report:
    return build_report(
        made.run,
        made.folder,
        made.reference,
        made.artifacts,
        made.trials,
        out,
        title=title,
        speakers=made.speakers,
        resampling=FEW_DRAWS,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Report, Path]:
    folder = tmp_path_factory.mktemp("report")
    made = make_run(folder / "run", bits=("fp32", "4bit", "2bit"))
    return made, build(made, folder / "out"), folder / "out"


def test_figures_of_a_small_case_computed_by_hand(tmp_path: Path) -> None:
    # Four utterances in the plane, given by their angles; speaker a at 0 and 10 degrees, b at 90 and 100.
    def at(*degrees: float, scale: float = 1.0) -> dict[str, np.ndarray]:
        radians = np.deg2rad(degrees)
        points = (scale * np.stack([np.cos(radians), np.sin(radians)], axis=1)).astype(np.float32)
        return dict(zip(("a1", "a2", "b1", "b2"), points, strict=True))

    reference, device = at(0, 10, 90, 100), at(0, 70, 90, 100, scale=2)
    made = make_run(tmp_path / "run", bits=("fp32", "4bit"), formats=("pte",), protocol=Protocol(runs=4, rounds=2))
    control, four = made.run.models
    control = control.model_copy(
        update={
            "rounds": tuple(
                engine_record("fp32.pte", 1000, samples, utterances=0, base=7000)
                for samples in ([10, 12, 11, 13], [20, 22, 24, 26])
            ),
            "file_bytes": 1000,
        }
    )
    four = four.model_copy(
        update={
            "rounds": tuple(
                engine_record("4bit.pte", 130, samples, utterances=0, base=5000)
                for samples in ([5, 5, 6, 7], [11, 11, 11, 99])
            ),
            "file_bytes": 130,
        }
    )
    run = made.run.model_copy(update={"models": (control, four)})
    save_file(reference, tmp_path / "run" / control.embeddings)
    save_file(device, tmp_path / "run" / four.embeddings)
    trials = [Trial(x[0] == y[0], x, y) for x, y in (("a1", "a2"), ("b1", "b2"), ("a1", "b1"), ("a2", "b2"))]
    report = build(replace(made, run=run), tmp_path / "out")
    assert [model.mode for model in report.models] == ["exact", "fast"]
    assert "| 4bit | .pte fast |" in (tmp_path / "out" / "report.md").read_text()
    assert "4bit fast" in (tmp_path / "out" / "report.html").read_text()
    text = io.StringIO()
    Console(file=text, width=200).print(report_table(report))
    assert "fast files at a cosine of 1.0000 or more" in " ".join(text.getvalue().split())


def test_missing_control_is_said(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", bits=("4bit",), formats=("pte",), control=False, speakers=4)
    report = build(made, tmp_path / "out")
    model = report.models[0]
    assert model.latency.ratio is None
    assert model.size_ratio is None
    assert any(note.startswith("control missing") for note in model.notes)
    for name in ("report.html", "report.md"):
        assert "control missing: no fp32 control of format .pte ran" in (tmp_path / "out" / name).read_text()


def test_silent_kernels_and_missing_artifact_are_said(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", bits=("fp32", "4bit"), formats=("pte",), speakers=4)
    control, four = made.run.models
    quiet = four.model_copy(
        update={
            "accuracy": four.accuracy.model_copy(update={"kernels": ()}),
            "rounds": tuple(record.model_copy(update={"kernels": ()}) for record in four.rounds),
        }
    )
    run = made.run.model_copy(update={"models": (control, quiet)})
    report = build_report(
        run,
        made.folder,
        made.reference,
        {"fp32": made.reference},
        made.trials,
        tmp_path / "out",
        title="t",
        resampling=FEW_DRAWS,
    )
    notes = report.models[1].notes
    assert "no VoxPress kernel ran, though the file is made of VoxPress ops" in notes
    assert "no embeddings of the decoded artifact '4bit' to compare with" in notes
    assert report.models[1].artifact is None
    assert report.models[1].device.eer_interval.unit == "trials"


def test_table_fits_a_terminal_of_100_columns(built: tuple[Made, Report, Path]) -> None:
    _, report, _ = built
    text = io.StringIO()
    Console(file=text, width=100).print(report_table(report))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text.getvalue()
    row = next(line for line in lines if line.strip().startswith("4bit"))
    assert "3,390,000" in row
    assert "0.128" in row


def test_embeddings_of_other_utterances_are_refused(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", bits=("fp32",), formats=("pte",), speakers=4)
    path = made.folder / made.run.models[0].embeddings
    fewer = dict(made.reference)
    fewer.pop("s01/u2.wav")
    save_file(fewer, path)
    with pytest.raises(InputError, match=re.escape(f"{path}: expected the 20 utterances") + ".*s01/u2.wav"):
        build(made, tmp_path / "out")
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        build(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parity_refuses_zero_and_other_lengths() -> None:
    one = {"u": np.ones(3, np.float32)}
    with pytest.raises(InputError, match="not zero"):
        parity({"u": np.zeros(3, np.float32)}, one, name="x")
    with pytest.raises(InputError, match=re.escape("expected an embedding (3,) of 'u', found (4,)")):
        parity({"u": np.ones(4, np.float32)}, one, name="x")


@pytest.mark.parametrize(("share", "expected"), [(0.5, 20), (0.9, 40), (0.25, 10), (0.26, 20), (0.0, 10), (1.0, 40)])
def test_quantile_is_nearest_rank(share: float, expected: int) -> None:
    assert quantile([40, 10, 30, 20], share) == expected
