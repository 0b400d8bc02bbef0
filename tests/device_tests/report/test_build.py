from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from device_tests.records import Protocol
from device_tests.report.build import build_report, read_report, report_table
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
    report = build_report(
        run,
        tmp_path / "run",
        reference,
        {"fp32": reference, "4bit": at(0, 70, 90, 100)},
        trials,
        tmp_path / "out",
        title="By hand",
        resampling=FEW_DRAWS,
    )
    fp32, pressed = report.models
    assert report.reference.eer == 0
    # Device scores: targets cos 70, cos 10; non-targets cos 90, cos 30. One of two targets lies below one of two
    # non-targets, so misses and false alarms meet at one half.
    assert pressed.device.eer == pytest.approx(0.5)
    # The reference's threshold is halfway between cos 90 and cos 10, 0.49: cos 70 is newly missed, cos 30 accepted.
    assert report.reference.threshold == pytest.approx(np.cos(np.deg2rad(10)) / 2, abs=1e-6)
    flips = pressed.flips
    assert (flips.total, flips.harmful, flips.newly_missed, flips.newly_accepted_nontargets) == (2, 2, 1, 1)
    assert pressed.reference_parity.cosine_min == pytest.approx(np.cos(np.deg2rad(60)))
    assert pressed.reference_parity.cosine_mean == pytest.approx((3 + 0.5) / 4)
    assert pressed.reference_parity.worst_utterance == "a2"
    assert pressed.artifact_parity is not None
    assert pressed.artifact_parity.cosine_min == pytest.approx(1)
    assert pressed.artifact_parity.max_relative_error == pytest.approx(1)  # twice as long
    assert pressed.size_ratio == pytest.approx(0.13)
    # Nearest-rank medians: control 11 and 22, model 5 and 11.
    assert fp32.latency.round_medians_ns == (11, 22)
    assert pressed.latency.round_medians_ns == (5, 11)
    assert pressed.latency.ratio == pytest.approx((5 / 11 + 0.5) / 2)
    assert (pressed.latency.ratio_low, pressed.latency.ratio_high) == (pytest.approx(5 / 11), pytest.approx(0.5))
    assert (pressed.latency.p50_ns, pressed.latency.p90_ns, pressed.latency.p99_ns) == (7, 99, 99)
    assert pressed.first_ns == 16  # of 2 x 5 and 2 x 11
    assert (pressed.memory.load_growth_bytes, pressed.memory.run_growth_bytes) == (130, 260)
    assert (pressed.memory.resident_bytes, pressed.memory.peak_bytes) == (5260, 5390)
    notes = " | ".join(pressed.notes)
    assert "few timings: 8 runs in 2 rounds" in notes
    assert "p90 is 14.14 times p50" in notes
    assert "the slowest median is 2.20 times the fastest" in notes
    assert any("2 target trials" in note for note in report.notes)


def test_report_is_written_and_read_back(built: tuple[Made, Report, Path]) -> None:
    _, report, out = built
    assert read_report(out) == report
    assert json.loads((out / "report.json").read_text())["models"][2]["bits"] == "4bit"
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json", "report.md"]


def test_device_and_artifact_agree_while_bits_cost_accuracy(built: tuple[Made, Report, Path]) -> None:
    _, report, _ = built
    by_file = {model.file: model for model in report.models}
    assert by_file["fp32.pte"].device.eer == pytest.approx(report.reference.eer, abs=1e-3)
    assert by_file["2bit.tflite"].device.eer > by_file["4bit.tflite"].device.eer
    for model in report.models:
        assert model.artifact_parity is not None
        assert model.artifact_parity.max_relative_error < 1e-4
        assert model.latency.ratio is not None
        assert model.artifact is not None
        assert model.artifact.eer == pytest.approx(model.device.eer, abs=5e-3)
        assert model.device.eer_interval.unit == "speakers"
    assert by_file["fp32.tflite"].latency.ratio == 1


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]


def test_page_stands_alone(built: tuple[Made, Report, Path]) -> None:
    _, report, out = built
    page = (out / "report.html").read_text()
    links = _Links()
    links.feed(page)
    assert "http" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert all(link.startswith("#") for link in links.found)
    assert not {"script", "link", "iframe", "img"} & set(links.tags)
    assert links.tags.count("svg") == 3
    assert "prefers-color-scheme: dark" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links.found} <= set(ids)
    assert not re.search(r"#0[1-5]0[2-6]0|#0a0b0", page)  # no stand-in colour is left
    assert set(re.findall(r"var\((--\w+)\)", page)) <= set(re.findall(r"(--[\w-]+):", page))
    for model in report.models:
        assert model.file in page
        assert f"{model.file_bytes:,}" in page


def test_title_cannot_break_the_page(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", bits=("fp32",), formats=("pte",), speakers=4)
    build(made, tmp_path / "out", title="<script>x</script>\n# y")
    assert "<script" not in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "report.md").read_text().startswith("# <script>x</script> # y\n\n- device")


def test_markdown_tables_are_whole(built: tuple[Made, Report, Path]) -> None:
    _, report, out = built
    text = (out / "report.md").read_text()
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == 7
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert blocks[0].count("\n") == 2 + len(report.models)


def test_fast_files_are_called_so(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", bits=("fp32", "4bit"), formats=("pte",))
    control, pressed = made.run.models
    run = made.run.model_copy(update={"models": (control, pressed.model_copy(update={"mode": "fast"}))})
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
