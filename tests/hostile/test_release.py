"""Bundles, keys and registries that are none, at the command line: one line, exit code 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exporters.bundle.made import made_zip
from tests.exporters.release.published import publish
from tests.hostile.test_command_line import _refused, _voxpress


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle, a zip that is none, a key that is none and a registry."""
    made_zip(tmp_path / "net.zip")
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 and no more")
    (tmp_path / "key.pem").write_text("not a key")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").touch()
    (tmp_path / "list.txt").write_text("1 a/0.wav a/1.wav\n")
    publish(str(tmp_path / "registry"), tmp_path / "made")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("bundle verify broken.zip", ("broken.zip: expected a whole bundle zip",)),
        ("bundle verify nothing.zip", ("nothing.zip: expected a bundle's folder or zip, found no such file",)),
        ("bundle verify net.zip --key key.pem", ("key.pem: expected an Ed25519 public key",)),
        ("bundle verify net.zip --min-version 2.0.0", ("net.zip: expected version 2.0.0 or later, found 1.0.0",)),
        ("bundle verify net.zip", ("net.zip:models/net-4bit.pte: expected a .pte or .tflite file",)),
        ("bundle show broken.zip", ("broken.zip",)),
        ("bundle diff net.zip broken.zip", ("broken.zip",)),
        ("bundle sign net.zip --key key.pem", ("key.pem: expected an Ed25519 private key",)),
        ("bundle sign broken.zip --key key.pem", ("key.pem",)),
        ("bundle create nowhere --out out", ("nowhere: expected the folder of a run or of an artifact",)),
        ("bundle create run --chunk-seconds 1 --out out", ("--chunk-seconds", "found the run run")),
        ("bundle create . --out out", ("expected the folder of a run or of an artifact",)),
        ("calibrate nowhere --audio . --trials nolist.txt --out out", ("nolist.txt: expected a trial list",)),
        ("calibrate nowhere --audio . --trials list.txt --out out", ("list.txt:1: ", "a/0.wav")),
        ("calibrate nowhere --audio . --trials list.txt --out .", ("expected a new or empty folder",)),
        ("compat net.zip net.zip --audio . --trials list.txt", ("list.txt:1: ", "a/0.wav")),
        ("compat net.zip net.zip --audio . --trials list.txt --margin 2", ("--margin",)),
        ("release net.zip --registry registry", ("--key and --unsigned: expected one of them, found neither",)),
        ("release broken.zip --registry registry --unsigned", ("broken.zip",)),
        ("release net.zip --registry nope://x --unsigned", ("nope://x: expected a directory, or a URL",)),
        ("release net.zip --registry registry --unsigned --settings no.toml", ("no.toml: expected release settings",)),
        ("fetch other --registry registry --cache c", ("registry: other: expected a channel among none",)),
        ("fetch net@9.9.9 --registry registry --cache c", ("registry: net: expected a version among 1.0.0",)),
        ("fetch ../net --registry registry --cache c", ("name: expected lower-case letters",)),
        ("fetch net@../x --registry registry --cache c", ("channel: expected lower-case letters",)),
        ("fetch net --registry registry --cache key.pem", ("key.pem",)),
        ("fetch net --registry registry --cache c --key key.pem", ("key.pem: expected an Ed25519 public key",)),
        ("registry channel registry net stable 3.0.0", ("expected a version among 1.0.0, found 3.0.0",)),
        ("registry list nope://x", ("nope://x",)),
    ],
)
def test_bad_words_are_refused(folder: Path, words: str, parts: tuple[str, ...]) -> None:
    before = {path.name for path in folder.iterdir()}
    _refused(_voxpress(*words.split(), cwd=folder), *parts)
    assert {path.name for path in folder.iterdir()} - before <= {"c"}
