from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.bundle.contents import check_contents, checked_file, read_manifest
from exporters.bundle.manifest import MANIFEST_FILE
from pipeline.errors import InputError
from tests.exporters.bundle.made import made_bundle


def _link_file(folder: Path) -> None:
    (folder / "frontend.json").rename(folder.parent / "moved")
    (folder / "frontend.json").symlink_to(folder.parent / "moved")


def _link_folder(folder: Path) -> None:
    (folder / "models").rename(folder.parent / "moved")
    (folder / "models").symlink_to(folder.parent / "moved")


def _link_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).rename(folder.parent / "moved")
    (folder / MANIFEST_FILE).symlink_to(folder.parent / "moved")


def _dangling(folder: Path) -> None:
    (folder / "models" / "x").symlink_to("nowhere")


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "frontend.json").write_bytes(b"{}\t"), r"frontend.json: expected sha256"),
    (lambda folder: (folder / "frontend.json").write_bytes(b"{}"), r"frontend.json: expected 3 bytes, found 2"),
    (lambda folder: (folder / "frontend.json").unlink(), r"frontend.json: .*no such file"),
    (lambda folder: (folder / "extra").touch(), r"extra: .*an extra file"),
    (lambda folder: (folder / ".hidden").touch(), r".hidden: .*an extra file"),
    (lambda folder: (folder / "empty").mkdir(), r"empty: .*an extra folder"),
    (lambda folder: os.mkfifo(folder / "models" / "pipe"), r"pipe: .*no regular file"),
    (_link_file, r"frontend.json: .*a symlink"),
    (_link_folder, r"models: .*a symlink"),
    (_link_manifest, r"manifest.json: .*a symlink"),
    (_dangling, r"models/x: .*a symlink"),
    (lambda folder: (folder / MANIFEST_FILE).unlink(), r"manifest.json: .*no such file"),
    (lambda folder: (folder / MANIFEST_FILE).write_bytes(b"{}"), r"manifest.json: expected a bundle's manifest"),
    (lambda folder: (folder / MANIFEST_FILE).write_bytes(b"\xff"), r"manifest.json: expected a bundle's manifest"),
    (lambda folder: (folder / MANIFEST_FILE).write_bytes(b" " * (1 << 25)), r"manifest.json: expected at most"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    made_bundle(tmp_path / "net")
    check_contents(tmp_path / "net")
    damage(tmp_path / "net")
    with pytest.raises(InputError, match=message):
        check_contents(tmp_path / "net")


def test_a_file_is_read_only_if_the_manifest_names_it(tmp_path: Path) -> None:
    manifest = made_bundle(tmp_path / "net")
    (tmp_path / "net" / "other").touch()
    with pytest.raises(InputError, match="an entry for other"):
        checked_file(tmp_path / "net", manifest, "other")
    path = checked_file(tmp_path / "net", manifest, "frontend.json")
    assert path.read_bytes() == b"{}\n"


def test_a_newer_format_says_so(tmp_path: Path) -> None:
    made_bundle(tmp_path / "net")
    path = tmp_path / "net" / MANIFEST_FILE
    path.write_bytes(path.read_bytes().replace(b'"format_version": 1', b'"format_version": 7'))
    with pytest.raises(InputError, match="format version 7; this VoxPress reads 1"):
        read_manifest(tmp_path / "net")
