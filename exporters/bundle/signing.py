"""Signs a bundle where it lies, folder or zip."""

from __future__ import annotations

import tempfile
from pathlib import Path

from exporters.bundle.archive import unzip_bundle, zip_bundle
from exporters.bundle.contents import check_contents
from exporters.bundle.manifest import MANIFEST_FILE
from exporters.bundle.signature import Signature, read_private_key, write_signature
from pipeline.errors import InputError


def sign_bundle(bundle: Path, key_file: Path) -> Signature:
    """Sign a bundle's folder or zip, replacing a signature that is there; of a folder, also the zip beside it.

    The zip is replaced whole. Raises InputError naming the file if the bundle is not whole or the key is none.
    """
    key = read_private_key(key_file)
    if bundle.is_dir():
        check_contents(bundle)
        signature = write_signature(bundle, (bundle / MANIFEST_FILE).read_bytes(), key)
        beside = bundle.with_name(f"{bundle.name}.zip")
        if beside.is_file():
            zip_bundle(bundle, beside)
        return signature
    if not bundle.is_file():
        raise InputError(bundle, expected="a bundle's folder or zip", found="no such file or folder")
    with tempfile.TemporaryDirectory(prefix="voxpress-") as scratch:
        folder = Path(scratch)
        unzip_bundle(bundle, folder)
        signature = write_signature(folder, (folder / MANIFEST_FILE).read_bytes(), key)
        zip_bundle(folder, bundle)
    return signature
