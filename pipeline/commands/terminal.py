"""Tables on the terminal."""

from __future__ import annotations


def show(*tables: object) -> None:
    """Print tables or texts; in a pipe there is no terminal width to respect."""
    from rich.console import Console

    console = Console()
    for table in tables:
        Console(width=None if console.is_terminal else 200).print(table)
