"""Stage 3: run ensemble forecasts with the trained networks."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.store.forecasts import Forecasts
from wsdcast.data.store.zarr_store import add_variables, open_store
from wsdcast.data.variables import DEFAULT
from wsdcast.report.animation import animate, shows
from wsdcast.report.coastlines import coastlines_of
from wsdcast.report.subjects import subject
from wsdcast.runs import devices, processes
from wsdcast.runs.artefact import IN_A_COPY, Summary, complete, complete_netcdf, is_current, make_stamp, partial_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANIMATION, FORECAST, INITIAL_STATES, MODEL_CARD, PAST_ERRORS_FORECAST, GridName, SolverName
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.progress import track
from wsdcast.runs.times import TimeLike
from wsdcast.sampling.acceleration import deterministic_algorithms
from wsdcast.sampling.batches import batch_size, in_batches
from wsdcast.sampling.samplers import Sampler
from wsdcast.verification.streamed import ScoredForecasts
from wsdcast.verification.truth import truth_of
from wsdcast.warmstart.prior import Moments
from wsdcast.weather.forecast.initial_states import write_states
from wsdcast.weather.forecast.initial_times import initial_times_in_words
from wsdcast.weather.forecast.memory import require_memory_of_rollout
from wsdcast.weather.forecast.one_step import one_step
from wsdcast.weather.forecast.origin import Origin, of_model, of_run
from wsdcast.weather.forecast.outcome import clipped, stopped
from wsdcast.weather.forecast.past_errors import past_errors
from wsdcast.weather.forecast.running import groups
from wsdcast.weather.forecast.writing import run_and_write
from wsdcast.weather.recipe import Recipe, Rollout
from wsdcast.weather.samplers import few_in_words, noise_count_of, past_errors_sampler_of, sampler_of

FAST = "fast, without --deterministic"
"""What a forecast says of its arithmetic if it was made on a GPU and another run would give other bits."""


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
    settings, variables, initial_times = resolved.rollout, origin.kept_variables, origin.initial_times
    batch = batch_size(record.grid.size, devices.device())

    valid_times, without = initial_times[:, None] + np.array(settings.kept_leads) * np.timedelta64(1, "h"), ""
    if origin.is_model_file:  # the initial states of one of its forecasts are no truth for another
        without = "no later states are read with a model file"
    elif not np.isin(valid_times, record.times).any():
        without = "the record has no truth after the initial times"
    if settings.keep == "scores" and without:
        raise UserError(f"--score: {without}, so nothing can be scored")
    summary = Summary("rollout", facts=_facts(origin))
    processes.decided(lambda: require_memory_of_rollout(networks, record, origin.starts, settings, batch, len(variables)))
    sampler, artefacts = None, [FORECAST]
    if resolved.generator.objective != "none":
        sampler = sampler_of(networks, settings, deterministic=deterministic)
    elif origin.errors is None and not record.now("validation").size:
        raise UserError("generator.objective none: the noise is made from past errors on the validation split, and the record has none")
    if resolved.generator.has_moments_model:
        if reason := _why_no_baseline(origin, without):
            processes.decided(lambda: _remove_outdated(resolved, directory, overwrite))
            summary.facts[f"not written: {PAST_ERRORS_FORECAST}"] = reason
        else:
            artefacts.insert(0, PAST_ERRORS_FORECAST)
    current = processes.decided(
        lambda: [name for name in artefacts if _is_current(origin, name, deterministic=deterministic, overwrite=overwrite)]
    )
    for artefact in artefacts:
        if artefact in current:
            summary.facts[f"current: {artefact}"] = str(directory / artefact)
            continue
        # The sampler of the baseline is let go before the other begins: a CUDA graph keeps the memory of its evaluations.
        if artefact == FORECAST and sampler is not None:
            used = sampler
        else:
            with deterministic_algorithms() if deterministic else nullcontext():
                errors = past_errors(networks, record) if origin.errors is None else origin.errors
            used = past_errors_sampler_of(networks, errors, deterministic=deterministic)
        _write(origin, artefact, in_batches(used, batch), batch, summary, deterministic=deterministic, overwrite=overwrite)
    animation = directory / ANIMATION
    has_members = settings.keep not in ("statistics", "scores")
    if processes.is_first() and has_members and not shows(animation, subject(variables, resolved.score.headline).label):
        with complete(animation) as partial:
            truth, lines = truth_of(record, record.variables), coastlines_of(resolved.data.source)
            animate(directory / FORECAST, truth, partial, 0, lines, resolved.score.headline)
        summary.written[str(animation)] = f"{'truth and ' * (not without)}members from the first initial time"
    return summary


def _why_no_baseline(origin: Origin, without: str) -> str:
    """Why the baseline with past errors is not made, in words; empty if it is. ``without`` says why there is no truth, or is empty."""
    if origin.recipe.generator.objective == "none":
        return "the forecast itself is made so"
    if without or origin.recipe.rollout.keep == "statistics":
        return f"only scores need it, and there are none: {without or 'rollout.keep is statistics'}"
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


def _write(origin: Origin, artefact: str, sampler: Sampler, batch: int, summary: Summary, *, deterministic: bool, overwrite: bool) -> None:
    """Run the ensembles of a sampler, with ``batch`` members per evaluation, and write them as an artefact. Add to the summary.

    Raises:
        UserError: if the artefact does not fit on the disk, or an unfinished one is of another recipe or has other initial times and
            ``overwrite`` is False.
    """
    directory, record, settings = origin.directory, origin.record, origin.recipe.rollout
    starts, variables = origin.starts, origin.kept_variables
    path, stamp = directory / artefact, make_stamp(origin.recipe, directory, artefact, origin.fingerprint)
    begin = time.perf_counter()
    layout: dict[str, Any] = {"path": partial_of(path), "times": origin.initial_times, "leads": settings.kept_leads, "grid": record.grid}
    layout |= {"members": settings.members, "reduced": settings.keep == "statistics", "variables": variables}
    scored = artefact == PAST_ERRORS_FORECAST or settings.keep == "scores"
    store = ScoredForecasts(**layout, truth=truth_of(record, variables)) if scored else Forecasts(**layout)
    # The initial times change when the record grows. A fast forecast on a GPU must not be completed as a deterministic one.
    arithmetic = "deterministic" if deterministic or devices.device().type == "cpu" else FAST
    claimed = stamp | {"initial times": store.times.astype("datetime64[h]").astype(str).tolist(), "arithmetic": [arithmetic]}
    with processes.completed_by_first(path, claimed, overwrite, store.bytes):
        missing = processes.decided(lambda: _begin(store, directory / ANIMATION))
        all_groups = groups(missing, settings.members, batch, devices.device(), alone=deterministic)
        own_groups = all_groups[processes.number() :: processes.count()]
        noise_count = noise_count_of(origin.networks, settings) if artefact == FORECAST else 1
        steps = run_and_write(store, record, origin.networks.forcings, sampler, starts, own_groups, settings, noise_count)
        for _ in track(steps, f"rolling out {artefact.removesuffix('.zarr')}", settings.steps * sum(rows.size for rows in own_groups)):
            pass
        processes.wait()
        if processes.is_first():
            summary.facts |= stopped(store, artefact) | clipped(store, artefact)
            if artefact == PAST_ERRORS_FORECAST:
                with deterministic_algorithms() if deterministic else nullcontext():
                    add_variables(store.path, one_step(origin.networks, record, starts, variables))
            if origin.is_model_file:
                (directory / MODEL_CARD).write_text(origin.card, encoding="utf-8")
                with complete_netcdf(directory / INITIAL_STATES) as states:
                    write_states(states, record, {name.replace(" ", "_"): text for name, text in origin.facts.items()})
            credit = {name: origin.facts[name] for name in ("attribution",) if name in origin.facts}
            title = "10 m wind ensemble forecast" if variables == DEFAULT else "ensemble forecast"
            store.close({"title": title, "wsdcast": json.dumps(stamp), "arithmetic": arithmetic} | credit)
    seconds = time.perf_counter() - begin
    count = f"{len(starts)} initial time{'s' * (len(starts) > 1)}"
    summary.written[str(path)] = f"{count} x {_kept(settings, scored)}, {store.bytes / 1e6:.0f} MB"
    samples = missing.size * settings.steps * settings.members
    summary.facts[f"time: {artefact}"] = f"{seconds:.0f} s" + (f", {1e3 * seconds / samples:.2f} ms a sample" if samples else "")


def _remove_outdated(recipe: Recipe, directory: Path, overwrite: bool) -> None:
    """Remove the moments model's forecasts of another recipe, if there are any. Those of this recipe stay.

    Raises:
        UserError: if there are some and ``overwrite`` is False.
    """
    if not is_current(recipe, directory, PAST_ERRORS_FORECAST, overwrite):
        shutil.rmtree(directory / PAST_ERRORS_FORECAST, ignore_errors=True)


def _is_current(origin: Origin, artefact: str, *, deterministic: bool, overwrite: bool) -> bool:
    """Whether an artefact is there, is of this recipe and these initial times, and is deterministic if it has to be.

    Raises:
        UserError: if it is there and is not, and ``overwrite`` is False.
    """
    path = origin.directory / artefact
    if not is_current(origin.recipe, origin.directory, artefact, overwrite, origin.fingerprint):
        return False
    with open_store(path) as store:
        same = np.array_equal(store["time"].values, origin.initial_times)
        is_fast = store.attrs.get("arithmetic") == FAST
    differs = "has other initial times: the record is longer now" if not same else "was made on a GPU without --deterministic"
    is_this = same and not (deterministic and is_fast)
    if not is_this and not overwrite:
        raise UserError(f"{path} {differs}; replace it with --overwrite, or {IN_A_COPY}")
    return is_this


def _begin(store: Forecasts, animation: Path) -> NDArray[np.intp]:
    """Create a store or open an unfinished one, and return the rows of the initial times that are not written yet, (start,)."""
    animation.unlink(missing_ok=True)  # it shows the forecast that is about to be replaced
    store.create()
    return np.array([row for row in range(store.times.size) if store.written(row) is None], dtype=np.intp)


def _kept(settings: Rollout, scored: bool) -> str:
    fields = "scores" if scored else "statistics" if settings.keep == "statistics" else f"{settings.members} members"
    return f"{fields} x {len(settings.kept_leads)} leads"
