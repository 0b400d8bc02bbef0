"""Progress of long work: a bar with the time left on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

LINE_EVERY_SECONDS = 20.0


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""

    def note(self, text: str) -> None:
        """A short word on how it goes, shown behind the bar."""


class Progress:
    """Shows tasks on stderr; results go to stdout."""

    def __init__(self, console: Console | None = None, prefix: str = "") -> None:
        """`prefix` goes before every line."""
        self.console = console or Console(file=sys.stderr)
        self._prefix = prefix

    @classmethod
    def silent(cls) -> Progress:
        """Progress that shows nothing."""
        return cls(Console(file=sys.stderr, quiet=True))

    @classmethod
    def lines(cls, prefix: str) -> Progress:
        """Progress in lines with a prefix, on a terminal too: for one of several processes that share it."""
        return cls(Console(file=sys.stderr, force_terminal=False), prefix)

    @contextmanager
    def task(self, label: str, total: int, *, done: int = 0) -> Iterator[Task]:
        """A task of `total` units, of which `done` were done by an earlier run."""
        if not self.console.is_terminal:
            lines = _Lines(self.console, self._prefix + label, total, done)
            yield lines
            lines.finish()
            return
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=self.console) as bars:
            yield _Bar(bars, label, total, done)

    def say(self, text: str) -> None:
        """One line about what is being done."""
        self.console.print(self._prefix + text, highlight=False, soft_wrap=True, markup=False)


class _Bar:
    def __init__(self, bars: RichProgress, label: str, total: int, done: int) -> None:
        self._bars = bars
        self._id = bars.add_task(label, total=total, completed=done, note="")

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._id, count)

    def note(self, text: str) -> None:
        self._bars.update(self._id, note=text)


class _Lines:
    def __init__(self, console: Console, label: str, total: int, done: int) -> None:
        self._console, self._label, self._total, self._done, self._note = console, label, total, done, ""
        self._first, self._started = done, time.monotonic()
        self._printed = self._started

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._printed >= LINE_EVERY_SECONDS and self._done > self._first:
            self._printed = now
            left = (now - self._started) / (self._done - self._first) * (self._total - self._done)
            self._print(f"{left:.0f} s left")

    def note(self, text: str) -> None:
        self._note = text

    def finish(self) -> None:
        self._print(f"done in {time.monotonic() - self._started:.1f} s")

    def _print(self, rest: str) -> None:
        words = [f"{self._label}: {self._done}/{self._total}", self._note, rest]
        self._console.print(", ".join(word for word in words if word), highlight=False, soft_wrap=True, markup=False)
