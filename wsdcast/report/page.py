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
from wsdcast.data.store import open_store, read_wind
from wsdcast.report.figures import forecast_maps, hours, score_curves, spectrum_ratios

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1f2937; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2rem; }
img { max-width: 100%; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #e5e7eb; } th { font-weight: 600; }
p.note { color: #6b7280; } pre { background: #f3f4f6; padding: 1rem; overflow-x: auto; font-size: .85rem; }
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
    both = scores.sel(variable="both")
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
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>{cells}</table>"
