"""Stage 3: run ensemble forecasts with the trained networks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from wsdcast.report.animation import animate, shows
from wsdcast.report.coastlines import coastlines_of
from wsdcast.report.subjects import subject
from wsdcast.runs import devices, processes
from wsdcast.runs.artefact import is_current
from wsdcast.runs.complete import complete
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANIMATION, FORECAST, PAST_ERRORS_FORECAST, GridName, SolverName
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.summary import Summary
from wsdcast.runs.times import TimeLike
from wsdcast.sampling.acceleration import deterministic_algorithms
from wsdcast.sampling.batches import batch_size, in_batches
from wsdcast.sampling.samplers import Sampler
from wsdcast.verification.truth import truth_of
from wsdcast.warmstart.prior import Moments
from wsdcast.weather.forecast.artefacts import is_current_forecast, write_forecast
from wsdcast.weather.forecast.initial_times import initial_times_in_words
from wsdcast.weather.forecast.memory import require_memory_of_rollout
from wsdcast.weather.forecast.origin import Origin, of_model, of_run
from wsdcast.weather.forecast.past_errors import past_errors, require_errors
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import few_in_words, past_errors_sampler_of, sampler_of


def rollout(
    recipe: str | Path | Recipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    members: int | None = None,
    nfe: int | None = None,
    starts: int | None = None,
    start: TimeLike | None = None,
    days: float | None = None,
    keep: str | Sequence[int] | None = None,
    seed: int | None = None,
    solver: SolverName | None = None,
    grid_in_time: GridName | None = None,
    warmth: float | None = None,
    variables: Sequence[str] | None = None,
    deterministic: bool = False,
    model: str | Path | None = None,
    initial: str | Path | None = None,
    moments: Moments | None = None,
    overwrite: bool = False,
) -> Summary:
    """Run ensembles and write ``RUN/forecast.zarr``.

    The networks and the initial states are those of the run directory, or those of a model file and of a source of analyses.

    As a baseline, ensembles of the moments model with noise from its past errors are scored as they are made.
    ``RUN/past_errors_forecast.zarr`` has the statistics from which :func:`wsdcast.score` computes their scores. It is not written if the
    record has no truth after the initial times, or if ``keep`` is ``statistics``, because then there are no scores; nor if the record has
    no validation split, which the errors are of.

    A rollout that was stopped continues with the initial times that are not written yet, and the result has the same bits. If torchrun
    started several processes, they share the initial times. An argument that is None has its value from the recipe.

    Args:
        recipe: path or name of a recipe; default: the one of the trained generator.
        run: run directory; default ``runs/<recipe name>``, and with ``model`` ``runs/<name of the file>-<initial time>``.
        members: ensemble size.
        nfe: network evaluations per sample: 1 with a distilled network, an even number with the solver midpoint.
        starts: number of initial times, spread evenly over the test split.
        start: the initial times themselves, instead of ``starts``: ``latest``, a time, or ``FIRST/LAST/INTERVAL``, UTC.
        days: length of the forecast.
        keep: what is stored. ``all``: all lead times; a list: these lead times in hours; ``statistics``: mean, standard deviation and
            quantiles over the members; ``scores``: no fields, only the statistics from which :func:`wsdcast.score` computes scores.
        seed: seed of the members' noise.
        solver: solver of the flow, or ``auto``.
        grid_in_time: the flow times between which the solver steps.
        warmth: w of Eq. 4.
        variables: the variables that are stored; default: all that are forecast.
        deterministic: on a GPU, compute in float32 and give the same bits every time. A CPU always does.
        model: a model file, from :func:`wsdcast.export_model`. It fixes all of the recipe but the section ``rollout``.
        initial: with ``model``, the source of the initial states, as for :func:`wsdcast.prepare`. Without ``start`` they are its latest.
        moments: for the prior ``given``, the model that the generator was trained with, as for :func:`wsdcast.train`. On a CPU several
            threads call it at the same time.
        overwrite: replace forecasts made from another recipe.

    Raises:
        UserError: if the networks are missing or were made from another recipe, the solver cannot take exactly ``nfe`` evaluations, the
            record lacks an initial time, or without a generator the record has no validation split.
    """
    processes.join()
    devices.keep_freed_memory()
    sampling: dict[str, Any] = {"nfe": nfe, "solver": solver, "grid_in_time": grid_in_time, "warmth": warmth}
    others = {"members": members, "starts": starts, "start": start, "days": days, "keep": keep, "seed": seed, "variables": variables}
    changed = {f"rollout__{key}": value for key, value in (sampling | others).items()}
    if model is None:
        if initial is not None:
            raise UserError(f"--initial {initial}: only with --model; a run directory starts from its own record")
        origin = of_run(recipe, run, changed, moments)
    else:
        if moments is not None:
            raise UserError("a model file has networks; the argument moments belongs to the prior given, which has none")
        origin = of_model(model, initial, recipe, run, changed)
    if origin.recipe.generator.objective == "none" and (given := [key for key, value in sampling.items() if value is not None]):
        raise UserError(f"--{given[0].replace('_', '-')}: has no effect without a generator (generator.objective none)")
    return roll_out(origin, deterministic=deterministic, overwrite=overwrite)


@devices.own_torch_settings()
def roll_out(origin: Origin, *, deterministic: bool = False, overwrite: bool = False) -> Summary:
    """The same for networks and initial states that are read already.

    Args:
        origin: recipe, run directory, initial states and networks.
        deterministic, overwrite: as for :func:`rollout`.

    Raises:
        UserError: as :func:`rollout` does.
    """
    resolved, directory, record, networks = origin.recipe, origin.directory, origin.record, origin.networks
    settings, has_generator = resolved.rollout, resolved.generator.objective != "none"
    batch = batch_size(record.grid.size, devices.device())
    without_truth = _why_no_truth(origin)
    if settings.keep == "scores" and without_truth:
        raise UserError(f"--score: {without_truth}, so nothing can be scored")
    if not has_generator and origin.errors is None:
        require_errors(record)
    # A mistake in its settings shows before the baseline is made.
    sampler = sampler_of(networks, settings, deterministic=deterministic) if has_generator else None
    summary, artefacts = Summary("rollout", facts=_facts(origin)), [FORECAST]
    processes.decided(lambda: require_memory_of_rollout(networks, record, origin.starts, settings, batch, len(origin.kept_variables)))
    if resolved.generator.has_moments_model:
        if reason := _why_no_baseline(origin, without_truth):
            processes.decided(lambda: _remove_outdated(resolved, directory, overwrite))
            summary.facts[f"not written: {PAST_ERRORS_FORECAST}"] = reason
        else:
            artefacts.insert(0, PAST_ERRORS_FORECAST)
    current = processes.decided(
        lambda: [name for name in artefacts if is_current_forecast(origin, name, deterministic=deterministic, overwrite=overwrite)]
    )
    for artefact in artefacts:
        if artefact in current:
            summary.facts[f"current: {artefact}"] = str(directory / artefact)
            continue
        # The sampler of the baseline is let go before the other begins: a CUDA graph keeps the memory of its evaluations.
        used = sampler if artefact == FORECAST and sampler is not None else _past_errors_sampler(origin, deterministic)
        write_forecast(origin, artefact, in_batches(used, batch), batch, summary, deterministic=deterministic, overwrite=overwrite)
    animation, shown = directory / ANIMATION, subject(origin.kept_variables, resolved.score.headline)
    has_members = settings.keep not in ("statistics", "scores")
    if processes.is_first() and has_members and not shows(animation, shown.label):
        with complete(animation) as partial:
            truth, lines = truth_of(record, record.variables), coastlines_of(resolved.data.source)
            animate(directory / FORECAST, truth, partial, 0, lines, resolved.score.headline)
        summary.written[str(animation)] = f"{'truth and ' * (not without_truth)}members from the first initial time"
    return summary


def _past_errors_sampler(origin: Origin, deterministic: bool) -> Sampler:
    """The sampler of the moments with noise from their past errors, which are those of the model file or of the record."""
    with deterministic_algorithms() if deterministic else nullcontext():
        errors = past_errors(origin.networks, origin.record) if origin.errors is None else origin.errors
    return past_errors_sampler_of(origin.networks, errors, deterministic=deterministic)


def _why_no_truth(origin: Origin) -> str:
    """Why no lead time of the forecast has a truth, in words; empty if one has."""
    if origin.is_model_file:  # the initial states of one of its forecasts are no truth for another
        return "no later states are read with a model file"
    leads = np.array(origin.recipe.rollout.kept_leads) * np.timedelta64(1, "h")
    has_truth = np.isin(origin.initial_times[:, None] + leads, origin.record.times).any()
    return "" if has_truth else "the record has no truth after the initial times"


def _why_no_baseline(origin: Origin, without_truth: str) -> str:
    """Why the baseline with past errors is not made, in words; empty if it is. ``without_truth`` is that of :func:`_why_no_truth`."""
    if origin.recipe.generator.objective == "none":
        return "the forecast itself is made so"
    if without_truth or origin.recipe.rollout.keep == "statistics":
        return f"only scores need it, and there are none: {without_truth or 'rollout.keep is statistics'}"
    return "" if origin.record.now("validation").size else "the past errors are those on the validation split, and the record has none"


def _facts(origin: Origin) -> dict[str, Any]:
    """What the summary of a rollout says before it begins."""
    settings, generator, initial_times = origin.recipe.rollout, origin.recipe.generator, origin.initial_times
    nfe = 0 if generator.objective == "none" else settings.nfe
    facts = origin.facts | {
        "initial times": initial_times_in_words(initial_times, settings),
        "members": settings.members,
        "lead times": f"{settings.steps} of 6 h, to {settings.steps * 6} h",
        "evaluations": f"{nfe} of the generator, {int(generator.has_moments_model)} of the moments model per sample",
        "solver": few_in_words(origin.networks, settings.nfe) or f"{settings.solver}, {settings.grid_in_time} times",
    }
    if forcing := origin.record.forcing_variables:
        as_when = {"held": "as at the initial time, at all lead times", "prescribed": "as the record has them at each time"}
        facts["forcings"] = f"{', '.join(forcing)} {as_when[settings.forcings]}"
    if seen := int(((initial_times >= origin.trained_from) & (initial_times < origin.record.validation_from)).sum()):
        facts["seen in training"] = f"{seen} of the initial times; their scores say nothing about new weather"
    return facts


def _remove_outdated(recipe: Recipe, directory: Path, overwrite: bool) -> None:
    """Remove the baseline with past errors of another recipe, if there are any. Those of this recipe stay.

    Raises:
        UserError: if there are some and ``overwrite`` is False.
    """
    if not is_current(recipe, directory, PAST_ERRORS_FORECAST, overwrite):
        shutil.rmtree(directory / PAST_ERRORS_FORECAST, ignore_errors=True)
