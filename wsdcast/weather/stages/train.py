"""Stage 2: train the moments network, then the generator, on the prepared store."""

from __future__ import annotations

from pathlib import Path

from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.nets.peak import training_memory
from wsdcast.nets.weights import load_network
from wsdcast.runs import devices, processes
from wsdcast.runs.artefact import Summary, require, resolve
from wsdcast.runs.names import ANALYSIS, FEW_STEPS, FINE_TUNED, MOMENTS, PREDICTIONS, PriorName
from wsdcast.runs.resources import require_memory
from wsdcast.sampling.priors import prior_maker
from wsdcast.training.predictions import checked, in_words, read_predictions
from wsdcast.warmstart.prior import Moments, PriorOf, warm_start
from wsdcast.weather.forcings import area_weights, surroundings
from wsdcast.weather.networks import context_channels, generator_model, moments_model
from wsdcast.weather.priors import fixed_or_given
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import Samples, samples_of
from wsdcast.weather.training.few_steps import train_few_steps
from wsdcast.weather.training.fine_tuning import fine_tune, samples_of_rollouts
from wsdcast.weather.training.generator import train_generator
from wsdcast.weather.training.moments import predict_moments, train_moments, untrained_moments
from wsdcast.weather.training.stage import PriorOfSamples, Stage


def train(
    recipe: str | Path | Recipe | None = None,
    run: str | Path | None = None,
    *,
    prior: PriorName | None = None,
    moments: Moments | None = None,
    overwrite: bool = False,
) -> Summary:
    """Train the moments model and write ``RUN/moments``, then train the generator and write ``RUN/generator``.

    If the recipe trains both networks at the same time, both are in ``RUN/generator``. A training that was stopped continues from its last
    checkpoint; on a CPU the result has the same bits. If torchrun started several processes, they train together.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared store.
        run: run directory; default ``runs/<recipe name>``.
        prior: where flow matching starts, and what the generator reads of the moments; default from the recipe.
        moments: your own model for the prior ``given``: ``moments(context) -> (mean, std)``, as in
            :func:`wsdcast.weather.priors.fixed_or_given`. Pass the same model to :func:`wsdcast.rollout`.
        overwrite: replace networks made from another recipe.

    Raises:
        UserError: if nothing is prepared, the store or an unfinished training belongs to another recipe, or training diverges.
        StoppedError: if the process received SIGTERM or SIGINT.
    """
    processes.join()
    resolved, directory = resolve(recipe, run, Recipe, ANALYSIS, generator__prior=prior)
    record = open_analysis(require(resolved, directory, ANALYSIS, "prepare"), copies=processes.on_this_machine())
    devices.keep_freed_memory()
    forcings = surroundings(record, resolved.forcings, devices.device())
    samples, validation_samples = samples_of(record, forcings, "train", "validation")
    summary = Summary("train", facts={"training triples": len(samples)})
    processes.decided(lambda: _require_memory(resolved, record, samples))
    stage = Stage(resolved, directory, record, samples, validation_samples, moments, overwrite, summary)

    if FINE_TUNED in resolved.networks:
        samples_of_rollouts(stage)  # an error is found before the first training

    prior_of: PriorOfSamples | None = None
    from_context: PriorOf | None = None
    make_prior = prior_maker(resolved.generator.prior)
    if resolved.generator.reads_frozen_moments:
        train_moments(stage)
        trained_moments = load_network(untrained_moments(resolved, record, samples), directory / MOMENTS)
        from_context = warm_start(trained_moments, make_prior)
        # The summary shows both splits: a moments model that overfits is overconfident on validation samples.
        for split, label in ((samples, "training"), (validation_samples, "validation")):
            if len(split):
                summary.facts[f"moments, {label} split"] = in_words(*checked(trained_moments, split, area_weights(record)))
        predict_moments(stage)
        predicted_moments = read_predictions(directory / PREDICTIONS, devices.device())
        prior_of = lambda indices, _: make_prior(*predicted_moments(indices))  # noqa: E731
    elif not resolved.generator.needs_moments_network:
        fixed = from_context = warm_start(fixed_or_given(resolved, record, moments), make_prior)
        prior_of = lambda _, context: fixed(context)  # noqa: E731
    train_generator(stage, prior_of, from_context)
    if FEW_STEPS in resolved.networks:
        train_few_steps(stage, prior_of)
    if FINE_TUNED in resolved.networks:
        fine_tune(stage)
    return summary


def _require_memory(recipe: Recipe, record: Analysis, samples: Samples) -> None:
    """Check before training that networks and batches fit in memory. A GPU is not checked: torch fails in the first step there.

    Raises:
        UserError: if they do not fit.
    """
    if devices.device().type != "cpu":
        return
    forcings, channels, grid = samples.forcings.channels, len(record.variables), record.grid.shape
    generator = generator_model(recipe.generator, record.grid.includes_poles, forcings, channels)
    inputs = generator.input_shapes(*grid)
    needed = training_memory(generator, recipe.generator.batch, recipe.generator.precision == "bf16", *inputs)
    if recipe.generator.needs_moments_network:
        moments, settings = moments_model(recipe.moments, record.grid.includes_poles, forcings, channels), recipe.moments
        optimisation = recipe.generator if recipe.generator.moments != "frozen" else settings
        context = (1, context_channels(forcings, channels), *grid)
        needed_by_moments = training_memory(moments, optimisation.batch, optimisation.precision == "bf16", context)
        if recipe.generator.moments != "frozen":
            needed += needed_by_moments
        else:
            require_memory(needed_by_moments, f"training the moments network in batches of {settings.batch} at {record.grid.name}")
    require_memory(needed, f"training the generator in batches of {recipe.generator.batch} at {record.grid.name}")
