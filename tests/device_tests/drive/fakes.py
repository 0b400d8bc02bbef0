"""A host whose engines are the fake one."""

from __future__ import annotations

import sys
from pathlib import Path

from device_tests.drive.build import Build
from device_tests.drive.process import HostDevice


def fake_device(folder: Path) -> HostDevice:
    """The host with `fake_engine.py` for both formats; its starter lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    starter = folder / "fake_engine.sh"
    if not starter.exists():
        starter.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_engine.py")} "$@"\n')
        starter.chmod(0o755)
    return HostDevice(builds=lambda _: Build(starter))
