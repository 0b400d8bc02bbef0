"""Semantic versions of bundles: what a step of each part means is in `exporters.release.rule`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import InputError

Bump = Literal["major", "minor", "patch"]

_FORM = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")


@dataclass(frozen=True, order=True)
class Version:
    """major.minor.patch; ordered."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str, what: str) -> Version:
        """The version in a text. Raises InputError beginning with `what` if it is none."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise InputError(what, expected="a version major.minor.patch", found=repr(text[:80]))
        return cls(*(int(part) for part in match.groups()))

    def bumped(self, bump: Bump) -> Version:
        """The next version of a kind."""
        if bump == "major":
            return Version(self.major + 1, 0, 0)
        if bump == "minor":
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + 1)

    def __str__(self) -> str:
        """major.minor.patch."""
        return f"{self.major}.{self.minor}.{self.patch}"
