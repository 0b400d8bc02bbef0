from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any
from xml.dom import minidom

import numpy as np
import pytest
from rich.console import Console

from device_tests.report.sweep import read_sweep, write_sweep
from device_tests.report.sweep_figures import (
    Comparison,
    Difference,
    LayerFigures,
    MeasuredSetting,
    Measurement,
    SeedInterval,
    SeedResult,
    Size,
    Sweep,
    SweepSubject,
    judge,
    pareto_front,
    seed_interval,
    summarise,
)
from device_tests.report.sweep_tables import terminal_tables
from pipeline.errors import InputError
from pipeline.scoring.metrics import Interval
from pipeline.scoring.score import Evaluation

SEEDS = (3, 4, 5)
# EER by setting and seed, bytes by setting, bootstrap values around the EER that shift every setting alike.
EERS = {
    "fp32": (0.10, 0.12, 0.11),
    "4bit": (0.09, 0.13, 0.11),
    "2bit": (0.20, 0.25, 0.24),
    "mixed-2bit": (0.15, 0.19, 0.18),
    "msft-2bit": (0.16, 0.17, 0.20),
}
BYTES = {"fp32": 8000, "4bit": 1000, "2bit": 520, "mixed-2bit": 515, "msft-2bit": 515}
FAMILY: dict[str, Any] = {"fp32": "fp32", "4bit": "uniform", "2bit": "uniform", "mixed-2bit": "mixed"}
COMPARISONS = (
    Comparison("4bit", "fp32", "four is lossless", lossless=True),
    Comparison("mixed-2bit", "2bit", "mixed wins"),
    Comparison("msft-2bit", "mixed-2bit", "msft wins"),
)
LISTS = {"heldout": "held-out speakers", "trials": "list.txt"}
NOISE = np.linspace(-0.02, 0.02, 41)


def _measurement(eer: float, place: int, seed: int, speakers: int) -> Measurement:
    evaluation = Evaluation(
        eer=eer,
        eer_interval=Interval(eer - 0.01, eer + 0.01, 41, "speakers"),
        interval_level=0.95,
        min_dcf=2 * eer,
        p_target=0.01,
        threshold=0.5,
        target_trials=400,
        nontarget_trials=900,
        utterances=60,
        speakers=speakers,
    )
    # The noise of a resample is the same for every setting, but for a small part that differs by setting.
    values = eer + NOISE + 0.001 * place * NOISE[::-1] / 0.02
    return Measurement(SeedResult(seed=seed, evaluation=evaluation, cosine_mean=1 - eer, cosine_min=0.5), values)


def _sweep(seeds: tuple[int, ...] = SEEDS, lists: dict[str, str] | None = None) -> Sweep:
    lists = LISTS if lists is None else lists
    speakers = {"heldout": 20, "trials": 4}
    measured = [
        MeasuredSetting(
            label=label,
            family=FAMILY.get(label, "msft"),
            finetune_steps=0 if label == "fp32" else 9,
            sizes=[
                Size(seed=seed, bits_per_weight=4.0, artifact_bytes=BYTES[label] + k) for k, seed in enumerate(seeds)
            ],
            file_bytes={"pte": BYTES[label] + 300, "tflite": BYTES[label] + 200},
            measurements={
                key: [_measurement(EERS[label][k], place, seed, speakers[key]) for k, seed in enumerate(seeds)]
                for key in lists
            },
        )
        for place, label in enumerate(EERS)
    ]
    layers = [
        LayerFigures(
            name=f"layer{index}.0",
            weights=100,
            trace=(1.0 + index,) * len(seeds),
            penalty={bits: (0.0 if bits == 8 else 2.0**-bits,) * len(seeds) for bits in range(1, 9)},
            widths={"mixed-2bit": tuple(1 + (index + k) % 3 for k in range(len(seeds)))},
        )
        for index in range(5)
    ]
    subject = SweepSubject("A <sweep>\nof two lines", {"name": "x"}, {"torch": "2"}, seeds, ["voices are made up"])
    return summarise(subject, measured, COMPARISONS, list_names=lists, layers=layers)


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return _sweep()


def test_aggregates_by_hand(sweep: Sweep) -> None:
    by_label = {setting.label: setting for setting in sweep.settings}
    four = by_label["4bit"].on("heldout")
    assert four.eer.mean == pytest.approx(0.11)
    assert four.eer.std == pytest.approx(0.02)  # deviations -0.02, 0.02, 0 over n - 1 = 2
    assert four.min_dcf.mean == pytest.approx(0.22)
    assert four.cosine.mean == pytest.approx(0.89)
    assert by_label["4bit"].size_ratio == 0.125
    assert [size.artifact_bytes for size in by_label["4bit"].sizes] == [1000, 1001, 1002]
    assert (sweep.trial_lists[0].target_trials, sweep.trial_lists[1].speakers) == (400, 4)


def test_differences_by_hand(sweep: Sweep) -> None:
    found = {(one.setting, one.trial_list): one for one in sweep.differences}
    assert len(found) == 6
    mixed = found["mixed-2bit", "heldout"]
    assert mixed.other == "2bit"
    assert mixed.per_seed == pytest.approx((-0.05, -0.06, -0.06))
    assert mixed.mean == pytest.approx(-0.17 / 3)
    assert mixed.over_seeds is not None
    # Standard deviation sqrt((1 + 1 + 4) / 9 * 1e-4 / 2); Student's t for two degrees of freedom is 4.3027.
    half = 4.302653 * math.sqrt(6 / 9 * 1e-4 / 2) / math.sqrt(3)
    assert mixed.over_seeds.high == pytest.approx(-0.17 / 3 + half)
    assert mixed.over_seeds.low == pytest.approx(-0.17 / 3 - half)
    # What the resamples have in common cancels; what is left runs evenly over +- 0.001.
    assert mixed.over_trials.high == pytest.approx(-0.17 / 3 + 0.95 * 0.001)
    assert mixed.over_trials.low == pytest.approx(-0.17 / 3 - 0.95 * 0.001)
    assert (mixed.over_trials.unit, mixed.over_trials.draws) == ("speakers", 41)


def test_claims_follow_from_the_intervals(sweep: Sweep) -> None:
    verdicts = {(claim.statement, claim.trial_list): claim.verdict for claim in sweep.claims}
    assert verdicts["mixed wins", "heldout"] == "shown"
    assert verdicts["msft wins", "heldout"] == "undecided"  # +0.01, -0.02, +0.02
    assert verdicts["four is lossless", "heldout"] == "undecided"  # +-0.01 around a limit of 0.003
    assert verdicts["4 bit is about 8 times smaller than fp32 (7.2 to 8.8 times)", None] == "shown"
    assert {verdict for (_, trial_list), verdict in verdicts.items() if trial_list == "trials"} == {"undecided"}
    assert "list.txt: few speakers: 4, so no claim is decided on them" in sweep.notes


def _between(seeds: tuple[float, float] | None, trials: tuple[float, float]) -> Difference:
    return Difference(
        setting="a",
        other="b",
        trial_list="heldout",
        per_seed=(0.0,),
        mean=0.0,
        over_seeds=None if seeds is None else SeedInterval(low=seeds[0], high=seeds[1]),
        over_trials=Interval(*trials, 100, "speakers"),
    )


@pytest.mark.parametrize(
    ("seeds", "trials", "limit", "inclusive", "expected"),
    [
        ((-3, -1), (-2, -1), 0, False, "shown"),
        ((-3, 1), (-2, -1), 0, False, "undecided"),
        ((-3, -1), (-2, 1), 0, False, "undecided"),
        ((-3, -1), (1, 2), 0, False, "undecided"),
        ((1, 2), (1, 3), 0, False, "not shown"),
        ((1, 2), (1, 3), 4, True, "shown"),
        ((0, 0), (0, 0), 0, True, "shown"),
        ((0, 0), (0, 0), 0, False, "not shown"),
        (None, (-2, -1), 0, False, "undecided"),
    ],
)
def test_verdicts(
    seeds: tuple[float, float] | None, trials: tuple[float, float], limit: float, inclusive: bool, expected: str
) -> None:
    difference = _between(seeds, trials)
    assert judge(difference, limit, inclusive=inclusive, speakers=10) == expected
    assert judge(difference, limit, inclusive=inclusive, speakers=None) == expected
    assert judge(difference, limit, inclusive=inclusive, speakers=9) == "undecided"


def test_one_seed_has_no_interval_over_seeds() -> None:
    assert seed_interval([0.5]) is None
    one = _sweep(seeds=(3,), lists={"heldout": "held-out speakers"})
    assert one.settings[0].results[0].eer.std is None
    assert {claim.verdict for claim in one.claims if claim.trial_list} == {"undecided"}
    assert any(note.startswith("few seeds: 1, so that no ranking") for note in one.notes)


def test_the_front_has_what_nothing_beats(sweep: Sweep) -> None:
    # msft-2bit is as small as mixed-2bit and worse, 2bit is larger and worse; fp32 has the EER of 4bit.
    assert [setting.label for setting in pareto_front(sweep.settings, "heldout")] == ["mixed-2bit", "4bit"]


def test_the_report_is_written_whole(sweep: Sweep, tmp_path: Path) -> None:
    write_sweep(sweep, tmp_path)
    assert read_sweep(tmp_path) == sweep
    plots = {"bits.svg", "sensitivity.svg", "pareto-heldout.svg", "pareto-trials.svg"}
    assert {path.name for path in tmp_path.iterdir()} == plots | {"sweep.json", "sweep.md", "sweep.html"}
    for name in plots:
        root = minidom.parse(str(tmp_path / name)).documentElement
        assert root is not None
        assert root.getAttribute("xmlns") == "http://www.w3.org/2000/svg"
        variables = set(re.findall(r"var\((--\w+)\)", (tmp_path / name).read_text()))
        assert variables
        assert variables <= set(re.findall(r"(--[\w-]+):", (tmp_path / name).read_text()))
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") == 4
    assert "http" not in page
    assert "<sweep>" not in page
    assert not re.search(r"url\((?!#)|#0[1-5]0[2-6]0|#0a0b0", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    text = (tmp_path / "sweep.md").read_text()
    assert text.startswith("# A <sweep> of two lines\n")
    assert "| 4bit | 4.00 | 1,000 | 0.125 | 1,300 | 1,200 | 11.00 ± 2.00 | 0.220 ± 0.040 | 0.8900 |" in text
    assert "| mixed-2bit | 2bit | -5.67 | -7.10 .. -4.23 | -5.76 .. -5.57 | -5.00 -6.00 -6.00 |" in text
    assert "| mixed wins | shown | undecided |" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_sweep_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sweep\.json: expected a sweep's figures, found no such file"):
        read_sweep(tmp_path)


def test_terminal_tables_fit(sweep: Sweep) -> None:
    text = io.StringIO()
    for table in terminal_tables(sweep):
        Console(file=text, width=100).print(table)
    assert max(map(len, text.getvalue().splitlines())) <= 100
    assert "…" not in text.getvalue()
    assert "11.00 ± 2.00" in text.getvalue()
