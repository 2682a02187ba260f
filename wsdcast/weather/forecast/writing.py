"""Running ensembles and writing them to a store of forecasts at the same time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.sources.blocks import STRONGEST_WIND
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, Forecasts
from wsdcast.runs.background import in_background
from wsdcast.sampling.samplers import Sampler
from wsdcast.weather.forcings import Surroundings
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.recipe import Rollout


def run_and_write(
    store: Forecasts,
    record: Analysis,
    forcings: Surroundings,
    sampler: Sampler,
    starts: NDArray[np.intp],
    groups: list[NDArray[np.intp]],
    settings: Rollout,
    draws: int = 1,
) -> Iterator[None]:
    """Run groups of initial times and write each block of lead times as soon as it is complete.

    A member that leaves the physical range is missing (NaN) from then on. Its slot in the batch is still computed, so the other members
    keep their bits.

    Args:
        store: the store of forecasts, open for writing.
        record: holds the states at the initial times.
        forcings: the forcings of the record's grid.
        sampler: makes the next state, for any number of samples.
        starts: indices in the record of all initial times of the store.
        groups: positions in ``starts`` of the initial times that are run together.
        settings: the rollout section of the recipe.
        draws: noise fields of a sample.

    Yields:
        None, once for each initial time and lead time, to count the progress.
    """
    positions = {lead // 6: position for position, lead in enumerate(store.leads)}
    with in_background() as later:
        for rows in groups:
            stopped = np.zeros((rows.size, settings.members), dtype=np.intp)
            held: list[NDArray[np.float32]] = []
            states = ensembles(record, forcings, sampler, starts[rows], settings.members, settings.steps, settings.seed, draws)
            for step, winds in enumerate(states, start=1):
                # The comparison is negated because NaN compares false: a member with NaN or infinity is unphysical too.
                unphysical = ~(np.abs(winds).max(axis=(2, 3, 4)) <= STRONGEST_WIND)
                stopped[unphysical & (stopped == 0)] = 6 * step
                winds[stopped > 0] = np.nan
                if step in positions:
                    held.append(winds)
                    if len(held) == LEADS_PER_CHUNK or positions[step] == len(positions) - 1:
                        block = np.stack(held, axis=2)
                        for row, wind in zip(rows.tolist(), block, strict=True):
                            later(store.write, row, positions[step] + 1 - len(held), wind)
                        held = []
                yield from (None for _ in rows)
            for row, when in zip(rows.tolist(), stopped, strict=True):
                later(store.mark, row, when)
