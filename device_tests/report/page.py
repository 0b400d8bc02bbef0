"""Pages: self-contained HTML from the templates beside this file, all of one look."""

from __future__ import annotations

from pathlib import Path

import jinja2


def render(template: str, **values: object) -> str:
    """A template that extends `page.html.j2`, filled in; every value must be given, text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
