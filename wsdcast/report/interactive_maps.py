"""Interactive maps of a forecast by initial time and lead time, and the ensemble at one place, for the report.

The page contains all data that can be chosen. Its callbacks only show another part of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, CustomJS, Select, Span, UIElement
from bokeh.palettes import Magma256, Viridis256
from bokeh.plotting import figure as Panel
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.steps import time_in_words
from wsdcast.report.chosen_place import ALONE, BANDS, MEDIAN, choose_on, plume_panel
from wsdcast.report.coastlines import coastlines
from wsdcast.report.map_panels import MapStyle, map_panels, top_of
from wsdcast.report.maps import Points, View, rising, view_of
from wsdcast.report.panels import INK, WIDGET, Row, days_of, in_hours, lead_slider, move_together
from wsdcast.report.plume import place as place_in_words
from wsdcast.report.shown_fields import (
    PLUME,
    Chosen,
    Field,
    ReadFields,
    Shown,
    as_bytes,
    base_of,
    byte_unit,
    byte_units,
    choose,
    read_shown,
)
from wsdcast.report.subjects import Subject

SHOW_MAPS = """
const ahead = lead.categories.indexOf(lead.value)
const at = Number(start.value) * days.length + ahead
const shown = {...maps.data}
for (const name of names) shown[name] = [library.data[name][at]]
maps.data = shown
title.text = `truth, ${valid[at]}`
now.location = days[ahead]
"""
SHOW_PLUME = """
const point = place.data.point[0]
const begin = (Number(start.value) * places.length + point) * names.length * days.length
const shown = {...plume.data}
names.forEach((name, row) => shown[name] = days.map((_, lead) => {
  const byte = bytes[begin + row * days.length + lead]
  return byte == 255 ? NaN : base + byte * unit
}))
shown.lead = lead.categories.map((ahead, number) => `${ahead}, valid ${valid[Number(start.value) * days.length + number]}`)
plume.data = shown
const is_empty = names.every(name => shown[name].every(Number.isNaN))
title.text = `${places[point]}, from ${starts[Number(start.value)]}${is_empty ? ': no values here' : ''}`
"""
MEMBER = {"member1": "first member", "member2": "second member", "member3": "third member"}
SHORT = {"truth": "truth", "mean": "mean", "spread": "spread", **MEMBER}
TITLES = {"truth": "truth", "mean": "ensemble mean", "spread": "spread of the ensemble", **MEMBER}


@dataclass(frozen=True)
class Maps:
    """The figures, their controls, and a note for the reader.

    Attributes:
        controls: selector of the initial time, slider of the lead time.
        maps: the panels.
        plume: the ensemble at one place.
        note: sentences about the bands of the plume, and about which data are not in the page.
    """

    controls: Sequence[UIElement]
    maps: Row
    plume: Row
    note: str


def interactive_maps(
    scores: xr.Dataset,
    grid: Grid,
    fields: ReadFields,
    on_earth: bool,
    subjects: Sequence[Subject],
    names: Sequence[str],
    inside: NDArray[np.bool_] | None = None,
) -> list[Maps]:
    """Return the maps and plumes of each subject of the first forecast in ``scores``. Its points are ``inside``; default: all."""
    chosen = choose(scores.sizes["time"], scores.sizes["prediction_timedelta"], grid, len(subjects), inside)
    shown = read_shown(fields, chosen, subjects, names)
    asked = ColumnDataSource({"at": []}, name="asked")
    maps = [_of_subject(scores, grid, on_earth, *each, chosen, asked) for each in zip(subjects, shown, strict=True)]
    for same in zip(*(each.controls for each in maps), strict=True):
        move_together(same)
    return maps


def _of_subject(
    scores: xr.Dataset, grid: Grid, on_earth: bool, of: Subject, values: Shown, chosen: Chosen, asked: ColumnDataSource
) -> Maps:
    """Return the maps and plumes of one subject. Where the forecast has no values, as outside a region, the truth is not shown either."""
    inside = np.any(np.isfinite(values.maps["mean"]), axis=0)
    known = np.any(np.isfinite(values.plumes[..., 1:, :]), axis=(0, 3, 4))
    if inside.any() and known.any():
        truth = np.where(inside, values.maps["truth"], np.nan)
        values = Shown(values.maps | {"truth": truth}, np.where(known[..., None, None], values.plumes, np.nan))
    base = 0.0 if of.is_wind else min(map(base_of, (values.plumes, *(values.maps[name] for name in values.maps if name != "spread"))))
    times, lead_times = scores["time"].values[chosen.starts], scores["prediction_timedelta"].values[chosen.leads]
    starts, first = [time_in_words(time) for time in times], lead_times.size // 2
    start = Select(
        title="Initial time",
        options=[(str(number), name) for number, name in enumerate(starts)],
        value="0",
        width=190,
        styles=WIDGET,
        name="start",
    )
    leads = in_hours(lead_times)
    lead = lead_slider(leads, first)

    points = grid.latitude[chosen.plume_rows], rising(grid.longitude[chosen.plume_columns])
    of_maps = grid.latitude[chosen.rows], rising(grid.longitude[chosen.columns])
    view = view_of(inside, *of_maps)
    maps, shown, library = _maps(values.maps, of_maps, first, on_earth, of, base, view)
    place = choose_on(maps, asked, *points, known, view)
    (point,) = place.data["point"]
    unit = byte_unit(values.plumes, base)
    first_plume = dict(zip(PLUME, values.plumes[0].reshape(-1, *values.plumes.shape[-2:])[point], strict=True))
    valid = [time_in_words(time + step) for time in times for step in lead_times]
    words = [f"{ahead}, valid {time}" for ahead, time in zip(leads, valid, strict=False)]  # those from the first initial time
    series = ColumnDataSource(first_plume | {"x": days_of(lead_times), "lead": words}, name="plume")
    alone = "spread" not in values.maps
    plume = plume_panel(series, of, unit, times, start, alone=alone)
    now = Span(location=days_of(lead_times)[first], dimension="height", line_color=INK, line_dash="dashed")
    plume.add_layout(now)
    places = [place_in_words(latitude, longitude) for latitude in points[0] for longitude in points[1]]
    maps[0].title.text, plume.title.text = f"truth, {valid[first]}", f"{places[point]}, from {starts[0]}"

    shared = {"start": start, "lead": lead, "days": days_of(lead_times).tolist(), "valid": valid}
    map_args = {"maps": shown, "library": library, "names": list(values.maps), "title": maps[0].title, "now": now}
    plume_args = {"plume": series, "names": list(PLUME), "bytes": as_bytes(values.plumes, unit, base).ravel(), "place": place}
    plume_args |= {"unit": unit, "base": base}
    show_maps = CustomJS(args=shared | map_args, code=SHOW_MAPS)
    show_plume = CustomJS(args=shared | plume_args | {"places": places, "starts": starts, "title": plume.title}, code=SHOW_PLUME)
    start.js_on_change("value", show_maps, show_plume)
    lead.js_on_change("value", show_maps)
    place.js_on_change("data", show_plume)
    note = "" if alone else f"{BANDS} "
    note += _left_out(scores, chosen, byte_units(values.maps, base)["truth"], of)
    return Maps([start, lead], Row(maps, {}), Row([plume], {"truth": (INK, "solid")} | (ALONE if alone else MEDIAN)), note)


def _maps(
    maps: dict[str, Field], points: Points, first: int, on_earth: bool, of: Subject, base: float, view: View
) -> tuple[list[Panel], ColumnDataSource, ColumnDataSource]:
    """Return the panels, the data that they show, and the data of all maps; fields are bytes, by name, at points."""
    units, bases = byte_units(maps, base), {name: 0.0 if name == "spread" else base for name in maps}
    images = {name: list(as_bytes(field[:, ::-1], units[name], bases[name])) for name, field in maps.items()}
    library = ColumnDataSource(images, name="library")
    shown = ColumnDataSource({name: [images[first]] for name, images in library.data.items()}, name="maps")
    top = top_of(maps["truth"]) or top_of(maps["mean"])
    styles = {
        name: MapStyle(TITLES[name], SHORT[name], Viridis256, units[name], top, of.units, of.digits_of(units[name]), base=bases[name])
        for name in maps
    }
    if "spread" in maps:
        styles["spread"] = replace(styles["spread"], palette=Magma256, top=top_of(maps["spread"]), symbol=of.spread_units)
    return map_panels(shown, styles, *points, coastlines() if on_earth else [], view), shown, library


def _left_out(scores: xr.Dataset, chosen: Chosen, unit: float, of: Subject) -> str:
    """Return sentences that say which part of the forecast is not in the page, and how values are rounded."""
    parts = []
    for name, dimension, axis in (("initial times", "time", chosen.starts), ("lead times", "prediction_timedelta", chosen.leads)):
        whole = scores.sizes[dimension]
        if axis.size < whole:
            parts.append(f"{axis.size} of {whole} {name}")
    stride, spacing = (np.diff(axis, prepend=axis[0] - 1).max() for axis in (chosen.columns, chosen.plume_columns))
    if stride > 1:
        parts.append(f"one of {stride} by {stride} points of the grid")
    text = f"To keep the page small, the maps show {' and '.join(parts)}. " if parts else ""
    if spacing > 1:
        text += f"Places can be chosen {spacing} points of the grid apart. "
    return f"{text}{'Speeds' if of.is_wind else 'Values'} are rounded to {unit:.2g} {of.units}."
