"""Single figures of a run, for papers and talks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Real
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wsdcast.data.sources.conventions import channels_in
from wsdcast.data.steps import time_in_words, time_text
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.forecasts import QUANTILES, loaded, row_of
from wsdcast.data.store.zarr_store import open_store
from wsdcast.report import animation, figures, style
from wsdcast.report.coastlines import coastlines_of
from wsdcast.report.maps import Lines, forecast_maps
from wsdcast.report.panels import times_in_words
from wsdcast.report.plume import nearest, place, plume
from wsdcast.report.subjects import WIND, Subject, subject
from wsdcast.report.tails import tails_figure
from wsdcast.report.targets import targets_figure
from wsdcast.runs import devices
from wsdcast.runs.artefact import read_stamp, require, resolve
from wsdcast.runs.complete import complete
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS, FORECAST, INITIAL_STATES, SCORES, FigureName
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.summary import Summary
from wsdcast.runs.times import TimeLike
from wsdcast.training.predictions import CHECKED, batches_of
from wsdcast.verification.truth import Truth, open_truth, truth_of
from wsdcast.warmstart.tails import tails_of
from wsdcast.weather.harmonic_transform import spherical_transform
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import samples_of
from wsdcast.weather.solver_choice import without_auto
from wsdcast.weather.stages.score_output import read_scores
from wsdcast.weather.trained import trained

OF_NETWORKS: tuple[FigureName, ...] = ("tails", "targets")
"""Figures of the trained networks and the test split."""

OF_SCORES: dict[FigureName, tuple[Callable[[xr.Dataset], Figure], tuple[str, ...]]] = {
    "curves": (figures.score_curves, ("crps_fair", "rmse", "spread_skill")),
    "regions": (figures.region_skill, ("crps_fair_skill",)),
    "ranks": (figures.rank_histograms, ("rank_histogram",)),
    "reliability": (figures.reliability, ("reliability",)),
    "spectra": (figures.spectrum_ratios, ("power_ratio",)),
}
"""Figures of scores: the function that draws each, and the metrics that it needs."""

OPTIONS: dict[FigureName, tuple[str, ...]] = {"maps": ("start", "lead-time"), "plume": ("start", "at"), "animation": ("start",)}
"""Figures of one forecast, and the options of the command that each takes."""


@devices.own_torch_settings()
def plot(
    figure: FigureName,
    recipe: str | Path | Recipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    out: str | Path | None = None,
    start: TimeLike | None = None,
    lead_hours: float | None = None,
    at: tuple[float, float] | None = None,
) -> Summary:
    """Draw one figure of a run.

    Args:
        figure: ``curves``, ``regions``, ``ranks``, ``reliability`` and ``spectra`` show the scores. ``tails`` and ``targets`` show the
            trained networks. ``maps``, ``plume`` and ``animation`` show one forecast.
        recipe: path or name of a recipe; default: the one of the forecast.
        run: run directory; default ``runs/<recipe name>``.
        out: file to write. Its suffix gives the format: png, pdf or svg; gif or mp4 for the animation. Default ``RUN/<figure>.png`` or
            ``.gif``.
        start: initial time of maps, plume and animation, UTC; default: the first of the forecast.
        lead_hours: lead time of the maps; default: the last of the forecast.
        at: latitude and longitude of the plume, degrees.

    Raises:
        UserError: if there is no such figure, an artefact that it needs is missing, an option does not go with it, or its format cannot be
            written.
    """
    resolved, directory = resolve(recipe, run, Recipe, FORECAST)
    if figure not in OF_NETWORKS:
        resolved = without_auto(resolved, directory)
    path = Path(out) if out is not None else directory / f"{figure}.{'gif' if figure == 'animation' else 'png'}"
    at = None if at is None else _place_of(at)
    _check(figure, path, {"start": start, "lead-time": lead_hours, "at": at})
    summary = Summary("plot")
    if figure in OF_NETWORKS:
        drawn = _of_networks(figure, resolved, directory, summary)
    elif figure in OF_SCORES:
        draw, needed = OF_SCORES[figure]
        drawn = draw(_scores(resolved, directory, needed))
    else:
        forecast, truth = _forecast_and_truth(resolved, directory)
        lines = coastlines_of(resolved.data.source)
        with open_store(forecast) as store:
            row = 0 if start is None else row_of(store["time"].values, start, forecast)
            summary.facts["initial time"] = time_text(store["time"].values[row])
            if not (kept := channels_in(store)):
                raise UserError(f"{forecast}: has scores and no fields (rollout --score); {figure} needs fields")
            names, headline = [name for name in truth.variables if name in kept], resolved.score.headline
            shown = subject(names, headline)
            if headline is not None and headline not in (shown.name, shown.speed, *shown.channels):
                raise UserError(f"score.headline: {headline} is not in {forecast}, only {', '.join(names)}")
            if figure != "plume" and "number" not in store[shown.channels[0]].dims:
                raise UserError(f"{forecast}: has only statistics over members (rollout.keep); {figure} needs the members")
            if figure == "maps":
                drawn = _maps(store.isel(time=row), truth, shown, lead_hours, forecast, lines)
            elif figure == "plume" and at is not None:
                drawn, summary.facts["grid point"] = _plume(store.isel(time=row), truth, *at, forecast, shown)
    with complete(path) as partial:
        if figure == "animation":
            animation.animate(forecast, truth, partial, row, lines, resolved.score.headline)
        else:
            style.save(drawn, partial)
    summary.written[str(path)] = figure
    return summary


def _check(figure: FigureName, path: Path, options: dict[str, object]) -> None:
    """Check the format and the options of a figure before anything is read.

    Raises:
        UserError: if there is no such figure, it cannot be written in this format, does not take an option, lacks one, or one is of a wrong
            type.
    """
    if figure not in get_args(FigureName):
        raise UserError(f"figure '{figure}': expected {', '.join(get_args(FigureName))}")
    formats = animation.FORMATS if figure == "animation" else style.FORMATS
    if path.suffix.lower() not in formats:
        raise UserError(f"--out {path}: {figure} can be written as {', '.join(formats)}, not as '{path.suffix}'")
    if path.is_dir():
        raise UserError(f"--out {path}: is a directory")
    if figure == "animation":
        animation.require_writer(path)
    for option, value in options.items():
        if value is not None and option not in OPTIONS.get(figure, ()):
            raise UserError(f"--{option} does not go with {figure}")
    if figure == "plume" and options["at"] is None:
        raise UserError("plume: of which place? --at LATITUDE,LONGITUDE, such as --at 52.5,13.4")
    if not isinstance(options["lead-time"], Real | None):
        raise UserError(f"lead_hours {options['lead-time']!r}: expected a number of hours")


def _place_of(at: Iterable[float]) -> tuple[float, float]:
    """Latitude and longitude.

    Raises:
        UserError: if they are not two numbers.
    """
    try:
        latitude, longitude = map(float, () if isinstance(at, str) else at)
    except (TypeError, ValueError):
        raise UserError(f"--at {at!r}: expected latitude and longitude in degrees, such as (52.5, 13.4)") from None
    return latitude, longitude


def _forecast_and_truth(recipe: Recipe, directory: Path) -> tuple[Path, Truth]:
    """The store of forecasts in a run directory, and what is known of the truth: the record, or only the initial states of a model file.

    Raises:
        UserError: if one of them is missing, or the forecast was made from another recipe or from inputs that were replaced since.
    """
    forecast, states = directory / FORECAST, directory / INITIAL_STATES
    if states.exists() and not (directory / ANALYSIS).exists() and read_stamp(forecast) is not None:
        with open_store(forecast) as store:
            return forecast, open_truth(str(states), directory, store["time"].values.min(), channels_in(store))
    forecast = require(recipe, directory, FORECAST)
    record = open_analysis(require(recipe, directory, ANALYSIS), whole=False)
    return forecast, truth_of(record, record.variables)


def _scores(recipe: Recipe, directory: Path, needed: tuple[str, ...]) -> xr.Dataset:
    """The scores, with the metrics that a figure needs.

    Raises:
        UserError: if there are no scores, they belong to another forecast than the one in the run directory, or a metric is missing.
    """
    path = directory / SCORES
    if not path.exists():
        require(recipe, directory, SCORES)
    scores = read_scores(path)
    # Scores without a forecast next to them were moved, and those against another truth have no stamp: nothing to compare them with.
    if (directory / FORECAST).exists() and "forecast" not in scores.attrs:
        require(recipe, directory, SCORES)
    if "region" not in scores.dims:
        raise UserError(f"{path}: has no scores by region; it is of an older version, run `wsdcast score` again")
    if missing := [name for name in needed if name not in scores]:
        winds = "; it is of 10 m wind only" if missing[0] == "reliability" else ""
        raise UserError(f"{path}: has no {missing[0]}{winds}")
    scores = figures.at_scored_leads(scores)
    judged = scores.isel(forecast=0)
    if not any(np.isfinite(judged[name]).any() for name in needed):
        raise UserError(f"{path}: {' and '.join(needed)} of {judged['forecast'].item()} could not be computed")
    return scores


def _of_networks(figure: str, recipe: Recipe, directory: Path, summary: Summary) -> Figure:
    """A figure of samples of the test split and the prior: ``tails``, or ``targets`` of the path blur-noise.

    Raises:
        UserError: if no networks are trained, their moments are a user's model, or the test split has no sample.
    """
    if recipe.generator.prior == "given":
        raise UserError(f"{figure} of the prior given cannot be drawn: its moments are a model of yours, which is in no file")
    record = open_analysis(require(recipe, directory, ANALYSIS), past_states=recipe.forcings.past_states)
    networks = trained(recipe, directory, record)
    (samples,) = samples_of(record, networks.forcings, "test")
    if not len(samples):
        raise UserError(f"{directory / ANALYSIS}: the test split has no context with the state after it, 6 h apart, and {figure} need one")
    chosen = torch.arange(0, len(samples), -(-len(samples) // CHECKED))
    if figure == "targets":
        with torch.inference_mode():
            data = [networks.prior_of(samples.context(batch)).normalise(samples.target(batch)) for batch in batches_of(samples, chosen)]
            weights = torch.from_numpy(record.grid.area_weights)[:, None]

            def power(fields: torch.Tensor) -> np.ndarray:
                waves = torch.fft.rfft(fields.double(), dim=-1, norm="forward").abs().square()
                return np.asarray((waves * weights).mean(dim=(0, 1, 2))[1:])

            wavenumbers = np.arange(1.0, record.grid.longitude.size // 2 + 1)
            return targets_figure(torch.cat(data).cpu(), spherical_transform(record.grid), power, wavenumbers, "zonal wavenumber")
    with torch.inference_mode():
        batches = ((networks.prior_of(samples.context(batch)), samples.target(batch), None) for batch in batches_of(samples, chosen))
        tails = tails_of(batches)
    summary.facts |= {f"states, {name}": str(of) for name, of in tails.items()}
    return tails_figure(tails, "states in units of their std")


def _maps(forecast: xr.Dataset, truth: Truth, shown: Subject, lead_hours: float | None, path: Path, lines: Lines) -> Figure:
    """Maps of the forecast of one initial time at one lead time.

    Raises:
        UserError: if the forecast does not have this lead time, or all members left the physical range.
    """
    leads = forecast["prediction_timedelta"].values / np.timedelta64(1, "h")
    number = leads.size - 1 if lead_hours is None else int(np.abs(leads - lead_hours).argmin())
    if lead_hours is not None and leads[number] != lead_hours:
        raise UserError(f"--lead-time {lead_hours:g}h: not in {path}, whose nearest lead time is {leads[number]:g} h")
    at_lead = loaded(forecast[list(shown.channels)].isel(prediction_timedelta=number), path)
    start, lead = at_lead["time"].values, at_lead["prediction_timedelta"].values
    title = f"{shown.value_label}, {times_in_words(start, lead)}"
    channels = [truth.variables.index(name) for name in shown.channels]
    (true,) = truth.at((start + lead)[None])[:, channels]
    members = _not_stopped(np.stack([at_lead[name].values for name in shown.channels], axis=-3), path, start)
    known = true if np.isfinite(true).all() else None
    return forecast_maps(members, known, truth.grid, title, lines, shown)


def _plume(forecast: xr.Dataset, truth: Truth, latitude: float, longitude: float, path: Path, shown: Subject = WIND) -> tuple[Figure, str]:
    """The plume of the forecast of one initial time at the grid point nearest to a place, and that grid point in words.

    Raises:
        UserError: if the place is not on the globe, or all members left the physical range.
    """
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 360):
        raise UserError(f"--at {latitude:g},{longitude:g}: expected a latitude from -90 to 90 and a longitude from -180 to 360")
    row, column, distance = nearest(truth.grid, latitude, longitude)
    stored = [name for name in dict.fromkeys((*shown.channels, shown.speed)) if name in forecast]
    at_point = loaded(forecast[stored].isel(latitude=[row], longitude=[column]), path)
    if "number" in at_point[shown.channels[0]].dims:
        members = shown.in_dataset(at_point)[..., 0, 0]
        bands = np.quantile(_not_stopped(members, path, at_point["time"].values), QUANTILES, axis=0)
    else:
        statistics = at_point[shown.speed].sel(statistic=[f"quantile {share:g}" for share in QUANTILES])
        bands = shown.display.of(statistics.values[..., 0, 0])
    leads = np.concatenate([[np.timedelta64(0, "ns")], at_point["prediction_timedelta"].values])
    true = shown.of(truth.at(at_point["time"].values + leads), truth.variables)[:, row, column]
    bands = np.concatenate([np.full((len(QUANTILES), 1), true[0]), bands], axis=1)  # all members start from the analysis
    where = place(truth.grid.latitude[row], truth.grid.longitude[column])
    point = f"{where}, {distance:.0f} km from {place(latitude, longitude)}"
    title = f"grid point {where}, from {time_in_words(at_point['time'].values)}"
    return plume([bands], [shown], leads, title, at_point["time"].values, true), point


def _not_stopped(members: NDArray[np.float32], path: Path, start: NDArray[np.datetime64]) -> NDArray[np.float32]:
    """The ``members`` (member, ...) without missing values: those that did not leave the physical range.

    Raises:
        UserError: if there is none.
    """
    complete_members = members[np.isfinite(members).reshape(len(members), -1).all(axis=1)]
    if not complete_members.size:
        raise UserError(f"{path}: all members from {time_text(start)} left the physical range; nothing to draw")
    return complete_members
