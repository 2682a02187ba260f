"""Stage 2: train the networks of a recipe on the prepared store."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch

from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.nets.peak import training_memory
from wsdcast.nets.weights import load_network
from wsdcast.runs import devices, processes
from wsdcast.runs.artefact import IN_A_COPY, is_current, require, resolve
from wsdcast.runs.complete import partial_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS, FEW_STEPS, FINE_TUNED, GENERATOR, MOMENTS, PREDICTIONS, PriorName
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.recipes import Optimisation
from wsdcast.runs.resources import require_memory, require_space, size_of
from wsdcast.runs.summary import Summary
from wsdcast.runs.unfinished import require_same_recipe
from wsdcast.training.loop import require_samples
from wsdcast.training.predictions import errors_in_words, overall_errors, read_predictions
from wsdcast.warmstart.crps import MEMBERS, NOISE_NUMBERS
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.warmstart.prior import PRIOR_MAKERS, Moments, frozen_prior
from wsdcast.weather.climate import change_std
from wsdcast.weather.forcings import area_weights, forcings_of
from wsdcast.weather.forecast.past_errors import require_errors
from wsdcast.weather.networks import generator_model, moments_model, sizes_of
from wsdcast.weather.objective_sections import KNOW_STEP, LEAST_BATCH
from wsdcast.weather.priors import fixed_or_given, require_model
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import require_rollout
from wsdcast.weather.samples import Samples, samples_of
from wsdcast.weather.training.few_steps import train_few_steps
from wsdcast.weather.training.fine_tuning import fine_tune, samples_of_rollouts
from wsdcast.weather.training.generator import train_generator
from wsdcast.weather.training.job import Priors, TrainingJob
from wsdcast.weather.training.moments import bytes_of_predictions, predict_moments, train_moments, untrained_moments


@devices.own_torch_settings()
def train(
    recipe: str | Path | Recipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    prior: PriorName | None = None,
    moments: Moments | None = None,
    overwrite: bool = False,
) -> Summary:
    """Train the moments model and write ``RUN/moments``, then train the generator and write ``RUN/generator``.

    If the recipe trains both networks at the same time, both are in ``RUN/generator``. The generator's objective may add a network of few
    evaluations, ``RUN/few-steps``, or leave the generator out; fine-tuning adds ``RUN/fine-tuned``. A training that was stopped continues
    from its last checkpoint; on a CPU the result has the same bits. If torchrun started several processes, they train together.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared store.
        run: run directory; default ``runs/<recipe name>``.
        prior: where flow matching starts, and what the generator reads of the moments; default from the recipe.
        moments: your own model for the prior ``given``: ``moments(context) -> (mean, std)``, as in
            :func:`wsdcast.weather.priors.fixed_or_given`. Pass the same model to :func:`wsdcast.rollout`.
        overwrite: replace networks made from another recipe.

    Raises:
        UserError: if nothing is prepared, the store or an unfinished training belongs to another recipe, there are fewer training samples
            than processes, a model of yours is missing or not read, or training diverges.
        StoppedError: if the process received SIGTERM or SIGINT.
    """
    processes.join()
    resolved, directory = resolve(recipe, run, Recipe, ANALYSIS, generator__prior=prior)
    require_model([resolved.generator.prior], moments)
    path = require(resolved, directory, ANALYSIS)
    record = open_analysis(path, copies=processes.on_this_machine(), past_states=resolved.forcings.past_states)
    devices.keep_freed_memory()
    forcings = forcings_of(record, resolved.forcings, devices.device())
    samples, validation_samples = samples_of(record, forcings, "train", "validation")
    summary = Summary("train", facts={"training samples": len(samples)})
    try:
        require_rollout(resolved)
    except UserError as error:  # these networks need options of the command that rolls out
        summary.facts["own rollout"] = f"impossible: {error}"
    require_samples(len(samples), f"{path}: has ")
    if resolved.generator.objective == "none":
        require_errors(record)
    _require_noise(resolved, samples)
    _require_steps(resolved, len(samples))
    processes.decided(lambda: _require_memory(resolved, record, samples))
    job = TrainingJob(resolved, directory, record, samples, validation_samples, moments, overwrite, summary)

    # All of the user's mistakes are found before the first training.
    processes.decided(lambda: require_same_recipe(resolved, directory, resolved.networks, overwrite))
    processes.decided(lambda: _require_space(job))
    processes.decided(lambda: _remove_others(resolved, directory, overwrite))
    if FINE_TUNED in resolved.networks:
        samples_of_rollouts(job)
    if FINE_TUNED in resolved.networks or resolved.generator.objective == "crps":
        change_std(record)

    if resolved.generator.objective == "none":
        _train_moments(job)
        return summary
    priors = _trained_priors(job)
    train_generator(job, priors)
    if FEW_STEPS in resolved.networks:
        train_few_steps(job, priors)
    if FINE_TUNED in resolved.networks:
        fine_tune(job)
    return summary


def _trained_priors(job: TrainingJob) -> Priors | None:
    """Train the moments network and predict with it, if the generator reads frozen moments. Return None if both are trained together."""
    recipe, record, directory, make_prior = job.recipe, job.record, job.directory, PRIOR_MAKERS[job.recipe.generator.prior]
    if recipe.generator.reads_frozen_moments:
        moments = _train_moments(job)
        predict_moments(job)
        predicted_moments = read_predictions(directory / PREDICTIONS, devices.device())
        return Priors(lambda indices, _: make_prior(*predicted_moments(indices)), frozen_prior(moments, make_prior))
    if recipe.generator.needs_moments_network:
        return None
    fixed = frozen_prior(fixed_or_given(recipe, record, job.given), make_prior)
    return Priors(lambda _, context: fixed(context), fixed)


def _train_moments(job: TrainingJob) -> MomentsModel:
    """Train the moments network and return it. The summary gets its errors."""
    train_moments(job)
    moments = load_network(untrained_moments(job), job.directory / MOMENTS)
    # The summary shows both splits: a moments model that overfits is overconfident on validation samples.
    for split, label in ((job.samples, "training"), (job.validation_samples, "validation")):
        if len(split):
            job.summary.facts[f"moments, {label} split"] = errors_in_words(*overall_errors(moments, split, area_weights(job.record)))
    return moments


def _require_noise(recipe: Recipe, samples: Samples) -> None:
    """Raise a UserError unless a generator of the objective ``crps`` gets as many random numbers as it reads. It has those of a state."""
    numbers = math.prod(samples.shape)
    if recipe.generator.objective == "crps" and recipe.crps.noise == "numbers" and numbers < NOISE_NUMBERS:
        grid = recipe.data.grid
        raise UserError(f"data.grid {grid}: the objective crps needs states of at least {NOISE_NUMBERS} numbers, and these have {numbers}")


def _require_steps(recipe: Recipe, samples: int) -> None:
    """Check that a network that knows the length of its step has batches with samples for steps beside those for flow matching.

    Raises:
        UserError: if it has not.
    """
    if recipe.generator.objective in KNOW_STEP and samples < LEAST_BATCH * processes.count():
        each = f"the objective {recipe.generator.objective} needs {LEAST_BATCH} training samples for each process"
        raise UserError(f"{each}, and there are {samples} for {processes.count()}")


def _remove_others(recipe: Recipe, directory: Path, overwrite: bool) -> None:
    """Remove networks that the recipe does not have. A rollout would otherwise take them for the last ones that were trained.

    The generator stays if it is current, but its stamp may hold the recipe of the other networks, which is replaced.

    Raises:
        UserError: if there are any, and ``overwrite`` is False.
    """
    for name in (FEW_STEPS, FINE_TUNED):
        if (directory / name).exists() and GENERATOR in recipe.networks and name not in recipe.networks:
            if not overwrite:
                raise UserError(f"{directory / name} belongs to another recipe; remove it with --overwrite, or {IN_A_COPY}")
            shutil.rmtree(directory / name)
            if is_current(recipe, directory, GENERATOR, overwrite):
                stamp = directory / GENERATOR / "stamp.json"
                stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"recipe": recipe.dump()}, indent=2))


def _require_space(job: TrainingJob) -> None:
    """Raise a UserError unless the disk has room for the predicted moments, or they are there already, finished or not."""
    path = job.directory / PREDICTIONS
    recipe = job.recipe
    if GENERATOR in recipe.networks and recipe.generator.reads_frozen_moments and not path.exists():
        require_space(job.directory, bytes_of_predictions(job.samples) - size_of(partial_of(path)))


def _require_memory(recipe: Recipe, record: Analysis, samples: Samples) -> None:
    """Check before training that networks and batches fit in memory. A GPU is not checked: torch fails in the first step there.

    Raises:
        UserError: if they do not fit.
    """
    if devices.device().type != "cpu":
        return
    sizes = sizes_of(record, samples.forcings)
    with torch.device("meta"):  # the shapes of the weights are enough
        generator = generator_model(recipe.generator, sizes, noise=recipe.crps.noise)
        moments = moments_model(recipe.moments, sizes)
    inputs = generator.input_shapes(*record.grid.shape)
    together = recipe.generator.batch * (MEMBERS if recipe.generator.objective == "crps" else 1)
    needed = training_memory(generator, together, recipe.generator.precision == "bf16", *inputs)
    few, tuned = recipe.few_steps, recipe.fine_tune
    trained_steps = max(tuned.rollout) if tuned.gradients == "all" else 1
    later: dict[str, tuple[Optimisation, int]] = {
        FEW_STEPS: (few, few.batch * (few.nfe if recipe.generator.objective == "distil" else 1)),
        FINE_TUNED: (tuned, tuned.batch * MEMBERS * tuned.nfe * trained_steps),
    }
    for artefact, (optimisation, evaluations) in later.items():
        if artefact in recipe.networks:
            needed_later = training_memory(generator, evaluations, optimisation.precision == "bf16", *inputs)
            require_memory(needed_later, f"training {artefact} with {evaluations} evaluations in each batch at {record.grid.name}")
    if recipe.generator.needs_moments_network:
        own = recipe.generator if recipe.generator.moments != "frozen" else recipe.moments
        context = (1, sizes.context, *record.grid.shape)
        needed_by_moments = training_memory(moments, own.batch, own.precision == "bf16", context)
        if recipe.generator.moments != "frozen":
            needed += needed_by_moments
        else:
            require_memory(needed_by_moments, f"training the moments network in batches of {own.batch} at {record.grid.name}")
    if GENERATOR in recipe.networks:
        require_memory(needed, f"training the generator in batches of {recipe.generator.batch} at {record.grid.name}")
