from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from device_tests.gates import DEFAULT_GATES, GateResult, Gates, Limit, gates_from, judge, read_gates
from device_tests.report.build import build_report
from device_tests.report.figures import Report
from device_tests.report.junit import junit_xml
from pipeline.errors import InputError
from pipeline.recipe import load_recipe
from tests.device_tests.report.run_factory import make_run


@pytest.fixture
def report(tmp_path: Path) -> Report:
    made = make_run(tmp_path / "run", bits=("fp32", "4bit"))
    return build_report(
        made.run,
        made.folder,
        made.reference,
        made.artifacts,
        made.trials,
        tmp_path / "out",
        title="t",
        speakers=made.speakers,
    )


def changed(report: Report, file: str, **fields: Any) -> Report:
    models = tuple(model.model_copy(update=fields) if model.file == file else model for model in report.models)
    return report.model_copy(update={"models": models})


def gates(**fields: Any) -> Gates:
    base = read_gates(DEFAULT_GATES, "host")
    return base.model_copy(update={"kernels": ("portable",), **fields})


def verdict(report: Report, limits: Gates, subject: str, gate: str) -> GateResult:
    (found,) = [one for one in judge(report, limits).results if (one.subject, one.gate) == (subject, gate)]
    return found


def test_what_is_as_promised_passes(report: Report) -> None:
    assert [one.line() for one in judge(report, gates()).failed] == []


def test_the_recipe_that_limits_were_measured_with_is_one() -> None:
    recipe = load_recipe(str(DEFAULT_GATES.parent / "examples" / "resnet34-fast.toml"))
    assert recipe.export.modes == ("exact", "fast")


def test_every_class_has_gates() -> None:
    for device_class in ("host", "emulator", "android", "ios"):
        assert read_gates(DEFAULT_GATES, device_class).min_runs == 30  # type: ignore[arg-type]


def test_each_gate_catches_its_own(report: Report) -> None:
    file = "4bit.pte"
    model = next(one for one in report.models if one.file == file)
    parity, difference, flips = model.artifact_parity, model.to_artifact, model.artifact_flips
    assert parity is not None
    assert difference is not None
    assert flips is not None
    worse = difference.model_copy(update={"eer_interval": difference.eer_interval.__class__(0, 0.2, 10, "speakers")})
    costly = difference.model_copy(
        update={"min_dcf_interval": difference.eer_interval.__class__(0, 0.2, 10, "speakers")}
    )
    slow = model.latency.model_copy(update={"p90_ns": 9 * model.latency.p50_ns})
    few = model.latency.model_copy(update={"runs": 2})
    hot = model.conditions.model_copy(update={"thermal_rise_celsius": 30.0})
    throttled = model.conditions.model_copy(update={"clock_share": 0.2})
    for gate, fields, words in (
        ("embeddings", {"artifact_parity": parity.model_copy(update={"max_relative_error": 0.1})}, "0.1"),
        ("cosine", {"artifact_parity": parity.model_copy(update={"cosine_min": 0.9})}, "0.900000"),
        ("golden embedding", {"golden_relative_error": 0.5}, "0.5"),
        ("golden embedding", {"golden_relative_error": float("nan")}, "nan"),
        ("EER", {"to_artifact": worse}, "0.2"),
        ("minDCF", {"to_artifact": costly}, "0.2"),
        ("decision flips", {"artifact_flips": flips.model_copy(update={"total": flips.trials})}, "1"),
        ("file size", {"size_ratio": 0.9}, "0.9"),
        ("validity", {"latency": slow}, "9.00 times p50"),
        ("validity", {"latency": few}, "2 runs"),
        ("validity", {"conditions": hot}, "30.0 °C"),
        ("validity", {"conditions": throttled}, "20%"),
        ("validity", {"kernels": ("conv2d_f32_panel_1x1_portable", "winograd4_f32_none_1x1_avx2")}, "avx2"),
        ("validity", {"kernels": ()}, "no VoxPress kernel"),
    ):
        failed = judge(changed(report, file, **fields), gates()).failed
        assert [(one.subject, one.gate) for one in failed] == [(file, gate)], (gate, fields)
        assert words in failed[0].found
        assert "\n" not in failed[0].line()


def test_the_run_itself_is_judged(report: Report) -> None:
    broken = report.model_copy(update={"front_end_difference": 2.5, "missing": ("4bit.pte: gone",)})
    assert [(one.subject, one.gate) for one in judge(broken, gates()).failed] == [
        ("run", "complete"),
        ("run", "front end"),
    ]


def test_ratios_are_judged_where_a_file_has_a_limit(report: Report) -> None:
    model = next(one for one in report.models if one.file == "4bit.pte")
    ratio = model.latency.ratio
    assert ratio is not None
    fine = Limit(expected=ratio, tolerance=0.02, spread=0.01, runs=9)
    assert verdict(report, gates(ratio={"4bit.pte": fine}), "4bit.pte", "latency ratio").verdict == "passed"
    slowed = changed(report, "4bit.pte", latency=model.latency.model_copy(update={"ratio": 1.5 * ratio}))
    found = verdict(slowed, gates(ratio={"4bit.pte": fine}), "4bit.pte", "latency ratio")
    assert found.verdict == "failed"
    assert f"{1.5 * ratio:.3f}" in found.found
    emulated = slowed.model_copy(update={"latency_valid": False})
    assert verdict(emulated, gates(ratio={"4bit.pte": fine}), "4bit.pte", "latency ratio").verdict == "not judged"
    assert verdict(emulated, gates(), "4bit.pte", "validity").verdict == "not judged"
    heavy = Limit(expected=0.1, tolerance=0.02, spread=0.01, runs=9)
    assert verdict(report, gates(peak={"4bit.pte": heavy}), "4bit.pte", "peak memory ratio").verdict == "failed"


def test_a_limit_wider_than_three_spreads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    entry = '[host.ratio."4bit.pte"]\nexpected = 0.5\ntolerance = {}\nspread = 0.02\nruns = 3\n'
    path.write_text(entry.format(0.06))
    assert read_gates(path, "host").ratio["4bit.pte"].highest == pytest.approx(0.56)
    assert "4bit.pte" not in read_gates(path, "android").ratio
    path.write_text(entry.format(0.07))
    with pytest.raises(InputError, match=r"gates\.toml: .*ratio.*wider than 3 times the observed spread 0\.02"):
        read_gates(path, "android")  # a wrong limit is found whatever runs now


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[hots]\nmin_runs = 3", "found hots"),
        ("[host]\nmin_run = 3", "min_run"),
        ("[host.exact]\neer_difference = -1", "eer_difference"),
        ("[host", "TOML"),
    ],
)
def test_gates_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "gates.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_gates(path, "host")
    with pytest.raises(InputError, match="no such file"):
        read_gates(tmp_path / "none.toml", "host")


def test_gates_made_from_runs_pass_them_and_are_accepted(report: Report, tmp_path: Path) -> None:
    model = next(one for one in report.models if one.file == "4bit.pte")
    ratio = model.latency.ratio
    assert ratio is not None
    slower = changed(report, "4bit.pte", latency=model.latency.model_copy(update={"ratio": 1.02 * ratio}))
    path = tmp_path / "gates.toml"
    judged = [(one, judge(one, gates())) for one in (report, slower)]
    path.write_text(gates_from(judged))
    limits = read_gates(path, "host").model_copy(update={"kernels": ("portable",)})
    assert limits.ratio["4bit.pte"].spread == pytest.approx(0.02 * ratio, rel=1e-3)
    for one in (report, slower):
        assert not judge(one, limits).failed
    with pytest.raises(InputError, match="at least two runs"):
        gates_from(judged[:1])
    alone = report.model_copy(update={"models": tuple(one for one in report.models if one.format == "tflite")})
    text = gates_from([judged[0], (alone, judge(alone, gates()))])
    assert "# ratio of 4bit.pte: in one run only, which shows no spread" in text
    assert '[host.ratio."4bit.tflite"]' in text
    with pytest.raises(InputError, match=r"expected valid timings of .* on host, found .* runs in .* rounds"):
        gates_from([(one, judge(one, gates(min_runs=10_000))) for one in (report, slower)])


def test_junit_names_every_failed_gate(report: Report) -> None:
    limits = gates(file_ratio={"4bit": 0.01})
    verdicts = judge(report, limits)
    suite = ElementTree.fromstring(junit_xml([(report, verdicts)])).find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) == len(verdicts.results)
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure")) == 2
    assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
    assert {case.attrib["name"] for case in suite.findall("testcase") if case.find("failure") is not None} == {
        "file size"
    }
