"""The tables of the report, as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.report.figures import METRICS, hours, some_leads, with_unit
from wsdcast.report.interactive_scores import interval_of
from wsdcast.report.panels import metric_on_globe, with_interval
from wsdcast.report.subjects import Subject
from wsdcast.verification.baselines import CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY
from wsdcast.verification.metrics import GLOBE


def summary(scores: xr.Dataset, of: Subject) -> str:
    """Return a table of all metrics of a subject with intervals at the first, a middle and the last lead time; forecasts are columns."""
    names, leads = [str(name) for name in scores["forecast"].values], scores["prediction_timedelta"].values
    rows = []
    for metric in METRICS:
        if (field := metric_on_globe(scores, metric)) is None or (metric == "energy_score" and not of.is_wind):
            continue
        for lead in some_leads(scores):
            at = {"prediction_timedelta": leads[lead], "region": GLOBE, "variable": of.name, "wind": of.vector}
            cells = []
            for name in names:
                position = {axis: value for axis, value in {"forecast": name, **at}.items() if axis in field.dims}
                interval = interval_of(scores, metric, forecast=name, **at)
                cells.append(with_interval(float(field.sel(position)), of.digits, interval) or "-")
            name = "" if lead else with_unit(metric, of)  # only in the first of its rows
            rows.append([name, f"{hours(scores.isel(prediction_timedelta=lead))} h", *cells])
    return html_table(["", "lead", *names], rows, headed=True)


def by_lead(scores: xr.Dataset, of: Subject) -> str:
    """Return a table of all lead times of a subject: CRPS of all forecasts, and further metrics of the first one."""
    columns: dict[str, NDArray[np.floating]] = {}
    for metric, label in (("crps_fair", "CRPS"), ("crps_standard", "standard CRPS"), ("rmse", "RMSE"), ("spread_skill", "spread / skill")):
        if (field := metric_on_globe(scores, metric)) is not None:
            field = field.sel(variable=of.name)
            names = field["forecast"].values if metric == "crps_fair" else field["forecast"].values[:1]
            columns |= {f"{label} {name}" if metric == "crps_fair" else label: field.sel(forecast=name).values for name in names}
    rows = [
        [
            f"{hours(scores.isel(prediction_timedelta=lead))} h",
            *(with_interval(column[lead], of.digits) or "-" for column in columns.values()),
        ]
        for lead in range(scores.sizes["prediction_timedelta"])
    ]
    return html_table(["lead", *columns], rows)


def regions(scores: xr.Dataset, of: Subject) -> str:
    """Return a table of scores of a subject of the first forecast by region, with their skill over climatology.

    Columns are the first, a middle and the last lead time.
    """
    ours = scores.isel(forecast=0)
    if "wind" in ours.dims and of.is_wind:
        ours = ours.sel(wind=of.vector)
    leads = [ours.isel(prediction_timedelta=lead) for lead in some_leads(ours)]
    columns = {"CRPS": ("crps_fair", of.name)}
    if of.is_wind:
        columns = {"u and v": ("crps_fair", of.name), "speed": ("crps_fair", of.speed), "energy score": ("energy_score", of.name)}
    columns = {label: (name, variable) for label, (name, variable) in columns.items() if metric_on_globe(scores, name) is not None}
    head = ["region", *(f"{label}\n{hours(at_lead)} h" for label in columns for at_lead in leads)]
    rows = []
    for region in scores["region"].values:
        cells = []
        for name, variable in columns.values():
            for at_lead in leads:
                at = at_lead.sel(region=region, variable=variable)
                cells.append(f"{float(at[name]):{of.digits}}{_skill(at, name)}" if np.isfinite(at[name]) else "no cell")
        rows.append([str(region), *cells])
    return html_table(head, rows, headed=True)


def _skill(at: xr.Dataset, name: str) -> str:
    """Return the skill over climatology as text, ``31 % [28, 34]`` on a line of its own; empty if it is not known."""
    skill = f"{name}_skill"
    climatologies = [name for name in at["reference"].values if name in (CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY)] if skill in at else []
    if not climatologies:
        return ""
    skills = at.sel(reference=climatologies[0])
    value, interval = 100 * float(skills[skill]), 100 * skills[f"{skill}_interval"].values
    return f"\n{with_interval(value, '.0f', interval, '%')}" if np.isfinite(value) else ""


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], headed: bool = False, bold: Sequence[bool] = ()) -> str:
    """Return a table as HTML. It scrolls horizontally if the page is narrower than the table.

    If ``headed``, the first cell of a row is its header. ``bold`` says which rows are bold; by default none is.
    """

    def row(cells: Sequence[str]) -> str:
        tags = ["th scope=row" if headed and not number else "td" for number in range(len(cells))]
        return "".join(f"<{tag}>{html.escape(cell)}</{tag[:2]}>" for tag, cell in zip(tags, cells, strict=True))

    names = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in head)
    weights = [" style=font-weight:600" * is_bold for is_bold in bold or [False] * len(rows)]
    body = "".join(f"<tr{weight}>{row(cells)}</tr>" for weight, cells in zip(weights, rows, strict=True))
    return f"<div class=wide tabindex=0><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"
