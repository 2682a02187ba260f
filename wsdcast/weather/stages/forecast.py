"""Today's forecast: from a model file and an analysis to products and a page, in one directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from wsdcast.data.variables import DEFAULT
from wsdcast.output.places import read_places
from wsdcast.output.products import in_order, products, require_no_wind
from wsdcast.runs import devices, processes
from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import require_no_input
from wsdcast.runs.locks import alone
from wsdcast.runs.names import FORECAST, PLACES, PRODUCTS
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.summary import Summary
from wsdcast.runs.times import TimeLike, text_of
from wsdcast.weather.forecast.initial_times import LATEST
from wsdcast.weather.forecast.origin import of_model
from wsdcast.weather.stages.forecast_page import forecast_page
from wsdcast.weather.stages.rollout import roll_out

DAYS = 5.0
"""Length of the forecast unless another is given."""


def forecast(
    model: str | Path,
    initial: str | Path,
    run: str | Path | None = None,
    *,
    recipe: Overridden | None = None,
    members: int | None = None,
    nfe: int | None = None,
    start: TimeLike | None = None,
    days: float | None = None,
    seed: int | None = None,
    thresholds: Sequence[float | str] | None = None,
    at: str | Path | None = None,
    overwrite: bool = False,
) -> list[Summary]:
    """Run an ensemble from a model file and an analysis, and write what is made of it.

    ``RUN/forecast.zarr`` has the members, ``RUN/products.nc`` mean, spread, quantiles, probabilities and direction, ``RUN/places.csv`` the
    same at places, and ``RUN/forecast.html`` is a page to look at. A forecast that was stopped continues, with the same bytes in the end.

    Args:
        model: a model file, from :func:`wsdcast.export_model`.
        initial: source of the initial states: ``gfs``, ``ifs``, or any that :func:`wsdcast.prepare` reads.
        run: run directory; default ``runs/<name of the file>-<initial time>``.
        recipe: changed keys of the section ``rollout`` of the model's recipe.
        members: ensemble size; default from the recipe.
        nfe: network evaluations per sample: 1 with a distilled network, an even number with the solver midpoint; default from the recipe.
        start: initial time, UTC; default: the latest of the source.
        days: length of the forecast; default five days.
        seed: seed of the members' noise; default from the recipe.
        thresholds: 10 m wind speeds of which the probability of exceeding is computed, in m s-1, or texts with a unit, as ``25kn``;
            default: where Beaufort 6, 8 and 10 begin.
        at: CSV file of places (name, latitude, longitude), for ``RUN/places.csv`` and a plume of each.
        overwrite: replace a forecast of another model or from other initial states.

    Returns:
        The summary of each step.

    Raises:
        UserError: as :func:`wsdcast.rollout`, :func:`wsdcast.products` and :func:`wsdcast.forecast_page` do, if ``start`` is several
            times, if ``at`` is the file ``RUN/places.csv``, which would be replaced, and if another process is at work in ``run``. What
            the steps before have finished is kept.
    """
    changes = {"members": members, "nfe": nfe, "start": start, "days": days, "seed": seed}
    return list(forecast_steps(model, initial, run, recipe, changes, thresholds=thresholds, at=at, overwrite=overwrite))


def forecast_steps(
    model: str | Path,
    initial: str | Path,
    run: str | Path | None,
    recipe: Overridden | None,
    changes: Mapping[str, Any],
    *,
    thresholds: Sequence[float | str] | None,
    at: str | Path | None,
    overwrite: bool,
) -> Iterator[Summary]:
    """As :func:`forecast`, and yield the summary of each step when it ends. ``changes`` are of keys of the section ``rollout``."""
    processes.join()
    devices.keep_freed_memory()
    for given in (changes["start"], recipe.values.get("rollout.start") if isinstance(recipe, Overridden) else None):
        if "/" in str(given):  # products and the page are of one initial time
            raise UserError(f"--start {given}: expected one initial time; `wsdcast rollout --model` takes several")
        if isinstance(text := text_of(given), str) and text != LATEST:
            try:
                datetime.fromisoformat(text)
            except ValueError:
                raise UserError(f"--start '{text}': expected {LATEST} or a time such as 2020-01-31T06") from None
    if thresholds is not None:  # a mistake in an option shows before the forecast is made
        in_order("thresholds", thresholds)
    if at is not None:
        read_places(at)
    settings = {**changes, "days": DAYS if changes["days"] is None else changes["days"], "keep": "all"}
    origin = of_model(model, initial, recipe, run, {f"rollout__{key}": value for key, value in settings.items()})
    if at is not None:
        require_no_input([origin.directory / PLACES], [at], "", "another --run")
    if not set(DEFAULT) <= set(origin.recipe.rollout.variables or origin.record.variables):
        require_no_wind("this forecast", {"thresholds": thresholds})
    yield roll_out(origin, overwrite=overwrite)
    if not processes.is_first():
        return
    store, directory = origin.directory / FORECAST, origin.directory
    with alone(directory):
        # Products are made from the forecast in this directory alone, so they may replace older ones.
        yield products(store, directory / PRODUCTS, thresholds=thresholds, overwrite=True)
        if at is not None:
            yield products(store, directory / PLACES, thresholds=thresholds, at=at, overwrite=True)
        yield forecast_page(directory, thresholds=thresholds)
