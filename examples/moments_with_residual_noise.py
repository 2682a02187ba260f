"""What the noise of the moments network is worth, if no generator follows it and nothing more is trained.

    python examples/moments_with_residual_noise.py [--noise white|one|sums] [--last N] [--wind NAME] RUN...

The baseline "moments, past errors" of a run samples mean + std * noise at every step, with the sum of at most 100 past errors as noise
(docs/scores.md). Here the noise is made in another way. With --noise white it is independent at every point. Otherwise it is made from the
standardised residuals, (target - mean) / std, of all samples of the validation split, or of the last N. They have the spatial structure of
the moments network's own errors, averaged over the weather. (Adding errors of the past is called dressing: Roulston and Smith 2003.)

- sums: the sum of all residuals, each times a normal number and 1 / sqrt(N). It is Gaussian and has the residuals' covariance.
- one: the residuals of one random sample. With N residuals there are only N values at each point, which raises the CRPS of one step by a
  share of about 1 / N, as for an ensemble of N members.

Each RUN is a scored run directory of one training seed, all with the same initial times. Writes RUN/residual-noise/forecast.zarr, for the
initial times, members and lead times of RUN/forecast.zarr, and scores it. Prints a table: scores of the forecast of RUN, and differences of
RUN's baseline and of the moments with the chosen noise from it in percent (positive is worse). Spread/skill, and the spectra as mean
abs(1 - ratio) of energetic waves, are as they are. --wind both@250 is for the wind at 250 hPa in place of that at 10 m. All are means over
the RUNs, whose values follow a slash. Brackets hold 95 % of bootstrap samples of initial times; such samples are no guide for the deviation
of a spectrum (docs/study.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.forecasts import Forecasts
from wsdcast.runs import devices
from wsdcast.runs.artefact import resolve
from wsdcast.runs.complete import partial_of
from wsdcast.runs.names import ANALYSIS, FORECAST, PAST_ERRORS, SCORES
from wsdcast.runs.processes import completed_by_first
from wsdcast.runs.progress import track
from wsdcast.sampling.batches import batch_size, in_batches
from wsdcast.verification.bootstrap import block_weights, interval, longest_lead, resampled
from wsdcast.verification.intervals import BY_START
from wsdcast.verification.kinetic_energy import kinetic_energy_metrics
from wsdcast.verification.metrics import GLOBE, metrics
from wsdcast.warmstart.prior import PriorOf, frozen_prior
from wsdcast.weather.forecast.origin import Origin, of_run
from wsdcast.weather.forecast.running import groups
from wsdcast.weather.forecast.writing import run_and_write
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import samples_of
from wsdcast.weather.stages.score_output import read_scores

OUT = "residual-noise"
LEADS = (6, 24, 72, 120, 240)
RELATIVE = {"CRPS": "crps_fair", "energy score": "energy_score", "variogram score": "variogram_score"}
ABSOLUTE = {"spread/skill": "spread_skill"}
DEVIATIONS = {"spectrum": "power_deviation_mean", "kinetic energy": "kinetic_energy_deviation_mean"}
STATISTICS = ("crps_fair", "energy_score", "variogram_score", "variance", "squared_error", "squared_error_debiased")
STATISTICS += ("power", "power_truth", "kinetic_energy", "kinetic_energy_truth")
"""What these scores are computed from."""


@torch.inference_mode()
def residuals(origin: Origin, prior_of: PriorOf) -> Tensor:
    """Return (target - mean) / std of all samples of the validation split, (sample, channel, latitude, longitude)."""
    record = open_analysis(origin.directory / ANALYSIS, past_states=origin.record.past_states)
    (samples,) = samples_of(record, origin.networks.forcings, "validation")
    batches = torch.arange(len(samples)).split(50)
    return torch.cat([prior_of(samples.context(batch)).normalise(samples.target(batch)) for batch in batches])


def one_of(library: Tensor, noise: Tensor) -> Tensor:
    """Return for each member a field of the library, each with the same probability.

    The first normal number of the member's noise chooses it, by its cumulative distribution function.
    """
    chosen = (torch.special.ndtr(noise[:, 0, 0, 0].double()) * len(library)).long()
    return library[chosen.clamp(max=len(library) - 1)]


def sum_of(library: Tensor, noise: Tensor) -> Tensor:
    """Return for each member the sum of the fields of the library, times the first normal numbers of its noise and 1 / sqrt(fields)."""
    return torch.tensordot(noise.flatten(1)[:, : len(library)], library, dims=1) / len(library) ** 0.5


def white(library: Tensor, noise: Tensor) -> Tensor:
    """Return the white noise of each member itself."""
    return noise


NOISES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"white": white, "one": one_of, "sums": sum_of}
"""What makes the noise of members from the residuals, (sample, channel, latitude, longitude), and from white noise, (batch, channel,
latitude, longitude), which depends on seed, initial time, member and step alone."""


@devices.own_torch_settings()
def forecast(run: Path, last: int, kind: str) -> Path:
    """Write the ensembles with this kind of noise, from the last residuals (0: all), and return the path of their store."""
    recipe, _ = resolve(None, run, Recipe, FORECAST)
    origin = of_run(recipe, run, {}, None)
    record, networks, settings = origin.record, origin.networks, origin.recipe.rollout
    prior_of, size = frozen_prior(networks.moments), batch_size(record.grid.size, devices.device())
    library = residuals(origin, prior_of)[-last:]
    sampler = in_batches(lambda context, noise: prior_of(context).denormalise(NOISES[kind](library, noise)), size)
    path, times, leads = run / OUT / FORECAST, origin.initial_times, settings.kept_leads
    path.parent.mkdir(exist_ok=True)
    store = Forecasts(partial_of(path), times, settings.members, leads, reduced=False, grid=record.grid, variables=origin.kept_variables)
    rows = groups(np.arange(times.size), settings.members, size, devices.device())
    with completed_by_first(path, {}, overwrite=True, size=store.bytes):
        store.create()
        steps = run_and_write(store, record, networks.forcings, sampler, origin.starts, rows, settings)
        for _ in track(steps, f"moments with residuals, {run}", times.size * settings.steps):
            pass
        store.close({"title": "ensembles of the moments network, with residuals as noise"})
    return path


def scored(run: Path, last: int, kind: str, wind: str) -> xr.Dataset:
    """Score the residuals' forecast of a run, and return its statistics and those of RUN's forecasts, (forecast, time, lead time)."""
    wsdcast.score_forecast(forecast(run, last, kind), run / ANALYSIS, run / OUT, overwrite=True)
    ours, theirs = (read_scores(path / SCORES).sel(region=GLOBE, lag=1) for path in (run, run / OUT))
    names = [f"{name}{BY_START}" for name in STATISTICS]
    chosen = [one[names].sel(variable=wind, drop=True) for one in (ours, theirs)]
    if "wind" in ours.dims:  # the energy of several winds
        chosen = [one.sel(wind=wind.replace("both", "vector"), drop=True) for one in chosen]
    forecasts = [chosen[0].isel(forecast=0), chosen[0].sel(forecast=PAST_ERRORS), chosen[1].isel(forecast=0)]
    joined = xr.concat(forecasts, dim="forecast", coords="minimal", compat="override")
    return joined.rename({f"{name}{BY_START}": name for name in STATISTICS})


def main(runs: list[Path], noise: str = "sums", last: int = 0, wind: str = "both") -> None:
    """Write and score the forecasts, and print the table."""
    every = xr.concat([scored(run, last, noise, wind) for run in runs], dim="run")
    alike = every["crps_fair"].notnull().all(["forecast", "run"])
    drawn = all_metrics(resampled(every, block_weights(every["time"].values, longest_lead(alike)), alike))
    by_run = all_metrics(every.where(alike).mean("time"))
    print(f"{int(alike.sum('time').min())} initial times\n")
    print(f"| score | RUN | {PAST_ERRORS} | {noise} |\n|---|---|---|---|")
    for (heading, score), lead in product((RELATIVE | ABSOLUTE | DEVIATIONS).items(), LEADS):
        if (at := np.timedelta64(lead, "h")) in by_run["prediction_timedelta"]:
            pair = (one[score].sel(prediction_timedelta=at).transpose("forecast", "run", ...) for one in (by_run, drawn))
            print(f"| {heading}, {lead} h | {' | '.join(cells(*pair, heading))} |")


def all_metrics(mean: xr.Dataset) -> xr.Dataset:
    """Return the metrics of mean statistics, with those of the kinetic energy."""
    return metrics(mean).merge(kinetic_energy_metrics(mean).sel(part="total", drop=True), compat="override")


def cells(by_run: xr.DataArray, drawn: xr.DataArray, heading: str) -> list[str]:
    """Return the cells of a row, from a score (forecast, run) and that of bootstrap samples (forecast, run, draw)."""
    mean, draws = by_run.mean("run"), drawn.mean("run")

    def text(form: str, score: Callable[[xr.DataArray], xr.DataArray]) -> str:
        bounds = f" [{', '.join(form.format(bound) for bound in interval(score(draws)).values)}]" if heading not in DEVIATIONS else ""
        return f"{form.format(score(mean).item())}{bounds} / {', '.join(map(form.format, score(by_run).values))}"

    if heading not in RELATIVE:
        return [text("{:.3f}", itemgetter(which)) for which in range(3)]
    differences = [text("{:+.1f}", lambda score, which=which: 100 * (score[which] / score[0] - 1)) for which in (1, 2)]
    return [text("{:.3f}", itemgetter(0)), *differences]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+")
    parser.add_argument("--noise", choices=list(NOISES), default="sums")
    parser.add_argument("--last", metavar="N", type=int, default=0)
    parser.add_argument("--wind", metavar="NAME", default="both")
    main(**vars(parser.parse_args()))
