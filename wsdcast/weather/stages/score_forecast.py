"""Score a forecast of any origin against any analyses."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr

from wsdcast.data.sources.conventions import channels_in
from wsdcast.data.sources.foreign_forecasts import open_forecast, url_of
from wsdcast.data.sources.open_data import fetch_existing
from wsdcast.data.sources.open_data_layouts import SYSTEMS
from wsdcast.data.sources.opening import addresses, open_dataset
from wsdcast.data.store.forecasts import store_of
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.artefact import Summary
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import SCORES
from wsdcast.verification.alignment import require_aligned
from wsdcast.verification.domain import domain_in_words
from wsdcast.verification.intervals import scores_of
from wsdcast.verification.scoring import Sources, opened, statistics_by_start
from wsdcast.weather.stages.score_output import require_scoring_memory, summary_of, write_scores, write_table_and_report


def score_forecast(
    forecast: str,
    truth: str,
    run: str | Path | None = None,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Score a forecast of any origin, and write ``RUN/scores.nc``, ``RUN/scores.csv`` and ``RUN/report.html``.

    All variables that both the forecast and the truth have are scored.

    Args:
        forecast: path or URL of a store of forecasts, in the layout of WeatherBench 2 or a similar one; the name of a public one,
            ``wb2:ifs_ens``, ``wb2:gencast`` or ``wb2:neuralgcm_ens``; or a run directory with one.
        truth: path, glob or URL of analyses, or the name of a public store, on the same grid or on a finer one. Of ``gfs`` and ``ifs`` the
            analyses at the valid times are fetched.
        run: directory for the scores; default ``runs/<name of the store>``, or the run directory of the forecast.
        scheduler, workers: as for :func:`score`.
        overwrite: replace scores of another forecast.

    Raises:
        UserError: if the forecast or the truth cannot be read, they are on different grids or do not fit together, or memory cannot hold
            what is scored at the same time.
    """
    if store_of(forecast) != forecast:
        run, forecast = run or forecast, store_of(forecast)
    name = forecast.rstrip("/").split("/")[-1].removesuffix(".zarr").removesuffix(".nc").replace(":", "-")
    directory = Path(run) if run is not None else Path("runs") / name
    if (directory / SCORES).exists() and not overwrite:
        with xr.open_dataset(directory / SCORES) as stored:
            if (stored.attrs.get("forecast"), stored.attrs.get("truth")) != (forecast, truth):
                raise UserError(f"{directory / SCORES} is of another forecast; choose another --run, or replace it with --overwrite")
    with TemporaryDirectory(prefix="wsdcast-") as scratch:
        files = _fetched(truth, forecast, Path(scratch)) if truth in SYSTEMS else truth
        variables = _common(forecast, files)
        sources = Sources(((name, forecast),), files, np.datetime64("1678-01-01"), scratch, variables=variables)
        fields = opened(sources)[0][name]
        require_scoring_memory(sources, fields.times, fields.leads, 0, fields.members, workers)
        inside = require_aligned(fields, opened(sources)[1], truth)
        domain = b"" if inside is None else np.packbits(inside).tobytes()
        sources = Sources(((name, forecast),), files, fields.times.min(), scratch, domain, variables)
        scores = scores_of(statistics_by_start(sources, fields.times, fields.leads, {}, scheduler, workers))
        scores.attrs |= {"grid": fields.grid.name, "members": fields.members, "forecast": forecast, "truth": truth}
        if (finer := opened(sources)[1].regridded_from) is not None:
            scores.attrs["truth_regridded"] = f"conservatively, from {finer.name} to {fields.grid.name}"
        if inside is not None:
            scores.attrs["share_of_globe"], scores.attrs["scored_on"] = domain_in_words(fields.grid, inside)
        write_scores(directory, scores)
        write_table_and_report(directory, scores, sources, name, {"forecast": forecast, "truth": truth}, "", on_earth=True)
    return summary_of(directory, scores)


def _common(forecast: str, truth: str) -> tuple[str, ...]:
    """The variables that both the forecast and the truth have, in the order of the forecast; the 10 m wind if there is none.

    What is wrong with a source is found when it is opened to be scored.
    """
    with suppress(UserError), open_dataset(addresses(url_of(forecast))[0]) as dataset:
        of_forecast = channels_in(dataset)
        of_truth: set[str] = set()
        for address in addresses(truth):
            with suppress(UserError), open_dataset(address) as analyses:
                of_truth |= set(channels_in(analyses))
            if of_truth >= set(of_forecast):
                break
        common = tuple(name for name in of_forecast if name in of_truth)
        # One component of a wind without the other is a mistake, which is named when both are opened.
        return common if common and len(set(DEFAULT) & set(common)) != 1 else DEFAULT
    return DEFAULT


def _fetched(system: str, forecast: str, scratch: Path) -> str:
    """Fetch the analyses at the initial and valid times of a forecast that exist already. Returns a directory that has their files.

    Raises:
        UserError: if they cannot be fetched.
    """
    stored = open_forecast(forecast)
    valid = np.unique(np.concatenate([stored.times, (stored.times[:, None] + stored.leads).ravel()]))
    directory = scratch / system
    directory.mkdir()
    for path in fetch_existing(system, valid[valid == valid.astype("datetime64[6h]")]):
        (directory / path.name).symlink_to(path)
    return str(directory)
