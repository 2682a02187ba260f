"""Interactive maps of bytes on a global grid or a region of it, with colour bars, coastlines and tooltips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import (
    BasicTicker,
    ColorBar,
    ColumnDataSource,
    CustomJSHover,
    FixedTicker,
    LinearColorMapper,
    PrintfTickFormatter,
    Range1d,
)
from bokeh.plotting import figure as Panel
from numpy.typing import NDArray

from wsdcast.report.maps import SIGNED, Lines, View, repeated, steps_of
from wsdcast.report.panels import FONT, hover, panel
from wsdcast.report.shown_fields import NONE, Field

EASTWARD = SIGNED + "return signed(value).toFixed({})"
"""Code that shows a longitude beyond 180 E as one in [-180, 180), with a number of digits."""
IN_WORDS = "return value == none ? 'none' : (base + value * unit).toFixed(digits) + ' ' + symbol"
MAP: dict[str, Any] = {"sizing_mode": "scale_width", "height": None, "aspect_ratio": 1.55, "background_fill_color": "#d1d5db"}


@dataclass(frozen=True)
class MapStyle:
    """How a field of bytes is shown.

    Attributes:
        title: text above the map.
        label: name of the field in tooltips.
        palette: 256 colours.
        unit: value of one step of a byte.
        top: value at the upper end of the colour scale.
        symbol: unit of the values, such as m/s.
        digits: digits after the decimal point in tooltips.
        coast: colour of the coastlines.
        base: value of the byte 0, at the lower end of the colour scale.
    """

    title: str
    label: str
    palette: Sequence[str]
    unit: float
    top: float
    symbol: str
    digits: int
    coast: str = "white"
    base: float = 0.0


def map_panels(
    shown: ColumnDataSource,
    styles: Mapping[str, MapStyle],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    lines: Lines,
    view: View,
) -> list[Panel]:
    """Return a map of each field, with the same tooltips and the same ranges.

    Args:
        shown: for each name in ``styles`` one image of bytes (row, column), **from south to north**, because Bokeh reads the values for
            tooltips correctly only in this order. :data:`NONE` is shown in grey.
        styles: how each field is shown, by its name.
        latitude, longitude: of the points of the images, from north to south and from west to east (:func:`wsdcast.report.maps.rising`),
            equally spaced.
        lines: coastlines.
        view: the part of the globe that is shown.
    """
    step_y, step_x = steps_of(latitude, longitude)
    digits = int(np.clip(np.ceil(-np.log10(min(step_y, step_x))), 0, 2))
    position = f"$y{{0.{'0' * digits}}}°" if digits else "$y{0}°"
    tooltips = [("latitude, longitude", f"{position}, $x{{custom}}°")] + [
        (style.label, f"@{name}{{custom}}") for name, style in styles.items()
    ]
    formatters = {
        f"@{name}": CustomJSHover(
            args={"base": style.base, "unit": style.unit, "digits": style.digits, "symbol": style.symbol, "none": NONE},
            code=IN_WORDS,
        )
        for name, style in styles.items()
    } | {"$x": CustomJSHover(code=EASTWARD.format(digits))}
    box = {"y": latitude[-1] - step_y / 2, "dw": step_x * longitude.size, "dh": step_y * latitude.size}
    first = longitude[0] - step_x / 2
    at = [x for x in (first - 360, first, first + 360) if x < view.east and x + box["dw"] > view.west]
    x_range, y_range = Range1d(view.west, view.east, bounds="auto"), Range1d(view.south, view.north, bounds="auto")
    x_ticks, y_ticks = view.ticks
    shown_lines = repeated(lines, view.west)
    coast = ColumnDataSource({name: [line[:, axis].astype(np.float32) for line in shown_lines] for axis, name in enumerate("xy")})
    panels = []
    for name, style in styles.items():
        on = panel(style.title, "", "", x_range=x_range, y_range=y_range, **MAP)
        images = [on.image(name, x=x, source=shown, color_mapper=_colours(style), **box) for x in at]
        on.multi_line("x", "y", source=coast, line_color=style.coast, line_width=0.8, line_alpha=0.8)
        hover(on, images, tooltips, formatters=formatters)
        scale = LinearColorMapper(style.palette, low=style.base, high=style.top if style.top > style.base else style.base + 1)
        labels = PrintfTickFormatter(format=f"%g {style.symbol.replace('%', '%%')}")
        bar = ColorBar(color_mapper=scale, height=6, padding=2, ticker=BasicTicker(desired_num_ticks=4), formatter=labels)
        bar.major_label_text_font, bar.bar_line_color, bar.major_tick_line_color = FONT, None, None
        on.add_layout(bar, "below")
        for axis, ticks in ((on.xaxis, x_ticks), (on.yaxis, y_ticks)):
            axis.ticker, axis.major_label_overrides = FixedTicker(ticks=list(ticks)), ticks
        panels.append(on)
    return panels


def top_of(speeds: Field) -> float:
    """Return the speed at the upper end of a colour scale; 0 if no speed is known."""
    finite = speeds[np.isfinite(speeds)]
    return float(np.quantile(finite, 0.995)) if finite.size else 0.0


def _colours(style: MapStyle) -> LinearColorMapper:
    """Return a colour for each byte: the last colour of the palette from the top on, and grey for missing values."""
    top, palette = (style.top - style.base) / style.unit, style.palette
    shades = [palette[min(255, int(256 * byte / top))] for byte in range(NONE)] if top > 0 else [palette[0]] * NONE
    return LinearColorMapper([*shades, "#d1d5db"], low=-0.5, high=NONE + 0.5)
