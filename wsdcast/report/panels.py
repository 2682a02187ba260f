"""How the interactive figures look: one style for all, and names of lines beside them instead of inside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, GlyphRenderer, HoverTool, Span
from bokeh.plotting import figure as Panel  # a class, in spite of its name
from numpy.typing import NDArray

from wsdcast.report.style import FORECASTS, ORANGE, PURPLE, SKY, Look

FONT = "system-ui, sans-serif"
INK, FAINT = "#1f2937", "#e5e7eb"
DASHES = {"solid": "", "dashed": "6 3", "dotted": "2 3", "dotdash": "2 3 6 3"}

SAID = "<div style='white-space: pre-line'>@said</div>"
"""What is shown under the pointer where a column has it in words."""


@dataclass(frozen=True)
class Row:
    """Figures side by side, and the lines that they share by name."""

    figures: Sequence[Panel]
    lines: dict[str, Look]

    def legend(self) -> str:
        """The names beside pieces of their lines, as HTML."""
        items = (
            f'<span><svg width=28 height=8><line x1=0 x2=28 y1=4 y2=4 stroke="{colour}" stroke-width=2 stroke-dasharray="{DASHES[dash]}"/>'
            f"</svg> {html.escape(name)}</span>"
            for name, (colour, dash) in self.lines.items()
        )
        return f"<p class=legend>{''.join(items)}</p>"


def lines_of(forecasts: Iterable[Any]) -> dict[str, Look]:
    """A line for each forecast: the reported one, which is the first, the well-known ones, and others."""
    spare, found = cycle([(PURPLE, "solid"), (ORANGE, "dashed"), (SKY, "dotdash"), (INK, "dotted")]), dict[str, Look]()
    for name in map(str, forecasts):
        colour, dash = FORECASTS.get(name) or (next(spare) if found else FORECASTS["wsdcast"])
        found[name] = colour, "dotted" if dash == "sparse" else dash  # which Bokeh does not have
    return found


def in_hours(leads: NDArray[np.timedelta64]) -> list[str]:
    """Lead times in words."""
    return [f"{hours:g} h" for hours in leads / np.timedelta64(1, "h")]


def panel(title: str, x_label: str, y_label: str, **options: Any) -> Panel:
    """An empty figure as wide as its place on the page; tools appear when the pointer is on it, none takes a phone's scrolling."""
    about: dict[str, Any] = {
        "sizing_mode": "stretch_width",
        "height": 280,
        "min_width": 200,
        "tools": "box_zoom,reset,save",
        "toolbar_location": "above",
    } | options
    made = Panel(title=title, x_axis_label=x_label or None, y_axis_label=y_label or None, active_drag=None, **about)
    made.toolbar.autohide, made.toolbar.logo = True, None
    made.outline_line_color = None
    made.axis.axis_label_text_font = made.axis.major_label_text_font = made.title.text_font = FONT
    made.axis.axis_label_text_font_style, made.axis.axis_label_text_font_size = "normal", "12px"
    made.axis.axis_label_text_color = made.axis.major_label_text_color = made.title.text_color = INK
    made.axis.axis_line_color = made.axis.major_tick_line_color = "#9ca3af"
    made.axis.minor_tick_line_color, made.grid.grid_line_color = None, FAINT
    made.title.text_font_size, made.title.text_font_style = "13px", "bold"
    return made


def add_line(on: Panel, line: Look, data: dict[str, Any]) -> GlyphRenderer:
    """Draw ``y`` over ``x`` with the band from ``low`` to ``high`` if it has one; returns the line.

    Args:
        on: the figure.
        line: colour and dash.
        data: columns.
    """
    colour, dash = line
    source = ColumnDataSource(data)
    if "low" in data and np.isfinite(data["low"]).any():
        on.varea("x", "low", "high", source=source, fill_color=colour, fill_alpha=0.15)
    on.scatter("x", "y", source=source, color=colour, size=4)
    return on.line("x", "y", source=source, line_color=colour, line_dash=dash, line_width=2)


def hover(on: Panel, over: Sequence[GlyphRenderer], tooltips: Any, **options: Any) -> None:
    """Say what is under the pointer.

    Args:
        on: the figure.
        over: what is asked.
        tooltips, options: as Bokeh has them.
    """
    on.add_tools(HoverTool(renderers=list(over), tooltips=tooltips, visible=False, **{"line_policy": "nearest"} | options))


def say_all(on: Panel, curves: Sequence[GlyphRenderer], said: Sequence[str]) -> None:
    """Say of all curves at once what there is to say where the pointer is.

    Args:
        on: the figure.
        curves: over the same axis; none, and nothing is said.
        said: at each of their points.
    """
    for first in curves[:1]:
        first.data_source.data["said"] = said
        hover(on, [first], SAID, mode="vline")


def mark_right(on: Panel) -> None:
    """The line of a perfect forecast."""
    on.add_layout(Span(location=1, dimension="width", line_color=INK, line_width=1, level="underlay"))


def found(scores: xr.Dataset, name: str) -> xr.DataArray | None:
    """A metric over the globe, for both components where it has variables; None if it is missing or not a number anywhere."""
    if name not in scores:
        return None
    field = scores[name].sel(region="globe") if "region" in scores[name].dims else scores[name]
    return field if bool(field.notnull().any()) else None


def days_of(leads: NDArray[np.timedelta64]) -> NDArray[np.float64]:
    """Lead times in days."""
    return leads / np.timedelta64(1, "D")
