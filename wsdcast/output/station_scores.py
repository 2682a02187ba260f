"""``wsdcast score --stations``: scores of a forecast against observations at stations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import EARTH_RADIUS
from wsdcast.data.sources.foreign_forecasts import addresses_of
from wsdcast.data.steps import time_text
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, name_of, store_of
from wsdcast.output.blocks import LEAD
from wsdcast.output.convert import facts_of
from wsdcast.output.fields import Fields, open_fields
from wsdcast.output.observations import Observations, read_observations
from wsdcast.output.places import INTERPOLATION, interpolation, outside
from wsdcast.runs.complete import complete, complete_netcdf
from wsdcast.runs.errors import UserError, first_few
from wsdcast.runs.inputs import require_no_input
from wsdcast.runs.progress import track
from wsdcast.runs.summary import Summary
from wsdcast.verification.coordinates import with_attributes, write_netcdf
from wsdcast.verification.kernels import ranked
from wsdcast.verification.metrics import ABOUT, OF_VARIABLE, POINT_STATISTICS, PROBABILITIES
from wsdcast.verification.thresholds import THRESHOLDS

SCORES, TABLE = "station_scores.nc", "station_scores.csv"
ALL = "all stations"
ABOUT_STATIONS = {name: ABOUT[name] for name in ("crps_fair", "bias", "rmse", "spread", "spread_skill")} | {
    "pairs": ("pairs of forecast and observation", "1"),
    "forecasts": ("forecasts with a probability in the bin that speed exceeds the threshold", "1"),
    "mean_forecast": ("mean forecast probability of the forecasts in the bin", "1"),
    "observed_frequency": ("share of the forecasts in the bin whose observation exceeds the threshold", "1"),
}
"""Long name and unit of each score at stations."""


def score_stations(forecast: str | Path, stations: str | Path, run: str | Path | None = None, *, overwrite: bool = False) -> Summary:
    """Score a forecast of any origin against observations of 10 m wind, and write ``RUN/station_scores.nc`` and ``RUN/station_scores.csv``.

    The wind is interpolated bilinearly to each station. An observation counts at a valid time of the forecast; there is no interpolation in
    time.

    Args:
        forecast: path or URL of a store of forecasts, in any layout that :func:`wsdcast.score_forecast` reads; or a run directory with one.
        stations: table of observations (:func:`wsdcast.output.observations.read_observations`).
        run: directory for the scores; default: the run directory, or ``runs/<name of the store>``.
        overwrite: replace scores of another forecast or other stations.

    Raises:
        UserError: if the forecast or the table cannot be read, no observation is at a valid time and inside the forecast's grid, the
            forecast has no values there, or there are scores already or one of the inputs in their place.
    """
    if store_of(forecast) != str(forecast):
        run, forecast = run or forecast, store_of(forecast)
    directory = Path(run) if run is not None else Path("runs") / name_of(str(forecast))
    observed = read_observations(stations)
    fields = open_fields(str(forecast))
    fields.require_memory()
    targets = [directory / SCORES, directory / TABLE]
    require_no_input(targets, [*addresses_of(str(forecast)), stations], "", "another --run")
    for target in targets:
        if target.exists() and not overwrite:
            raise UserError(f"{target} is there already; choose another --run, or replace it with --overwrite")
    if not np.isin(fields.times[:, None] + fields.leads, observed.times).any():
        ends = " to ".join(time_text(moment) for moment in observed.times[[0, -1]])
        raise UserError(f"--stations {stations}: no observation at a valid time of {fields.name}; they are from {ends}, UTC")
    names, beyond = np.array(observed.stations.name), outside(fields.latitude, fields.longitude, observed.stations)
    if beyond.all():
        raise UserError(f"--stations {stations}: all lie outside of {fields.name}, whose grid is {fields.extent}")
    sums = _sums(fields, observed)
    pairs = int(sums["pairs"].sum())
    if not pairs:
        members = "its member" if fields.members == 1 else "two members"
        raise UserError(f"--stations {stations}: {fields.name} has no values of {members} at a station and time of an observation")
    scores = station_metrics(sums, observed)
    scores.attrs |= {"title": "scores at stations", "forecast": str(forecast), "stations": str(stations), "interpolation": INTERPOLATION}
    with complete_netcdf(targets[0]) as partial:
        write_netcdf(scores, partial)
    with complete(targets[1]) as partial:
        table = scores.drop_dims(["threshold", "probability"]).to_dataframe().reset_index()
        table.insert(2, "lead_hours", (table.pop(LEAD) / np.timedelta64(1, "h")).astype(int))
        table[table["pairs"] > 0].to_csv(partial, index=False, float_format="%.6g")
    without = sums["pairs"].sum(["variable", LEAD]).values == 0
    summary = Summary("score stations", scores=_rows(scores))
    summary.written = {
        str(targets[0]): "scores by station, lead time and variable, with reliability",
        str(targets[1]): "the same as a table",
    }
    summary.facts = facts_of(fields) | {
        "stations": f"{len(observed.stations.name)}, {pairs} pairs of a forecast and an observation"
        + (f"; {observed.missing} rows without a value are left out" if observed.missing else "")
        + (f"; outside the forecast: {first_few(names[beyond])}" if beyond.any() else "")
        + (f"; none at {first_few(names[without & ~beyond])}" if (without & ~beyond).any() else ""),
        "interpolation": INTERPOLATION,
        "representativeness": _representativeness(fields),
    }
    return summary


def _sums(fields: Fields, observed: Observations) -> xr.Dataset:
    """Return sums over initial times, by variable, station and lead time, of the statistics of all pairs, and their number."""
    stations, leads = len(observed.stations.name), fields.leads.size
    names = tuple(observed.values)
    to_stations = interpolation(fields.latitude, fields.longitude, observed.stations)
    total = {name: np.zeros((len(names), stations, leads)) for name in ("pairs", *POINT_STATISTICS)}
    reliability = np.zeros((stations, leads, len(THRESHOLDS), PROBABILITIES.size, 3))
    for row in track(range(fields.times.size), "scoring", fields.times.size):
        for first in range(0, leads, LEADS_PER_CHUNK):
            chunk = slice(first, min(first + LEADS_PER_CHUNK, leads))
            if not np.isin(fields.times[row] + fields.leads[chunk], observed.times).any():
                continue
            wind = to_stations(fields.read(row, chunk))  # (member, lead, channel, station)
            members = {"u": wind[:, :, 0], "v": wind[:, :, 1], "speed": np.hypot(wind[:, :, 0], wind[:, :, 1])}
            for step in range(wind.shape[1]):
                at = np.flatnonzero(observed.times == fields.times[row] + fields.leads[first + step])
                if not at.size:
                    continue
                for number, name in enumerate(names):
                    values = members[name][:, step]
                    left = values[np.isfinite(values).any(axis=1)]  # without members that were stopped
                    truth = observed.values[name][at[0]]
                    used = np.isfinite(truth) & np.isfinite(left).all(axis=0) & (len(left) >= min(2, len(values)))
                    if not used.any():
                        continue
                    pair = ranked(left[:, used].astype(np.float64), truth[used])
                    total["pairs"][number, used, first + step] += 1
                    for statistic, function in POINT_STATISTICS.items():
                        total[statistic][number, used, first + step] += function(pair)
                    if name == "speed":
                        _count(reliability[:, first + step], left, truth, used)
    dimensions = ("variable", "station", LEAD)
    coordinates = {"variable": list(names), "station": list(observed.stations.name), LEAD: fields.leads}
    sums = xr.Dataset({name: (dimensions, values) for name, values in total.items()}, coordinates)
    sums["reliability"] = ((*dimensions[1:], "threshold", "probability", "of"), reliability)
    return sums.assign_coords(threshold=list(THRESHOLDS), probability=PROBABILITIES, of=["pairs", "forecast", "observed"])


def _count(counts: NDArray[np.float64], members: NDArray[np.floating], truth: NDArray[np.float64], used: NDArray[np.bool_]) -> None:
    """Add to the number of forecasts, their probabilities and the observed events in bins of probability, (station, threshold, bin, of)."""
    stations = np.flatnonzero(used)
    for number, threshold in enumerate(THRESHOLDS):
        probability = (members[:, used] > threshold).mean(axis=0)
        bins = np.rint(probability * (PROBABILITIES.size - 1)).astype(np.intp)
        counts[stations, number, bins] += np.stack([np.ones_like(probability), probability, truth[used] > threshold], axis=-1)


def station_metrics(sums: xr.Dataset, observed: Observations) -> xr.Dataset:
    """Return the scores by station and, as a further station :data:`ALL`, of all pairs together.

    Returns:
        ``pairs``, ``crps_fair``, ``bias``, ``rmse``, ``spread`` (m s-1) and ``spread_skill`` (variable, station, prediction_timedelta), NaN
        without pairs, the last two also of a deterministic forecast; ``forecasts`` (their number), ``mean_forecast`` and
        ``observed_frequency`` (station, prediction_timedelta, threshold, probability), the last two NaN without forecasts.
    """
    together = sums.sum("station", skipna=False).expand_dims(station=[ALL])
    sums = xr.concat([sums, together], dim="station")
    pairs = sums["pairs"].where(sums["pairs"] > 0)
    mean = {name: sums[name] / pairs for name in POINT_STATISTICS}
    spread, skill = (mean[name].clip(min=0) ** 0.5 for name in ("variance", "squared_error_debiased"))
    counts, forecast, observed_events = (sums["reliability"].sel(of=name, drop=True) for name in ("pairs", "forecast", "observed"))
    of_bins = counts.where(counts > 0)
    scores = xr.Dataset(
        {
            "pairs": sums["pairs"].astype(int),
            "crps_fair": mean["crps_fair"],
            "bias": mean["bias"],
            "rmse": mean["squared_error"] ** 0.5,
            "spread": spread,
            "spread_skill": spread / skill.where(skill > 0),
            "forecasts": counts.astype(int),
            "mean_forecast": forecast / of_bins,
            "observed_frequency": observed_events / of_bins,
        }
    )
    for name, (long_name, units) in ABOUT_STATIONS.items():
        scores[name].attrs = {"long_name": long_name, "units": "m s-1" if units == OF_VARIABLE else units}
    places = observed.stations
    scores.coords["latitude"] = ("station", [*places.latitude, np.nan])
    scores.coords["longitude"] = ("station", [*places.longitude, np.nan])
    return with_attributes(scores)


def _rows(scores: xr.Dataset) -> list[dict[str, Any]]:
    """Rows for the terminal: one per lead time, the wind speed at all stations together."""
    together = scores.sel(station=ALL, variable="speed")
    rows = []
    for lead in together[LEAD].values:
        at = together.sel({LEAD: lead})
        if at["pairs"] > 0:
            names = ("crps_fair", "bias", "rmse", "spread_skill")
            rows.append(
                {"lead_hours": int(lead / np.timedelta64(1, "h")), "pairs": int(at["pairs"])} | {name: float(at[name]) for name in names}
            )
    return rows


def _representativeness(fields: Fields) -> str:
    """What a comparison of grid values with stations means, in words."""
    steps = np.abs(np.diff(fields.latitude))  # none along a parallel
    width = f" about {np.deg2rad(steps.mean()) * EARTH_RADIUS / 1000:.0f} km wide" if steps.size else ""
    return (
        f"a forecast value is the mean of a cell{width}, and a station has the wind of one point. What the grid does not resolve (hills, "
        "coasts, trees, gusts) counts as error here, and makes the spread look too small"
    )
