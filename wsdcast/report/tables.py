"""The tables of the report, as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.store.zarr_store import SPEED
from wsdcast.report.figures import METRICS, hours, some_leads, with_unit
from wsdcast.report.interactive_scores import interval_of, with_interval
from wsdcast.report.panels import found
from wsdcast.verification.baselines import CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY
from wsdcast.verification.statistics import BOTH, GLOBE


def summary(scores: xr.Dataset) -> str:
    """Every metric at the first, a middle and the last lead time, all forecasts side by side, with intervals."""
    names = [str(name) for name in scores["forecast"].values]
    rows = []
    for metric in METRICS:
        if (field := found(scores, metric)) is None:
            continue
        for lead in some_leads(scores):
            at = {"prediction_timedelta": scores["prediction_timedelta"].values[lead], "variable": BOTH, "region": GLOBE}
            cells = []
            for name in names:
                here = {axis: value for axis, value in {"forecast": name, **at}.items() if axis in field.dims}
                cells.append(with_interval(float(field.sel(here)), interval_of(scores, metric, forecast=name, **at), ""))
            name = "" if lead else with_unit(metric)  # once for its lead times
            rows.append([name, f"{hours(scores.isel(prediction_timedelta=lead))} h", *cells])
    return html_table(["", "lead", *names], rows, headed=True)


def by_lead(scores: xr.Dataset) -> str:
    """CRPS of all forecasts and what else there is of the reported one, at every lead time."""
    columns: dict[str, NDArray[np.floating]] = {}
    for metric, label in (("crps_fair", "CRPS"), ("crps_standard", "standard CRPS"), ("rmse", "RMSE"), ("spread_skill", "spread / skill")):
        if (field := found(scores, metric)) is not None:
            field = field.sel(variable=BOTH)
            names = field["forecast"].values if metric == "crps_fair" else field["forecast"].values[:1]
            columns |= {f"{label} {name}" if metric == "crps_fair" else label: field.sel(forecast=name).values for name in names}
    rows = [
        [f"{hours(scores.isel(prediction_timedelta=lead))} h", *(with_interval(column[lead], None, "") for column in columns.values())]
        for lead in range(scores.sizes["prediction_timedelta"])
    ]
    return html_table(["lead", *columns], rows)


def regions(scores: xr.Dataset) -> str:
    """Scores of the reported forecast by region at the first, a middle and the last lead time, with their skill over climatology."""
    ours = scores.isel(forecast=0)
    leads = [ours.isel(prediction_timedelta=lead) for lead in some_leads(ours)]
    what = {"u and v": ("crps_fair", BOTH), "speed": ("crps_fair", SPEED), "energy score": ("energy_score", None)}
    what = {label: (name, variable) for label, (name, variable) in what.items() if found(scores, name) is not None}
    head = ["region", *(f"{label}\n{hours(here)} h" for label in what for here in leads)]
    rows = []
    for region in scores["region"].values:
        cells = []
        for name, variable in what.values():
            for here in leads:
                at = here.sel(region=region) if variable is None else here.sel(region=region, variable=variable)
                cells.append(f"{float(at[name]):.3f}{_skill(at, name)}" if np.isfinite(at[name]) else "no cell")
        rows.append([str(region), *cells])
    return html_table(head, rows, headed=True)


def _skill(at: xr.Dataset, name: str) -> str:
    """``31 % [28, 34]`` on a line of its own, if it is known."""
    skill = f"{name}_skill"
    climate = [name for name in at["reference"].values if name in (CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY)] if skill in at else []
    if not climate:
        return ""
    over = at.sel(reference=climate[0])
    value, interval = 100 * float(over[skill]), 100 * over[f"{skill}_interval"].values
    return f"\n{with_interval(value, interval, '%', 0)}" if np.isfinite(value) else ""


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], headed: bool = False) -> str:
    """A table that scrolls by itself where the page is narrow.

    Args:
        head: names of the columns.
        rows: their cells.
        headed: whether the first cell of a row is its name.
    """

    def row(cells: Sequence[str]) -> str:
        tags = ["th scope=row" if headed and not number else "td" for number in range(len(cells))]
        return "".join(f"<{tag}>{html.escape(cell)}</{tag[:2]}>" for tag, cell in zip(tags, cells, strict=True))

    names = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{row(cells)}</tr>" for cells in rows)
    return f"<div class=wide tabindex=0><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"
