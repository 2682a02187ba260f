"""From statistics of many settings and seeds to what a study of images says, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from wsdcast.images.evaluation import DRAWS, bounds, scored
from wsdcast.images.frechet import FeatureStatistics
from wsdcast.runs.names import WITHOUT_NETWORK
from wsdcast.runs.progress import track
from wsdcast.study.images_page import diverged
from wsdcast.verification.bootstrap import BOUNDS
from wsdcast.weather.samplers import CRPS_TOLERANCE

CALIBRATED = "warm, calibrated"
"""The warm start at the warmth at which its moments are calibrated."""
COMPARED = ("classifier_distance", "fid", "crps", "crps_standard")
CHOSEN_BY = "classifier_distance"
"""What solver, grid and warmth are chosen by, on validation images."""
DISTANCE_TOLERANCE = 1.05
"""A number of evaluations is enough where this distance and CRPS are within this factor and ``CRPS_TOLERANCE`` of the prior's least."""


@dataclass(frozen=True)
class Setting:
    """One way to draw samples; without a solver by the moments network alone."""

    kind: str
    prior: str
    solver: str
    grid_in_time: str
    warmth: float
    visible: float
    nfe: int


class Part(NamedTuple):
    """The files of statistics by context of a setting and a seed: of the images that are reported, and of validation images."""

    setting: Setting
    seed: int
    reported: Path
    validation: Path | None = None


def combine(parts: list[Part], share: float, reference: Mapping[str, FeatureStatistics]) -> xr.Dataset:
    """One data set of all settings, (setting,).

    ``best`` marks the solver, grid and warmth of each prior and number of evaluations that have the least classifier distance on
    validation images, ``classifier_distance_validation``, and those that have no rival; all other scores are of the images that are
    reported. ``diverged`` and ``diverged_validation`` are shares of samples that were not finite, means over seeds: where there are any,
    the scores are NaN, and the setting is never best.

    Scores are computed for each seed of training, then averaged over seeds; of other seeds ``_by_seed`` gives an idea. Intervals hold
    95 % of bootstrap samples of contexts, the same for all settings with as many, so they are compared pairwise: the first prior,
    ``compared``, with half of the evaluations less the standard prior, for each score its difference and interval. Both use the study's
    first solver and the warmth at which the recipe samples, so that nothing was chosen for it.

    Distances have intervals where they are best or compared, NaN elsewhere: a bootstrap sample of Inception's features takes a fifth of
    a second, and those of every setting and seed would take hours.

    Args:
        parts: every setting for every seed; the statistics of one setting are in memory at a time.
        share: of the moments network, in evaluations of the generator.
        reference: of the distances.
    """
    by_setting: dict[Setting, list[Part]] = {}
    for part in parts:
        by_setting.setdefault(part.setting, []).append(part)
    settings = list(by_setting)
    found, validation, used, away = [], [], [], []
    for of_setting in track(by_setting.values(), "scores", len(settings)):
        by_seed = [xr.load_dataset(part.reported) for part in of_setting]
        others = [xr.load_dataset(part.validation) for part in of_setting if part.validation is not None]
        found.append(scored(by_seed, reference, 0))
        validation.append(scored(others, {CHOSEN_BY: reference[CHOSEN_BY]}, 0) if others else {})
        # What a calibrated warmth was, mean over seeds.
        used.append(np.mean([of_seed.attrs["warmth"] for of_seed in by_seed]))
        away.append((_diverged(by_seed), _diverged(others)))
    curves = _curves(settings)
    stable = [[index for index in of_curve if not any(away[index])] for of_curve in curves.values()]
    by = [of_setting[CHOSEN_BY]["value"] if of_setting else np.inf for of_setting in validation]
    best = [min(of_curve, key=lambda index: by[index]) for of_curve in stable if of_curve]
    compared = {point: of_curve[0] for point, of_curve in curves.items()}
    drawn = sorted({*best, *compared.values()})
    for index in track(drawn, "intervals of distances", len(drawn)):
        found[index] = scored([xr.load_dataset(part.reported) for part in by_setting[settings[index]]], reference, DRAWS)
    columns = {name: ("setting", [asdict(setting)[name] for setting in settings]) for name in asdict(settings[0])}
    study = xr.Dataset(coords=columns | {"seed": [part.seed for part in next(iter(by_setting.values()))]})
    study = study.assign_coords(warmth=("setting", used))
    study["cost"] = study["nfe"] + share * ~study["prior"].isin(WITHOUT_NETWORK)
    for name in found[0]:
        study[name] = ("setting", [of_setting[name]["value"] for of_setting in found])
        study[f"{name}_by_seed"] = (("setting", "seed"), [of_setting[name]["by_seed"] for of_setting in found])
        study[f"{name}_interval"] = (("setting", "bound"), [bounds(of_setting[name]) for of_setting in found])
    for name in (CHOSEN_BY, _crps(found[0])):
        none = {"value": np.nan, "by_seed": np.full(study.sizes["seed"], np.nan)}
        scores = [of_setting.get(name, none) for of_setting in validation]
        study[f"{name}_validation"] = ("setting", [score["value"] for score in scores])
        study[f"{name}_validation_by_seed"] = (("setting", "seed"), [score["by_seed"] for score in scores])
    for number, name in enumerate(("diverged", "diverged_validation")):
        study[name] = ("setting", [shares[number] for shares in away])
    study["best"] = ("setting", [index in best for index in range(len(settings))])
    return study.merge(_halves(settings[0].prior, compared, found)).assign_attrs(
        compared=settings[0].prior, compared_solver=settings[0].solver, compared_warmth=settings[0].warmth
    )


def _diverged(by_seed: list[xr.Dataset]) -> float:
    """Share of the samples that were not finite, mean over seeds; those of an earlier version were not counted."""
    shares = [of_seed.attrs.get("diverged", 0) / (of_seed.sizes["context"] * of_seed.sizes["sample"]) for of_seed in by_seed]
    return float(np.mean(shares)) if shares else 0.0


def _crps(scores: Collection[Hashable]) -> str:
    """Fair CRPS, or the standard one where there is one sample of a context."""
    return "crps" if "crps" in scores else "crps_standard"


def _curves(settings: list[Setting]) -> dict[tuple[str, int], list[int]]:
    """For each prior and number of evaluations the settings of every solver and warmth, as the recipe orders them."""
    curves: dict[tuple[str, int], list[int]] = {}
    for index, setting in enumerate(settings):
        if setting.kind == "curve":
            curves.setdefault((setting.prior, setting.nfe), []).append(index)
    return curves


def _halves(first: str, at: dict[tuple[str, int], int], found: list[dict[str, dict[str, Any]]]) -> xr.Dataset:
    """The first prior with half of the evaluations less the standard prior, by evaluations of the latter, ``standard_nfe``."""
    numbers = [nfe for prior, nfe in at if prior == "standard" and nfe % 2 == 0 and (first, nfe // 2) in at]
    pairs = [(at[first, nfe // 2], at["standard", nfe]) for nfe in numbers]
    study = xr.Dataset(coords={"standard_nfe": numbers})
    for name in COMPARED:
        if pairs and name in found[0]:
            ours, theirs = ([found[pair[which]][name] for pair in pairs] for which in (0, 1))
            study[f"{name}_difference"] = ("standard_nfe", [a["value"] - b["value"] for a, b in zip(ours, theirs, strict=True)])
            limits = [np.quantile(a["draws"] - b["draws"], BOUNDS) for a, b in zip(ours, theirs, strict=True)]
            study[f"{name}_difference_interval"] = (("standard_nfe", "bound"), limits)
            by_seed = [a["by_seed"] - b["by_seed"] for a, b in zip(ours, theirs, strict=True)]
            study[f"{name}_difference_by_seed"] = (("standard_nfe", "seed"), by_seed)
    return study


def halves(study: xr.Dataset) -> dict[str, str]:
    """What :func:`combine` compared pairwise, in words."""
    facts = {}
    for nfe in study["standard_nfe"].values:
        pair = study.sel(standard_nfe=nfe)
        words = []
        for name in COMPARED:
            if f"{name}_difference" in pair:
                low, high = pair[f"{name}_difference_interval"].values
                seeds = ", ".join(f"{value:+.4g}" for value in pair[f"{name}_difference_by_seed"].values)
                difference = f"{pair[f'{name}_difference'].item():+.4g} [{low:+.4g}, {high:+.4g}]"
                words.append(f"{name.replace('_', ' ')} {difference}, by seed {seeds}")
        how = f"{study.attrs['compared_solver']}, w = {study.attrs['compared_warmth']:g}"
        facts[f"{study.attrs['compared']} {nfe // 2} ({how}) less standard {nfe}"] = "; ".join(words)
    return facts


def saturation(study: xr.Dataset) -> dict[str, int | None]:
    """For each prior the smallest number of evaluations that is as good as any on validation images, by what is best at each number.

    As good: classifier distance within 5 % and CRPS within 1 % of the prior's least; None where no number is both.
    """
    best, found = study.isel(setting=(study["best"] & (study["nfe"] > 0)).values), {}
    for prior in dict.fromkeys(best["prior"].values.tolist()):
        mine = best.isel(setting=(best["prior"] == prior).values)
        distance, crps = (mine[f"{name}_validation"].values for name in (CHOSEN_BY, _crps(mine)))
        enough = (distance <= DISTANCE_TOLERANCE * distance.min()) & (crps <= CRPS_TOLERANCE * crps.min())
        found[prior] = int(mine["nfe"].values[enough].min()) if enough.any() else None
    return found


def rows(study: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each setting, for a table or JSON."""
    names = [str(name) for name in study.data_vars if f"{name}_interval" in study and study[name].dims == ("setting",)]
    table = []
    priors = list(dict.fromkeys(study["prior"].values))
    order = sorted(
        range(study.sizes["setting"]), key=lambda index: (priors.index(study["prior"].values[index]), study["nfe"].values[index])
    )
    for index in order:
        here = study.isel(setting=index)
        row = {name: here[name].item() for name in ("kind", "prior", "solver", "grid_in_time", "warmth", "visible", "nfe", "cost", "best")}
        row |= {"diverged": diverged(here)} | {
            f"{name}_validation": here[f"{name}_validation"].item() for name in (CHOSEN_BY, _crps(study))
        }
        for name in names:
            row |= {name: here[name].item(), f"{name}_interval": here[f"{name}_interval"].values.tolist()}
            row[f"{name}_by_seed"] = here[f"{name}_by_seed"].values.tolist()
        table.append(row)
    return table
