"""How many evaluations are enough for images: priors, solvers and visible shares, on the same contexts and the same noise."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import yaml
from numpy.typing import NDArray

from wsdcast.images.classifier import Extract, extractors
from wsdcast.images.contexts import fixed_contexts
from wsdcast.images.data.store import Images, open_images
from wsdcast.images.data.store import Part as PartOfImages
from wsdcast.images.drawing import SHOWN, draw_samples, possible, same_noise_samples, sampler_of, warmth_for
from wsdcast.images.evaluation import Diverged, described, floors, floors_of, references, statistics_by_context
from wsdcast.images.memory import require_study
from wsdcast.images.networks import Trained, generator_model, moments_model, trained
from wsdcast.images.pictures import same_noise
from wsdcast.images.recipe import ImageRecipe, Protocol
from wsdcast.images.stages.train import train
from wsdcast.nets.weights import operations
from wsdcast.runs import devices
from wsdcast.runs.artefact import Summary, complete, digest_of, is_current, make_stamp, read_stamp, require, resolve
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import CLASSIFIER, GENERATOR, IMAGES, MOMENTS, MOMENTS_ALONE, STUDY, STUDY_PAGE, ImagePriorName
from wsdcast.sampling.priors import moments_alone
from wsdcast.sampling.samplers import moments_sampler
from wsdcast.study.images_page import write_image_study_page
from wsdcast.study.images_summary import CALIBRATED, CHOSEN_BY, Part, Setting, combine, halves, rows, saturation
from wsdcast.study.sharing import training_seconds, variant_place

SAME_NOISE = "same_noise.png"
BUDGETS = {"cost": "total cost of training", "steps": "steps of the generator"}


def inpaint_study(
    recipe: str | Path | ImageRecipe | None = None,
    run: str | Path | None = None,
    *,
    inception_weights: str | Path | None = None,
    protocol: Protocol | None = None,
    overwrite: bool = False,
    **changes: Any,
) -> Summary:
    """Train a generator for each prior and seed, and compare them by number of evaluations: ``RUN/study.nc`` and ``RUN/study.html``.

    All generators have the same network and the same total cost of training: those without a moments network are trained longer by what
    it cost, unless the budget is in steps. All settings share their contexts and their noise. Solver, grid, warmth and the number of
    evaluations that is enough are chosen on validation images. What is there and current is not done again.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared images.
        run: run directory; default ``runs/<recipe name>``.
        inception_weights: file of Inception's weights, for FID beside the classifier distance.
        protocol: whose contexts are scored; default from the recipe.
        overwrite: replace what was made from another recipe.
        changes: keys of the recipe's section ``study``, such as ``nfe`` or ``seeds``.

    Raises:
        UserError: if nothing is prepared, a key is not allowed, the task hides nothing of such images, or memory cannot hold it.
    """
    wanted_changes = {f"study__{key}": value for key, value in changes.items()}
    resolved, directory = resolve(recipe, run, ImageRecipe, IMAGES, sample__protocol=protocol, **wanted_changes)
    images = open_images(require(resolved, directory, IMAGES, "inpaint prepare"))
    is_current(resolved, directory, STUDY, overwrite)  # one of another recipe is refused before anything is trained
    few = fixed_contexts(images, resolved.sample.part, resolved.task, count=SHOWN)
    devices.keep_freed_memory()
    wanted, summary, begin = resolved.study, Summary("inpaint study"), time.perf_counter()
    settings = {prior: settings_of(resolved, prior) for prior in wanted.priors + wanted.ablations}
    summary.facts |= _left_out(resolved)
    require_study(resolved, images, ["classifier_distance"] + ["fid"] * (inception_weights is not None))
    extract = extractors(resolved, directory, images, None if inception_weights is None else Path(inception_weights), summary, overwrite)
    reference = references(images, extract)
    cost = moments_cost(resolved, images)
    parts: list[Part] = []
    seconds: dict[str, list[float]] = {}
    shown: dict[str, dict[int, NDArray[np.uint8]]] = {}
    for seed, prior in product(wanted.seeds, settings):
        variant = variant_of(resolved, cost, seed, prior)
        names = (GENERATOR, MOMENTS) if variant.generator.needs_moments_network else (GENERATOR,)
        place = variant_place(variant, directory, f"{prior}-{seed}", IMAGES, names)
        if not is_current(variant, place, GENERATOR, overwrite):
            train(variant, place, overwrite=overwrite)
        seconds.setdefault(prior, []).append(training_seconds(place))
        networks = trained(variant, place, images)
        for setting in settings[prior]:
            evaluated = partial(_evaluated, variant, place, directory, images, networks, setting)
            chooses = setting.kind == "curve" and setting.solver
            validation = evaluated("validation", {CHOSEN_BY: extract[CHOSEN_BY]}) if chooses else None
            parts.append(Part(setting, seed, evaluated(resolved.sample.part, extract), validation))
        if seed == wanted.seeds[0] and prior in wanted.priors:
            shown[prior] = same_noise_samples(few, networks, wanted.solvers[0], wanted.grids_in_time[0], wanted.nfe, 1.0)
    part, count = resolved.sample.part, wanted.contexts * wanted.samples
    floor, true = floors(images, part, count, extract, reference), floors_of(images, part, count)
    study = combine(parts, cost[0], reference)
    study.attrs |= {
        "about": _about(resolved, images),
        "recipe_hash": digest_of(resolved.dump()),
        "moments_share": cost[0],
        "floor_of": true,
        "chosen_on": f"{min(wanted.contexts, images.count('validation'))} contexts of validation images, by the classifier distance",
    }
    study.attrs |= {f"floor_{name}": value for name, value in floor.items()}
    study.attrs["wsdcast"] = json.dumps(make_stamp(resolved, directory, STUDY))
    with complete(directory / STUDY) as file:
        study.to_netcdf(file)
    saturates = saturation(study)
    with complete(directory / STUDY_PAGE) as file:
        write_image_study_page(file, study, resolved.name, yaml.safe_dump(resolved.dump(), sort_keys=False), saturates)
    context = few.context(torch.arange(len(few))).cpu().numpy()
    with complete(directory / SAME_NOISE) as file:
        same_noise(context, images.images[few.chosen], shown).savefig(file)
    summary.written[str(directory / STUDY)] = f"{len(parts)} settings of prior, solver, visible share, warmth, evaluations and seed"
    summary.written |= {str(directory / STUDY_PAGE): "figures and tables", str(directory / SAME_NOISE): "samples of the same noise"}
    summary.facts["scored"] = study.attrs["about"]
    summary.facts |= {f"{name.replace('_', ' ')} of {true}": f"{value:.3f}" for name, value in floor.items()}
    summary.facts |= {f"training, {prior}": f"{np.mean(of_prior):.0f} s a seed" for prior, of_prior in seconds.items()}
    summary.facts |= {
        "moments network": f"{cost[0]:.2f} evaluations of the generator per sample",
        "chosen on": f"{study.attrs['chosen_on']}, which also say what saturates",
        "saturates at": ", ".join(f"{prior} {nfe or 'no number'}" for prior, nfe in saturates.items()),
        "recipe": f"{resolved.name}, hash {study.attrs['recipe_hash']}",
        "time": f"{time.perf_counter() - begin:.0f} s",
    }
    summary.facts |= halves(study)
    summary.scores = rows(study)
    for row in summary.scores:
        if row["diverged"]:
            how = f"{row['prior']}, {row['solver']}, {row['grid_in_time']}, w = {row['warmth']:g}, {100 * row['visible']:g} % visible"
            summary.facts[f"diverged: {how}, {row['nfe']} evaluations"] = row["diverged"]
    return summary


def variant_of(recipe: ImageRecipe, cost: tuple[float, int], seed: int, prior: ImagePriorName) -> ImageRecipe:
    """The recipe with another seed and prior, at the same total cost of training; ``cost`` is that of the moments, :func:`moments_cost`.

    If the budget is in steps, as in the paper, the moments network is not counted.
    """
    variant = recipe.changed(seed=seed, generator__prior=prior)
    if variant.generator.needs_moments_network or recipe.study.budget == "steps":
        return variant
    return variant.changed(generator__steps=variant.generator.steps + cost[1])


def moments_cost(recipe: ImageRecipe, images: Images) -> tuple[float, int]:
    """Floating-point operations of the moments network per sample, in evaluations of the generator, and of all it adds to a training, in
    steps of the generator's: its own training, and a prediction for every sample of every step."""
    channels, rows, columns = images.shape
    moments, generator = moments_model(recipe.moments, channels), generator_model(recipe.generator, channels)
    context, x = (torch.zeros(1, count, rows, columns) for count in (channels + 1, generator.first.in_channels))
    ratio = operations(moments, context) / operations(generator, x, torch.zeros(1), torch.zeros(1))
    # A step of training costs three evaluations for each of its samples: one forward, two backward.
    per_step = recipe.moments.batch * recipe.moments.accumulate / (recipe.generator.batch * recipe.generator.accumulate)
    return ratio, round(ratio * (recipe.moments.steps * per_step + recipe.generator.steps / 3))


def settings_of(recipe: ImageRecipe, prior: ImagePriorName) -> list[Setting]:
    """All settings of one prior; numbers of evaluations that a solver cannot take are left out.

    Raises:
        UserError: if a solver can take none of them.
    """
    wanted, share = recipe.study, recipe.task.visible_test
    main = prior in wanted.priors
    # Warmth changes nothing for the standard prior, and ablations are compared at full warmth.
    warmths = wanted.warmths if prior == "warm" else (1.0,)
    own = recipe.sample.warmth if prior == "warm" and recipe.sample.warmth != "calibrated" else 1.0
    # The recipe's own warmth comes first: it is the one that is compared with the standard prior.
    numbers = list(dict.fromkeys([own, *(warmth for warmth in warmths if warmth != "calibrated")]))
    found, asked = list[Setting](), wanted.nfe if main else wanted.ablation_nfe
    for solver in wanted.solvers if main else wanted.solvers[:1]:
        made = len(found)
        for grid in wanted.grids_in_time if main else wanted.grids_in_time[:1]:
            found += [Setting("curve", prior, solver, grid, *both) for both in product(numbers, [share], possible(solver, asked, grid))]
        if len(found) == made:
            where = f"on {', '.join(wanted.grids_in_time)} times"
            raise UserError(f"nothing to study: the solver {solver} cannot make exactly {', '.join(map(str, asked))} evaluations {where}")
    if prior == "warm":
        found.append(Setting("curve", MOMENTS_ALONE, "", "", 1.0, share, 0))
    if not main or not recipe.task.shows_pixels:
        return found
    solver, grid = wanted.solvers[0], wanted.grids_in_time[0]
    for visible, nfe, warmth in product(wanted.visible, possible(solver, wanted.visible_nfe, grid), warmths):
        name, value = (CALIBRATED, np.nan) if warmth == "calibrated" else (prior, warmth)
        found.append(Setting("sensitivity", name, solver, grid, value, visible, nfe))
    return found


def _left_out(recipe: ImageRecipe) -> dict[str, str]:
    """What :func:`settings_of` leaves out, in words."""
    wanted = recipe.study
    asked = list(product(wanted.solvers, wanted.grids_in_time, wanted.nfe))
    asked += [(wanted.solvers[0], wanted.grids_in_time[0], nfe) for nfe in (*wanted.ablation_nfe, *wanted.visible_nfe)]
    found: dict[str, list[str]] = {}
    for solver, grid, nfe in dict.fromkeys(asked):
        if not possible(solver, [nfe], grid):
            found.setdefault(f"left out: {solver}" + f", {grid}" * (grid != "uniform"), []).append(str(nfe))
    return {what: f"{', '.join(numbers)} evaluations, which it cannot make exactly" for what, numbers in found.items()}


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
    """The file of statistics by context of one setting on a part of the images; kept if the same networks and settings made it."""
    wanted = variant.study
    count = wanted.contexts if setting.kind == "curve" else wanted.visible_contexts
    unseen = fixed_contexts(images, "validation", variant.task, visible=setting.visible)
    warmth = warmth_for("calibrated" if setting.prior == CALIBRATED else setting.warmth, networks, unseen)
    origin = [stamp and stamp["id"] for stamp in (read_stamp(directory / CLASSIFIER), read_stamp(place / GENERATOR))]
    asked = [variant.task.model_dump(mode="json"), part, count, wanted.samples, sorted(extract)]
    ends = variant.sample.log_snr_ends if setting.grid_in_time == "log-snr" else None
    momentum = variant.sample.momentum if setting.solver.startswith("ab") else 1.0
    special = [ends, momentum] if ends or momentum != 1 else []
    about = digest_of([setting.solver, setting.grid_in_time, setting.visible, setting.nfe, warmth, origin, asked, *special])
    path = place / f"{'validation-' * (part == 'validation')}{setting.solver or 'moments'}-{setting.nfe}-{about[:8]}.nc"
    # What is damaged is made again.
    with suppress(OSError, ValueError), xr.open_dataset(path) as dataset:
        dataset.load()
        return path
    contexts, diverged = fixed_contexts(images, part, variant.task, count=count, visible=setting.visible), Diverged()
    sampler = (
        sampler_of(networks, setting.solver, setting.grid_in_time, setting.nfe, warmth, ends, momentum)
        if setting.solver
        else moments_sampler(moments_alone(networks.moments))
    )
    label = f"{setting.prior}, seed {variant.seed}, {setting.solver} {setting.nfe}, {100 * setting.visible:g} % visible, {part}"
    samples = np.stack(list(draw_samples(contexts, sampler, wanted.samples, label, diverged)))
    dataset = statistics_by_context(samples, contexts, extract, diverged.count).assign_attrs(warmth=warmth)
    with complete(path) as file:
        dataset.to_netcdf(file)
    return path


def _about(recipe: ImageRecipe, images: Images) -> str:
    wanted, source = recipe.study, Path(recipe.data.source).name
    part = recipe.sample.part
    contexts = min(wanted.contexts, images.count(part))
    what = f"{source}, {images.shape[1]}x{images.shape[2]}; task: {recipe.task.tested}; "
    trained = f"; training seeds {', '.join(map(str, wanted.seeds))}, equal {BUDGETS[wanted.budget]}"
    return what + described(images, part, contexts, wanted.samples) + trained
