"""The solver ``auto``: the solver and grid of flow times that the study of a run directory found best, or a usual one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from wsdcast.runs.artefact import read_stamp, require
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import STUDY
from wsdcast.warmstart.evaluations import momentum_of
from wsdcast.weather.recipe import Recipe

CRPS_TOLERANCE = 1.01
"""Settings whose CRPS is within this factor of the lowest count as equally good."""


def without_auto(recipe: Recipe, directory: Path) -> Recipe:
    """The recipe with the solver ``auto`` replaced by a solver and a grid of flow times; without momentum if the solver has none.

    If the recipe's own study has this prior, warmth and number of evaluations, the choice is the best setting of the study by its scores
    on the validation split. Otherwise it is that of docs/method.md: the midpoint rule for an even number of evaluations, Adams-Bashforth of
    second order for an odd one, both on uniform times.

    Raises:
        UserError: if the study has no scores on the validation split, or all its settings diverged there.
    """
    if recipe.rollout.solver != "auto":
        return recipe
    settings = recipe.rollout
    name, times = ("midpoint" if settings.nfe % 2 == 0 else "ab2"), "uniform"
    if read_stamp(directory / STUDY) is not None:
        with xr.open_dataset(require(recipe, directory, STUDY)) as study:
            matches = (study["prior"] == recipe.generator.prior) & (study["nfe"] == settings.nfe) & (study["warmth"] == settings.warmth)
            candidates = study.isel(setting=matches.values)
            if candidates.sizes["setting"]:
                if "crps_6h_validation" not in candidates:
                    raise UserError(
                        f"{directory / STUDY} has no scores on the validation split, by which --solver auto chooses; run "
                        "`wsdcast study nfe` again if the record has such a split (no network is trained again), or name a solver"
                    )
                position = best_of(candidates)
                if position is None:
                    raise UserError(f"{directory / STUDY}: all settings with {settings.nfe} evaluations diverged; name a solver")
                best = candidates.isel(setting=position)
                name, times = str(best["solver"].item()), str(best["grid_in_time"].item())
    return recipe.changed(rollout__solver=name, rollout__grid_in_time=times, rollout__momentum=momentum_of(name, recipe.rollout.momentum))


def best_of(study: xr.Dataset) -> int | None:
    """Position of the best setting, by its scores of one step on the validation split; None if all settings diverged there.

    Among the settings whose CRPS is within 1 % of the lowest, the best has the smallest deviation of the power spectrum.
    """
    crps, deviation = (study[f"{name}_6h_validation"].values for name in ("crps", "power_deviation"))
    if not np.isfinite(crps).any():
        return None
    good = crps <= CRPS_TOLERANCE * np.nanmin(crps)
    return int(np.where(good, np.nan_to_num(deviation, nan=np.finfo(float).max), np.inf).argmin())
