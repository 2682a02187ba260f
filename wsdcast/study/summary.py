"""Summaries that studies of weather and of images share: columns of the settings, best settings, saturation, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wsdcast.runs.artefact import make_stamp
from wsdcast.runs.complete import complete, complete_netcdf
from wsdcast.runs.names import STUDY, STUDY_PAGE
from wsdcast.runs.recipes import Experiment
from wsdcast.runs.yaml_text import as_yaml


def settings_dataset(settings: Sequence[Mapping[str, Any]], moments_share: Mapping[str, float]) -> xr.Dataset:
    """A data set along ``setting`` with the fields of the settings as coordinates, and the variable ``cost``.

    Args:
        settings: the fields of each, with at least ``prior`` and ``nfe``.
        moments_share: cost of the moments network in evaluations of the generator, by prior; 0 for a prior without that network.
    """
    study = xr.Dataset(coords={name: ("setting", np.array([setting[name] for setting in settings])) for name in settings[0]})
    shares = [moments_share[prior] for prior in study["prior"].values]
    study["cost"] = study["nfe"] + xr.DataArray(shares, dims="setting")
    study["cost"].attrs = {"long_name": "evaluations of the generator per sample, and the share of the moments network"}
    return study


def groups(study: xr.Dataset, by: Sequence[str]) -> dict[tuple[Any, ...], list[int]]:
    """The indices of the settings that have the same values of the coordinates ``by``, by these values."""
    result: dict[tuple[Any, ...], list[int]] = {}
    for index, key in enumerate(zip(*(study[name].values.tolist() for name in by), strict=True)):
        result.setdefault(key, []).append(index)
    return result


def smallest_sufficient(best: xr.Dataset, tolerances: Mapping[str, float]) -> dict[str, int | None]:
    """For each prior the smallest number of evaluations that is as good as any, or None.

    Args:
        best: the best settings of a study.
        tolerances: a number is as good as any if each of these scores is within this factor of the lowest of the prior. Settings that
            diverged have scores that are not finite. They are not enough, and no other setting is compared with them.
    """
    result: dict[str, int | None] = {}
    for (prior,), group in groups(best, ("prior",)).items():
        of_prior = best.isel(setting=group)
        scores = {name: np.where(np.isfinite(of_prior[name]), of_prior[name], np.nan) for name in tolerances}
        good = [values <= tolerances[name] * np.fmin.reduce(values) for name, values in scores.items()]
        enough = np.logical_and.reduce(good)
        result[prior] = int(of_prior["nfe"].values[enough].min()) if enough.any() else None
    return result


def write_study(
    study: xr.Dataset, recipe: Experiment, directory: Path, saturates: Mapping[str, int | None], write_page: Callable[..., None]
) -> None:
    """Write ``RUN/study.nc`` with its stamp, and ``RUN/study.html`` by ``write_page(path, study, name, recipe, saturates)``."""
    study.attrs["wsdcast"] = json.dumps(make_stamp(recipe, directory, STUDY))
    with complete_netcdf(directory / STUDY) as file:
        study.to_netcdf(file)
    with complete(directory / STUDY_PAGE) as file:
        write_page(file, study, recipe.name, as_yaml(recipe.dump()), saturates)
