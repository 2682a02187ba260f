"""Building blocks of the interactive figures: one style for all panels, and legends above the panels instead of inside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import CategoricalSlider, ColumnDataSource, GlyphRenderer, HoverTool, Span, UIElement
from bokeh.plotting import figure as Panel  # a class, in spite of its name
from numpy.typing import NDArray

from wsdcast.data.steps import time_in_words
from wsdcast.report.style import MARKED, Look

FONT = "system-ui, sans-serif"
INK, FAINT = "#1f2937", "#e5e7eb"
WIDGET = {"font": f"14px {FONT}"}
"""CSS of controls."""
DASHES = {"solid": "", "dashed": "6", "dotted": "2 4", "dotdash": "2 4 6 4", "sparse": "2 8"}
"""Dashes and gaps of the line styles in pixels, for lines and legends."""

TOOLTIP = "<div style='white-space: pre-line'>@said</div>"
"""Tooltip that shows the text of the column ``said``."""


@dataclass(frozen=True)
class Row:
    """Figures side by side, and the names and looks of the lines that they share."""

    figures: Sequence[Panel]
    lines: dict[str, Look]

    def legend(self) -> str:
        """Return the legend as HTML: each name next to a piece of its line."""
        items = (
            f'<span><svg width=28 height=8><line x1=0 x2=28 y1=4 y2=4 stroke="{colour}" stroke-width=2 stroke-dasharray="{DASHES[dash]}"/>'
            f"</svg> {html.escape(name)}</span>"
            for name, (colour, dash) in self.lines.items()
        )
        return f"<p class=legend>{''.join(items)}</p>"


def in_hours(leads: NDArray[np.timedelta64]) -> list[str]:
    """Return lead times as text, such as ``24 h``."""
    return [f"{hours:g} h" for hours in leads / np.timedelta64(1, "h")]


def panel(title: str, x_label: str, y_label: str, **options: Any) -> Panel:
    """Return an empty figure that is as wide as its column of the page.

    Tools appear while the pointer is over it. No tool is active on dragging, so that a phone can scroll the page.
    """
    settings: dict[str, Any] = {
        "sizing_mode": "stretch_width",
        "height": 280,
        "min_width": 200,
        "tools": "box_zoom,reset,save",
        "toolbar_location": "above",
    } | options
    on = Panel(title=title, x_axis_label=x_label or None, y_axis_label=y_label or None, active_drag=None, **settings)
    on.toolbar.autohide, on.toolbar.logo = True, None
    on.outline_line_color = None
    on.axis.axis_label_text_font = on.axis.major_label_text_font = on.title.text_font = FONT
    on.axis.axis_label_text_font_style, on.axis.axis_label_text_font_size = "normal", "12px"
    on.axis.axis_label_text_color = on.axis.major_label_text_color = on.title.text_color = INK
    on.axis.axis_line_color = on.axis.major_tick_line_color = "#9ca3af"
    on.axis.minor_tick_line_color, on.grid.grid_line_color = None, FAINT
    on.title.text_font_size, on.title.text_font_style = "13px", "bold"
    return on


def add_line(on: Panel, line: Look, data: dict[str, Any]) -> GlyphRenderer:
    """Draw ``y`` against ``x``, with a band from ``low`` to ``high`` if the data have these columns, and return the line."""
    colour, dash = line
    source = ColumnDataSource(data)
    if "low" in data and np.isfinite(data["low"]).any():
        on.varea("x", "low", "high", source=source, fill_color=colour, fill_alpha=0.15)
    if len(data["x"]) <= MARKED:
        on.scatter("x", "y", source=source, color=colour, size=4)
    return on.line("x", "y", source=source, line_color=colour, line_dash=DASHES[dash], line_width=2)


def hover(on: Panel, over: Sequence[GlyphRenderer], tooltips: Any, **options: Any) -> None:
    """Add tooltips to a figure, for the glyphs ``over``. The options are those of Bokeh's ``HoverTool``."""
    on.add_tools(HoverTool(renderers=list(over), tooltips=tooltips, visible=False, **{"line_policy": "nearest"} | options))


def say_all(on: Panel, curves: Sequence[GlyphRenderer], said: Sequence[str]) -> None:
    """Add one tooltip for all curves of a figure, which have the same x: the text ``said`` at the pointer's position along the x axis."""
    if curves:
        curves[0].data_source.data["said"] = said
        hover(on, curves[:1], TOOLTIP, mode="vline")


def mark_perfect(on: Panel) -> None:
    """Draw the line at 1, on which a perfect forecast would lie."""
    on.add_layout(Span(location=1, dimension="width", line_color=INK, line_width=1, level="underlay"))


def metric_on_globe(scores: xr.Dataset, name: str) -> xr.DataArray | None:
    """Return a metric for the globe; None if it is missing or NaN everywhere."""
    if name not in scores:
        return None
    field = scores[name].sel(region="globe") if "region" in scores[name].dims else scores[name]
    return field if bool(field.notnull().any()) else None


def days_of(leads: NDArray[np.timedelta64]) -> NDArray[np.float64]:
    """Return lead times in days."""
    return leads / np.timedelta64(1, "D")


def times_in_words(start: np.datetime64 | NDArray[np.datetime64], lead: np.timedelta64 | NDArray[np.timedelta64]) -> str:
    """Return the initial, lead and valid time of a forecast as text: ``2001-12-21 06 UTC + 24 h, valid 2001-12-22 06 UTC``."""
    return f"{time_in_words(start)} + {lead / np.timedelta64(1, 'h'):g} h, valid {time_in_words(start + lead)}"


def with_interval(value: float, digits: str, interval: Iterable[float] | None = None, unit: str = "") -> str:
    """Return a value as text, with its unit and its interval, ``1.234 m/s [1.200, 1.300]``. Parts that are not known are left out."""
    if not np.isfinite(value):
        return ""
    low, high = (np.nan, np.nan) if interval is None else interval
    return f"{value:{digits}} {unit}".strip() + (f" [{low:{digits}}, {high:{digits}}]" if np.isfinite([low, high]).all() else "")


def lead_slider(leads: Sequence[str], first: int) -> CategoricalSlider:
    """Return the slider of the lead time, named ``lead``. The lead time with the index ``first`` is shown first."""
    return CategoricalSlider(
        title="Lead time",
        categories=list(leads),
        value=leads[first],
        sizing_mode="stretch_width",
        disabled=len(leads) < 2,
        tooltips=False,  # the title has the value already, and long text would be cut at the edge of a phone
        styles=WIDGET,
        name="lead",
    )


def move_together(controls: Sequence[UIElement]) -> None:
    """Let the same control of several variables have one value: when the reader changes one of them, the others follow."""
    for one, other in pairwise([*controls, controls[0]] if len(controls) > 1 else []):
        one.js_link("value", other, "value")
