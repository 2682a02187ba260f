"""The weather study: how many evaluations are enough, by prior, solver, grid of flow times and warmth (``wsdcast study nfe``)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wsdcast.data.store.analysis import Analysis, Part, open_analysis
from wsdcast.report.subjects import WIND, subject
from wsdcast.runs import devices
from wsdcast.runs.artefact import make_stamp, require, resolve
from wsdcast.runs.complete import complete_netcdf
from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import require_no_directories
from wsdcast.runs.mistakes import of_option
from wsdcast.runs.names import (
    ANALYSIS,
    FORECAST,
    PAST_ERRORS,
    PAST_ERRORS_FORECAST,
    PREDICTIONS,
    STUDY,
    STUDY_PAGE,
)
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.recipes import digest_of, with_keys
from wsdcast.runs.summary import Summary
from wsdcast.study.design import combinations, trained_variants
from wsdcast.study.evaluation import STUDIED, evaluate, studied_variables
from wsdcast.study.sharing import stored
from wsdcast.study.summary import write_study
from wsdcast.study.weather_page import write_study_page
from wsdcast.study.weather_summary import combine, described, facts, rows, saturation
from wsdcast.study.weather_variants import moments_cost, variant_of
from wsdcast.training.predictions import overall_errors
from wsdcast.warmstart.evaluations import momentum_of
from wsdcast.warmstart.prior import Moments
from wsdcast.weather.forcings import area_weights
from wsdcast.weather.forecast.past_errors import past_errors
from wsdcast.weather.priors import require_model
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import few_numbers_of, noise_count_of, past_errors_sampler_of, sampler_of
from wsdcast.weather.samples import samples_of
from wsdcast.weather.stages.train import train
from wsdcast.weather.trained import Trained, trained

BLENDED = ("warm", "plain-blend", "climatology", "persistence", "given")
"""Priors whose samples depend on the warmth."""


@dataclass(frozen=True)
class Setting:
    """One way to draw samples, for one training seed."""

    prior: str
    seed: int
    solver: str = ""
    grid_in_time: str = ""
    warmth: float = 1.0
    nfe: int = 0

    @property
    def file(self) -> str:
        """The name of the file of its statistics."""
        return "-".join(str(part) for part in (self.solver or "moments", self.grid_in_time, f"w{self.warmth:g}", f"nfe{self.nfe}") if part)


@devices.own_torch_settings()
def study_nfe(
    recipe: str | Path | Recipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    moments: Moments | None = None,
    overwrite: bool = False,
    **changes: Any,
) -> Summary:
    """Train a generator for each prior and seed, and compare them by number of evaluations: ``RUN/study.nc`` and ``RUN/study.html``.

    All generators have the same network and the same total cost of training: without a moments network the generator is trained for more
    steps. All settings share their initial times and their noise. Solver, grid, warmth and the sufficient number of evaluations are chosen
    on the validation split. The reported scores are those of the test split. Results that are current are not computed again.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared store.
        run: run directory; default ``runs/<recipe name>``.
        moments: your own model for the prior ``given``, as in :func:`wsdcast.train`.
        overwrite: replace artefacts that were made from another recipe.
        changes: keys of the recipe's section ``study``, such as ``nfe`` or ``seeds``.

    Raises:
        UserError: if nothing is prepared, a key is not allowed, there is no generator, or settings must be chosen and the record has no
            validation split.
    """
    if changes.get("nfe") is not None and changes.get("rollout_nfe") is None:
        # Of the recipe's numbers for rollouts, keep those that are still studied.
        unchanged = resolve(recipe, run, Recipe, ANALYSIS)[0]
        studied = with_keys(unchanged, {"study__rollout_nfe": [], "study__nfe": changes["nfe"]}, of_option).study.nfe
        changes["rollout_nfe"] = [nfe for nfe in unchanged.study.rollout_nfe if nfe in studied]
    resolved, directory = resolve(recipe, run, Recipe, ANALYSIS, **{f"study__{key}": value for key, value in changes.items()})
    record = open_analysis(require(resolved, directory, ANALYSIS))
    require_no_directories(directory / STUDY, directory / STUDY_PAGE)
    # Raises now what would stop the study after the first training.
    of = subject(studied_variables(record.variables, resolved.score.headline), resolved.score.headline)
    devices.keep_freed_memory()
    options, summary, begin = resolved.study, Summary("study nfe"), time.perf_counter()
    if "none" in (resolved.generator.objective, *(changed.get("generator.objective") for changed in options.variants.values())):
        raise UserError("generator.objective none: a study compares generators; the moments with past errors are compared anyway")
    cost = moments_cost(resolved, record)
    priors = tuple(dict.fromkeys(options.priors + options.ablations))
    # Every error of the user is found before hours of training.
    by_name: dict[str, tuple[Recipe, float]] = {name: variant_of(resolved, record, cost, name) for name in (*priors, *options.variants)}
    variants = {name: variant for name, (variant, _) in by_name.items()}
    require_model([variant.generator.prior for variant in variants.values()], moments)
    shares = {PAST_ERRORS: cost[0]} | {name: share for name, (_, share) in by_name.items()}
    settings = {name: _settings(variant, name, summary) for name, variant in variants.items()}
    # All settings share their initial times, from which those with most past states can begin.
    record = replace(record, past_states=max(variant.forcings.past_states for variant in variants.values()))
    _require_initial_times(record, options.leads, settings.values())
    parts: dict[Setting, dict[str, xr.Dataset]] = {}
    quality: dict[int, list[tuple[float, float]]] = {}
    seconds: dict[str, list[float]] = {}

    def train_one(variant: Recipe, place: Path) -> None:
        train(variant, place, moments=moments if variant.generator.prior == "given" else None, overwrite=overwrite)

    for seed, prior, variant, place, took in trained_variants(variants, options.seeds, directory, _networks, train_one, overwrite):
        seconds.setdefault(prior, []).append(took)
        of_record = replace(record, past_states=variant.forcings.past_states)
        networks = trained(variant, place, of_record, moments)
        of_variant = [replace(setting, seed=seed) for setting in settings[prior]]
        if prior in priors and variant.generator.needs_moments_network and seed not in quality:
            in_and_out = samples_of(of_record, networks.forcings, "train", "test")
            quality[seed] = [overall_errors(networks.moments, samples, area_weights(record)) for samples in in_and_out]
            if of_record.now("validation").size:
                of_variant.append(Setting(PAST_ERRORS, seed))
        for setting in of_variant:
            rolled_out = prior in (*options.priors, *options.variants) and (setting.nfe in options.rollout_nfe or not setting.solver)
            parts[setting] = dict(_evaluated(variant, place, record, networks, setting, rolled_out))
    study = combine([(asdict(setting), datasets) for setting, datasets in parts.items()], shares)
    study["training_seconds"] = ("studied", [float(np.mean(of_prior)) for of_prior in seconds.values()], {"units": "s"})
    study = study.assign_coords(studied=list(seconds))
    study.attrs |= {"title": f"function evaluations: {resolved.name}", "grid": record.grid.name, "members": options.members}
    if of != WIND:
        study.attrs |= {"variable": of.label, "units": of.units}
    study.attrs |= {"moments_share": cost[0], "reference": described(study), "recipe_hash": resolved.digest()}
    of_few = {name: ", ".join(map(str, few)) for name, variant in variants.items() if (few := _not_by_the_flow(variant))}
    study.attrs["not_by_the_flow"] = "; ".join(f"{name} {few}" for name, few in of_few.items())
    if quality:
        for split, (error, standardised) in zip(("train", "test"), np.mean(list(quality.values()), axis=0), strict=True):
            study.attrs |= {f"moments_error_{split}": error, f"moments_standardised_error_{split}": standardised}
    saturates = saturation(study)
    write_study(study, resolved, directory, saturates, write_study_page)
    summary.written[str(directory / STUDY)] = f"{len(parts)} settings of prior, solver, grid, warmth, evaluations and seed"
    summary.written[str(directory / STUDY_PAGE)] = "figures and tables"
    summary.facts |= facts(study, saturates)
    summary.facts["recipe"] = f"{resolved.name}, hash {study.attrs['recipe_hash']}"
    summary.facts["time"] = f"{time.perf_counter() - begin:.0f} s"
    summary.scores = rows(study)
    return summary


def _networks(variant: Recipe) -> tuple[str, ...]:
    """The artefacts of the trained networks of a variant."""
    return (*variant.networks, PREDICTIONS) if variant.generator.reads_frozen_moments else variant.networks


def _settings(variant: Recipe, name: str, summary: Summary) -> list[Setting]:
    """All settings of one prior or variant. Combinations that cannot be sampled are left out and named in the summary.

    Raises:
        UserError: if a solver can make none of the numbers of evaluations, or a generator of the CRPS cannot make any.
    """
    options = variant.study
    few = _not_by_the_flow(variant)
    # Networks of few evaluations make steps of Euler's method, whatever the solver of the flow.
    settings = [Setting(name, 0, "euler", "uniform", 1.0, nfe) for nfe in few]
    if variant.generator.objective == "crps":
        if not settings:
            raise UserError(f"{name}: the objective crps makes one evaluation, which is not among study.nfe")
        return settings
    if settings and name in options.variants:
        return settings  # a flow is studied by a variant of its own, which has all of the training
    of_flow = [nfe for nfe in options.nfe if nfe not in few]
    if of_flow or not settings:
        possible = combinations(options.solvers, options.grids_in_time, of_flow, summary, variant.generator.followed_path)
        # Warmth has no effect on priors that are not blended.
        warmths = options.warmths if variant.generator.prior in BLENDED else (1.0,)
        settings += [Setting(name, 0, solver, grid, warmth, nfe) for (solver, grid, nfe), warmth in product(possible, warmths)]
    return settings


def _not_by_the_flow(variant: Recipe) -> list[int]:
    """The studied numbers of evaluations that a network of few evaluations or a fine-tuned one makes."""
    made = set(few_numbers_of(variant))
    return [nfe for nfe in variant.study.nfe if nfe in made]


def _require_initial_times(record: Analysis, leads: tuple[int, ...], settings: Iterable[list[Setting]]) -> None:
    """Check that the test split has room for the longest forecast, and the validation split for one step if settings must be chosen.

    Raises:
        UserError: if no forecast fits into the test split, or settings must be chosen and no step fits into the validation split.
    """
    record.starts(1, leads[-1] // 6)
    # Settings must be chosen if a prior has several of them with the same number of evaluations.
    must_choose = any(count > 1 for prior_settings in settings for count in Counter(setting.nfe for setting in prior_settings).values())
    if must_choose and not record.now("validation").size:
        raise UserError(
            "solvers, grids and warmths are chosen on the validation split, but no initial time in it has 6 h of gap-free truth after it; "
            "set data.validation_from and data.test_from in the recipe, or study only one solver, grid and warmth"
        )


def _evaluated(
    variant: Recipe, place: Path, record: Analysis, networks: Trained, setting: Setting, rolled_out: bool
) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the statistics of a setting by kind: one step on the test split, one step on the validation split, forecasts if ``rolled_out``.

    A file of statistics of the same setting is read instead of computing them again.
    """
    options, noise, of_variant = variant.study, variant.rollout.seed, replace(record, past_states=variant.forcings.past_states)
    kinds: dict[str, tuple[Part, int, tuple[int, ...]]] = {"one step": ("test", options.starts, (6,))}
    if setting.solver and record.now("validation").size:
        kinds["validation"] = ("validation", options.starts, (6,))
    if rolled_out and options.leads[-1] > 6:
        kinds["forecast"] = ("test", options.rollout_starts, options.leads)
    noise_count = 1
    if setting.solver:
        momentum = momentum_of(setting.solver, variant.rollout.momentum)
        sampled = variant.changed(
            rollout__solver=setting.solver,
            rollout__grid_in_time=setting.grid_in_time,
            rollout__warmth=setting.warmth,
            rollout__nfe=setting.nfe,
            rollout__momentum=momentum,
        )
        noise_count = noise_count_of(networks, sampled.rollout)
        sampler = sampler_of(networks, sampled.rollout)
        inputs: list[Any] = [make_stamp(sampled, place, FORECAST)["inputs"], sampled.rollout.log_snr_ends, momentum]
    else:
        sampler = past_errors_sampler_of(networks, past_errors(networks, of_variant))
        inputs = [make_stamp(variant, place, PAST_ERRORS_FORECAST)["inputs"]]
    for kind, (part, starts, leads) in kinds.items():
        chosen = record.starts(starts, max(leads) // 6, part)
        # A longer record (`wsdcast prepare --append`) has other initial times, and all settings must share theirs.
        made_by = [record.times[chosen].astype(str).tolist(), variant.rollout.forcings, variant.score.headline, STUDIED]
        digest = digest_of([*inputs, asdict(setting), noise, leads, options.members, *made_by])
        path = place / f"{kind.replace(' ', '-')}-{setting.file}-{digest[:8]}.nc"
        if (statistics := stored(path)) is not None:
            yield kind, statistics
            continue
        label = f"{setting.prior}, seed {setting.seed}, {setting.solver} {setting.nfe}, {kind}"
        dataset = evaluate(
            of_variant,
            networks,
            sampler,
            chosen,
            leads,
            members=options.members,
            seed=noise,
            label=label,
            noise_count=noise_count,
            prescribed=variant.rollout.forcings == "prescribed",
            headline=variant.score.headline,
        )
        with complete_netcdf(path) as file:
            dataset.to_netcdf(file)
        yield kind, dataset
