"""How many function evaluations are enough: priors, solvers, grids in time and warmth on the same dates and the same noise."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from wsdcast.data.store.analysis import Analysis, Part, open_analysis
from wsdcast.runs import devices
from wsdcast.runs.artefact import Summary, complete, digest_of, make_stamp, require, resolve
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS, FORECAST, MOMENTS_ALONE, MOMENTS_FORECAST, STUDY, STUDY_PAGE
from wsdcast.study.evaluation import evaluate
from wsdcast.study.page import write_study_page
from wsdcast.study.sharing import training_seconds
from wsdcast.study.statistics import study_statistics
from wsdcast.study.summary import chosen_on, combine, described, rows, saturation
from wsdcast.study.variants import moments_cost, train_variant, variant_of
from wsdcast.training.predictions import checked, in_words
from wsdcast.warmstart.evaluations import require_possible
from wsdcast.warmstart.prior import Moments
from wsdcast.weather.forcings import area_weights
from wsdcast.weather.priors import Trained, trained
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import moments_sampler_of, required_statistics, sampler_of
from wsdcast.weather.samples import samples_of


@dataclass(frozen=True)
class Setting:
    """One way to draw samples, for one seed of training."""

    prior: str
    seed: int
    solver: str = ""
    grid_in_time: str = ""
    warmth: float = 1.0
    nfe: int = 0

    @property
    def file(self) -> str:
        """Name of what is kept of it."""
        return "-".join(str(part) for part in (self.solver or "moments", self.grid_in_time, f"w{self.warmth:g}", f"nfe{self.nfe}") if part)


def study_nfe(
    recipe: str | Path | Recipe | None = None,
    run: str | Path | None = None,
    *,
    moments: Moments | None = None,
    overwrite: bool = False,
    **changes: Any,
) -> Summary:
    """Train a generator for each prior and seed, and compare them by number of evaluations: ``RUN/study.nc`` and ``RUN/study.html``.

    All generators have the same network and the same total cost of training: those that need no moments network are trained longer by
    what it cost. All settings share their start dates and their noise. Solver, grid, warmth and the number of evaluations that is enough
    are chosen on the validation part, and reported with scores of the test part. What is there and current is not done again.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared store.
        run: run directory; default ``runs/<recipe name>``.
        moments: for the prior ``given``, as for :func:`wsdcast.train`.
        overwrite: replace what was made from another recipe.
        changes: keys of the recipe's section ``study``, such as ``nfe`` or ``seeds``; what is not given is as in the recipe.

    Raises:
        UserError: if nothing is prepared, a key is not allowed, or there is something to choose and no validation part to choose on.
    """
    if changes.get("nfe") is not None and changes.get("rollout_nfe") is None:
        # Of the recipe's numbers that are rolled out, those that are still there.
        before = resolve(recipe, run, Recipe, ANALYSIS)[0]
        now = before.changed(study__rollout_nfe=[], study__nfe=changes["nfe"]).study.nfe
        changes["rollout_nfe"] = [nfe for nfe in before.study.rollout_nfe if nfe in now]
    resolved, directory = resolve(recipe, run, Recipe, ANALYSIS, **{f"study__{key}": value for key, value in changes.items()})
    record = open_analysis(require(resolved, directory, ANALYSIS, "prepare"))
    devices.keep_freed_memory()
    wanted, summary, begin = resolved.study, Summary("study nfe"), time.perf_counter()
    cost = moments_cost(resolved, record)
    priors = tuple(dict.fromkeys(wanted.priors + wanted.ablations))
    # All that can be refused is refused before hours of training.
    settings = {prior: _settings(resolved, prior, summary) for prior in priors}
    _require_starts(record, wanted.leads, settings.values())
    variants = {(seed, prior): variant_of(resolved, cost, seed, prior) for seed, prior in product(wanted.seeds, priors)}
    parts: dict[Setting, dict[str, xr.Dataset]] = {}
    quality: dict[int, list[tuple[float, float]]] = {}
    seconds: dict[str, list[float]] = {}
    for (seed, prior), variant in variants.items():
        place = train_variant(variant, directory, moments, overwrite)
        seconds.setdefault(prior, []).append(training_seconds(place))
        networks = trained(variant, place, record, moments)
        mine = [replace(setting, seed=seed) for setting in settings[prior]]
        if variant.generator.needs_moments_network and seed not in quality:
            in_and_out = samples_of(record, networks.forcings, "train", "test")
            quality[seed] = [checked(networks.moments, samples, area_weights(record)) for samples in in_and_out]
            mine.append(Setting(MOMENTS_ALONE, seed))
        for setting in mine:
            rolled_out = prior in wanted.priors and (setting.nfe in wanted.rollout_nfe or not setting.solver)
            parts[setting] = dict(_evaluated(variant, place, record, networks, moments, setting, rolled_out))
    study = combine([(asdict(setting), datasets) for setting, datasets in parts.items()], cost[0])
    study["training_seconds"] = ("studied", [float(np.mean(seconds[prior])) for prior in priors], {"units": "s"})
    study = study.assign_coords(studied=list(priors))
    summary.facts["chosen on"] = chosen_on(study)
    study.attrs |= {"title": f"function evaluations: {resolved.name}", "grid": record.grid.name, "members": wanted.members}
    study.attrs |= {"moments_share": cost[0], "reference": described(study), "recipe_hash": digest_of(resolved.dump())}
    if quality:
        for part, (error, standardised) in zip(("train", "test"), np.mean(list(quality.values()), axis=0), strict=True):
            study.attrs |= {f"moments_error_{part}": error, f"moments_standardised_error_{part}": standardised}
            summary.facts[f"moments, {part} part"] = in_words(error, standardised)
    study.attrs["wsdcast"] = json.dumps(make_stamp(resolved, directory, STUDY))
    with complete(directory / STUDY) as partial:
        study.to_netcdf(partial)
    saturates = saturation(study)
    with complete(directory / STUDY_PAGE) as partial:
        write_study_page(partial, study, resolved.name, yaml.safe_dump(resolved.dump(), sort_keys=False), saturates)
    summary.written[str(directory / STUDY)] = f"{len(parts)} settings of prior, solver, grid, warmth, evaluations and seed"
    summary.written[str(directory / STUDY_PAGE)] = "figures and tables"
    summary.facts |= {f"training, {prior}": f"{np.mean(seconds[prior]):.0f} s a seed" for prior in priors}
    summary.facts |= {
        "moments network": f"{cost[0]:.2f} evaluations of the generator per sample",
        "saturates at": ", ".join(f"{prior} {nfe or 'no number'}" for prior, nfe in saturates.items()),
        "gain": f"over {study.attrs['reference']}",
        "recipe": f"{resolved.name}, hash {study.attrs['recipe_hash']}",
        "time": f"{time.perf_counter() - begin:.0f} s",
    }
    summary.scores = rows(study)
    return summary


def _settings(recipe: Recipe, prior: str, summary: Summary) -> list[Setting]:
    """All settings of one prior; what a solver cannot do is named in the summary and left out.

    Raises:
        UserError: if nothing is left.
    """
    wanted = recipe.study
    # Warmth changes nothing where there is nothing to blend.
    warmths = wanted.warmths if prior in ("warm", "plain-blend", "climatology", "given") else (1.0,)
    found, left_out = [], {}
    for solver, grid_in_time, warmth, nfe in product(wanted.solvers, wanted.grids_in_time, warmths, wanted.nfe):
        try:
            require_possible(solver, grid_in_time, nfe)
            found.append(Setting(prior, 0, solver, grid_in_time, warmth, nfe))
        except UserError as error:
            left_out[f"left out: {solver}, {grid_in_time}, {nfe}"] = str(error)
    if not found:
        raise UserError(f"nothing to study: {next(iter(left_out.values()))}")
    summary.facts |= left_out
    return found


def _require_starts(record: Analysis, leads: tuple[int, ...], settings: Iterable[list[Setting]]) -> None:
    """Refuse a record whose parts are too short.

    Raises:
        UserError: if no forecast fits into the test part, or no step into the validation part and there are settings to choose from.
    """
    record.starts(1, leads[-1] // 6)
    rivals = any(count > 1 for of_prior in settings for count in Counter(setting.nfe for setting in of_prior).values())
    if rivals and not record.now("validation").size:
        raise UserError(
            "solvers, grids and warmths are chosen on the validation part, and no start in it has 6 h of gap-free truth after it; set "
            "data.validation_from and data.test_from in the recipe, or study one of each"
        )


def _evaluated(
    variant: Recipe, place: Path, record: Analysis, networks: Trained, moments: Moments | None, setting: Setting, rolled_out: bool
) -> Iterator[tuple[str, xr.Dataset]]:
    """Statistics of one step on both parts and, where wanted, of forecasts; from disk if the same networks and settings made them."""
    wanted, noise = variant.study, variant.rollout.seed
    kinds: dict[str, tuple[Part, int, tuple[int, ...]]] = {"one step": ("test", wanted.starts, (6,))}
    if setting.solver and record.now("validation").size:
        kinds["validation"] = ("validation", wanted.starts, (6,))
    if rolled_out and wanted.leads[-1] > 6:
        kinds["forecast"] = ("test", wanted.rollout_starts, wanted.leads)
    if setting.solver:
        # Only Adams-Bashforth methods have a momentum.
        momentum = variant.rollout.momentum if setting.solver.startswith("ab") else 1.0
        sampled = variant.changed(
            rollout__solver=setting.solver,
            rollout__grid_in_time=setting.grid_in_time,
            rollout__warmth=setting.warmth,
            rollout__nfe=setting.nfe,
            rollout__momentum=momentum,
        )
        if sampled.rollout.needs_statistics:
            study_statistics(sampled, place, moments=moments)
        sampler = sampler_of(networks, sampled.rollout, required_statistics(sampled, place))
        inputs: list[Any] = [make_stamp(sampled, place, FORECAST)["inputs"], sampled.rollout.log_snr_ends, momentum]
    else:
        sampler = moments_sampler_of(networks)
        inputs = [make_stamp(variant, place, MOMENTS_FORECAST)["inputs"]]
    for kind, (part, starts, leads) in kinds.items():
        about = digest_of([*inputs, asdict(setting), noise, starts, leads, wanted.members])
        path = place / f"{kind.replace(' ', '-')}-{setting.file}-{about[:8]}.nc"
        if path.exists():
            with xr.open_dataset(path, decode_timedelta=True) as dataset:
                yield kind, dataset.load()
            continue
        label = f"{setting.prior}, seed {setting.seed}, {setting.solver} {setting.nfe}, {kind}"
        chosen = record.starts(starts, max(leads) // 6, part)
        dataset = evaluate(record, networks, sampler, chosen, leads, wanted.members, noise, label)
        with complete(path) as partial:
            dataset.to_netcdf(partial)
        yield kind, dataset
