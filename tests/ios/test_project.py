"""The Swift package and the Xcode project as far as they can be read without Xcode."""

from __future__ import annotations

import plistlib
import re
from pathlib import Path

import pytest
import yaml

from tests.grammar import syntax_errors

ROOT = Path(__file__).resolve().parents[2]
IOS = ROOT / "ios"
SOURCES = sorted(path for path in IOS.rglob("*.swift") if "Native" not in path.parts)
PACKAGE = (IOS / "Package.swift").read_text(encoding="utf-8")
# Loads libraries by name, which iOS apps lack: there a .tflite file runs in TensorFlowLiteSwift's own interpreter.
ENGINE_OF_OTHER_SYSTEMS = (
    "interpreter_engine.cc",
    "litert_engine.cc",
    "tflite_engine.cc",
    "tflite_file.cc",
    "tflite_model.cc",
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(IOS)))
def test_sources_are_swift(path: Path) -> None:
    assert syntax_errors(path) == []


def test_the_grammar_notices_what_is_not_swift() -> None:
    path = SOURCES[0]
    assert syntax_errors(path, path.read_bytes() + b"\nfunc broken( {")


def test_the_package_lists_every_native_source_once() -> None:
    listed = re.findall(r'"((?:exporters|device_tests)/[\w/]+\.cc)"', PACKAGE)
    expected = {
        str(path.relative_to(ROOT))
        for folder in ("exporters/kernels", "exporters/prepared", "exporters/pte/native", "exporters/tflite/native")
        for path in (ROOT / folder).rglob("*.cc")
        # Programs, the tests' C surfaces, what registers ops on loading, other processors.
        if path.parent.name not in ("bench", "capi")
        and path.name not in ("capi.cc", "on_load.cc")
        and not re.search(r"_avx\w+\.cc$", path.name)
    }
    expected |= {
        str(path.relative_to(ROOT))
        for folder in ("device_tests/harness", "device_tests/core")
        for path in (ROOT / folder).glob("*.cc")
        if path.name not in ("main.cc", *ENGINE_OF_OTHER_SYSTEMS)
    }
    assert set(listed) == expected
    twice = [name for name in listed if listed.count(name) > 1]
    assert all(name.startswith("exporters/prepared/") for name in twice), "only the delegate has a copy of its own"


def test_links_of_the_package_lead_into_this_repository() -> None:
    links = [path for path in IOS.rglob("*") if path.is_symlink()]
    assert {str(path.relative_to(IOS)) for path in links} == {
        "Native/device_tests",
        "Native/exporters",
        "Native/include/voxpress.h",
        "Native/tflite/exporters",
    }
    for path in links:
        assert path.resolve().is_relative_to(ROOT)
        assert path.exists()


def test_targets_that_the_package_names_are_there() -> None:
    for name in re.findall(r'\.target\(\s*name: "(\w+)"', PACKAGE):
        block = PACKAGE[PACKAGE.index(f'name: "{name}"', PACKAGE.index("targets: [\n        .target")) :]
        path = re.search(r'^.*?(?:path: "([\w/]+)"|\n        \.target|linkerSettings|\]\),)', block, re.DOTALL)
        folder = IOS / path[1] if path and path[1] else IOS / "Sources" / name
        assert folder.is_dir(), name
        assert path
        if not path[1]:
            assert list(folder.glob("*.swift"))


@pytest.mark.parametrize("path", sorted(IOS.rglob("*.plist")) + sorted(IOS.rglob("*.xcprivacy")), ids=lambda p: p.name)
def test_property_lists_are_whole(path: Path) -> None:
    assert isinstance(plistlib.loads(path.read_bytes()), dict)


def test_the_demo_says_what_it_records_for_and_tracks_no_one() -> None:
    demo = plistlib.loads((IOS / "Apps" / "Demo" / "Info.plist").read_bytes())
    assert "memory" in demo["NSMicrophoneUsageDescription"]
    assert "NSAppTransportSecurity" not in demo
    privacy = plistlib.loads((IOS / "Apps" / "Demo" / "PrivacyInfo.xcprivacy").read_bytes())
    assert privacy["NSPrivacyTracking"] is False
    assert privacy["NSPrivacyCollectedDataTypes"] == []
    sources = {path.name: path.read_text() for path in (IOS / "Apps" / "Demo").glob("*.swift")}
    writing = re.compile(r"\.write\(to|AVAudioFile|AVAudioRecorder|FileHandle|UserDefaults|URLSession")
    assert not [name for name, text in sources.items() if writing.search(text)]
    assert "kSecAttrAccessibleWhenUnlockedThisDeviceOnly" in sources["VoiceStore.swift"]


def test_the_project_names_what_is_there() -> None:
    project = yaml.safe_load((IOS / "project.yml").read_text(encoding="utf-8"))
    assert set(project["targets"]) == {"Demo", "Benchmark", "BenchmarkTests"}
    for target in project["targets"].values():
        for source in target["sources"]:
            assert source.get("optional") or (IOS / source["path"]).is_dir(), source
        plist = target.get("settings", {}).get("base", {}).get("INFOPLIST_FILE")
        assert plist is None or (IOS / plist).is_file()
        for dependency in target["dependencies"]:
            assert dependency.get("target") in (None, *project["targets"])
            assert dependency.get("product") in (None, *re.findall(r'\.library\(name: "(\w+)"', PACKAGE))
    for scheme in project["schemes"].values():
        assert set(scheme["build"]["targets"]) <= set(project["targets"])


def test_the_example_of_the_page_calls_what_there_is(tmp_path: Path) -> None:
    found = re.search(r"^```swift\n(.*?)^```$", (IOS / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found
    example = found[1]
    path = tmp_path / "Example.swift"
    path.write_text(example)
    assert syntax_errors(path) == []
    library = (IOS / "Sources" / "VoxPress" / "VoxPress.swift").read_text()
    calls = re.findall(r"\b(?:VoxPress|voxpress)\.(\w+)\(([^()]*)\)", example)
    assert [name for name, _ in calls] == ["open", "close", "enroll", "verify"]
    for name, arguments in calls:
        labels = re.findall(r"(\w+):", arguments)
        declared = re.findall(rf"public (?:static )?func {name}\(\s*([^)]*)\)", library)
        assert any(labels == re.findall(r"(\w+):", text)[: len(labels)] for text in declared), (name, labels)
    for member in re.findall(r"\b(?:options|decision)\.(\w+)", example):
        assert re.search(rf"public (?:var|let) {member}\b", library), member
