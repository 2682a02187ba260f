"""From statistics of many settings, seeds and start dates to what a study says, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.steps import STEP
from wsdcast.runs.names import WITHOUT_NETWORK
from wsdcast.study.page import diverged
from wsdcast.verification.bootstrap import block_weights, interval, resampled
from wsdcast.verification.statistics import metrics
from wsdcast.weather.samplers import CRPS_TOLERANCE, best_of

KEY = ("prior", "solver", "grid_in_time", "warmth", "nfe")
"""What tells settings apart, beside the seed of training."""

SPECTRUM_TOLERANCE = 1.05
"""A prior is saturated where CRPS and deviation of the spectrum are within :data:`CRPS_TOLERANCE` and this factor of its best."""

SCORED = {"crps_fair": "crps", "spread_skill": "spread_skill", "power_deviation_mean": "power_deviation"}
GAINS = {"crps_fair": "crps_gain", "power_deviation_mean": "power_deviation_gain"}

CHOSEN_BEFORE = "the test part, by the very scores that are shown: this study is of an earlier version; run `wsdcast study nfe` again"
"""What the choices of a study rest on that has no scores on the validation part and does not say why."""

Part = tuple[dict[str, Any], dict[str, xr.Dataset]]
"""A setting with its seed, and its statistics by kind: ``one step`` and, for some, ``validation`` (one step on that part), ``forecast``."""


def combine(parts: list[Part], share: float) -> xr.Dataset:
    """One data set of all settings, (setting,).

    Scores are computed for each seed from means over its start dates, then averaged over seeds. Intervals hold 95 % of bootstrap samples
    of start dates, drawn in blocks and the same for all settings and seeds; of other seeds ``_by_seed`` gives an idea.
    ``best`` marks the setting of each prior and number of evaluations that the scores ``_validation`` choose; those are of other dates
    than all others. A setting diverged where a member left the physical range (``runaway`` > 0): its scores are NaN there.
    Gains are 1 - score / reference score on the same dates: over the standard prior with most evaluations, over the standard prior with
    the same number (``_same``) and over features-only with the same number (``_features``), each with its best solver, grid and warmth.

    Args:
        parts: every setting for every seed.
        share: of the moments network, in evaluations of the generator.
    """
    keys = list(dict.fromkeys(tuple(setting[name] for name in KEY) for setting, _ in parts))
    study = xr.Dataset(coords={name: ("setting", np.array([key[index] for key in keys])) for index, name in enumerate(KEY)})
    study["cost"] = study["nfe"] + share * ~study["prior"].isin(WITHOUT_NETWORK)
    study["cost"].attrs = {"long_name": "evaluations of the generator per sample, and the share of the moments network"}
    if (validation := _stacked(parts, keys, "validation")) is not None:
        validation = validation.isel(prediction_timedelta=0, drop=True)
        study = study.merge(_scores(validation, metrics(validation.mean("time")), None, "_6h_validation", len(keys)))
    one_step = _stacked(parts, keys, "one step")
    assert one_step is not None
    one_step = one_step.isel(prediction_timedelta=0, drop=True)
    by_seed, draws = metrics(one_step.mean("time")), _draws(one_step)
    study = study.merge(_scores(one_step, by_seed, draws, "_6h", len(keys)))
    about = {"long_name": "the best solver, grid and warmth of its prior and number of evaluations by scores on the validation part"}
    study["best"] = ("setting", np.isin(np.arange(len(keys)), _chosen(study)), about)
    study.attrs["chosen_on"] = "the validation part" if validation is not None else "nothing: there is no validation part"
    study = study.merge(_all_gains(study, by_seed, draws, "_6h"))
    if (forecasts := _stacked(parts, keys, "forecast")) is not None:
        by_seed, draws = metrics(forecasts.mean("time")), _draws(forecasts)
        study = study.merge(_scores(forecasts, by_seed, draws, "", len(keys)))
        study = study.merge(_all_gains(study, by_seed, draws, ""))
    return study


def chosen_on(study: xr.Dataset) -> str:
    """What the choices of a study, of this version or an earlier one, rest on, in words."""
    return str(study.attrs.get("chosen_on", CHOSEN_BEFORE))


def _chosen(study: xr.Dataset) -> list[int]:
    """The setting of each prior and number of evaluations that the validation part chooses; without that part those without rivals."""
    chosen = []
    for group in _groups(study, ("prior", "nfe")):
        if "crps_6h_validation" in study:
            position = best_of(study.isel(setting=group))
            chosen += [] if position is None else [group[position]]
        elif len(group) == 1:
            chosen += group
    return chosen


def _stacked(parts: list[Part], keys: list[tuple[Any, ...]], kind: str) -> xr.Dataset | None:
    """Statistics of both wind components together, (setting, seed, time, prediction_timedelta[, wavenumber]).

    Those of a seed and lead time at which a member has left the physical range are NaN on all dates.
    """
    seeds: dict[tuple[Any, ...], dict[int, xr.Dataset]] = {}
    for setting, datasets in parts:
        if kind in datasets:
            seeds.setdefault(tuple(setting[name] for name in KEY), {})[setting["seed"]] = datasets[kind].mean("variable")
    if not seeds:
        return None
    joined = [xr.concat(of_key.values(), dim=xr.IndexVariable("seed", list(of_key))) for of_key in seeds.values()]
    sums = xr.concat(joined, dim=xr.IndexVariable("setting", [keys.index(key) for key in seeds]), join="outer")
    return sums.where(~(sums["runaway"] > 0).any("time")).assign(runaway=sums["runaway"])


def _draws(sums: xr.Dataset) -> xr.Dataset:
    """Metrics of bootstrap samples, (draw, setting, seed, ...)."""
    last = sums["prediction_timedelta"].values.max() if "prediction_timedelta" in sums.dims else STEP
    return metrics(resampled(sums, block_weights(sums["time"].values, last)))


def _scores(sums: xr.Dataset, by_seed: xr.Dataset, draws: xr.Dataset | None, suffix: str, settings: int) -> xr.Dataset:
    """Scores of the settings that have them, NaN for the others; with intervals where there are ``draws``."""
    found = xr.Dataset({f"power_ratio{suffix}": _over_seeds(by_seed["power_ratio"])})
    for name, short in SCORED.items():
        found[f"{short}{suffix}"] = _over_seeds(by_seed[name])
        found[f"{short}{suffix}_by_seed"] = by_seed[name]
        if draws is not None:
            found[f"{short}{suffix}_interval"] = interval(_over_seeds(draws[name]))
    found[f"power_deviation_sum{suffix}"] = _over_seeds(by_seed["power_deviation_mean"] * by_seed["energetic_wavenumbers"])
    found[f"runaway{suffix}"] = sums["runaway"].mean(["time", "seed"])
    found[f"starts{suffix}"] = sums.sizes["time"]
    return found.reindex(setting=range(settings)).drop_vars("setting")


def _over_seeds(scores: xr.DataArray) -> xr.DataArray:
    """The mean over seeds of training; NaN where one diverged."""
    return scores.mean("seed", skipna=False)


def _all_gains(study: xr.Dataset, by_seed: xr.Dataset, draws: xr.Dataset, suffix: str) -> xr.Dataset:
    """Gains over each reference, of the settings that have a score and a reference with one."""
    found = xr.Dataset()
    for label, reference in references(study, by_seed["setting"].values).items():
        having = np.flatnonzero(reference >= 0)
        if not having.size:
            continue
        for name, short in GAINS.items():
            seeds, drawn = by_seed[name], _over_seeds(draws[name])
            found[f"{short}{label}{suffix}"] = _gain(_over_seeds(seeds), having, reference)
            found[f"{short}{label}{suffix}_by_seed"] = _gain(seeds, having, reference)
            found[f"{short}{label}{suffix}_interval"] = interval(_gain(drawn, having, reference))
    return found.reindex(setting=range(study.sizes["setting"])).drop_vars("setting") if found else found


def _gain(scores: xr.DataArray, having: NDArray[np.intp], reference: NDArray[np.intp]) -> xr.DataArray:
    """1 - score / reference score of the settings that have a reference; NaN where that is perfect."""
    over = scores.isel(setting=reference[having]).drop_vars("setting").values
    return 1 - scores.isel(setting=having) / np.where(over > 0, over, np.nan)


def references(study: xr.Dataset, present: NDArray[np.integer]) -> dict[str, NDArray[np.intp]]:
    """For each of the settings ``present``, the position among them of what it is compared with, -1 where there is nothing."""
    here = study.isel(setting=present)
    prior, nfe, best = here["prior"].values, here["nfe"].values, here["best"].values
    standard = np.flatnonzero((prior == "standard") & best)
    most = standard[nfe[standard].argmax()] if standard.size else -1
    found = {"": np.full(present.size, most)}
    for label, other in (("_same", "standard"), ("_features", "features-only")):
        positions = {nfe[index]: index for index in np.flatnonzero((prior == other) & best)}
        found[label] = np.array([positions.get(number, -1) for number in nfe])
    return found


def described(study: xr.Dataset) -> str:
    """What gains are over, in words."""
    most = int(references(study, np.arange(study.sizes["setting"]))[""][0])
    if most < 0:
        return "nothing: the standard prior was not studied"
    here = study.isel(setting=most)
    return f"the standard prior with {here['nfe'].item()} evaluations ({here['solver'].item()}, {here['grid_in_time'].item()} times)"


def _groups(study: xr.Dataset, by: tuple[str, ...]) -> list[list[int]]:
    """Indices of settings that agree in some coordinates; those that draw no samples by a solver are left out."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index in np.flatnonzero(study["nfe"].values > 0):
        groups.setdefault(tuple(study[name].values[index] for name in by), []).append(int(index))
    return list(groups.values())


def saturation(study: xr.Dataset) -> dict[str, int | None]:
    """For each prior the smallest number of evaluations that is as good as any, by its best solver, grid and warmth at each number.

    As good: CRPS within 1 % and deviation of the spectrum within 5 % of the prior's best; None where no number is both. By scores on the
    validation part, or on the test part where a study has no others.
    """
    found, suffix = {}, "_6h_validation" if "crps_6h_validation" in study else "_6h"
    best = study.isel(setting=study["best"].values)
    for group in _groups(best, ("prior",)):
        mine = best.isel(setting=group)
        crps, deviation = mine[f"crps{suffix}"], mine[f"power_deviation{suffix}"]
        enough = ((crps <= CRPS_TOLERANCE * crps.min()) & (deviation <= SPECTRUM_TOLERANCE * deviation.min())).values
        found[str(mine["prior"].values[0])] = int(mine["nfe"].values[enough].min()) if enough.any() else None
    return found


def rows(study: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each setting, for a table."""
    table = []
    for index in range(study.sizes["setting"]):
        here = study.isel(setting=index)
        row: dict[str, Any] = {"prior": here["prior"].item(), "solver": here["solver"].item(), "grid": here["grid_in_time"].item()}
        row |= {"warmth": here["warmth"].item(), "nfe": here["nfe"].item(), "cost": here["cost"].item(), "best": bool(here["best"].item())}
        names = [
            *SCORED.values(),
            "power_deviation_sum",
            "runaway",
            *(f"{gain}{label}" for gain in GAINS.values() for label in ("", "_same", "_features")),
        ]
        row["diverged"] = diverged(here)
        for name in names:
            row |= _cells(here, f"{name}_6h", f"{name}_6h")
            row |= _cells(here, f"{name}_6h_validation", f"{name}_6h_validation")
            for lead in here["prediction_timedelta"].values if "prediction_timedelta" in here.dims else ():
                hours = int(lead / np.timedelta64(1, "h"))
                row |= _cells(here.sel(prediction_timedelta=lead), name, f"{name}_{hours}h_rolled")
        table.append(row)
    return table


def _cells(here: xr.Dataset, name: str, label: str) -> dict[str, Any]:
    """A score, its interval and its values by seed, where there are any."""
    if name not in here or not np.isfinite(here[name].item()):
        return {}
    found = {
        f"{label}{ending}": here[f"{name}{ending}"].values.tolist() for ending in ("_interval", "_by_seed") if f"{name}{ending}" in here
    }
    return {label: here[name].item(), **found}
