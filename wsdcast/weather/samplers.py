"""How samples are drawn: by the solver and the grid in time that a recipe names, or that its own study found best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors
import xarray as xr
from safetensors.torch import load_file

from wsdcast.runs import devices
from wsdcast.runs.artefact import read_stamp, require
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import STATISTICS, STUDY
from wsdcast.sampling.acceleration import accelerated
from wsdcast.sampling.samplers import Sampler, generator_sampler, moments_sampler
from wsdcast.sampling.starts import moments_alone
from wsdcast.warmstart.dpm import Statistics
from wsdcast.warmstart.evaluations import TORCHDIFFEQ, grid, require_possible, solver, steps_for
from wsdcast.weather.priors import Trained
from wsdcast.weather.recipe import Recipe, Rollout

CRPS_TOLERANCE = 1.01
"""Settings whose CRPS is within this factor of the lowest are as good."""


def sampler_of(networks: Trained, settings: Rollout, statistics: Statistics | None = None, *, deterministic: bool = False) -> Sampler:
    """Algorithm 2 as a recipe sets it, on a GPU accelerated.

    Args:
        networks: generator and moments.
        settings: of the recipe.
        statistics: of the generator, for DPM-Solver-v3.
        deterministic: on a GPU the same bits every time, in float32.

    Raises:
        UserError: if the solver cannot take exactly ``nfe`` evaluations or steps of this grid, or lacks statistics.
    """
    require_possible(settings.solver, settings.grid_in_time, settings.nfe)
    times = grid(settings.grid_in_time, steps_for(settings.solver, settings.nfe), settings.log_snr_ends)
    solve = solver(settings.solver, settings.momentum, statistics)
    sampler = generator_sampler(networks.generator, networks.prior_of, settings.nfe, settings.warmth, times, solve)
    recorded = networks.ours and settings.solver not in TORCHDIFFEQ  # whose methods look at the error on the host
    return accelerated(sampler, [networks.generator, networks.moments], recorded=recorded, deterministic=deterministic)


def moments_sampler_of(networks: Trained, *, deterministic: bool = False) -> Sampler:
    """The moments alone, a baseline without spatial structure; accelerated likewise."""
    sampler = moments_sampler(moments_alone(networks.moments))
    return accelerated(sampler, [networks.moments], recorded=networks.ours, deterministic=deterministic)


def required_statistics(recipe: Recipe, directory: Path) -> Statistics | None:
    """What DPM-Solver-v3 needs, if that is the solver.

    Raises:
        UserError: if they were not estimated, or for another generator or warmth.
    """
    if not recipe.rollout.needs_statistics:
        return None
    file = require(recipe, directory, STATISTICS, "study statistics") / "statistics.safetensors"
    try:
        fields = {name: field.to(devices.device()) for name, field in load_file(file).items()}
        warmth, statistics = fields.pop("warmth").item(), Statistics(**fields)
    except (OSError, TypeError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(f"{file}: cannot be read as statistics of a generator ({error})") from None
    if warmth != np.float32(recipe.rollout.warmth):
        raise UserError(f"{file}: of warmth {warmth:g}, not {recipe.rollout.warmth:g}; run `wsdcast study statistics --warmth ...`")
    return statistics


def without_auto(recipe: Recipe, directory: Path) -> Recipe:
    """The recipe with solver and grid chosen, if they are to be.

    By the recipe's own study if it has this prior, warmth and number of evaluations; of the study only scores on the validation part are
    read. Else by a table (docs/method.md): the midpoint rule on uniform times for an even number, Adams-Bashforth of second order for
    an odd one.

    Raises:
        UserError: if the study has no scores on the validation part, or all its settings diverged there.
    """
    if recipe.rollout.solver != "auto":
        return recipe
    settings = recipe.rollout
    name, times = ("midpoint" if settings.nfe % 2 == 0 else "ab2"), "uniform"
    if read_stamp(directory / STUDY) is not None:
        with xr.open_dataset(require(recipe, directory, STUDY, "study nfe")) as study:
            wanted = (study["prior"] == recipe.generator.prior) & (study["nfe"] == settings.nfe) & (study["warmth"] == settings.warmth)
            mine = study.isel(setting=wanted.values)
            if mine.sizes["setting"]:
                if "crps_6h_validation" not in mine:
                    raise UserError(
                        f"{directory / STUDY} has no scores on the validation part, by which --solver auto chooses; run "
                        "`wsdcast study nfe` again if the record has such a part (no network is trained again), or name a solver"
                    )
                chosen = best_of(mine)
                if chosen is None:
                    raise UserError(f"{directory / STUDY}: all settings with {settings.nfe} evaluations diverged; name a solver")
                best = mine.isel(setting=chosen)
                name, times = str(best["solver"].item()), str(best["grid_in_time"].item())
    return recipe.changed(rollout__solver=name, rollout__grid_in_time=times)


def best_of(study: xr.Dataset) -> int | None:
    """Position of the setting to take, by scores of one step on the validation part; None if all settings diverged there.

    Of those whose CRPS is within 1 % of the lowest it is the one with the least deviation of the spectrum.
    """
    crps, deviation = (study[f"{name}_6h_validation"].values for name in ("crps", "power_deviation"))
    if not np.isfinite(crps).any():
        return None
    good = crps <= CRPS_TOLERANCE * np.nanmin(crps)
    return int(np.where(good, np.nan_to_num(deviation, nan=np.finfo(float).max), np.inf).argmin())
