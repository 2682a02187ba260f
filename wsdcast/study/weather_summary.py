"""The summary of a weather study: scores of all settings with intervals, from statistics by seed and initial time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.steps import STEP
from wsdcast.study.summary import groups, settings_dataset, smallest_sufficient
from wsdcast.study.weather_page import diverged
from wsdcast.training.predictions import errors_in_words
from wsdcast.verification.bootstrap import block_weights, blocks_in_words, interval, resampled
from wsdcast.verification.kinetic_energy import kinetic_energy_metrics
from wsdcast.verification.metrics import WITH_INTERVALS, metrics
from wsdcast.weather.solver_choice import CRPS_TOLERANCE, best_of

KEY = ("prior", "solver", "grid_in_time", "warmth", "nfe")
"""The fields of a setting, without the training seed."""

SPECTRUM_TOLERANCE = 1.05
"""A deviation of the spectrum within this factor of the lowest counts as equally good."""

SCORED = {
    "crps_fair": "crps",
    "spread_skill": "spread_skill",
    "power_deviation_mean": "power_deviation",
    "energy_score": "energy_score",
    "kinetic_energy_deviation_mean": "kinetic_energy_deviation",
}
"""Metrics by seed and their names in a study; the last two are of winds only."""
SHOWN = ("power_ratio", "kinetic_energy_ratio", "rank_histogram", "variogram_score")
"""Metrics of which a study has the mean over seeds alone."""
GAINS = {"crps_fair": "crps_gain", "power_deviation_mean": "power_deviation_gain", "energy_score": "energy_score_gain"}

Part = tuple[dict[str, Any], dict[str, xr.Dataset]]
"""A setting with its seed, and its statistics by kind: ``one step``, for some ``validation`` (one step on that split) and ``forecast``."""


def combine(parts: list[Part], shares: Mapping[str, float]) -> xr.Dataset:
    """One data set of all settings, (setting,); docs/schema.md lists its variables.

    Scores are computed for each seed from means over its initial times, then averaged over seeds. Intervals hold 95 % of bootstrap samples
    of initial times, drawn in blocks and the same for all settings and seeds. ``_by_seed`` shows how much seeds differ. Deviations of
    spectra and gains in them have no intervals: few initial times inflate them, and those of bootstrap samples even more (docs/study.md).

    ``best`` marks the setting of each prior and number of evaluations that the scores ``_validation`` choose. All other scores are those of
    the test split. A setting diverged if a member left the physical range (``runaway`` > 0); its scores are NaN.

    Gains are 1 - score / reference score on the same dates. The reference is the standard prior with most evaluations, with the same number
    (``_same``), features-only with the same number (``_features``), or the first prior with most evaluations (``_first``), each with its
    best solver, grid and warmth.

    Args:
        parts: every setting for every seed.
        shares: cost of the moments network by prior, as in :func:`wsdcast.study.summary.settings_dataset`.
    """
    keys = list(dict.fromkeys(tuple(setting[name] for name in KEY) for setting, _ in parts))
    study = settings_dataset([dict(zip(KEY, key, strict=True)) for key in keys], shares)
    if (validation := _stacked(parts, keys, "validation")) is not None:
        validation = validation.isel(prediction_timedelta=0, drop=True)
        study = study.merge(_scores(validation, _metrics(validation.mean("time")), None, "_6h_validation", len(keys)))
    one_step = _stacked(parts, keys, "one step")
    assert one_step is not None
    one_step = one_step.isel(prediction_timedelta=0, drop=True)
    by_seed, draws = _metrics(one_step.mean("time")), _draws(one_step, STEP)
    study = study.merge(_scores(one_step, by_seed, draws, "_6h", len(keys)))
    about = {"long_name": "the best solver, grid and warmth of its prior and number of evaluations by scores on the validation split"}
    study["best"] = ("setting", np.isin(np.arange(len(keys)), _chosen(study)), about)
    study.attrs["chosen_on"] = "the validation split" if validation is not None else "nothing: there is no validation split"
    study = study.merge(_all_gains(study, by_seed, draws, "_6h"))
    study.attrs["intervals"] = f"one step: {blocks_in_words(one_step['time'].values, STEP)}"
    if (forecasts := _stacked(parts, keys, "forecast")) is not None:
        longest = forecasts["prediction_timedelta"].values.max()
        by_seed, draws = _metrics(forecasts.mean("time")), _draws(forecasts, longest)
        study = study.merge(_scores(forecasts, by_seed, draws, "", len(keys)))
        study = study.merge(_all_gains(study, by_seed, draws, ""))
        study.attrs["intervals"] += f"; forecasts: {blocks_in_words(forecasts['time'].values, longest)}"
    return study


def _chosen(study: xr.Dataset) -> list[int]:
    """The setting that the validation split chooses for each prior and number of evaluations, or else the settings without rivals."""
    candidates = [group for (_, nfe), group in groups(study, ("prior", "nfe")).items() if nfe > 0]
    if "crps_6h_validation" not in study:
        return [group[0] for group in candidates if len(group) == 1]
    return [group[best] for group in candidates if (best := best_of(study.isel(setting=group))) is not None]


def _stacked(parts: list[Part], keys: list[tuple[Any, ...]], kind: str) -> xr.Dataset | None:
    """Mean statistics of the headline, of a wind over both components, (setting, seed, time, prediction_timedelta[, wavenumber]).

    If a member of a seed has left the physical range at a lead time, its statistics there are NaN at all initial times.
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


def _metrics(mean: xr.Dataset) -> xr.Dataset:
    """Metrics of the headline, and of the kinetic energy if it is a wind."""
    if "kinetic_energy" not in mean:
        return metrics(mean)
    return metrics(mean).merge(kinetic_energy_metrics(mean).sel(part="total", drop=True))


def _draws(sums: xr.Dataset, longest_lead: np.timedelta64) -> xr.Dataset:
    """Metrics that have intervals, of bootstrap samples, (draw, setting, seed, ...)."""
    weights = block_weights(sums["time"].values, longest_lead)
    return metrics(resampled(sums[[name for name in WITH_INTERVALS if name in sums]], weights))


def _scores(sums: xr.Dataset, by_seed: xr.Dataset, draws: xr.Dataset | None, suffix: str, settings: int) -> xr.Dataset:
    """Scores of all settings, NaN if a setting has none. ``draws``, if given, add intervals."""
    result = xr.Dataset({f"{name}{suffix}": _over_seeds(by_seed[name]) for name in SHOWN if name in by_seed})
    for name, short in SCORED.items():
        if name not in by_seed:
            continue
        result[f"{short}{suffix}"] = _over_seeds(by_seed[name])
        result[f"{short}{suffix}_by_seed"] = by_seed[name]
        if draws is not None and name in draws:
            result[f"{short}{suffix}_interval"] = interval(_over_seeds(draws[name]))
    result[f"power_deviation_sum{suffix}"] = _over_seeds(by_seed["power_deviation_mean"] * by_seed["energetic_wavenumbers"])
    result[f"runaway{suffix}"] = sums["runaway"].mean(["time", "seed"])
    result[f"starts{suffix}"] = sums.sizes["time"]
    return result.reindex(setting=range(settings)).drop_vars("setting")


def _over_seeds(scores: xr.DataArray) -> xr.DataArray:
    """The mean over training seeds; NaN if one diverged."""
    return scores.mean("seed", skipna=False)


def _all_gains(study: xr.Dataset, by_seed: xr.Dataset, draws: xr.Dataset, suffix: str) -> xr.Dataset:
    """Gains over each reference, for the settings that have a score and a reference with a score."""
    gains = xr.Dataset()
    for label, reference in references(study, by_seed["setting"].values).items():
        compared = np.flatnonzero(reference >= 0)
        if not compared.size:
            continue
        for name, short in GAINS.items():
            if name not in by_seed:
                continue
            gains[f"{short}{label}{suffix}"] = _gain(_over_seeds(by_seed[name]), compared, reference)
            gains[f"{short}{label}{suffix}_by_seed"] = _gain(by_seed[name], compared, reference)
            if name in draws:
                gains[f"{short}{label}{suffix}_interval"] = interval(_gain(_over_seeds(draws[name]), compared, reference))
    return gains.reindex(setting=range(study.sizes["setting"])).drop_vars("setting") if gains else gains


def _gain(scores: xr.DataArray, compared: NDArray[np.intp], reference: NDArray[np.intp]) -> xr.DataArray:
    """1 - score / reference score of the settings that have a reference; NaN if the reference is perfect."""
    reference_scores = scores.isel(setting=reference[compared]).drop_vars("setting").values
    return 1 - scores.isel(setting=compared) / np.where(reference_scores > 0, reference_scores, np.nan)


def references(study: xr.Dataset, present: NDArray[np.integer]) -> dict[str, NDArray[np.intp]]:
    """For each of the settings ``present``, the position among them of its reference, or -1, by the suffix of the gain.

    The reference of the gains without a suffix is the standard prior, or the first prior if the standard one was not studied.
    """
    settings = study.isel(setting=present)
    prior, nfe, best = settings["prior"].values, settings["nfe"].values, settings["best"].values
    result = {}
    for label, other in (("", _reference_prior(study)), ("_first", str(study["prior"].values[0]))):
        of_other = np.flatnonzero((prior == other) & best)
        result[label] = np.full(present.size, of_other[nfe[of_other].argmax()] if of_other.size else -1)
    for label, other in (("_same", "standard"), ("_features", "features-only")):
        positions = {nfe[index]: index for index in np.flatnonzero((prior == other) & best)}
        result[label] = np.array([positions.get(number, -1) for number in nfe])
    return result


def described(study: xr.Dataset) -> str:
    """The reference of the gains, in words."""
    most = int(references(study, np.arange(study.sizes["setting"]))[""][0])
    if most < 0:
        return f"nothing: no setting of the {_reference_prior(study)} prior could be chosen"
    solver, grid, nfe = (study[name].values[most] for name in ("solver", "grid_in_time", "nfe"))
    return f"the {_reference_prior(study)} prior with {nfe} evaluations ({solver}, {grid} times)"


def _reference_prior(study: xr.Dataset) -> str:
    priors = study["prior"].values
    return "standard" if "standard" in priors else str(priors[0])


def saturation(study: xr.Dataset) -> dict[str, int | None]:
    """For each prior the smallest number of evaluations that is as good as any, with its best settings.

    As good: CRPS within 1 % and deviation of the spectrum within 5 % of the lowest, on the validation split, or on the test split if the
    study has no validation split.
    """
    suffix = "_6h_validation" if "crps_6h_validation" in study else "_6h"
    best = study.isel(setting=study["best"].values)
    return smallest_sufficient(best, {f"crps{suffix}": CRPS_TOLERANCE, f"power_deviation{suffix}": SPECTRUM_TOLERANCE})


def facts(study: xr.Dataset, saturates: Mapping[str, int | None]) -> dict[str, str]:
    """What the summary of the command says of a study and of its :func:`saturation`. The scores are in :func:`rows`."""
    about = study.attrs
    result = {"chosen on": about["chosen_on"]}
    if "variable" in about:
        result["scores below"] = f"{about['variable']}, {about['units']}"
    if about["not_by_the_flow"]:
        result["not by the flow"] = f"{about['not_by_the_flow']}: made by networks of few evaluations, whose solver is called euler"
    for split, label in (("train", "training"), ("test", "test")):
        if f"moments_error_{split}" in about:
            error, standardised = about[f"moments_error_{split}"], about[f"moments_standardised_error_{split}"]
            result[f"moments, {label} split"] = errors_in_words(error, standardised)
    trainings = zip(study["studied"].values, study["training_seconds"].values, strict=True)
    result |= {f"training, {prior}": f"{seconds:.0f} s a seed" for prior, seconds in trainings}
    return result | {
        "moments network": f"{about['moments_share']:.2f} evaluations of the generator per sample",
        "saturates at": ", ".join(f"{prior} {nfe or 'no number'}" for prior, nfe in saturates.items()),
        "gain": f"over {about['reference']}",
        "intervals": about["intervals"],
    }


def rows(study: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each setting, for tables and JSON."""
    gains = (f"{gain}{label}" for gain in GAINS.values() for label in ("", "_same", "_features", "_first"))
    names = [*SCORED.values(), "power_deviation_sum", "runaway", *gains]
    table = []
    for index in range(study.sizes["setting"]):
        setting = study.isel(setting=index)
        row: dict[str, Any] = {"grid" if name == "grid_in_time" else name: setting[name].item() for name in (*KEY, "cost", "best")}
        row["diverged"] = diverged(setting)
        for name in names:
            row |= _cells(setting, f"{name}_6h", f"{name}_6h")
            row |= _cells(setting, f"{name}_6h_validation", f"{name}_6h_validation")
            for lead in setting["prediction_timedelta"].values if "prediction_timedelta" in setting.dims else ():
                hours = int(lead / np.timedelta64(1, "h"))
                row |= _cells(setting.sel(prediction_timedelta=lead), name, f"{name}_{hours}h_rolled")
        table.append(row)
    return table


def _cells(setting: xr.Dataset, name: str, label: str) -> dict[str, Any]:
    """A score, its interval and its values by seed, if they are known."""
    if name not in setting or not np.isfinite(setting[name].item()):
        return {}
    cells = {
        f"{label}{ending}": setting[f"{name}{ending}"].values.tolist()
        for ending in ("_interval", "_by_seed")
        if f"{name}{ending}" in setting
    }
    return {label: setting[name].item(), **cells}
