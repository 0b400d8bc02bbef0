"""Work that ends in the middle, without a word: at the n-th line of VoxPress's or the file system's code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

_WATCHED = ("exporters/release", "exporters/bundle", "pipeline/files", "fsspec", "zipfile", "tempfile", "shutil")


def lines_of(work: Callable[[], object]) -> int:
    """How many watched lines `work` runs."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    _traced(work, step)
    return count


def run_and_die(work: Callable[[], object], line: int) -> bool:
    """Run `work` in a forked process that dies at its watched line of that number; whether it died."""
    child = os.fork()
    if child == 0:
        left = line

        def step() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)  # no finally, no exit handlers, no flushing: as if it was killed

        try:
            _traced(work, step)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), code
    return code == 9


def _traced(work: Callable[[], object], step: Callable[[], None]) -> None:
    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in _WATCHED):
            return None
        if event == "line":
            step()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
