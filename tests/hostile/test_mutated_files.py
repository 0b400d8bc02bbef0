"""Artifacts and bundle zips with bytes changed, cut and repeated: read, or refused in one line that names the file."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.bundle import unzip_bundle
from pipeline.artifact.decode import decode
from pipeline.artifact.store import HEADER_FILE, WEIGHTS_FILE, read_artifact, write_artifact
from pipeline.errors import InputError
from tests.factories import tiny_artifact

ODD_TEXT = [b"-1", b"1e400", b"null", b'"', b"}", b"[", b"9" * 30, b"\xff"]
BOUNDED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with up to eight changes."""
    raw = bytearray(data)
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, max(0, len(raw) - 1)))
        match draw(st.sampled_from(["set", "text", "cut", "repeat"])):
            case "set":
                raw[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "text":
                raw[place:place] = draw(st.sampled_from(ODD_TEXT))
            case "cut":
                del raw[place : place + draw(st.integers(1, 64))]
            case _:
                raw[place:place] = raw[place : place + draw(st.integers(1, 64))]
    return bytes(raw)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    write_artifact(folder, tiny_artifact(4))
    return folder


@pytest.mark.parametrize("name", [HEADER_FILE, WEIGHTS_FILE])
@BOUNDED
@given(data=st.data())
def test_a_mutated_artifact_is_read_or_refused(name: str, data: st.DataObject, artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mutated"
    shutil.copytree(artifact, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(data.draw(mutations((artifact / name).read_bytes())))
    with suppress(InputError):
        decode(read_artifact(folder))


@BOUNDED
@given(data=st.data())
def test_a_mutated_bundle_is_unpacked_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    content = b"some bytes of a model" * 20
    manifest = {
        "name": "n",
        "version": "1.0.0",
        "licence": "l",
        "created_by": "tests",
        "architecture": "a",
        "embedding_dim": 4,
        "source_sha256": "0" * 64,
        "frontend": {},
        "models": [],
        "files": {"models/m.pte": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}},
    }
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("manifest.json", json.dumps(manifest))
        stream.writestr("models/m.pte", content)
    archive = tmp_path / "mutated.zip"
    archive.write_bytes(data.draw(mutations(whole.read_bytes())))
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with suppress(InputError):
        unzip_bundle(archive, out)
    written = out / "models" / "m.pte"
    assert not written.exists() or written.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"whole.zip", "mutated.zip", "out"}
