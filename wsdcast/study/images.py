"""The image study: how many evaluations are enough, by prior, solver, share of visible pixels and warmth (``wsdcast inpaint study``)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsdcast.images.classifier import Extract, extractors
from wsdcast.images.contexts import fixed_contexts
from wsdcast.images.data.store import Images, open_images
from wsdcast.images.data.store import Part as PartOfImages
from wsdcast.images.drawing import SHOWN, draw_samples, moments_sampler_of, same_noise_samples, sampler_of, warmth_for
from wsdcast.images.evaluation import Diverged, described, floors, floors_of, references, statistics_by_context
from wsdcast.images.memory import require_study
from wsdcast.images.networks import Trained, trained
from wsdcast.images.pictures import same_noise
from wsdcast.images.recipe import ImageRecipe, Protocol
from wsdcast.images.stages.train import train
from wsdcast.runs import devices
from wsdcast.runs.artefact import is_current, read_stamp, require, resolve
from wsdcast.runs.complete import complete, complete_netcdf
from wsdcast.runs.names import (
    CALIBRATED,
    CLASSIFIER,
    GENERATOR,
    IMAGES,
    MOMENTS,
    MOMENTS_ALONE,
    STUDY,
    STUDY_PAGE,
)
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.recipes import digest_of
from wsdcast.runs.summary import Summary
from wsdcast.study.design import combinations, trained_variants
from wsdcast.study.images_page import write_image_study_page
from wsdcast.study.images_summary import CHOSEN_BY, Part, Setting, combine, facts, halves, rows, saturation
from wsdcast.study.images_variants import moments_cost, variant_of
from wsdcast.study.sharing import stored
from wsdcast.study.summary import write_study
from wsdcast.warmstart.evaluations import momentum_of

SAME_NOISE = "same_noise.png"
BUDGETS = {"cost": "total cost of training", "steps": "steps of the generator"}


@devices.own_torch_settings()
def inpaint_study(
    recipe: str | Path | ImageRecipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    inception_weights: str | Path | None = None,
    protocol: Protocol | None = None,
    overwrite: bool = False,
    **changes: Any,
) -> Summary:
    """Train a generator for each prior and seed, and compare them by number of evaluations: ``RUN/study.nc`` and ``RUN/study.html``.

    All generators have the same network and the same total cost of training: without a moments network the generator is trained for more
    steps, unless the budget is in steps. All settings share their contexts and their noise. Solver, grid, warmth and the sufficient number
    of evaluations are chosen on validation images. Results that are current are not computed again.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared images.
        run: run directory; default ``runs/<recipe name>``.
        inception_weights: file of Inception's weights, for FID in addition to the classifier distance.
        protocol: the images whose contexts are scored; default from the recipe.
        overwrite: replace results of another recipe.
        changes: keys of the recipe's section ``study``, such as ``nfe`` or ``seeds``.

    Raises:
        UserError: if nothing is prepared, a key is not allowed, the task hides nothing of such images, or memory cannot hold it.
    """
    study_changes = {f"study__{key}": value for key, value in changes.items()}
    resolved, directory = resolve(recipe, run, ImageRecipe, IMAGES, sample__protocol=protocol, **study_changes)
    images = open_images(require(resolved, directory, IMAGES))
    is_current(resolved, directory, STUDY, overwrite)  # refuses a study of another recipe before anything is trained
    few = fixed_contexts(images, resolved.sample.part, resolved.task, count=SHOWN)
    devices.keep_freed_memory()
    options, summary, begin = resolved.study, Summary("inpaint study"), time.perf_counter()
    cost = moments_cost(resolved, images)
    # Every error of the user is found before hours of training.
    by_name = {name: variant_of(resolved, images, cost, name) for name in (*options.priors, *options.ablations, *options.variants)}
    variants = {name: variant for name, (variant, _) in by_name.items()}
    shares = {MOMENTS_ALONE: cost[0], CALIBRATED: cost[0]} | {name: share for name, (_, share) in by_name.items()}
    settings = {name: settings_of(variant, name, summary) for name, variant in variants.items()}
    for variant in (resolved, *(variants[name] for name in options.variants)):
        require_study(variant, images, ["classifier_distance"] + ["fid"] * (inception_weights is not None))
    extract = extractors(resolved, directory, images, None if inception_weights is None else Path(inception_weights), summary, overwrite)
    reference = references(images, extract)
    parts: list[Part] = []
    seconds: dict[str, list[float]] = {}
    shown: dict[str, dict[int, NDArray[np.uint8]]] = {}
    train_one = partial(train, overwrite=overwrite)
    for seed, prior, variant, place, took in trained_variants(variants, options.seeds, directory, _networks, train_one, overwrite):
        seconds.setdefault(prior, []).append(took)
        networks = trained(variant, place, images)
        for setting in settings[prior]:
            evaluated = partial(_evaluated, variant, place, directory, images, networks, setting)
            chooses = setting.kind == "curve" and setting.solver
            validation = evaluated("validation", {CHOSEN_BY: extract[CHOSEN_BY]}) if chooses else None
            parts.append(Part(setting, seed, evaluated(resolved.sample.part, extract), validation))
        if seed == options.seeds[0] and prior in (*options.priors, *options.variants):
            solver = options.solvers[0]
            first = {"solver": solver, "grid_in_time": options.grids_in_time[0], "momentum": momentum_of(solver, variant.sample.momentum)}
            shown[prior] = same_noise_samples(few, networks, variant.sample.model_copy(update=first), options.nfe, 1.0)
    study = combine(parts, shares, reference)
    part, count = resolved.sample.part, options.contexts * options.samples
    study.attrs |= {
        "about": _about(resolved, images),
        "recipe_hash": resolved.digest(),
        "moments_share": cost[0],
        "floor_of": floors_of(images, part, count),
        "chosen_on": f"{min(options.contexts, images.count('validation'))} contexts of validation images, by the classifier distance",
    }
    study.attrs |= {f"floor_{name}": value for name, value in floors(images, part, count, extract, reference).items()}
    saturates = saturation(study)
    write_study(study, resolved, directory, saturates, write_image_study_page)
    context = few.context(torch.arange(len(few))).cpu().numpy()
    with complete(directory / SAME_NOISE) as file:
        same_noise(context, images.images[few.chosen], shown).savefig(file)
    summary.written[str(directory / STUDY)] = f"{len(parts)} settings of prior, solver, visible share, warmth, evaluations and seed"
    summary.written |= {str(directory / STUDY_PAGE): "figures and tables", str(directory / SAME_NOISE): "samples of the same noise"}
    summary.facts |= facts(study, seconds, saturates)
    summary.facts["recipe"] = f"{resolved.name}, hash {study.attrs['recipe_hash']}"
    summary.facts["time"] = f"{time.perf_counter() - begin:.0f} s"
    summary.facts |= halves(study)
    summary.scores = rows(study)
    for row in summary.scores:
        if row["diverged"]:
            how = f"{row['prior']}, {row['solver']}, {row['grid_in_time']}, w = {row['warmth']:g}, {100 * row['visible']:g} % visible"
            summary.facts[f"diverged: {how}, {row['nfe']} evaluations"] = row["diverged"]
    return summary


def _networks(variant: ImageRecipe) -> tuple[str, ...]:
    """The artefacts of the trained networks of a variant."""
    return (GENERATOR, MOMENTS) if variant.generator.needs_moments_network else (GENERATOR,)


def settings_of(variant: ImageRecipe, name: str, summary: Summary) -> list[Setting]:
    """All settings of one prior or variant, each once. Combinations that cannot be sampled are left out and named in the summary.

    A variant is in the curves like the priors of ``study.priors``, not in the sensitivity.

    Raises:
        UserError: if a solver can make none of the numbers of evaluations.
    """
    options, share, path = variant.study, variant.task.visible_test, variant.generator.followed_path
    is_prior = name in options.priors
    is_main = is_prior or name in options.variants
    # Warmth has no effect on the standard prior, and ablations are compared at full warmth.
    is_warm = variant.generator.prior == "warm"
    warmths = options.warmths if is_warm else (1.0,)
    own = variant.sample.warmth if is_warm and variant.sample.warmth != "calibrated" else 1.0
    # The recipe's own warmth comes first, because it is compared with the standard prior.
    numbers = dict.fromkeys([own, *(warmth for warmth in warmths if warmth != "calibrated")])
    solvers, grids = options.solvers if is_main else options.solvers[:1], options.grids_in_time if is_main else options.grids_in_time[:1]
    possible = combinations(solvers, grids, options.nfe if is_main else options.ablation_nfe, summary, path)
    settings = [
        Setting("curve", name, solver, grid, warmth, share, nfe)
        for pair, warmth in product(dict.fromkeys(combination[:2] for combination in possible), numbers)
        for solver, grid, nfe in possible
        if (solver, grid) == pair
    ]
    if name == "warm":
        settings.append(Setting("curve", MOMENTS_ALONE, "", "", 1.0, share, 0))
    if is_prior and variant.task.shows_pixels and options.visible:
        sensitivity = combinations(options.solvers[:1], options.grids_in_time[:1], options.visible_nfe, summary, path)
        for visible, (solver, grid, nfe), warmth in product(options.visible, sensitivity, warmths):
            label, value = (CALIBRATED, np.nan) if warmth == "calibrated" else (name, warmth)
            settings.append(Setting("sensitivity", label, solver, grid, value, visible, nfe))
    return list(dict.fromkeys(settings))


def _evaluated(
    variant: ImageRecipe,
    place: Path,
    directory: Path,
    images: Images,
    networks: Trained,
    setting: Setting,
    part: PartOfImages,
    extract: Mapping[str, Extract],
) -> Path:
    """The file of statistics by context of one setting on a part of the images. A file of the same networks and settings is kept."""
    options = variant.study
    count = options.contexts if setting.kind == "curve" else options.visible_contexts
    unseen = fixed_contexts(images, "validation", variant.task, visible=setting.visible)
    warmth = warmth_for("calibrated" if setting.prior == CALIBRATED else setting.warmth, networks, unseen)
    origin = [stamp and stamp["id"] for stamp in (read_stamp(directory / CLASSIFIER), read_stamp(place / GENERATOR))]
    asked = [variant.task.model_dump(mode="json"), part, count, options.samples, sorted(extract)]
    ends = variant.sample.log_snr_ends if setting.grid_in_time == "log-snr" else None
    momentum = momentum_of(setting.solver, variant.sample.momentum)
    special = [ends, momentum] if ends or momentum != 1 else []
    about = digest_of([setting.solver, setting.grid_in_time, setting.visible, setting.nfe, warmth, origin, asked, *special])
    path = place / f"{'validation-' * (part == 'validation')}{setting.solver or 'moments'}-{setting.nfe}-{about[:8]}.nc"
    if stored(path) is not None:
        return path
    contexts, diverged = fixed_contexts(images, part, variant.task, count=count, visible=setting.visible), Diverged()
    named = {"solver": setting.solver, "grid_in_time": setting.grid_in_time, "nfe": setting.nfe, "momentum": momentum}
    settings = variant.sample.model_copy(update=named)
    sampler = sampler_of(networks, settings, warmth) if setting.solver else moments_sampler_of(networks)
    label = f"{setting.prior}, seed {variant.seed}, {setting.solver} {setting.nfe}, {100 * setting.visible:g} % visible, {part}"
    samples = np.stack(list(draw_samples(contexts, sampler, options.samples, label, diverged, settings.noise_count)))
    dataset = statistics_by_context(samples, contexts, extract, diverged.count).assign_attrs(warmth=warmth)
    with complete_netcdf(path) as file:
        dataset.to_netcdf(file)
    return path


def _about(recipe: ImageRecipe, images: Images) -> str:
    options, source = recipe.study, Path(recipe.data.source).name
    part = recipe.sample.part
    contexts = min(options.contexts, images.count(part))
    what = f"{source}, {images.size}; task: {recipe.task.tested}; "
    trained = f"; training seeds {', '.join(map(str, options.seeds))}, equal {BUDGETS[options.budget]}"
    return what + described(images, part, contexts, options.samples) + trained
