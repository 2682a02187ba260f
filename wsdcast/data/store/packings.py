"""Chooses how the channels of a record are packed, from a sample of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.planet.simulation import Simulation
from wsdcast.data.regrid import Method
from wsdcast.data.sources.blocks import Block, read_block
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.store.shards import on_grid
from wsdcast.data.store.states import read_packed
from wsdcast.data.store.zarr_store import SCALE, Packing, channels_of, packing_of, wind_packing
from wsdcast.data.variables import DEFAULT, physical_range, variable
from wsdcast.runs.progress import track

SAMPLED_BLOCKS = 16
"""Number of blocks that are read, at random places with a fixed seed, so that a record that is continued gets the same packing."""
MARGIN = 0.25
"""The reach of the integers beyond the lowest and the highest value of the sample, as a share of the distance of these two."""
STEPS = 64
"""Times whose integers are in memory at once when they are counted."""


def packing_for(origin: SourceRecord | Simulation, target: Grid, method: Method, finished: Path | None) -> Packing:
    """Return the packing of the channels of a record or a simulation.

    The 10 m wind always has the unit :data:`wsdcast.data.store.zarr_store.SCALE`, and so has all wind of a simulation. Other channels get a
    unit that spreads the integers over the values of a sample, with a margin. Values beyond it become the nearest integer
    (:func:`values_beyond` counts them). A store that the record is appended to, ``finished``, keeps its packing.

    Raises:
        UserError: if a sampled value cannot be read, is missing or is outside of the range of the variable.
    """
    if finished is not None:
        return packing_of(finished)
    if isinstance(origin, Simulation) or not (sampled := sampled_channels(origin)):
        return wind_packing(len(origin.channels))
    units = dict.fromkeys(DEFAULT, (SCALE, 0.0)) | _sampled_units(origin, sampled, target, method)
    scale, offset = np.array([units[name] for name in origin.channels], dtype=np.float32).T
    return Packing(scale, offset)


def sampled_channels(origin: SourceRecord | Simulation) -> list[str]:
    """Return the channels whose packing is chosen from a sample, so that values can be beyond its reach."""
    return [] if isinstance(origin, Simulation) else [name for name in origin.channels if name not in DEFAULT]


def values_beyond(path: Path) -> dict[str, int]:
    """Return for each channel of a store how many of its values were beyond the reach of its packing. Channels without any are left out."""
    names = channels_of(path).all
    counts, first = np.zeros(len(names), dtype=np.intp), 0
    while (integers := read_packed(path, slice(first, first + STEPS)).values).size:
        counts += beyond_packing(integers)
        first += STEPS
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def beyond_packing(integers: NDArray[np.int16]) -> NDArray[np.intp]:
    """Return how many of the integers (time, channel, latitude, longitude) of each channel were beyond its reach, (channel,)."""
    limits = np.iinfo(np.int16)
    return ((integers == limits.min) | (integers == limits.max)).sum(axis=(0, 2, 3))


def _sampled_units(record: SourceRecord, names: list[str], target: Grid, method: Method) -> dict[str, tuple[float, float]]:
    """Return unit and offset of some channels of a record."""
    assert record.grid is not None
    blocks = list(record.blocks())
    chosen = np.random.default_rng(0).choice(len(blocks), min(SAMPLED_BLOCKS, len(blocks)), replace=False)
    least, most = dict.fromkeys(names, math.inf), dict.fromkeys(names, -math.inf)
    for block in track([blocks[index] for index in sorted(chosen)], "reading samples", chosen.size):
        needed = tuple(reading for reading in block.readings if not set(names).isdisjoint(reading.channels))
        for name, values in read_block(Block(block.first, block.last, needed)):
            if name in names:
                fields = on_grid(values, record.grid, target, method, variable(name).absent)
                least[name], most[name] = min(least[name], float(fields.min())), max(most[name], float(fields.max()))
    return {name: _unit(name, least[name], most[name]) for name in names}


def _unit(name: str, least: float, most: float) -> tuple[float, float]:
    """Return unit and offset of a channel whose sample has values from ``least`` to ``most``."""
    (lowest, highest), margin = physical_range(name), MARGIN * (most - least)
    low, high = max(least - margin, lowest), min(most + margin, highest)
    scale = (high - low) / (2**16 - 2)
    decimals = 10.0 ** (math.floor(math.log10(scale)) - 2)
    scale = math.ceil(scale / decimals) * decimals
    return scale, round((low + high) / 2 / scale) * scale
