"""Helpers of the tests: prepared records of several variables, made from the wind of another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import zarr

from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.zarr_store import Packing, close_store, create_store
from wsdcast.data.variables import DEFAULT

STATE = ("2m_temperature", "10m_u_component_of_wind", "specific_humidity@850", "10m_v_component_of_wind", "geopotential@500")
"""Channels of the record of :func:`with_five_variables`, in an order in which the wind is not first."""


def channel(name: str, wind: np.ndarray) -> np.ndarray:
    """Return a made field of a variable, (time, latitude, longitude), for wind (time, 2, latitude, longitude)."""
    u, v = wind[:, 0], wind[:, 1]
    return {
        "2m_temperature": 280 + u - v,
        "specific_humidity@850": 0.0005 * (1 + np.tanh(u / 5)),
        "geopotential@500": 55_000 + 100 * v,
        "sea_surface_temperature": 290 + 0.5 * v,
        DEFAULT[0]: u,
        DEFAULT[1]: v,
    }[name].astype(np.float32)


def with_five_variables(analysis: Path, state: tuple[str, ...] = STATE, forcings: tuple[str, ...] = ()) -> None:
    """Replace the content of a prepared store of wind by a record of other channels on the same grid and times, with the same stamp."""
    record = open_analysis(analysis)
    attributes = dict(zarr.open_group(analysis, mode="r").attrs)
    names = state + forcings
    states = np.stack([channel(name, record.states[:]) for name in names], axis=1)
    train = states[record.part("train")]
    mean, std = (train.mean(axis=(0, 2, 3)), train.std(axis=(0, 2, 3)))
    lowest, highest = states.min(axis=(0, 2, 3)), states.max(axis=(0, 2, 3))
    packing = Packing(((highest - lowest) / 64_000).astype(np.float32), ((highest + lowest) / 2).astype(np.float32))
    for name in DEFAULT:
        shutil.rmtree(analysis / name)
    arrays = create_store(analysis, {"time": record.times}, record.grid, names, (8,), (64,), packing)
    packed = packing.pack(states)
    for number, array in enumerate(arrays):
        array[:] = packed[:, number]
    difference = np.sqrt((np.diff(train, axis=0).astype(np.float64) ** 2).mean(axis=(0, 2, 3)))
    scalars = zip(names, mean, std, difference, strict=True)
    attributes["normalisation"] = {n: {"mean": float(m), "std": float(s), "difference_std": float(d)} for n, m, s, d in scalars}
    close_store(analysis, attributes | {"variables": state, "forcing_variables": forcings})
