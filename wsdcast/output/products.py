"""``wsdcast products``: mean, spread, quantiles, probabilities and wind direction of a forecast, on the grid or at places."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from wsdcast.data.sources.foreign_forecasts import addresses_of
from wsdcast.data.sources.opening import addresses
from wsdcast.data.sources.units import size_of_speed
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.data.variables import DEFAULT
from wsdcast.output import climate, tables
from wsdcast.output.blocks import LEAD, attributes_of, blocks_of, coordinates_of
from wsdcast.output.convert import facts_of, open_all, origin_of, space_of
from wsdcast.output.ensemble import CALM, Choice, Field
from wsdcast.output.fields import Box, Fields
from wsdcast.output.places import INTERPOLATION, OF_ANY, Interpolation, Places, interpolation, read_places, require_inside
from wsdcast.output.plumes import plume_paths, write_plumes
from wsdcast.output.writing import Blocks, Contents, require_new, targets, write
from wsdcast.runs.complete import complete, partial_of
from wsdcast.runs.errors import UserError, first_few
from wsdcast.runs.inputs import address_given
from wsdcast.runs.progress import track
from wsdcast.runs.summary import Summary
from wsdcast.verification.thresholds import THRESHOLDS, threshold_in_words
from wsdcast.verification.truth import Truth

CLIMATE_QUANTILES = (0.95, 0.99)
OUT = {"netcdf": "products.nc", "zarr": "products.zarr"}
OUT_AT = "products.csv"


def products(
    forecast: str | Path,
    out: str | Path | None = None,
    *,
    to: Literal["netcdf", "zarr"] | None = None,
    thresholds: Sequence[float | str] | None = None,
    quantiles: Sequence[float] | None = None,
    window_hours: float | None = None,
    climatology: str | Path | None = None,
    climate_quantiles: Sequence[float] | None = None,
    at: str | Path | None = None,
    region: Box | None = None,
    overwrite: bool = False,
) -> Summary:
    """Compute what a forecast of any origin says: mean, spread and quantiles of all variables and of wind speeds.

    Of the 10 m wind there are also probabilities of strong wind and the most likely direction. Members without values, such as those that
    were stopped, are left out and counted.

    Args:
        forecast: path or URL of a store of forecasts, in any layout that :func:`wsdcast.score_forecast` reads; or a run directory with one.
        out: file or store to write; default ``products.nc``, ``products.zarr`` or, with ``at``, ``products.csv``. The suffix of a table of
            places, .csv or .parquet, gives its format.
        to: format of fields; default ``netcdf``.
        thresholds: 10 m wind speeds of which the probability of exceeding is computed, in m s-1, or texts with a unit, as ``25kn``;
            default: where Beaufort 6, 8 and 10 begin.
        quantiles: of each variable and wind speed over the members; default 0.1, 0.25, 0.5, 0.75 and 0.9.
        window_hours: length of a window. The probability that the maximum of 10 m wind speed over it exceeds the thresholds is added.
        climatology: an ``analysis.zarr``, or analyses that ``wsdcast prepare`` reads. Their quantiles at each point are thresholds too:
            those of the training split, or of all times before the first initial time.
        climate_quantiles: these quantiles; default 0.95 and 0.99.
        at: CSV file of places (name, latitude, longitude). A table and plumes of them are written and no fields.
        region: west, south, east and north bound, degrees; default: all points.
        overwrite: replace what is there.

    Raises:
        UserError: if the forecast, the climatology or the places cannot be read, an argument is of a wrong type, the options do not go
            together or need a 10 m wind that the forecast does not have, or ``out`` is there already or is what is read.
    """
    if at is not None and (to or region):
        raise UserError(f"--{'to' if to else 'region'} does not go with --at, which writes a table of places")
    if to is not None and to not in OUT:
        raise UserError(f"format '{to}': expected {', '.join(OUT)}")
    if climate_quantiles is not None and climatology is None:
        raise UserError("--climate-quantiles needs a --climatology")
    if window_hours is not None and not (isinstance(window_hours, Real) and 0 < window_hours < np.inf):
        raise UserError(f"window_hours {window_hours!r}: expected a number of hours above 0")
    window = None if window_hours is None else np.timedelta64(round(window_hours * 3600), "s").astype("timedelta64[ns]")
    thresholds = None if thresholds is None else in_order("thresholds", thresholds)
    choice = Choice(thresholds or THRESHOLDS, in_order("quantiles", QUANTILES if quantiles is None else quantiles, 1), window)
    if climatology is not None:
        climate_quantiles = CLIMATE_QUANTILES if climate_quantiles is None else climate_quantiles
        choice = replace(choice, climate_quantiles=in_order("climate-quantiles", climate_quantiles, 1))
    places = None if at is None else read_places(at)
    fields, refused = open_all(forecast, region)
    choice = replace(choice, variables=fields.variables)
    if not choice.has_wind:
        require_no_wind(fields.name, {"thresholds": thresholds, "window": window, "climatology": climatology})
        choice = replace(choice, thresholds=())
    if window is not None and window > fields.leads[-1]:
        raise UserError(f"--window {window_hours:g}h: the forecast ends after {fields.leads[-1] / np.timedelta64(1, 'h'):g} h")
    fields.require_memory(window)
    summary = Summary("products", facts=facts_of(fields) | refused)
    source = None if climatology is None else address_given(climatology, "--climatology")
    inputs = [*addresses_of(fields.name), *(addresses(source) if source else ()), *(() if at is None else (at,))]
    if places is None:
        paths = targets(Path(out or OUT[to or "netcdf"]), to or "netcdf", fields.times, inputs, overwrite)
        _on_grid(fields, choice, source, paths, to or "netcdf", summary)
    else:
        paths = [Path(out or OUT_AT), *plume_paths(Path(out or OUT_AT), places.name)]
        tables.check(paths[0])
        require_new(paths, inputs, overwrite)
        _at_places(fields, choice, source, paths, places, summary)
    if not choice.has_wind:
        return summary
    summary.facts["thresholds"] = ", ".join(map(threshold_in_words, choice.thresholds))
    summary.facts["direction"] = f"the sector of eight with most members, and that of the mean wind; calm below {CALM} m/s"
    return summary


def require_no_wind(forecast: str, options: Mapping[str, object]) -> None:
    """Raise a UserError if an option is given that is about the 10 m wind, for a forecast without it."""
    for option, value in options.items():
        if value is not None:
            raise UserError(f"--{option} is about the 10 m wind, which {forecast} does not have")


def in_order(option: str, values: Sequence[float | str], high: float = np.inf) -> tuple[float, ...]:
    """Return the values of an option in increasing order, each once; without a bound they are speeds, in m/s.

    Raises:
        UserError: if they are no list, if there is none, or if one is not a number from 0 to ``high``.
    """
    is_list = isinstance(values, Iterable) and not isinstance(values, str)
    try:
        number = _speed if high == np.inf else float
        numbers = tuple(sorted({number(value) for value in values})) if is_list else ()
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(0 <= number <= high and np.isfinite(number) for number in numbers):
        given = f"{','.join(map(str, values))}: expected" if is_list else f"{values!r}: expected a list of"
        expected = (
            "of 0 or more, in m/s, such as 10.8,17.2, or with a unit of speed, such as 25kn"
            if high == np.inf
            else f"from 0 to {high:g}, such as 0.1,0.9"
        )
        raise UserError(f"--{option} {given} numbers {expected}")
    return numbers


def _speed(value: float | str) -> float:
    """Return a speed in m/s. A text may end with a unit that sources may have, such as ``25kn``.

    Raises:
        ValueError: if it is no number, or has another unit.
    """
    parts = re.fullmatch(r"([\d.]+) *([A-Za-z].*)", value.strip()) if isinstance(value, str) else None
    if parts and (size := size_of_speed(parts[2])) is not None:
        return float(parts[1]) * size
    return float(value)


def _on_grid(
    fields: Fields, choice: Choice, climatology: str | None, paths: list[Path], to: Literal["netcdf", "zarr"], summary: Summary
) -> None:
    constants = {}
    if climatology is not None:
        shares = choice.climate_quantiles
        choice = _with_climate(choice, climatology, fields, summary, lambda states: climate.thresholds_on_grid(states, shares, fields))
        attributes = attributes_of("climate_threshold", choice) | {"comment": summary.facts["climatology"]}
        dimensions = ("climate_quantile", "latitude", "longitude")
        constants["climate_threshold"] = xr.DataArray(choice.climate, dims=dimensions, attrs=attributes)
    counts: list[Field] = []

    def blocks(row: int) -> Blocks:
        for first, block in blocks_of(partial(fields.read, row), fields.leads, choice, ("latitude", "longitude")):
            counts.append(block["members"].values)
            yield first, _described(block, choice)

    coordinates = coordinates_of(choice) | space_of(fields)
    write(paths, to, Contents(fields.times, fields.leads, blocks, coordinates, constants, origin_of(fields, "products of an ")))
    summary.written = {str(path): _contents(choice) for path in paths}
    _note_left_out(fields, counts, summary)


def _at_places(fields: Fields, choice: Choice, climatology: str | None, paths: list[Path], places: Places, summary: Summary) -> None:
    out, *pictures = paths
    require_inside(fields.latitude, fields.longitude, places, fields.name)
    to_places = interpolation(fields.latitude, fields.longitude, places)
    speeds = None
    if climatology is not None:

        def of_climate(states: Truth) -> Field:
            on_its_grid = interpolation(states.grid.latitude, states.grid.longitude, places)
            return climate.quantiles_over_time(states, choice.climate_quantiles, on_its_grid)

        choice = _with_climate(choice, climatology, fields, summary, of_climate)
        coordinates = {"climate_quantile": list(choice.climate_quantiles), "place": np.arange(len(places.name))}
        speeds = xr.DataArray(choice.climate, coordinates, ("climate_quantile", "place"))
    counts: list[Field] = []

    def blocks() -> Iterator[tuple[np.datetime64, xr.Dataset]]:
        for row in track(range(fields.times.size), "products", fields.times.size):
            for first, block in blocks_of(_read_at(fields, row, to_places), fields.leads, choice, ("place",)):
                counts.append(block["members"].values)
                leads = fields.leads[first : first + block.sizes[LEAD]]
                coordinates = {LEAD: leads, "place": np.arange(len(places.name))}
                yield fields.times[row], _described(block, choice).assign_coords(coordinates_of(choice) | coordinates)

    table = tables.table_of(blocks(), places, speeds)
    unfinished = partial_of(out.with_name(f"{out.stem}-plumes"))
    # If one of the files cannot be written, none is there. Pictures that a killed command left are replaced and removed.
    with complete(out) as partial_table:
        unfinished.mkdir(exist_ok=True)
        try:
            tables.write_table(table, partial_table)
            drawn = [unfinished / picture.name for picture in pictures]
            write_plumes(drawn, _read_at(fields, -1, to_places), fields, places)
            for path, picture in zip(drawn, pictures, strict=True):
                path.replace(picture)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    summary.written = {str(out): f"{_contents(choice)} at {len(places.name)} places"}
    summary.written |= {str(path): "plume" for path in pictures}
    if lacking := _lacking(table, places):
        summary.facts["no values"] = f"at {first_few(lacking)}: next to a point without any"
    summary.facts["interpolation"] = INTERPOLATION if fields.variables == DEFAULT else OF_ANY
    _note_left_out(fields, counts, summary)


def _lacking(table: pd.DataFrame, places: Places) -> list[str]:
    """Return the places without any value, and those without any of some variable, with its name."""
    has_values = table["value"].notna().groupby([table["name"], table["variable"]]).any().unstack().loc[list(places.name)]
    without = {name: list(row.index[~row]) for name, row in has_values.iterrows()}
    return [name if len(of) == has_values.columns.size else f"{name} ({', '.join(of)})" for name, of in without.items() if of]


def _contents(choice: Choice) -> str:
    return "probabilities, quantiles, mean, spread and direction" if choice.has_wind else "quantiles, mean and spread"


def _with_climate(choice: Choice, source: str, fields: Fields, summary: Summary, speeds: Callable[[Truth], Field]) -> Choice:
    """Return the choice with the speeds at quantiles of a climatology, which ``speeds`` computes from its states."""
    with TemporaryDirectory(prefix="wsdcast-") as scratch:
        states = climate.open_climatology(source, fields.times[0], Path(scratch))
        summary.facts["climatology"] = "; ".join((f"{states.past.size} states of {source}", *states.notes))
        return replace(choice, climate=speeds(states))


def _read_at(fields: Fields, row: int, to_places: Interpolation) -> Callable[[slice], Field]:
    """Return the function that reads the members of one initial time at places, (member, lead, channel, place)."""
    return lambda leads: to_places(fields.read(row, leads))


def _described(block: xr.Dataset, choice: Choice) -> xr.Dataset:
    """Return the block with CF attributes."""
    return block.assign({name: array.assign_attrs(attributes_of(str(name), choice)) for name, array in block.data_vars.items()})


def _note_left_out(fields: Fields, counts: list[Field], summary: Summary) -> None:
    """Add to the summary how many members were left out. ``counts`` are those that remain at each initial and lead time."""
    remaining, members = np.concatenate(counts), fields.members
    if (remaining < members).any():
        summary.facts["left out"] = (
            f"{int((members - remaining).sum())} of {members * remaining.size} members and lead times without values, at "
            f"{int((remaining < members).sum())} of {remaining.size} initial and lead times"
        )
