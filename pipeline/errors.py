"""The errors a user can meet: one line each, naming the file, what was expected and what was found."""

from __future__ import annotations

from os import PathLike


class VoxPressError(Exception):
    """Something the user can mend. The command line prints it as one line and ends with `exit_code`."""

    exit_code = 2


class InputError(VoxPressError):
    """A file, folder or value from outside is not what it should be.

    The message reads `<what>: expected <expected>, found <found>`.
    """

    def __init__(self, what: str | PathLike[str], *, expected: str, found: str) -> None:
        """Build the message from its three parts; line breaks inside them are folded away."""
        self.what, self.expected, self.found = str(what), expected, found
        super().__init__(" ".join(f"{self.what}: expected {expected}, found {found}".split()))


class MissingToolError(VoxPressError):
    """A native library or program that VoxPress builds or calls is not there; the message says how to get it."""


class VerificationError(VoxPressError):
    """A result disagrees with the reference beyond its tolerance; nothing is written."""


class GateError(VoxPressError):
    """Something well formed that does not meet what is asked of it: a gate refused it. Nothing is written."""

    exit_code = 3
