"""Score a forecast of any origin against any analyses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from wsdcast.data.sources.foreign_forecasts import Members, StoredForecast, open_forecast, readable_channels
from wsdcast.data.sources.open_data import fetch_existing
from wsdcast.data.sources.open_data_layouts import SYSTEMS, is_offered
from wsdcast.data.store.forecasts import name_of, store_of
from wsdcast.data.variables import DEFAULT, physical_range, variable
from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import address_given
from wsdcast.runs.names import PAST_ERRORS, SCORES
from wsdcast.runs.summary import Summary
from wsdcast.verification.alignment import require_aligned
from wsdcast.verification.baselines import BASELINES
from wsdcast.verification.domain import Inside, domain_in_words, domains_of, scored_domain
from wsdcast.verification.intervals import scores_of
from wsdcast.verification.memory import require_memory_to_score
from wsdcast.verification.scoring import Sources, opened, statistics_by_start
from wsdcast.verification.truth import channels_of_truth
from wsdcast.weather.stages.score_output import read_scores, summary_of, write_scores, write_table_and_report


def score_forecast(
    forecast: str | Path,
    truth: str | Path,
    run: str | Path | None = None,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Score a forecast of any origin, and write ``RUN/scores.nc``, ``RUN/scores.csv`` and ``RUN/report.html``.

    All variables that both the forecast and the truth have are scored. The summary names those of the forecast that cannot be read.

    Args:
        forecast: path or URL of a store of forecasts, in the layout of WeatherBench 2 or a similar one; the name of a public one,
            ``wb2:ifs_ens``, ``wb2:gencast`` or ``wb2:neuralgcm_ens``; or a run directory with one.
        truth: path, glob or URL of analyses, or the name of a public store, on the same grid or on a finer one. Of ``gfs`` and ``ifs`` the
            analyses at the valid times are fetched, with all variables that they have in common with the forecast.
        run: directory for the scores; default ``runs/<name of the store>``, or the run directory of the forecast.
        scheduler, workers: as for :func:`score`.
        overwrite: replace scores of another forecast.

    Raises:
        UserError: if the forecast or the truth cannot be read, they are on different grids or do not fit together, or memory cannot hold
            what is scored at the same time.
    """
    forecast, truth = address_given(forecast, "forecast"), address_given(truth, "--truth")
    if store_of(forecast) != forecast:
        run, forecast = run or forecast, store_of(forecast)
    name = name_of(forecast)
    directory = Path(run) if run is not None else Path("runs") / name
    name = f"{name} (store)" if name in (*BASELINES, PAST_ERRORS) else name
    if (directory / SCORES).exists() and not overwrite:
        stored = read_scores(directory / SCORES).attrs
        if (stored.get("forecast"), stored.get("truth")) != (forecast, truth):
            other = f"another truth ({stored.get('truth')})" if stored.get("forecast") == forecast else "another forecast"
            raise UserError(f"{directory / SCORES} is of {other}; choose another --run, or replace it with --overwrite")
    with TemporaryDirectory(prefix="wsdcast-") as scratch:
        sources, inside, refused = _chosen(name, forecast, truth, scratch, workers)
        fields, true = opened(sources).forecasts[name], opened(sources).truth
        scores = scores_of(statistics_by_start(sources, fields.times, fields.leads, {}, scheduler, workers))
        scores.attrs |= {"grid": fields.grid.name, "members": fields.members, "forecast": forecast, "truth": truth}
        if (finer := true.regridded_from) is not None:
            scores.attrs["truth_regridded"] = f"conservatively, from {finer.name} to {fields.grid.name}"
        if inside is not None:
            scores.attrs["share_of_globe"], scores.attrs["scored_on"] = domain_in_words(fields.grid, inside)
        write_scores(directory, scores)
        write_table_and_report(directory, scores, sources, name, {"forecast": forecast, "truth": truth}, "", on_earth=True)
    summary = summary_of(directory, scores)
    if refused:
        summary.facts["not scored"] = "; ".join(refused.values())
    if true.notes:
        summary.facts["notes"] = "; ".join(true.notes)
    return summary


def _chosen(name: str, forecast: str, truth: str, scratch: str, workers: int | None) -> tuple[Sources, Inside | None, dict[str, str]]:
    """Choose what is scored, and check that it fits together before the scores are computed.

    ``name`` is that of the forecast among the scores.

    Returns:
        The sources with the variables and the points that are scored, these points, and the reasons why variables are not scored, by name.

    Raises:
        UserError: as :func:`score_forecast`.
    """
    of_forecast, refused = readable_channels(forecast)
    files = _fetched(truth, forecast, of_forecast, Path(scratch)) if truth in SYSTEMS else truth
    variables = channels_of_truth(files, Path(scratch), of_forecast)
    if not variables or len(set(DEFAULT) & set(variables)) == 1:
        # One component of a wind without the other is a mistake. What is wrong is named when the sources are opened.
        variables = DEFAULT
    sources = Sources(((name, forecast),), files, np.datetime64("1678-01-01"), scratch, variables=variables)
    if odd := in_other_units(opened(sources).forecasts[name]):
        refused |= odd
        variables = tuple(channel for channel in variables if channel not in odd)
        if not variables:
            raise UserError(f"{forecast}: {'; '.join(odd.values())}")
        sources = replace(sources, variables=variables)
    fields, true = opened(sources).forecasts[name], opened(sources).truth
    require_memory_to_score(sources, fields.times, fields.leads, 0, fields.members, workers)
    domains = domains_of(fields, true)
    inside, scored = scored_domain(domains, variables, fields.grid)
    require_aligned(fields, true, truth, scored, inside)
    shares = 100 * (domains * fields.grid.area_weights[:, None]).mean(axis=(1, 2))
    for channel in np.flatnonzero(~scored):
        where = f"has values on {shares[channel]:.3g} % of the globe, others on {shares.max():.3g} %"
        refused[variables[channel]] = f"{variables[channel]} {where}; score it alone, in a store of its own"
    kept = tuple(variables[channel] for channel in np.flatnonzero(scored))
    domain = b"" if inside is None else np.packbits(inside).tobytes()
    return replace(sources, past_until=fields.times.min(), domain=domain, variables=kept), inside, refused


def in_other_units(forecast: StoredForecast) -> dict[str, str]:
    """Return by name the channels without units whose values cannot be in our units, and why, in words. One field of each is read.

    Many stores have no units. A wind is left to :func:`wsdcast.verification.alignment.misalignment`, which knows in which units it is.
    """
    reasons = dict[str, str]()
    for name in forecast.variables:
        if "units" in forecast.channels[name].attrs or "component_of_wind" in name:
            continue
        others = [other for other in forecast.variables if other != name]
        field = Members(forecast.name, forecast.channels.drop_vars(others).isel(number=[0])).read(0, slice(0, 1))
        values, (lowest, highest) = field[np.isfinite(field)], physical_range(name)
        if values.size and (values.min() < lowest or values.max() > highest):
            extremes = f"values from {values.min():.4g} to {values.max():.4g}"
            reasons[name] = f"{name} has no units, and {extremes}, which are not in {variable(name).units}"
    return reasons


def _fetched(system: str, forecast: str, channels: Sequence[str], scratch: Path) -> str:
    """Fetch the analyses at the initial and valid times of a forecast that exist already, with those of its channels that are offered.

    Returns a directory that has their files.

    Raises:
        UserError: if they cannot be fetched.
    """
    stored = open_forecast(forecast, variables=channels)
    valid = np.unique(np.concatenate([stored.times, (stored.times[:, None] + stored.leads).ravel()]))
    directory = scratch / system
    directory.mkdir()
    offered = [name for name in channels if is_offered(system, name)] or DEFAULT
    for path in fetch_existing(system, valid[valid == valid.astype("datetime64[6h]")], offered):
        (directory / path.name).symlink_to(path)
    return str(directory)
