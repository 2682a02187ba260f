"""The summary of an image study: scores of all settings with intervals, from statistics by seed and context."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from wsdcast.images.evaluation import DRAWS, bounds, distances_scored, scored
from wsdcast.images.frechet import FeatureStatistics
from wsdcast.runs.progress import track
from wsdcast.study.images_page import diverged
from wsdcast.study.summary import groups, settings_dataset, smallest_sufficient
from wsdcast.verification.bootstrap import BOUNDS
from wsdcast.weather.solver_choice import CRPS_TOLERANCE

COMPARED = ("classifier_distance", "fid", "crps", "crps_standard")
"""Scores that are compared pairwise between priors."""
CHOSEN_BY = "classifier_distance"
"""The score on validation images by which solver, grid and warmth are chosen."""
DISTANCE_TOLERANCE = 1.05
"""A classifier distance within this factor of the lowest counts as equally good."""


@dataclass(frozen=True)
class Setting:
    """One way to draw samples. Without a solver the moments network draws them alone."""

    kind: str
    prior: str
    solver: str
    grid_in_time: str
    warmth: float
    visible: float
    nfe: int


class Part(NamedTuple):
    """A setting and a seed, with the files of statistics by context of the images that are reported and of validation images."""

    setting: Setting
    seed: int
    reported: Path
    validation: Path | None = None


def combine(parts: list[Part], shares: Mapping[str, float], reference: Mapping[str, FeatureStatistics]) -> xr.Dataset:
    """One data set of all settings, (setting,); docs/schema.md lists its variables.

    ``best`` marks the solver, grid and warmth of each prior and number of evaluations with the lowest classifier distance on validation
    images, and settings without rivals. All other scores are those of the images that are reported. ``diverged`` and
    ``diverged_validation`` are the shares of samples that were not finite, means over seeds. A setting with such samples has no scores and
    is never best.

    Scores are computed for each training seed, then averaged over seeds. ``_by_seed`` shows how much seeds differ. Intervals hold 95 % of
    bootstrap samples of contexts, the same for all settings with as many contexts. So the first prior, ``compared``, with half of the
    evaluations is compared pairwise with the standard prior. Both use the study's first solver and the recipe's warmth, which no score
    has chosen.

    Only distances that are best or compared have intervals. A bootstrap sample of Inception's features takes a fifth of a second, so those
    of every setting and seed would take hours.

    Args:
        parts: every setting for every seed. The statistics of one setting are in memory at a time.
        shares: cost of the moments network by prior, as in :func:`wsdcast.study.summary.settings_dataset`.
        reference: features of the reference set, for each distance.
    """
    by_setting: dict[Setting, list[Part]] = {}
    for part in parts:
        by_setting.setdefault(part.setting, []).append(part)
    settings = list(by_setting)
    reported, validation, warmths, diverged_shares = [], [], [], []
    for of_setting in track(by_setting.values(), "scores", len(settings)):
        by_seed = [xr.load_dataset(part.reported) for part in of_setting]
        on_validation = [xr.load_dataset(part.validation) for part in of_setting if part.validation is not None]
        reported.append(scored(by_seed, reference, of_distances=0))
        validation.append(scored(on_validation, {CHOSEN_BY: reference[CHOSEN_BY]}, 0, 0) if on_validation else {})
        warmths.append(np.mean([of_seed.attrs["warmth"] for of_seed in by_seed]))  # a calibrated warmth differs between seeds
        diverged_shares.append((_diverged(by_seed), _diverged(on_validation)))
    study = settings_dataset([asdict(setting) for setting in settings], shares)
    study = study.assign_coords(seed=[part.seed for part in next(iter(by_setting.values()))], warmth=("setting", warmths))
    best = []
    for (kind, _, _), group in groups(study, ("kind", "prior", "nfe")).items():
        if kind == "curve" and (stable := [index for index in group if not any(diverged_shares[index])]):
            best.append(min(stable, key=lambda index: validation[index].get(CHOSEN_BY, {"value": np.inf})["value"]))
    compared: dict[tuple[str, int], int] = {}  # the recipe's own warmth comes first among those of a solver
    for index, setting in enumerate(settings):
        if (setting.kind, setting.solver, setting.grid_in_time) == ("curve", settings[0].solver, settings[0].grid_in_time):
            compared.setdefault((setting.prior, setting.nfe), index)
    with_intervals = sorted({*best, *compared.values()})
    for index in track(with_intervals, "intervals of distances", len(with_intervals)):
        by_seed = [xr.load_dataset(part.reported) for part in by_setting[settings[index]]]
        reported[index] |= distances_scored(by_seed, reference, DRAWS)
    for name in reported[0]:
        study[name] = ("setting", [scores[name]["value"] for scores in reported])
        study[f"{name}_by_seed"] = (("setting", "seed"), [scores[name]["by_seed"] for scores in reported])
        study[f"{name}_interval"] = (("setting", "bound"), [bounds(scores[name]) for scores in reported])
    for name in (CHOSEN_BY, _crps(reported[0])):
        unknown = {"value": np.nan, "by_seed": np.full(study.sizes["seed"], np.nan)}
        of_settings = [scores.get(name, unknown) for scores in validation]
        study[f"{name}_validation"] = ("setting", [score["value"] for score in of_settings])
        study[f"{name}_validation_by_seed"] = (("setting", "seed"), [score["by_seed"] for score in of_settings])
    for number, name in enumerate(("diverged", "diverged_validation")):
        study[name] = ("setting", [shares[number] for shares in diverged_shares])
    study["best"] = ("setting", [index in best for index in range(len(settings))])
    return study.merge(_halves(settings[0].prior, compared, reported)).assign_attrs(
        compared=settings[0].prior, compared_solver=settings[0].solver, compared_warmth=settings[0].warmth
    )


def _diverged(by_seed: list[xr.Dataset]) -> float:
    """The share of samples that were not finite, mean over seeds. Files of an earlier version have no count, which reads as 0."""
    shares = [of_seed.attrs.get("diverged", 0) / (of_seed.sizes["context"] * of_seed.sizes["sample"]) for of_seed in by_seed]
    return float(np.mean(shares)) if shares else 0.0


def _crps(scores: Collection[Hashable]) -> str:
    """The name of the CRPS: fair, or standard if each context has one sample."""
    return "crps" if "crps" in scores else "crps_standard"


def _halves(first: str, indices: dict[tuple[str, int], int], reported: list[dict[str, dict[str, Any]]]) -> xr.Dataset:
    """The first prior with half of the evaluations less the standard prior, by evaluations of the latter, ``standard_nfe``."""
    numbers = [nfe for prior, nfe in indices if prior == "standard" and nfe % 2 == 0 and (first, nfe // 2) in indices]
    pairs = [(indices[first, nfe // 2], indices["standard", nfe]) for nfe in numbers]
    study = xr.Dataset(coords={"standard_nfe": numbers})
    for name in COMPARED:
        if pairs and name in reported[0]:
            differences = [
                {key: reported[half][name][key] - reported[standard][name][key] for key in ("value", "draws", "by_seed")}
                for half, standard in pairs
            ]
            study[f"{name}_difference"] = ("standard_nfe", [difference["value"] for difference in differences])
            limits = [np.quantile(difference["draws"], BOUNDS) for difference in differences]
            study[f"{name}_difference_interval"] = (("standard_nfe", "bound"), limits)
            study[f"{name}_difference_by_seed"] = (("standard_nfe", "seed"), [difference["by_seed"] for difference in differences])
    return study


def facts(study: xr.Dataset, seconds: Mapping[str, Sequence[float]], saturates: Mapping[str, int | None]) -> dict[str, str]:
    """What the summary of the command says of a study and of the training time of each prior, by seed. The scores are in :func:`rows`."""
    about = study.attrs
    floors = {name.removeprefix("floor_"): value for name, value in about.items() if name.startswith("floor_") and name != "floor_of"}
    result = {"scored": about["about"]}
    result |= {f"{name.replace('_', ' ')} of {about['floor_of']}": f"{value:.3f}" for name, value in floors.items()}
    result |= {f"training, {prior}": f"{np.mean(of_prior):.0f} s a seed" for prior, of_prior in seconds.items()}
    return result | {
        "moments network": f"{about['moments_share']:.2f} evaluations of the generator per sample",
        "chosen on": f"{about['chosen_on']}, which also say what saturates",
        "saturates at": ", ".join(f"{prior} {nfe or 'no number'}" for prior, nfe in saturates.items()),
    }


def halves(study: xr.Dataset) -> dict[str, str]:
    """The pairwise comparison of :func:`combine` as facts of a summary."""
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
    """For each prior the smallest number of evaluations that is as good as any on validation images, with its best settings.

    As good: classifier distance within 5 % and CRPS within 1 % of the lowest.
    """
    best = study.isel(setting=(study["best"] & (study["nfe"] > 0)).values)
    return smallest_sufficient(best, {f"{CHOSEN_BY}_validation": DISTANCE_TOLERANCE, f"{_crps(best)}_validation": CRPS_TOLERANCE})


def rows(study: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each setting, for tables and JSON."""
    names = [str(name) for name in study.data_vars if f"{name}_interval" in study and study[name].dims == ("setting",)]
    priors = list(dict.fromkeys(study["prior"].values))
    keys = [(priors.index(prior), nfe) for prior, nfe in zip(study["prior"].values, study["nfe"].values, strict=True)]
    table = []
    coordinates = ("kind", "prior", "solver", "grid_in_time", "warmth", "visible", "nfe", "cost", "best")
    for index in sorted(range(len(keys)), key=lambda index: keys[index]):
        setting = study.isel(setting=index)
        row = {name: setting[name].item() for name in coordinates} | {"diverged": diverged(setting)}
        row |= {f"{name}_validation": setting[f"{name}_validation"].item() for name in (CHOSEN_BY, _crps(study))}
        for name in names:
            row |= {name: setting[name].item(), f"{name}_interval": setting[f"{name}_interval"].values.tolist()}
            row[f"{name}_by_seed"] = setting[f"{name}_by_seed"].values.tolist()
        table.append(row)
    return table
