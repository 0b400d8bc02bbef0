"""A stand-in for xcrun: devicectl's copy and launch; an app's container is a folder, the app the host's runner."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from device_tests.drive.build import Build

APP = "org.example.benchmark"


def xcrun(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An xcrun that runs a script, which finds the command's name in $kind, the options in "$@" and the JSON file
    in $answer; xcrun's words are kept in `words`. As the real one, it takes no option within the command's name."""
    (folder / "bin").mkdir()
    path = folder / "bin" / "xcrun"
    head = f"""#!/bin/sh
printf "%s\\n" "$*" >> {folder}/words
shift; kind=""
while [ $# -gt 0 ] && [ "${{1#--}}" = "$1" ]; do kind="$kind$1 "; shift; done
case "$kind" in
  "list devices "|"device copy to "|"device copy from "|"device process launch ") ;;
  *) echo "error: unexpected command '$kind'" >&2; exit 64 ;;
esac
[ "$1" = --json-output ] && answer="$2"; shift 2
"""
    path.write_text(head + script)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")


def phone(folder: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An xcrun with a phone on which APP is installed. Returns the app's container."""
    options = shlex.join(build.options(str))
    script = f"""
echo '{{"info": {{"outcome": "success"}}, "result": {{}}}}' > "$answer"
home={folder}/container; mkdir -p "$home"; cd "$home"
case "$kind" in
"device copy "*) while [ $# -gt 0 ]; do
    [ "$1" = --source ] && source="$2"; [ "$1" = --destination ] && destination="$2"; shift; done
  mkdir -p "$(dirname "$destination")"; cp "$source" "$destination" ;;
"device process launch ") while [ "$1" != {APP} ]; do shift; done; shift
  {build.runner} "$@" {options} 2>&1
  echo "voxpress-exit:$?" ;;
esac
"""
    xcrun(folder, script, monkeypatch)
    return folder / "container"
