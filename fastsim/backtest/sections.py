"""Pages of sections, each of words, a table or what draws a chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from fastsim.backtest.page import plotly_script
from fastsim.backtest.wording import typeset
from fastsim.config import write_whole


class Row(NamedTuple):
    """One row of a table on the page."""

    name: str
    cells: Sequence[str]
    kind: str = ""  # its CSS class


class Section(NamedTuple):
    """A part of a page."""

    title: str
    explain: str
    header: Sequence[str] = ()  # of a table, if there is one
    rows: Sequence[Row] = ()
    html: str = ""  # made by us, escaped already


def template(name: str, **filters: Callable[..., Any]) -> Template:
    """A page of this folder; whatever is put into it is escaped unless the page says it is safe."""
    pages = Environment(
        loader=PackageLoader("fastsim.backtest", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"typeset": typeset, **filters}
    return pages.get_template(name)


def write_sections(
    path: Path,
    *,
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    notes: Sequence[str] = (),
    before: str = "",
    footer: str = "",
) -> None:
    """Write one HTML file that needs nothing else, in one piece.

    Parameters
    ----------
    notes
        Sentences that a reader should see first.
    before
        What charts of sections need to stand before them: `dates` of `charts_html`.
    """
    text = template("sections.html").render(
        title=title,
        subtitle=subtitle,
        notes=notes,
        sections=sections,
        before=before,
        footer=footer,
        plotly_js=plotly_script(),
    )
    write_whole(path, text.encode())
