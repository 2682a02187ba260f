"""Recognises variables of a dataset by their names and attributes, never by their position."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.sources.axes import NAMES
from wsdcast.data.variables import VARIABLES, name_and_level, variable, words
from wsdcast.runs.errors import UserError

HEIGHT_NAMES = ("height", "heightaboveground", "height_above_ground", "altitude")
LEVEL_NAMES = ("level", "isobaricinhpa", "isobaricinpa", "pressure_level", "plev", "lev", "levelist", "isobaric", "pressure", "pres")
"""Names of pressure levels, in lower case. They count only if their attributes, as far as there are any, are those of a pressure."""
PASCALS = {"pa": 1.0, "pascal": 1.0, "pascals": 1.0, **dict.fromkeys(("hpa", "mb", "mbar", "millibar", "millibars"), 100.0)}
HIGHEST_LEVEL = 1100.0
"""In hPa. Levels without units are in Pa if one of them is larger."""
LEAST_LEVEL = 50.0
"""Levels without units or a name of a pressure may be heights in m, or numbers, unless one of them is this large."""
SAYS_PRESSURE = re.compile("pres|isobar|plev")
OF_A_MODEL = re.compile(r"model[\s_]*(le?v|layer)|hybrid|sigma|^atmosphere_", re.IGNORECASE)
"""Standard and long names of levels that follow the ground. Some files give them units of a pressure. ``atmosphere_`` begins the standard
names of CF's appendix D."""
FURTHER_STANDARD_NAMES = {"geopotential": ("geopotential_height",), "mean_sea_level_pressure": ("air_pressure_at_sea_level",)}
"""Standard names that a variable may have besides the one in the table. Units say which of them it is."""
BARE_LEVELS = (200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
"""Levels in hPa that names such as ``t850`` may have without a unit. Smaller numbers may be heights in m, as in ``u80`` and ``T2``."""
SPREAD = re.compile(
    r":\s*(standard_deviation|std\w*|sd|variance|range|spread|root_mean_square|rms|sum_of_squares|\w+_absolute_value|cov\w*|diff\w*|ratio)\b"
)
"""CF's cell methods, and ecCodes' types of step, that make something else of values than a value of the same variable."""
EXTREME_OF_MEMBERS = re.compile(rf"\b(?:{'|'.join(NAMES['number'])})\s*:\s*(?:\w+\s*:\s*)*(max\w*|min\w*)\b")
"""Cell methods of the largest or smallest member at each point, which together are no state."""
SURFACE_NAMES = {known for entry in VARIABLES.values() if entry.kind == "surface" for known in entry.names}


class Found(NamedTuple):
    """Where a channel is in a dataset.

    Attributes:
        array: the variable, at its height.
        dimension: its dimension of levels; None if the variable is the channel alone.
        position: index of the channel's level along that dimension.
    """

    array: xr.DataArray
    dimension: Hashable | None = None
    position: int = 0


class Finder:
    """Finds channels in a dataset. It goes through the dataset's variables once, because stores with hundreds of them are large."""

    def __init__(self, dataset: xr.Dataset) -> None:
        arrays = variables_of(dataset)
        self._spreads = {array.name: spread for array in arrays if (spread := spread_of(array))}
        self._states = _Arrays(array for array in arrays if array.name not in self._spreads)
        self._others = _Arrays(array for array in arrays if array.name in self._spreads)

    def find(self, name: str) -> Found | None:
        """Return where a channel is in the dataset, or None if it is not there.

        Raises:
            UserError: if a variable of that name is at another height or has the standard name of another variable, if several variables
                have the attributes, or if there is only a spread of the variable, such as its standard deviation, or an extreme of members.
        """
        found = _find(self._states, name)
        if found is None and (other := _find(self._others, name)) is not None:
            raise UserError(f"{other.array.name} is a {self._spreads[other.array.name]} (cell_methods), not {words(name)}")
        if found is not None:
            standard, own = found.array.attrs.get("standard_name"), standard_names_of(name_and_level(name)[0])
            if standard not in own and any(standard in standard_names_of(other) for other in VARIABLES):
                raise UserError(
                    f"{found.array.name} has the standard name {standard}, where that of {words(name)} is {own[0]}; "
                    "if its name is right, remove that attribute"
                )
        return found


def standard_names_of(base: str) -> tuple[str, ...]:
    """Return the standard names of a variable, that of the table first."""
    return (VARIABLES[base].standard_name, *FURTHER_STANDARD_NAMES.get(base, ()))


def variables_of(dataset: xr.Dataset) -> list[xr.DataArray]:
    """Return the variables of a dataset, each without the scalar numbers that only others name in CF's attribute ``coordinates``.

    xarray gives every scalar coordinate to all variables. So each would have the height and the pressure level of all others too. A single
    time is no number and stays: it is that of the file.
    """
    arrays = list(dataset.data_vars.values())
    named = [set(str(array.encoding.get("coordinates", "")).split()) for array in arrays]
    numbers = {str(name) for name, array in dataset.coords.items() if array.ndim == 0 and array.dtype.kind in "iuf"}
    of_some = numbers & set().union(*named)
    return [array.drop_vars((of_some - own) & set(array.coords)) for array, own in zip(arrays, named, strict=True)]


class _Arrays:
    """Variables by their names in lower case, and by their standard names."""

    def __init__(self, arrays: Iterable[xr.DataArray]) -> None:
        self.named: dict[str, xr.DataArray] = {}
        self.standard: dict[str, list[xr.DataArray]] = {}
        for array in arrays:
            self.named[str(array.name).lower()] = array
            self.standard.setdefault(str(array.attrs.get("standard_name")), []).append(array)


def _find(arrays: _Arrays, name: str) -> Found | None:
    base, level = name_and_level(name)
    if level is not None:
        return next(_on_level(arrays, base, level), None)
    array = _at_surface(arrays, base)
    return None if array is None else Found(array)


def spread_of(array: xr.DataArray) -> str:
    """Return in words which spread of values or extreme of members an array is by its ``cell_methods``; "" if it is neither."""
    methods = re.sub(r"\(.*?\)", "", str(array.attrs.get("cell_methods", "")))  # what is in brackets is a comment
    if extreme := EXTREME_OF_MEMBERS.search(methods.lower()):
        return f"{extreme[1]} of members"
    found = SPREAD.search(methods.lower())
    return found[1].replace("_", " ") if found else ""


def contents(dataset: xr.Dataset) -> list[str]:
    """Return what a dataset holds, in words: its variables and their pressure levels."""
    listed = []
    for array in variables_of(dataset):
        levels = levels_of(array)
        listed.append(str(array.name) if levels is None else f"{array.name} at {'/'.join(f'{level:g}' for level in levels[1])} hPa")
    return listed + list(dataset.attrs.get("other_variables", []))


def levels_of(array: xr.DataArray) -> tuple[Hashable | None, NDArray[np.float64]] | None:
    """Return the dimension and the values in hPa of an array's pressure levels, or None if it has none.

    The dimension is None if the array is on one level.
    """
    for name in sorted(array.coords, key=lambda name: name not in array.dims):
        coordinate = array.coords[name]
        units = str(coordinate.attrs.get("units", "")).strip().lower()
        if coordinate.ndim > 1 or not np.issubdtype(coordinate.dtype, np.number) or not _is_pressure(coordinate, units):
            continue
        values = np.atleast_1d(coordinate.values).astype(np.float64)
        about = f"{name} {coordinate.attrs.get('standard_name')} {coordinate.attrs.get('long_name')}".lower()
        if not units and values.max() < LEAST_LEVEL and not SAYS_PRESSURE.search(about):
            continue
        in_pascals = PASCALS[units] == 1 if units else bool(values.max() > HIGHEST_LEVEL)
        return (coordinate.dims[0] if coordinate.ndim else None), values / 100 if in_pascals else values
    return None


def _is_pressure(coordinate: xr.DataArray, units: str) -> bool:
    """Return whether a coordinate has values of the air's pressure, by its name, its attributes and its units in lower case."""
    standard = str(coordinate.attrs.get("standard_name", ""))
    if any(OF_A_MODEL.search(text) for text in (standard, str(coordinate.attrs.get("long_name", "")))):
        return False
    if standard == "air_pressure":
        return not units or units in PASCALS
    # Some files have standard names that are not CF's, so units of a pressure count for more.
    return str(coordinate.name).lower() in LEVEL_NAMES and (units in PASCALS if units else not standard)


def _on_level(arrays: _Arrays, base: str, level: int) -> Iterator[Found]:
    """Yield the places of a variable on a pressure level, the most certain first: names are more certain than attributes.

    Raises:
        UserError: if several variables have the attributes.
    """
    names = arrays.named
    called = (base, *VARIABLES[base].names)
    if f"{base}@{level}" in names:
        yield Found(names[f"{base}@{level}"])
    yield from _with_level((names[known] for known in called if known in names), level)
    for known in called:
        bare = (f"{known}{level}",) if level in BARE_LEVELS else ()
        for spelled in (*bare, f"{known}_{level}", *(f"{known}_{level}{unit}" for unit in ("hpa", "mb")), f"{known}{level}hpa"):
            if spelled in names and spelled not in SURFACE_NAMES:
                yield Found(names[spelled])
    for standard, same in _by_standard_name(arrays, base):
        found = list(_with_level(same, level))
        _require_one([place.array for place in found], f"{standard} at {level} hPa")
        yield from found


def _with_level(arrays: Iterable[xr.DataArray], level: int) -> Iterator[Found]:
    """Yield the places of a level in hPa in those of the arrays that have it."""
    for array in arrays:
        if (levels := levels_of(array)) is not None:
            same = np.isclose(levels[1], level, rtol=0, atol=1e-3)
            if same.any():
                yield Found(array, levels[0], int(np.argmax(same)))


def _at_surface(arrays: _Arrays, base: str) -> xr.DataArray | None:
    """Return a variable that has no levels, recognised by its name or attributes, or None if it is not there.

    Raises:
        UserError: if it is at another height, or if several variables have the attributes.
    """
    entry = VARIABLES[base]
    for known in (base, *entry.names):
        if known in arrays.named:
            array = _at_height(arrays.named[known], entry.height)
            heights = [array[name].item() for name in array.coords if _is_height(array, name)]
            if entry.height is not None and heights and heights[0] != entry.height:
                raise UserError(f"{array.name} is at a height of {heights[0]:g} m, not {entry.height:g} m")
            return array
    for standard, same in _by_standard_name(arrays, base):
        where = ""
        if entry.height is not None:
            same = [_at_height(array, entry.height) for array in same]
            same = [array for array in same if any(_is_height(array, name) and array[name] == entry.height for name in array.coords)]
            where = f" at {entry.height:g} m"
        _require_one(same, f"{standard}{where}")
        if same:
            return same[0]
    return None


def _by_standard_name(arrays: _Arrays, base: str) -> Iterator[tuple[str, list[xr.DataArray]]]:
    """Yield each standard name of a variable, that of the table first, and the arrays that have it."""
    for standard in standard_names_of(base):
        yield standard, arrays.standard.get(standard, [])


def _require_one(arrays: Sequence[xr.DataArray], what: str) -> None:
    """Raise a :class:`UserError` if there are several arrays."""
    if len(arrays) > 1:
        raise UserError(f"several variables are {what}: {', '.join(str(array.name) for array in arrays)}")


def _at_height(array: xr.DataArray, height: float | None) -> xr.DataArray:
    """Select a height in m if the array has a dimension of heights with that value; else return the array unchanged."""
    for name in array.dims:
        if str(name).lower() in HEIGHT_NAMES and name in array.coords and height in array[name].values:
            return array.isel({name: int(np.argmax(array[name].values == height))})
    return array


def _is_height(array: xr.DataArray, name: Hashable) -> bool:
    """Return whether a coordinate is the one height of an array."""
    is_height = str(name).lower() in HEIGHT_NAMES or array[name].attrs.get("standard_name") == "height"
    return is_height and array[name].size == 1


def is_named(name: str, channels: Sequence[str]) -> bool:
    """Return whether a variable of this name is one of the channels, whatever its levels are."""
    return any(name.lower() in (channel, name_and_level(channel)[0], *variable(channel).names) for channel in channels)


def known_names(name: str) -> str:
    """Return the names under which a channel is looked for, the first three of them."""
    base, level = name_and_level(name)
    return " or ".join((base, *VARIABLES[base].names)[:3]) + (f" at {level} hPa" if level else "")
