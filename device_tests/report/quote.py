"""What a bundle quotes of a device report."""

from __future__ import annotations

import re
from pathlib import Path

from device_tests.records import RUN_FILE, read_run
from device_tests.report.build import REPORT_FILE, read_report
from device_tests.report.figures import Report
from exporters.bundle.manifest import DeviceAccuracy, DeviceLatency
from exporters.bundle.write import DeviceFigures
from pipeline.errors import InputError


def device_figures(folder: Path) -> DeviceFigures:
    """Error rates, latency ratios and runtime versions of the report in a folder.

    A latency without an fp32 control in its run has no ratio and is not quoted. Raises InputError naming the file if
    the report, or the run that it was made from, is missing or malformed, or if the two are not of the same files.
    """
    report, run = read_report(folder), read_run(folder)
    if {model.file: model.sha256 for model in report.models} != {model.file: model.sha256 for model in run.models}:
        raise InputError(folder / REPORT_FILE, expected=f"the report of {RUN_FILE} beside it", found="other models")
    runtimes: dict[str, list[str]] = {}
    for model in report.models:
        for runtime, version in re.findall(r"(executorch|litert) (\S+?)(?:,|$)", model.runtime):
            runtimes.setdefault(runtime, []).append(version)
    return DeviceFigures(
        folder=folder,
        device=report.device,
        accuracy=[
            DeviceAccuracy(model=model.file, device=report.device, evaluation=model.device) for model in report.models
        ],
        latency=_latency(report),
        hashes={model.file: model.sha256 for model in report.models},
        runtimes=runtimes,
    )


def _latency(report: Report) -> list[DeviceLatency]:
    controls = {model.format: model.file for model in report.models if model.is_control}
    quoted = []
    for model in report.models:
        timings = model.latency
        if timings.ratio is None or timings.ratio_low is None or timings.ratio_high is None or model.is_control:
            continue
        quoted.append(
            DeviceLatency(
                model=model.file,
                device=report.device,
                processor=report.environment.cpu_model,
                control=controls[model.format],
                ratio=timings.ratio,
                ratio_low=timings.ratio_low,
                ratio_high=timings.ratio_high,
                runs=timings.runs,
                threads=report.protocol.threads,
                report=REPORT_FILE,
            )
        )
    return quoted
