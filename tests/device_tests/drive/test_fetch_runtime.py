from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from device_tests.drive import fetch_runtime
from device_tests.drive.build import build_in
from pipeline.errors import InputError, MissingToolError

LOCK = "numpy==2.4.0\nai-edge-litert==2.3.0\nexecutorch==1.5.1 ; python_version > '3'\n"
FILES = {
    "executorch": ("executorch/lib/libexecutorch.so", "executorch/include/a.h", "executorch/runtime/__init__.py"),
    "ai_edge_litert": ("ai_edge_litert/libLiteRt.so", "ai_edge_litert/interpreter.py"),
}


def wheels(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, version in (("executorch", "1.5.1"), ("ai_edge_litert", "2.3.0")):
        with zipfile.ZipFile(folder / f"{name}-{version}-cp311-cp311-manylinux_2_28_aarch64.whl", "w") as archive:
            for path in FILES[name]:
                archive.writestr(path, path)


def test_libraries_are_unpacked_and_python_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").write_text(LOCK)
    wheels(tmp_path / "out" / "wheels")
    # Wheels that are there are not fetched again.
    monkeypatch.setattr(fetch_runtime, "_download", lambda *_: pytest.fail("fetched again"))
    assert fetch_runtime.main(["--lock", str(tmp_path / "lock"), "--out", str(tmp_path / "out")]) == 0
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("wheels/")} == {
        "executorch/lib/libexecutorch.so",
        "executorch/include/a.h",
        "ai_edge_litert/libLiteRt.so",
    }
    native = tmp_path / "native"
    native.mkdir()
    for name in ("voxpress_tflite_runner", "libvoxpress_tflite_delegate.so"):
        (native / name).write_bytes(b"x")
    build = build_in(native, tmp_path / "out", "tflite", made_by="do nothing")
    assert build.runtime_version == "2.3.0"
    with pytest.raises(MissingToolError, match="voxpress_pte_runner: expected a build for the device"):
        build_in(native, tmp_path / "out", "pte", made_by="do nothing")


def test_a_lock_without_the_runtimes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lock").write_text("numpy==2.4.0\nexecutorch==1.5.1\n")
    with pytest.raises(InputError, match=r"exact versions of executorch and ai-edge-litert, found executorch==1\.5\.1"):
        fetch_runtime.locked(tmp_path / "lock")
    assert fetch_runtime.main(["--lock", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
