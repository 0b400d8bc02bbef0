"""What all plots share: the page's colours, the style, the way to SVG.

A plot is drawn in stand-in colours, which are then replaced by `var(--ink)`, `var(--s1)` and so on, so that it follows
light and dark; `colours.css` defines them for pages and for SVG files alike. Nothing in the SVG points outside it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# Stand-ins, replaced by CSS variables in `svg`.
INK, MUTED, RULE, PAPER = "#010203", "#020304", "#030405", "#040506"
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}
# How many colours the page defines as --s1, --s2, ...; more series than that begin again.
SERIES_COLOURS = 6


def colour(place: int | None) -> str:
    """Colour of the series at a place; None: ink, for the fp32 reference."""
    return INK if place is None else _series_stand_in(place)


def style(name: str) -> AbstractContextManager[None]:
    """Settings to draw the plot `name` in; the same plot gives the same bytes."""
    return rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.size": 11,
            "text.color": INK,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": MUTED,
            "axes.facecolor": "none",
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.facecolor": "none",
            "xtick.color": MUTED,
            "ytick.color": MUTED,
        }
    )


def svg(figure: Figure, name: str) -> str:
    """A drawn figure as SVG to be set into a page; `name` keeps its ids apart from those of the other plots."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # The style sheet inside would hold for the whole page, which has its own.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    # In a page of HTML the name spaces are known; declaring them would only look like links.
    text = re.sub(r"\s+xmlns(:\w+)?=\"[^\"]*\"", "", text).replace("xlink:href", "href")
    # Plots share one page: what one defines must not be found by another.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r"width=\"[\d.]+pt\" height=\"[\d.]+pt\"", 'role="img"', text, count=1)
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    for place in range(SERIES_COLOURS):
        text = text.replace(_series_stand_in(place), f"var(--s{place + 1})")
    return text.strip()


def svg_file(text: str) -> str:
    """What `svg` gave as a file of its own: with its name space and the colours of the page."""
    colours = (Path(__file__).parent / "colours.css").read_text(encoding="utf-8")
    head, rest = text.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">\n<style>\n{colours}</style>{rest}\n'


def legend(axes: Axes, shades: Mapping[str, str], *, marker: str = "o") -> None:
    """Names of the series in their colours, in a row above the axes, where no point can lie."""
    handles = [
        Line2D([], [], marker=marker, linestyle="none", color=shade, label=name) for name, shade in shades.items()
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        frameon=False,
        labelcolor="linecolor",
        handletextpad=0.1,
        columnspacing=1.2,
        borderaxespad=0.2,
    )


def size_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x axis of sizes from `low` to `high` bytes, marked at 1, 2 and 5 of every power of ten."""
    ticks = [step * 10.0**power for power in range(13) for step in (1, 2, 5)]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_bytes(round(value))))


def short_bytes(count: int) -> str:
    """A size for an axis: 850 kB, 1.5 MB (powers of ten)."""
    if count >= 999_500:
        return f"{count / 1e6:.3g} MB"
    return f"{count / 1e3:.3g} kB" if count >= 1000 else f"{count} B"


def _series_stand_in(place: int) -> str:
    return f"#0a0b{place % SERIES_COLOURS + 1:02x}"
