"""Verdicts as JUnit XML, for CI systems: a suite for each run, a case for each gate on each file."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from device_tests.gates import Verdicts
from device_tests.report.figures import Report


def junit_xml(runs: Sequence[tuple[Report, Verdicts]]) -> str:
    """The XML text of some runs."""
    root = ElementTree.Element("testsuites", name="voxpress device")
    for report, verdicts in runs:
        counts = [result.verdict for result in verdicts.results]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=report.title,
            hostname=report.device,
            timestamp=report.started_at.strftime("%Y-%m-%dT%H:%M:%S"),
            tests=str(len(counts)),
            failures=str(counts.count("failed")),
            skipped=str(counts.count("not judged")),
            errors="0",
        )
        for result in verdicts.results:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{report.device}.{result.subject}", name=result.gate
            )
            if result.verdict == "failed":
                ElementTree.SubElement(case, "failure", message=result.line())
            elif result.verdict == "not judged":
                ElementTree.SubElement(case, "skipped", message=result.line())
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
