"""Forecasts as artefacts of the run directory: whether one is current, and writing one."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.store.forecasts import Forecasts
from wsdcast.data.store.zarr_store import add_variables, open_store
from wsdcast.data.variables import DEFAULT
from wsdcast.runs import devices, processes
from wsdcast.runs.artefact import IN_A_COPY, is_current, make_stamp
from wsdcast.runs.complete import complete_netcdf, partial_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANIMATION, FORECAST, INITIAL_STATES, MODEL_CARD, PAST_ERRORS_FORECAST
from wsdcast.runs.progress import track
from wsdcast.runs.summary import Summary
from wsdcast.sampling.acceleration import deterministic_algorithms
from wsdcast.sampling.samplers import Sampler
from wsdcast.verification.streamed import ScoredForecasts
from wsdcast.verification.truth import truth_of
from wsdcast.weather.forecast.initial_states import write_states
from wsdcast.weather.forecast.one_step import one_step
from wsdcast.weather.forecast.origin import Origin
from wsdcast.weather.forecast.outcome import clipped, stopped
from wsdcast.weather.forecast.running import groups
from wsdcast.weather.forecast.writing import run_and_write
from wsdcast.weather.recipe import Rollout
from wsdcast.weather.samplers import noise_count_of

FAST = "fast, without --deterministic"
"""What a forecast says of its arithmetic if it was made on a GPU and another run would give other bits."""


def is_current_forecast(origin: Origin, artefact: str, *, deterministic: bool, overwrite: bool) -> bool:
    """Whether an artefact is there, is of this recipe and these initial times, and is deterministic if it has to be.

    Raises:
        UserError: if it is there and is not, and ``overwrite`` is False.
    """
    path = origin.directory / artefact
    if not is_current(origin.recipe, origin.directory, artefact, overwrite, origin.fingerprint):
        return False
    with open_store(path) as store:
        same = np.array_equal(store["time"].values, origin.initial_times)
        is_fast = store.attrs.get("arithmetic") == FAST
    differs = "has other initial times: the record is longer now" if not same else "was made on a GPU without --deterministic"
    is_this = same and not (deterministic and is_fast)
    if not is_this and not overwrite:
        raise UserError(f"{path} {differs}; replace it with --overwrite, or {IN_A_COPY}")
    return is_this


def write_forecast(
    origin: Origin, artefact: str, sampler: Sampler, batch: int, summary: Summary, *, deterministic: bool, overwrite: bool
) -> None:
    """Run the ensembles of a sampler, with ``batch`` members per evaluation, and write them as an artefact. Add to the summary.

    Raises:
        UserError: if the artefact does not fit on the disk, or an unfinished one is of another recipe or has other initial times and
            ``overwrite`` is False.
    """
    directory, record, settings = origin.directory, origin.record, origin.recipe.rollout
    starts, variables = origin.starts, origin.kept_variables
    path, stamp = directory / artefact, make_stamp(origin.recipe, directory, artefact, origin.fingerprint)
    begin = time.perf_counter()
    layout: dict[str, Any] = {"path": partial_of(path), "times": origin.initial_times, "leads": settings.kept_leads, "grid": record.grid}
    layout |= {"members": settings.members, "reduced": settings.keep == "statistics", "variables": variables}
    scored = artefact == PAST_ERRORS_FORECAST or settings.keep == "scores"
    store = ScoredForecasts(**layout, truth=truth_of(record, variables)) if scored else Forecasts(**layout)
    # The initial times change when the record grows. A fast forecast on a GPU must not be completed as a deterministic one.
    arithmetic = "deterministic" if deterministic or devices.device().type == "cpu" else FAST
    claimed = stamp | {"initial times": store.times.astype("datetime64[h]").astype(str).tolist(), "arithmetic": [arithmetic]}
    with processes.completed_by_first(path, claimed, overwrite, store.bytes):
        missing = processes.decided(lambda: _begin(store, directory / ANIMATION))
        all_groups = groups(missing, settings.members, batch, devices.device(), alone=deterministic)
        own_groups = all_groups[processes.number() :: processes.count()]
        noise_count = noise_count_of(origin.networks, settings) if artefact == FORECAST else 1
        steps = run_and_write(store, record, origin.networks.forcings, sampler, starts, own_groups, settings, noise_count)
        for _ in track(steps, f"rolling out {artefact.removesuffix('.zarr')}", settings.steps * sum(rows.size for rows in own_groups)):
            pass
        processes.wait()
        if processes.is_first():
            summary.facts |= stopped(store, artefact) | clipped(store, artefact)
            if artefact == PAST_ERRORS_FORECAST:
                with deterministic_algorithms() if deterministic else nullcontext():
                    add_variables(store.path, one_step(origin.networks, record, starts, variables))
            if origin.is_model_file:
                (directory / MODEL_CARD).write_text(origin.card, encoding="utf-8")
                with complete_netcdf(directory / INITIAL_STATES) as states:
                    write_states(states, record, {name.replace(" ", "_"): text for name, text in origin.facts.items()})
            credit = {name: origin.facts[name] for name in ("attribution",) if name in origin.facts}
            title = "10 m wind ensemble forecast" if variables == DEFAULT else "ensemble forecast"
            store.close({"title": title, "wsdcast": json.dumps(stamp), "arithmetic": arithmetic} | credit)
    seconds = time.perf_counter() - begin
    count = f"{len(starts)} initial time{'s' * (len(starts) > 1)}"
    summary.written[str(path)] = f"{count} x {_kept(settings, scored)}, {store.bytes / 1e6:.0f} MB"
    samples = missing.size * settings.steps * settings.members
    summary.facts[f"time: {artefact}"] = f"{seconds:.0f} s" + (f", {1e3 * seconds / samples:.2f} ms a sample" if samples else "")


def _begin(store: Forecasts, animation: Path) -> NDArray[np.intp]:
    """Create a store or open an unfinished one, and return the rows of the initial times that are not written yet, (start,)."""
    animation.unlink(missing_ok=True)  # it shows the forecast that is about to be replaced
    store.create()
    return np.array([row for row in range(store.times.size) if store.written(row) is None], dtype=np.intp)


def _kept(settings: Rollout, scored: bool) -> str:
    fields = "scores" if scored else "statistics" if settings.keep == "statistics" else f"{settings.members} members"
    return f"{fields} x {len(settings.kept_leads)} leads"
