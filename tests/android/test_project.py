"""The Gradle project as far as it can be read without Gradle: syntax, versions, manifests, what is kept by name."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.grammar import syntax_errors
from tests.kernels.sanitized import build_tool

ROOT = Path(__file__).resolve().parents[2]
ANDROID = ROOT / "android"
NAME = "{http://schemas.android.com/apk/res/android}"
TOOLS = "{http://schemas.android.com/tools}"
MODULES = ("voxpress", "benchmark", "demo")
SOURCES = sorted(
    path for suffix in ("kt", "kts") for path in ANDROID.rglob(f"*.{suffix}") if "third_party" not in path.parts
)
CATALOGUE = tomllib.loads((ANDROID / "gradle" / "libs.versions.toml").read_text())


def _text(*parts: str) -> str:
    return ANDROID.joinpath(*parts).read_text(encoding="utf-8")


def _manifest(module: str) -> ElementTree.Element:
    return ElementTree.fromstring(_text(module, "src", "main", "AndroidManifest.xml"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ANDROID)))
def test_sources_are_kotlin(path: Path) -> None:
    assert syntax_errors(path) == []


def test_the_grammar_notices_what_is_not_kotlin() -> None:
    path = SOURCES[0]
    assert syntax_errors(path, path.read_bytes() + b"\nfun broken( {")


def test_every_module_is_there_and_included() -> None:
    assert tuple(re.findall(r'"\:(\w+)"', _text("settings.gradle.kts"))) == MODULES
    assert all((ANDROID / module / "build.gradle.kts").is_file() for module in MODULES)


def test_versions_are_exact_and_every_alias_has_one() -> None:
    versions = CATALOGUE["versions"]
    assert all(re.fullmatch(r"\d+(\.\d+)*", version) for version in versions.values()), versions
    for entry in (*CATALOGUE["libraries"].values(), *CATALOGUE["plugins"].values()):
        assert entry["version"]["ref"] in versions
    known = {
        *(name.replace("-", ".") for name in CATALOGUE["libraries"]),
        *("plugins." + name.replace("-", ".") for name in CATALOGUE["plugins"]),
        *("versions." + name.replace("-", ".") for name in versions),
    }
    used = set()
    for path in ANDROID.rglob("build.gradle.kts"):
        used |= {name.removesuffix(".get") for name in re.findall(r"\blibs\.([a-z.]*[a-z])", path.read_text())}
        assert not re.search(r'"[\w.-]+:[\w.-]+:[\w.-]+"', path.read_text()), f"{path}: a version outside the catalogue"
    assert used <= known, used - known


@pytest.mark.parametrize(
    ("module", "permissions"), [("voxpress", []), ("benchmark", []), ("demo", ["android.permission.RECORD_AUDIO"])]
)
def test_no_app_can_reach_a_network(module: str, permissions: list[str]) -> None:
    root = _manifest(module)
    assert root.tag == "manifest"
    asked, taken_out = [], []
    for one in root.iter("uses-permission"):
        (taken_out if one.get(f"{TOOLS}node") == "remove" else asked).append(one.get(f"{NAME}name"))
    assert asked == permissions
    # An app's permissions are those of its libraries too, unless it takes them out.
    assert taken_out == ([] if module == "voxpress" else ["android.permission.INTERNET"])
    for application in root.iter("application"):
        assert application.get(f"{NAME}allowBackup") == "false"


@pytest.mark.parametrize("module", ["benchmark", "demo"])
def test_activities_of_a_manifest_exist(module: str) -> None:
    activities = list(_manifest(module).iter("activity"))
    assert activities
    for activity in activities:
        assert activity.get(f"{NAME}exported") == "true"
        name = str(activity.get(f"{NAME}name")).removeprefix(".")
        source = _text(module, "src", "main", "kotlin", "org", "voxpress", module, f"{name}.kt")
        assert re.search(rf"^class {name} : Activity\(\)", source, re.MULTILINE)


def test_both_processors_and_large_pages() -> None:
    assert 'abiFilters += listOf("arm64-v8a", "x86_64")' in _text("voxpress", "build.gradle.kts")
    cmake = _text("voxpress", "src", "main", "cpp", "CMakeLists.txt")
    assert re.search(r"foreach\(target voxpress_jni voxpress_tflite_delegate\)\s+target_link_options.*=16384", cmake)


# The targets of ExecuTorch's source that ours link, each of nothing but a function.
STAND_IN = """
foreach(name executorch extension_data_loader extension_flat_tensor extension_module_static extension_tensor
             optimized_native_cpu_ops_lib quantized_ops_lib xnnpack_backend extension_threadpool)
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/${name}.cc "int ${name}_there() { return 1; }")
  add_library(${name} STATIC ${CMAKE_CURRENT_BINARY_DIR}/${name}.cc)
endforeach()
"""


def test_the_native_build_configures_and_links_what_it_should(tmp_path: Path) -> None:
    """With a stand-in for ExecuTorch's source: that its own targets have these names is not shown here."""
    (tmp_path / "executorch").mkdir()
    (tmp_path / "executorch" / "CMakeLists.txt").write_text(STAND_IN)
    (tmp_path / "executorch" / "version.txt").write_text("1.5.1\n")
    source, build = ANDROID / "voxpress" / "src" / "main" / "cpp", tmp_path / "build"
    options = (
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={build_tool('ninja')}",
        f"-DEXECUTORCH_SOURCE={tmp_path}/executorch",
    )
    subprocess.run([build_tool("cmake"), "-S", source, "-B", build, *options], check=True, capture_output=True)
    targets = ("voxpress_jni", "voxpress_tflite_delegate")
    commands = subprocess.run(
        [build_tool("ninja"), "-C", build, "-t", "commands", *targets], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    link, delegate = (next(line for line in commands if f"lib{target}.so -o " in line) for target in targets)
    assert "-Wl,-z,max-page-size=16384" in link
    assert "-Wl,-z,max-page-size=16384" in delegate
    for name in ("voxpress_core", "voxpress_executorch_engine", "voxpress_tflite_engine", "voxpress_pte_ops_static"):
        assert f"lib{name}.a" in link
    for name in ("optimized_native_cpu_ops_lib", "quantized_ops_lib", "xnnpack_backend", "extension_threadpool"):
        assert re.search(rf"--whole-archive\s+\S*lib{name}\.a", link), name
    (engine,) = (line for line in commands if line.endswith("executorch_engine.cc"))
    assert 'VOXPRESS_EXECUTORCH_VERSION=\\"1.5.1\\"' in engine


def test_native_functions_have_one_counterpart_each() -> None:
    main = ("voxpress", "src", "main")
    kotlin = re.findall(r"external fun (\w+)", _text(*main, "kotlin", "org", "voxpress", "Native.kt"))
    native = re.findall(r"Java_org_voxpress_Native_(\w+)\(", _text(*main, "cpp", "voxpress_jni.cc"))
    assert sorted(kotlin) == sorted(native)


def test_the_demo_writes_no_audio_and_encrypts_voices() -> None:
    sources = {path.name: path.read_text() for path in (ANDROID / "demo" / "src").rglob("*.kt")}
    writing = re.compile(r"FileOutputStream|outputStream|writeBytes|MediaRecorder\(\)|openFileOutput")
    assert [name for name, text in sources.items() if writing.search(text)] == ["VoiceStore.kt"]
    assert "cipher.doFinal(voice.toByteArray())" in sources["VoiceStore.kt"]
    assert sources["VoiceStore.kt"].count("writeBytes") == 1
    assert 'KEYSTORE = "AndroidKeyStore"' in sources["VoiceStore.kt"]
