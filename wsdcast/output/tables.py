"""Products at places as one tidy table: a row for each place, initial time, lead time and value."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from wsdcast.output.blocks import COUNTS, LEAD
from wsdcast.output.places import Places
from wsdcast.output.quantities import split_product
from wsdcast.report.display_units import display_of
from wsdcast.runs.errors import UserError

FORMATS = (".csv", ".parquet")
INTERPOLATION = "bilinear"
"""Value of the column ``interpolation`` in every row."""
COLUMNS = (
    "name",
    "latitude",
    "longitude",
    "initial_time",
    "lead_hours",
    "valid_time",
    "variable",
    "statistic",
    "level",
    "threshold",
    "value",
    "units",
    "members",
    "interpolation",
)
"""Columns of the table (docs/products.md)."""


def check(path: Path) -> None:
    """Check that a table can be written to a file.

    Raises:
        UserError: if its suffix is unknown, or if it is Parquet and pyarrow is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--out {path}: a table of places is written as {' or '.join(FORMATS)}, not as '{path.suffix}'")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"--out {path}: Parquet needs `pip install 'wsdcast[parquet]'`; CSV does not")


def table_of(blocks: Iterable[tuple[np.datetime64, xr.Dataset]], places: Places, climate: xr.DataArray | None) -> pd.DataFrame:
    """Return the table, with rows in the order of places, initial times, lead times and products. Values have the units that are shown.

    Args:
        blocks: initial time and products (prediction_timedelta, level, place) of some lead times, with all coordinates.
    """
    frames = []
    for time, block in blocks:
        for order, (name, array) in enumerate(block.drop_vars(COUNTS, errors="ignore").items()):
            frame = array.rename("value").to_dataframe().reset_index()
            subject, product = split_product(str(name))
            is_direction = subject == "direction"
            frame["variable"] = "direction" if is_direction else "speed" if subject == "window" else subject
            statistic = {"": "mode", "share": "share of mode", "mean": "mean"}[product] if is_direction else product.replace("_", " ")
            frame["statistic"] = f"{statistic} of maximum" if subject == "window" else statistic
            display = display_of(array.attrs["units"])
            if product in ("mean", "quantile"):
                frame["value"], frame["units"] = display.of(frame["value"]), display.units
            elif product == "spread":
                frame["value"], frame["units"] = display.of_differences(frame["value"]), display.difference_units
            else:  # a share or a direction
                frame["units"] = array.attrs["units"]
            frame["order"], frame["initial_time"] = order, time
            frame["members"] = block["window_members" if subject == "window" else "members"].sel({LEAD: frame[LEAD].values}).values
            if "climate_quantile" in array.dims:
                assert climate is not None
                frame["threshold"] = climate.sel({axis: xr.DataArray(frame[axis]) for axis in climate.dims}).values
            frames.append(frame.rename(columns={"quantile": "level", "climate_quantile": "level"}))
    table = pd.concat(frames, ignore_index=True)
    table = table.sort_values(["place", "initial_time", LEAD, "order"], kind="stable", ignore_index=True)
    place = table["place"].to_numpy()
    table["name"] = np.array(places.name, dtype=object)[place]
    table["latitude"], table["longitude"] = places.latitude[place], places.longitude[place]
    table["lead_hours"] = (table[LEAD] / np.timedelta64(1, "h")).astype(int)
    table["valid_time"] = table["initial_time"] + table[LEAD]
    table["members"] = table["members"].astype("Int64")
    table["interpolation"] = INTERPOLATION
    # Windows have no value at lead times at which none ends.
    ended = table["members"].notna()
    return table.reindex(columns=list(COLUMNS))[ended].reset_index(drop=True)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV or Parquet, by the suffix of the path. Numbers in CSV have eight digits."""
    if path.suffix.lower() == ".parquet":
        table.to_parquet(path, engine="pyarrow", index=False)
    else:
        table.to_csv(path, index=False, float_format="%.8g", date_format="%Y-%m-%dT%H:%M")
