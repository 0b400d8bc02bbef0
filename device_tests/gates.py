"""What a run must meet: limits by class of device from `gates.toml`, and a verdict on each.

Embeddings are held to the decoded artifact. Times and memory are ratios to the fp32 control of the same run. A
measurement that is not valid (too few runs, heat, clocks, an unexpected kernel) fails as such.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from device_tests.records import DeviceClass
from device_tests.report.decision import ScoreKind
from device_tests.report.figures import ModelFigures, Report
from pipeline.errors import InputError
from pipeline.files import first_problem, read_json, write_atomically

DEFAULT_GATES = Path(__file__).with_name("gates.toml")
VERDICTS_FILE = "verdicts.json"
WIDEST_SPREADS = 3.0

Verdict = Literal["passed", "failed", "not judged"]
_Positive = Annotated[float, Field(gt=0)]
_THRESHOLDS: dict[ScoreKind | None, str] = {
    None: "EER's threshold, as the bundle has none for it",
    "cosine": "bundle's threshold",
    "as-norm": "bundle's threshold of AS-Norm scores",
}
_CONVOLUTIONS = ("conv2d", "dwconv2d", "winograd")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limit(_Frozen):
    """An upper limit on something that spreads: expected + tolerance."""

    expected: _Positive
    tolerance: _Positive
    spread: _Positive = Field(description="highest - lowest that was seen")
    runs: PositiveInt = Field(description="over how many runs")

    @model_validator(mode="after")
    def _no_wider_than_the_spread_allows(self) -> Limit:
        if self.tolerance > WIDEST_SPREADS * self.spread:
            raise ValueError(
                f"a tolerance of {self.tolerance:g} is wider than {WIDEST_SPREADS:g} times the observed spread "
                f"{self.spread:g}"
            )
        return self

    @property
    def highest(self) -> float:
        """What must not be exceeded."""
        return self.expected + self.tolerance


class ParityGates(_Frozen):
    """How far embeddings and decisions may be from those of the decoded artifact."""

    artifact_relative_error: _Positive
    artifact_cosine: _Positive
    eer_difference: _Positive
    min_dcf_difference: _Positive
    flips_share: _Positive


class Gates(_Frozen):
    """The gates of one class of device."""

    front_end_difference: _Positive
    golden_relative_error: _Positive
    exact: ParityGates
    fast: ParityGates
    min_runs: PositiveInt
    min_rounds: PositiveInt
    p90_ratio: _Positive
    thermal_rise_celsius: _Positive
    clock_share: _Positive
    kernels: tuple[str, ...]
    source: str = Field(default="", description="name of the file they are from")
    file_ratio: dict[str, _Positive] = {}
    ratio: dict[str, Limit] = {}
    peak: dict[str, Limit] = {}

    def parity(self, model: ModelFigures) -> ParityGates:
        """Those of the model's mode."""
        return self.fast if model.mode == "fast" else self.exact


class GateResult(_Frozen):
    """One gate's verdict; `found` and `limit` are texts for people."""

    gate: str
    subject: str = Field(description='a model file, or "run"')
    verdict: Verdict
    limit: str
    found: str

    def line(self) -> str:
        """On one line."""
        return f"{self.verdict}: {self.subject}: {self.gate}: expected {self.limit}, found {self.found}"


class Verdicts(_Frozen):
    """All verdicts on a run (`verdicts.json`)."""

    gates: str = Field(description="name of the file the limits are from")
    results: tuple[GateResult, ...]

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """Those that failed."""
        return tuple(result for result in self.results if result.verdict == "failed")

    def write(self, folder: Path) -> None:
        """Write them as `verdicts.json`."""
        write_atomically(folder / VERDICTS_FILE, self.model_dump_json(indent=1) + "\n")


def read_gates(path: Path, device_class: DeviceClass) -> Gates:
    """The gates of a class from a TOML file; what it leaves out is as in `gates.toml` here.

    Raises InputError naming the file for broken TOML, an unknown key, or a limit wider than the spread allows.
    """
    content = _merged(_toml(DEFAULT_GATES), _toml(path)) if path != DEFAULT_GATES else _toml(path)
    known = {"all", *DeviceClass.__args__}  # type: ignore[attr-defined]
    if strangers := sorted(set(content) - known):
        raise InputError(path, expected=f"sections among {', '.join(sorted(known))}", found=strangers[0])
    # Every class is read, so that a wrong limit of another one is found before it is needed.
    classes = {}
    for name in sorted(known - {"all"}):
        try:
            classes[name] = Gates.model_validate(_merged(content.get("all", {}), content.get(name, {})))
        except pydantic.ValidationError as error:
            raise InputError(path, expected="gates", found=f"[{name}] {first_problem(error)}") from None
    return classes[device_class].model_copy(update={"source": path.name})


def judge(report: Report, gates: Gates) -> Verdicts:
    """A verdict of every gate on every model file, and on the run."""
    results = [_completeness(report), _front_end(report, gates)]
    for model in report.models:
        for check in (_golden, _parity_error, _parity_cosine, _eer, _min_dcf, _flips, _file_size):
            results.append(check(report, model, gates))
        validity = _validity(report, model, gates)
        results.append(validity)
        for gate, limits, found in (
            ("latency ratio", gates.ratio, _latency_ratio),
            ("peak memory ratio", gates.peak, _peak_ratio),
        ):
            if (limit := limits.get(model.variant)) is not None and not model.is_control:
                results.append(
                    _ratio(gate, model, limit, found(report, model), validity.verdict, _no_ratio(report, model))
                )
    return Verdicts(gates=gates.source, results=tuple(results))


def read_verdicts(folder: Path) -> Verdicts:
    """The `verdicts.json` of a run's folder. Raises InputError if it is missing or malformed."""
    return read_json(folder / VERDICTS_FILE, Verdicts, what="the verdicts on a run")


def gates_from(judged: Sequence[tuple[Report, Verdicts]]) -> str:
    """Entries of gates.toml for the ratios of some runs of one class: medians, and tolerances of 3 times the spread.

    Raises InputError if there are fewer than two runs, of several classes, or with timings that are not valid.
    """
    reports = [report for report, _ in judged]
    classes = sorted({report.device_class for report in reports})
    if len(reports) < 2 or len(classes) != 1 or not all(report.latency_valid for report in reports):
        raise InputError(
            "device gates",
            expected="at least two runs of one class of device with timings that mean something",
            found=f"{len(reports)} of {', '.join(classes) or 'none'}",
        )
    for report, verdicts in judged:
        for result in verdicts.failed:
            if result.gate == "validity":
                wanted = f"valid timings of {result.subject} on {report.device}"
                raise InputError("device gates", expected=wanted, found=result.found)
    seen: dict[tuple[str, str], list[float]] = {}
    for report in reports:
        for model in report.models:
            for table, value in (("ratio", _latency_ratio(report, model)), ("peak", _peak_ratio(report, model))):
                if value is not None and not model.is_control and model.bits != "fp32":
                    seen.setdefault((table, model.variant), []).append(value)
    lines = []
    for (table, key), values in sorted(seen.items()):
        if len(values) < 2:
            lines += [f"# {table} of {key}: in one run only, which shows no spread", ""]
            continue
        spread = max(max(values) - min(values), 1e-4)
        expected = sorted(values)[len(values) // 2]
        lines += [
            f'[{classes[0]}.{table}."{key}"]',
            f"expected = {expected:.4f}",
            f"tolerance = {0.999 * WIDEST_SPREADS * spread:.6f}",
            f"spread = {spread:.6f}",
            f"runs = {len(values)}",
            "",
        ]
    return "\n".join(lines)


def _completeness(report: Report) -> GateResult:
    verdict: Verdict = "failed" if report.missing else "passed"
    return GateResult(
        gate="complete", subject="run", verdict=verdict, limit="all results", found="; ".join(report.missing) or "all"
    )


def _front_end(report: Report, gates: Gates) -> GateResult:
    found, limit = report.front_end_difference, gates.front_end_difference
    return _at_most("front end", "run", found, limit, "from the golden features", "no golden wav")


def _golden(report: Report, model: ModelFigures, gates: Gates) -> GateResult:
    found, limit = model.golden_relative_error, gates.golden_relative_error
    return _at_most("golden embedding", model.file, found, limit, "relative", "no golden embedding")


def _parity_error(report: Report, model: ModelFigures, gates: Gates) -> GateResult:
    found = None if model.artifact_parity is None else model.artifact_parity.max_relative_error
    return _at_most(
        "embeddings", model.file, found, gates.parity(model).artifact_relative_error, "relative", "no artifact"
    )


def _parity_cosine(report: Report, model: ModelFigures, gates: Gates) -> GateResult:
    found = None if model.artifact_parity is None else model.artifact_parity.cosine_min
    least = gates.parity(model).artifact_cosine
    limit = f"cosines of at least {least:g}"
    if found is None:
        return _not_judged("cosine", model.file, limit, "no artifact")
    verdict: Verdict = "passed" if found >= least else "failed"
    return GateResult(gate="cosine", subject=model.file, verdict=verdict, limit=limit, found=f"{found:.6f}")


def _eer(report: Report, model: ModelFigures, gates: Gates) -> GateResult:
    found = None if model.to_artifact is None else model.to_artifact.eer_interval.high
    return _at_most(
        "EER", model.file, found, gates.parity(model).eer_difference, "above the artifact's (95 %)", "no artifact"
    )


def _min_dcf(report: Report, model: ModelFigures, gates: Gates) -> GateResult:
    found = None if model.to_artifact is None else model.to_artifact.min_dcf_interval.high
    return _at_most(
        "minDCF",
        model.file,
        found,
        gates.parity(model).min_dcf_difference,
        "above the artifact's (95 %)",
        "no artifact",
    )


def _flips(report: Report, model: ModelFigures, gates: Gates) -> GateResult:
    flips = model.artifact_flips
    found = None if flips is None else flips.total / flips.trials
    where = f"of all trials, at the {_THRESHOLDS[model.calibrated_score]}"
    return _at_most("decision flips", model.file, found, gates.parity(model).flips_share, where, "no artifact")


def _file_size(report: Report, model: ModelFigures, gates: Gates) -> GateResult:
    limit = gates.file_ratio.get(model.bits) if model.lowering == "voxpress" else None
    if limit is None:
        return _not_judged("file size", model.file, "a limit", f"none for {model.bits} {model.lowering}")
    return _at_most("file size", model.file, model.size_ratio, limit, "of the fp32 file", "no fp32 file")


def _validity(report: Report, model: ModelFigures, gates: Gates) -> GateResult:
    if not report.latency_valid:
        return _not_judged("validity", model.file, "valid timings", "a device whose timings mean nothing")
    latency, conditions = model.latency, model.conditions
    wrong = []
    if latency.runs < gates.min_runs or len(latency.round_medians_ns) < gates.min_rounds:
        wrong.append(f"{latency.runs} runs in {len(latency.round_medians_ns)} rounds")
    if latency.p90_ns > gates.p90_ratio * latency.p50_ns:
        wrong.append(f"p90 {latency.p90_ns / latency.p50_ns:.2f} times p50")
    if (rise := conditions.thermal_rise_celsius) is not None and rise > gates.thermal_rise_celsius:
        wrong.append(f"{rise:.1f} °C warmer")
    if (share := conditions.clock_share) is not None and share < gates.clock_share:
        wrong.append(f"a clock at {share:.0%} of its highest")
    wrong += [f"kernel {name}" for name in unexpected_kernels(model, gates.kernels)]
    if model.lowering == "voxpress" and not model.kernels:
        wrong.append("no VoxPress kernel")
    limit = f"{gates.min_runs} runs in {gates.min_rounds} rounds, steady, with kernels of {', '.join(gates.kernels)}"
    verdict: Verdict = "failed" if wrong else "passed"
    return GateResult(
        gate="validity", subject=model.file, verdict=verdict, limit=limit, found="; ".join(wrong) or "all of it"
    )


def unexpected_kernels(model: ModelFigures, allowed: Sequence[str]) -> list[str]:
    """VoxPress convolution kernels that ran and are of another instruction set than those allowed."""
    return [name for name in model.kernels if name.startswith(_CONVOLUTIONS) and name.rpartition("_")[2] not in allowed]


def _latency_ratio(report: Report, model: ModelFigures) -> float | None:
    return model.latency.ratio if report.latency_valid else None


def _peak_ratio(report: Report, model: ModelFigures) -> float | None:
    controls = [other for other in report.models if other.is_control and other.format == model.format]
    if not report.latency_valid or not controls or controls[0].memory.run_growth_bytes <= 0:
        return None
    return model.memory.run_growth_bytes / controls[0].memory.run_growth_bytes


def _no_ratio(report: Report, model: ModelFigures) -> str:
    if not report.latency_valid:
        return "a device whose timings mean nothing"
    if not any(other.is_control and other.format == model.format for other in report.models):
        return f"no fp32 control: the bundle has no stock fp32 .{model.format}"
    return "a control that took no memory"


def _ratio(
    gate: str, model: ModelFigures, limit: Limit, found: float | None, validity: Verdict, missing: str
) -> GateResult:
    wanted = f"at most {limit.expected:.3f} + {limit.tolerance:.3f}"
    if found is None:
        return _not_judged(gate, model.file, wanted, missing)
    verdict: Verdict = "passed" if found <= limit.highest else "failed"
    note = "" if validity == "passed" else " (timings are not valid)"
    return GateResult(gate=gate, subject=model.file, verdict=verdict, limit=wanted, found=f"{found:.3f}{note}")


def _at_most(
    gate: str, subject: str, found: float | None, limit: float, unit: str, missing: str, *, digits: str = ".3g"
) -> GateResult:
    wanted = f"at most {limit:g} {unit}"
    if found is None:
        return _not_judged(gate, subject, wanted, missing)
    verdict: Verdict = "passed" if found <= limit else "failed"
    return GateResult(gate=gate, subject=subject, verdict=verdict, limit=wanted, found=f"{found:{digits}}")


def _not_judged(gate: str, subject: str, limit: str, found: str) -> GateResult:
    return GateResult(gate=gate, subject=subject, verdict="not judged", limit=limit, found=found)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(path, expected="gates", found="no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(path, expected="gates (TOML)", found=str(error)) from None


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
