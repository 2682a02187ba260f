"""Interactive figures of the scores for the report. Tooltips have values, units and intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import BoxAnnotation, ColorBar, ColumnDataSource, FixedTicker, LinearColorMapper, NumeralTickFormatter, Range1d
from bokeh.palettes import RdBu, Viridis256, interp_palette
from bokeh.plotting import figure as Panel
from numpy.typing import NDArray

from wsdcast.report.figures import CURVES, METRICS, hours, probability_bins, some_leads, unit_of
from wsdcast.report.panels import (
    DASHES,
    FAINT,
    INK,
    TOOLTIP,
    Row,
    add_line,
    days_of,
    hover,
    in_hours,
    mark_perfect,
    metric_on_globe,
    panel,
    say_all,
    with_interval,
)
from wsdcast.report.style import THRESHOLDS, Look, components_of, looks
from wsdcast.report.subjects import Subject
from wsdcast.verification.baselines import BASELINES
from wsdcast.verification.spectra import wavelength_of_wavenumber

EQUATOR = float(wavelength_of_wavenumber(1))
"""Length of the equator in km."""
WAVELENGTHS = [round(number * 10.0**power) for power in range(5) for number in (1, 2, 5)]
"""Positions of the ticks in km."""


def interval_of(scores: xr.Dataset, name: str, **where: Any) -> NDArray[np.floating] | None:
    """Return the interval of a metric, (bound, ...); None if it has no interval."""
    name = f"{name}_interval"
    if name not in scores:
        return None
    return scores[name].sel({axis: at for axis, at in where.items() if axis in scores[name].dims}).transpose("bound", ...).values


def score_curves(scores: xr.Dataset, of: Subject) -> Row:
    """Draw fair CRPS, RMSE of the mean and spread/skill with intervals against lead time, for both components of a wind together."""
    lines, figures = looks(scores["forecast"].values), []
    for metric in CURVES:
        label, unit = METRICS[metric], unit_of(metric, of)
        if (field := metric_on_globe(scores, metric)) is None:
            continue
        on, curves = panel(label, "lead time (days)", unit), []
        leads = field["prediction_timedelta"].values
        said = in_hours(leads)
        for name, line in lines.items():
            values = field.sel(forecast=name, variable=of.name).values
            if not np.isfinite(values).any():
                continue
            interval = interval_of(scores, metric, forecast=name, variable=of.name, region="globe")
            low, high = np.full((2, values.size), np.nan) if interval is None else interval
            curves.append(add_line(on, line, {"x": days_of(leads), "y": values, "low": low, "high": high}))
            cells = zip(said, values, low, high, strict=True)
            said = [f"{text}\n{name}: {with_interval(value, of.digits, bounds, unit) or '-'}" for text, value, *bounds in cells]
        say_all(on, curves, said)
        on.y_range.start = 0
        if metric == "spread_skill":
            mark_perfect(on)
        figures.append(on)
    return Row(figures, lines)


def rank_histograms(scores: xr.Dataset, of: Subject) -> Row:
    """Draw rank histograms at the first, a middle and the last lead time; those of a wind are of u, v and speed."""
    components = components_of(of)
    lines = dict(components.values())
    field = metric_on_globe(scores.isel(forecast=0), "rank_histogram")
    if field is None:
        return Row([], {})
    field = field.dropna("rank", how="all")
    field, figures = field * field.sizes["rank"], []
    for lead in some_leads(field):
        histogram = field.isel(prediction_timedelta=lead)
        on = panel(f"{hours(histogram)} h ahead", "members below the truth", "frequency / that of a flat one")
        on.y_range, steps = Range1d(0, 1.1 * float(field.sel(variable=list(components)).max())), []
        ranks = histogram["rank"].values
        said = [f"{rank} below" for rank in ranks]
        for variable, (name, (colour, dash)) in components.items():
            values = histogram.sel(variable=variable).values
            source = ColumnDataSource({"x": ranks, "y": values})
            on.step("x", "y", source=source, mode="center", line_color=colour, line_dash=DASHES[dash], line_width=2)
            steps.append(on.line("x", "y", source=source, line_alpha=0))  # steps have no tooltips in Bokeh
            said = [f"{text}\n{name}: {value:.2f}" for text, value in zip(said, values, strict=True)]
        say_all(on, steps, said)
        mark_perfect(on)
        figures.append(on)
    return Row(figures, lines)


def reliability(scores: xr.Dataset) -> Row:
    """Draw observed frequency against the forecast probability that speed exceeds a threshold. Dots grow with the area."""
    field = metric_on_globe(scores.isel(forecast=0), "reliability")
    if field is None:
        return Row([], {})
    looks = zip(THRESHOLDS, ("solid", "dashed", "dotdash"), strict=True)
    lines = {f"above {threshold:g} m/s": look for threshold, look in zip(field["threshold"].values, looks, strict=False)}
    figures = []
    for lead in some_leads(field):
        at_lead, dots = field.isel(prediction_timedelta=lead), []
        on = panel(f"{hours(at_lead)} h ahead", "forecast probability", "observed frequency", x_range=(-0.03, 1.03), y_range=(-0.03, 1.03))
        on.line([0, 1], [0, 1], line_color=INK)
        for threshold, (name, (colour, dash)) in zip(at_lead["threshold"].values, lines.items(), strict=False):
            _, share, forecast, observed = probability_bins(at_lead.sel(threshold=threshold))
            said = [
                f"{name}: forecast {100 * x:.0f} %, observed {100 * y:.0f} %, {100 * part:.2g} % of the area"
                for x, y, part in zip(forecast, observed, share, strict=True)
            ]
            source = ColumnDataSource({"x": forecast, "y": observed, "size": 4 + 12 * np.sqrt(share), "said": said})
            on.line("x", "y", source=source, line_color=colour, line_dash=DASHES[dash])
            dots.append(on.scatter("x", "y", source=source, size="size", color=colour))
        hover(on, dots, TOOLTIP)
        figures.append(on)
    return Row(figures, lines)


def spectrum_ratios(scores: xr.Dataset, of: Subject) -> Row:
    """Draw the ratio of the members' zonal power to the truth's by wavelength.

    The first panel has curves at the first, a middle and the last lead time. Further panels have all of each forecast as colours.
    """
    field = metric_on_globe(scores, "power_ratio")
    if field is None:
        return Row([], {})
    field = field.sel(variable=of.name).isel(wavenumber=slice(1, None))
    wavelength = EQUATOR / field["wavenumber"].values
    on = _waves(f"{field['forecast'].values[0]}, by lead time", "power of members / truth", wavelength, y_axis_type="log")
    curves, lines, looks = [], dict[str, Look](), ((Viridis256[20], "solid"), (Viridis256[110], "dashed"), (Viridis256[190], "dotdash"))
    for lead, look in zip(some_leads(field), looks, strict=False):
        ratios = field.isel(forecast=0, prediction_timedelta=lead)
        lines[f"{hours(ratios)} h"] = look
        said = [
            f"{hours(ratios)} h, {length:,.0f} km (wavenumber {wave}): {ratio:.2f}"
            for length, wave, ratio in zip(wavelength, ratios["wavenumber"].values, ratios.values, strict=True)
        ]
        curves.append(add_line(on, look, {"x": wavelength, "y": ratios.values, "said": said}))
    hover(on, curves, TOOLTIP)
    mark_perfect(on)
    on.add_layout(BoxAnnotation(bottom=0.8, top=1.2, fill_color=INK, fill_alpha=0.08, line_color=None, level="underlay"))
    shown = [str(name) for name in field["forecast"].values if name not in BASELINES]
    return Row([on, *(_by_wavelength_and_lead(field.sel(forecast=name)) for name in shown)], lines)


def _waves(title: str, y_label: str, wavelength: NDArray[np.floating], **options: Any) -> Panel:
    """Return an empty figure with a logarithmic axis of wavelengths, the longest on the left."""
    on = panel(title, "wavelength at the equator (km)", y_label, x_axis_type="log", **options)
    on.x_range.flipped = True
    on.xaxis.ticker = FixedTicker(ticks=[tick for tick in WAVELENGTHS if wavelength.min() <= tick <= wavelength.max()])
    on.xaxis.formatter = NumeralTickFormatter(format="0")
    return on


def _by_wavelength_and_lead(field: xr.DataArray) -> Panel:
    """Draw the ratios of one forecast, (prediction_timedelta, wavenumber), as colours."""
    waves, leads = field["wavenumber"].values, days_of(field["prediction_timedelta"].values)
    half = np.diff(leads, prepend=0).min() / 2  # of the shortest step; 0 is prepended, since the first lead time is not 0
    lead, wave = (axis.ravel() for axis in np.meshgrid(leads, waves, indexing="ij"))
    data = {
        "left": EQUATOR / np.sqrt(wave * np.maximum(wave - 1, 0.5)),
        "right": EQUATOR / np.sqrt(wave * (wave + 1)),
        "bottom": lead - half,
        "top": lead + half,
        "ratio": field.transpose("prediction_timedelta", "wavenumber").values.ravel(),
    }
    source = ColumnDataSource({name: values.astype(np.float32) for name, values in data.items()} | {"wave": wave.astype(np.int32)})
    colours = LinearColorMapper(interp_palette(RdBu[11], 101), low=0.5, high=1.5, nan_color=FAINT)
    on = _waves(f"{field['forecast'].values}, all lead times", "lead time (days)", EQUATOR / waves)
    colour = {"field": "ratio", "transform": colours}
    cells = on.quad(source=source, fill_color=colour, line_color=colour, line_width=1)  # lines close the gaps between cells
    hover(on, [cells], "<div>@wave{0} waves round the globe<br>members / truth: <b>@ratio{0.00}</b></div>")
    on.y_range.range_padding = on.x_range.range_padding = 0
    on.add_layout(ColorBar(color_mapper=colours, width=8, ticker=FixedTicker(ticks=[0.5, 0.75, 1, 1.25, 1.5])), "right")
    return on
