"""A table of text and what it becomes: lines of Markdown, a table on a terminal; pages set it by table.html.j2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable

from pipeline.scoring.score import Evaluation

NONE = "–"


@dataclass(frozen=True)
class Table:
    """A table of text; `left` columns are words, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    left: int = 1


def markdown_document(
    title: str, circumstances: Iterable[tuple[str, str]], notes: Sequence[str], tables: Iterable[Table]
) -> str:
    """A whole report in Markdown: title, circumstances by name, notes, tables."""
    lines = [f"# {' '.join(title.split())}", ""]
    lines += [f"- {name}: {value}" for name, value in circumstances]
    lines += ["", "## Notes", ""]
    lines += [f"- {note}" for note in notes] or ["- none"]
    for table in tables:
        lines += markdown_table(table)
    return "\n".join(lines) + "\n"


def markdown_table(table: Table) -> list[str]:
    """A table's lines in Markdown, under its title as a heading, with its caption."""
    return [
        "",
        f"## {table.title}",
        "",
        f"| {' | '.join(table.columns)} |",
        "|" + "|".join("---" if i < table.left else "--:" for i in range(len(table.columns))) + "|",
        *(f"| {' | '.join(row)} |" for row in table.rows),
        "",
        table.caption,
    ]


def terminal_table(
    source: Table, *, title: bool = True, caption: str | None = None, wrap_words: bool = True
) -> RichTable:
    """A table for a terminal; `wrap_words`: columns of words may be broken, those of figures never are."""
    table = RichTable(
        title=source.title if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=caption,
    )
    for index, column in enumerate(source.columns):
        words = index < source.left
        table.add_column(column, justify="left" if words else "right", no_wrap=not words or not wrap_words)
    for row in source.rows:
        table.add_row(*row)
    return table


def interval_text(evaluation: Evaluation) -> str:
    """An EER's interval in per cent."""
    return f"{100 * evaluation.eer_interval.low:.2f}–{100 * evaluation.eer_interval.high:.2f}"


def milliseconds(nanoseconds: int) -> str:
    """A time in ms with three or more figures."""
    value = nanoseconds / 1e6
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def threads_text(count: int) -> str:
    """A number of threads in words."""
    return "1 thread" if count == 1 else f"{count} threads"
