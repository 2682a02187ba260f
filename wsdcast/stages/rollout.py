"""Stage 3: from the trained networks to ensemble forecasts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsdcast import models
from wsdcast.artefact import (
    ANALYSIS,
    ANIMATION,
    FORECAST,
    GENERATOR,
    MOMENTS_FORECAST,
    Summary,
    complete,
    is_current,
    make_stamp,
    require,
    require_space,
    resolve,
)
from wsdcast.context import Surroundings
from wsdcast.data.analysis import STEP, Analysis, open_analysis
from wsdcast.data.blocks import STRONGEST_WIND
from wsdcast.data.store import close_store, create_store
from wsdcast.ensemble import Sampler, batch_size, forecast, in_batches, member_noise, moments_sampler
from wsdcast.errors import UserError
from wsdcast.names import GridName, SolverName
from wsdcast.priors import moments_alone, trained
from wsdcast.progress import track
from wsdcast.recipe import Recipe
from wsdcast.report.animation import animate
from wsdcast.sampling import required_statistics, sampler_of, without_auto
from wsdcast.warmstart.prior import Moments

LEADS_PER_CHUNK = 8


def rollout(
    recipe: str | Path | Recipe | None = None,
    run: str | Path | None = None,
    *,
    members: int | None = None,
    nfe: int | None = None,
    starts: int | None = None,
    days: float | None = None,
    seed: int | None = None,
    solver: SolverName | None = None,
    grid_in_time: GridName | None = None,
    warmth: float | None = None,
    moments: Moments | None = None,
    overwrite: bool = False,
) -> Summary:
    """Run ensembles from starts in the test part into ``RUN/forecast.zarr``, and those of the moments model alone beside it.

    Args:
        recipe: path or name of a recipe; default: the one of the trained generator.
        run: run directory; default ``runs/<recipe name>``.
        members: ensemble size.
        nfe: function evaluations of the generator per sample.
        starts: number of start times, spread evenly over the test part.
        days: length of the forecast.
        seed: of the members' noise.
        solver: of the flow, or ``auto``.
        grid_in_time: flow times between which it steps.
        warmth: w of Eq. 4.
        moments: the model that a generator with the prior ``given`` was trained with, as for :func:`wsdcast.train`.
        overwrite: replace forecasts made from another recipe.

    What is None is as in the recipe.

    Raises:
        UserError: if the networks are missing or of another recipe, ``nfe`` cannot be met, or a forecast is no longer finite.
    """
    changes: dict[str, Any] = {"members": members, "nfe": nfe, "starts": starts, "days": days, "seed": seed}
    changes |= {"solver": solver, "grid_in_time": grid_in_time, "warmth": warmth}
    resolved, directory = resolve(recipe, run, GENERATOR, **{f"rollout__{key}": value for key, value in changes.items()})
    resolved = without_auto(resolved, directory)
    record = open_analysis(require(resolved, directory, ANALYSIS, "prepare"))
    models.keep_freed_memory()
    settings = resolved.rollout
    networks = trained(resolved, directory, record, moments)
    summary = Summary("rollout")
    samplers: dict[str, Sampler] = {}
    if resolved.generator.has_moments_model:
        samplers[MOMENTS_FORECAST] = moments_sampler(moments_alone(networks.moments))
    samplers[FORECAST] = sampler_of(networks, settings, required_statistics(resolved, directory))

    chosen = record.starts(settings.starts, settings.steps)
    summary.facts = {
        "starts": f"{len(chosen)}, {_label(record.times[chosen[0]])} to {_label(record.times[chosen[-1]])}",
        "members": settings.members,
        "lead times": f"{settings.steps} of 6 h, to {settings.steps * 6} h",
        "evaluations": f"{settings.nfe} of the generator, {int(resolved.generator.has_moments_model)} of the moments model per sample",
        "solver": f"{settings.solver}, {settings.grid_in_time} times",
    }
    size = 4 * len(chosen) * settings.members * settings.steps * record.wind[0].size
    for artefact, sampler in samplers.items():
        path = directory / artefact
        if is_current(resolved, directory, artefact, overwrite):
            summary.facts[f"current: {artefact}"] = str(path)
            continue
        require_space(directory, size)
        (directory / ANIMATION).unlink(missing_ok=True)  # it would show what is about to be replaced
        begin = time.perf_counter()
        with complete(path) as partial:
            runaway = _write_forecast(partial, resolved, artefact, record, networks.beside, chosen, sampler)
        seconds = time.perf_counter() - begin
        samples = len(chosen) * settings.members * settings.steps
        summary.written[str(path)] = f"{len(chosen)} starts x {settings.members} members x {settings.steps} leads, {size / 1e6:.0f} MB"
        if runaway:
            of_all = f"{runaway} of {len(chosen) * settings.members} members have winds beyond {STRONGEST_WIND:g} m/s"
            summary.facts[f"unstable: {artefact}"] = f"{of_all}; more data or more training may help"
        summary.facts[f"time: {artefact}"] = f"{seconds:.0f} s, {1e3 * seconds / samples:.2f} ms a sample"
    animation = directory / ANIMATION
    if not animation.exists():
        with complete(animation) as partial:
            animate(directory / FORECAST, record, partial)
        summary.written[str(animation)] = "truth beside members, first start"
    return summary


def _write_forecast(
    path: Path, recipe: Recipe, artefact: str, record: Analysis, beside: Surroundings, starts: NDArray[np.intp], sampler: Sampler
) -> int:
    """Write forecasts of all starts as they are made, a few leads at a time; returns how many members have winds that no wind has."""
    settings, grid = recipe.rollout, record.grid
    leads = (STEP * np.arange(1, settings.steps + 1)).astype("timedelta64[ns]")
    coordinates = {"time": record.times[starts], "number": np.arange(settings.members), "prediction_timedelta": leads}
    arrays = create_store(path, coordinates, grid, (1, settings.members, min(LEADS_PER_CHUNK, settings.steps)))
    sampler = in_batches(sampler, batch_size(grid.latitude.size * grid.longitude.size, models.device()))
    absurd = np.zeros((starts.size, settings.members), dtype=bool)
    description = f"rolling out {artefact.removesuffix('.zarr')}"
    for (row, lead), wind in track(_leads(recipe, record, beside, starts, sampler), description, starts.size * settings.steps):
        if lead % LEADS_PER_CHUNK == 0:
            held = []
        held.append(wind)
        absurd[row] |= np.abs(wind).max(axis=(1, 2, 3)) > STRONGEST_WIND
        if len(held) == LEADS_PER_CHUNK or lead == settings.steps - 1:
            block = np.stack(held, axis=1)
            for channel, array in enumerate(arrays):
                array[row, :, lead + 1 - len(held) : lead + 1] = block[:, :, channel]
    close_store(path, {"title": "10 m wind ensemble forecast", "wsdcast": json.dumps(make_stamp(recipe, path.parent, artefact))})
    return int(absurd.sum())


@torch.inference_mode()
def _leads(
    recipe: Recipe, record: Analysis, beside: Surroundings, starts: NDArray[np.intp], sampler: Sampler
) -> Iterator[tuple[tuple[int, int], NDArray[np.float32]]]:
    """((start, lead), members in m s-1), lead by lead."""
    settings = recipe.rollout
    for row, now in enumerate(starts):
        start = record.times[now]
        states = torch.from_numpy(record.normalise(record.wind[now - 1 : now + 1])).to(models.device())
        before, state_now = states[:, None].expand(-1, settings.members, -1, -1, -1)
        around = (beside.at(np.full(settings.members, start + lead * STEP)) for lead in range(settings.steps))
        noises = member_noise(settings.seed, start, settings.members, settings.steps, record.wind.shape[1:])
        for lead, state in enumerate(forecast(sampler, state_now, before, (noise.to(states.device) for noise in noises), around)):
            if not torch.isfinite(state).all():
                raise UserError(f"the forecast from {_label(start)} is no longer finite at {6 * (lead + 1)} h")
            yield (row, lead), record.denormalise(state.cpu().numpy())


def _label(moment: np.datetime64) -> str:
    return str(moment.astype("datetime64[h]"))
