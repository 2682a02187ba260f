"""The report: one HTML file that holds everything it shows."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from wsdcast.data.analysis import Analysis
from wsdcast.data.store import SPEED, open_store, read_wind
from wsdcast.report.figures import forecast_maps, hours, rank_histograms, reliability, score_curves, some_leads, spectrum_ratios
from wsdcast.verification.statistics import BOTH

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1f2937; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2rem; }
img { max-width: 100%; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #e5e7eb; } th { font-weight: 600; }
.wide { overflow-x: auto; } p.note { color: #6b7280; } pre { background: #f3f4f6; padding: 1rem; overflow-x: auto; font-size: .85rem; }
"""


def write_report(path: Path, scores: xr.Dataset, record: Analysis, forecast: Path, title: str, about: str, recipe: str) -> None:
    """Write the report of one run.

    Args:
        path: of the HTML file.
        scores: as in ``scores.nc``.
        record: the prepared record, for the truth.
        forecast: store whose first start is shown as maps.
        title: name of the run.
        about: one line on data, grid, starts and members.
        recipe: text of the recipe, shown at the end.
    """
    with open_store(forecast) as store:
        last = store.isel(time=0, prediction_timedelta=-1)
        members = read_wind(last)
        members = members[np.isfinite(members).all(axis=(1, 2, 3))]  # those that were not stopped
        start, lead = last["time"].values, last["prediction_timedelta"].values
    truth = record.wind[np.searchsorted(record.times, start + lead)]
    when = f"{start.astype('datetime64[h]')} + {int(lead / np.timedelta64(1, 'h'))} h, wind speed"
    parts = [
        f"<h1>Ensemble forecast of 10 m wind: {html.escape(title)}</h1><p class=note>{html.escape(about)}</p>",
        "<h2>Scores by lead time</h2>",
        picture(score_curves(scores), "Fair CRPS, RMSE and spread/skill against lead time"),
        _table(scores),
        "<p class=note>Both wind components, all starts, weighted by area. CRPS in m/s, fair: its expectation does not depend on the "
        "number of members; the standard one is biased upward. Persistence and climatology are the forecasts to beat; 'moments alone' "
        "draws independent Gaussian values from the warm-start network.</p>",
        "<h2>Where, and better than what?</h2>",
        _regions(scores),
        "<p class=note>Fair CRPS in m/s at the first, a middle and the last lead time; in brackets its skill over climatology, "
        "1 - score / score of climatology in percent, with 95 % of bootstrap samples of the start dates. Energy score: the same for whole "
        "fields of the wind vector, which sees what is wrong between places.</p>",
        "<h2>Is it as uncertain as it says?</h2>",
        picture(rank_histograms(scores), "Rank histograms"),
        picture(reliability(scores), "Reliability of probabilities of strong wind"),
        "<p class=note>Above: a flat histogram is right, one with high ends has too little spread. Below: of the cells where strong wind "
        "was forecast with a probability, the share that had it.</p>",
        "<h2>Does it look like wind?</h2>",
        picture(spectrum_ratios(scores), "Ratio of power spectra"),
        "<p class=note>Mean power of members over mean power of the truth, along latitude circles without the pole rows. 1 is right; the "
        "band is 20 %.</p>",
        "<h2>One forecast</h2>",
        picture(forecast_maps(members, truth, record.grid, when), "Maps of truth, mean, spread and members"),
        f"<h2>Recipe</h2><pre>{html.escape(recipe)}</pre>",
    ]
    page = f"<!doctype html><html lang=en><head><meta charset=utf-8><title>wsdcast: {html.escape(title)}</title>"
    path.write_text(f"{page}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n", encoding="utf-8")


def picture(figure: Figure, alternative: str) -> str:
    """A figure as an image inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img alt="{alternative}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _table(scores: xr.Dataset) -> str:
    both = scores.sel(variable="both", region="globe")
    ours = both.sel(forecast="wsdcast")
    names = [str(name) for name in both["forecast"].values]
    head = ["lead", *(f"CRPS {name}" for name in names), "standard CRPS", "RMSE", "spread / skill", "largest spectrum deviation"]
    rows = []
    for lead in range(both.sizes["prediction_timedelta"]):
        here = ours.isel(prediction_timedelta=lead)
        crps = both["crps_fair"].isel(prediction_timedelta=lead).values
        deviation = f"{100 * float(here['power_deviation']):.0f} %"
        numbers = [*crps, float(here["crps_standard"]), float(here["rmse"]), float(here["spread_skill"])]
        rows.append([f"{hours(here)} h", *(f"{number:.3f}" for number in numbers), deviation])
    return _html_table(head, rows)


def _regions(scores: xr.Dataset) -> str:
    """Scores of our forecast by region, with their skill."""
    ours = scores.sel(forecast="wsdcast", reference="climatology")
    leads = [ours.isel(prediction_timedelta=lead) for lead in some_leads(ours)]
    what = {"u and v": ("crps_fair", BOTH), "speed": ("crps_fair", SPEED), "energy score": ("energy_score", None)}
    head = ["region", *(f"{label}, {hours(here)} h" for label in what for here in leads)]
    rows = []
    for region in scores["region"].values:
        cells = []
        for name, variable in what.values():
            for here in leads:
                at = here.sel(region=region) if variable is None else here.sel(region=region, variable=variable)
                percent = (100 * float(value) for value in (at[f"{name}_skill"], *at[f"{name}_skill_interval"]))
                skill, low, high = (f"{value:.0f}" for value in percent)
                cells.append(f"{float(at[name]):.3f} ({skill} [{low}, {high}])" if np.isfinite(at[name]) else "no cell")
        rows.append([str(region), *cells])
    return _html_table(head, rows)


def _html_table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    return f"<div class=wide><table><tr>{names}</tr>{cells}</table></div>"
