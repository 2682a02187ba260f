"""Running ensembles and writing them to a store of forecasts at the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, Forecasts, Written
from wsdcast.data.variables import physical_range, variable
from wsdcast.runs.background import in_background
from wsdcast.sampling.samplers import Sampler
from wsdcast.weather.forcings import ForcingFields
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.recipe import Rollout

MARGIN = 0.1
"""A forecast of a variable that cannot be negative may leave its range by this share of the highest value. Negative values are clipped."""


def run_and_write(
    store: Forecasts,
    record: Analysis,
    forcings: ForcingFields,
    sampler: Sampler,
    starts: NDArray[np.intp],
    groups: list[NDArray[np.intp]],
    settings: Rollout,
    noise_count: int = 1,
) -> Iterator[None]:
    """Run groups of initial times and write each block of lead times as soon as it is complete.

    A member that leaves the physical range of a variable is missing (NaN) from then on. Its slot in the batch is still computed, so the
    other members keep their bits. Negative values of variables that cannot be negative are set to zero when they are written. Arguments
    without a description are those of :func:`wsdcast.weather.forecast.running.ensembles`.

    Args:
        store: the store of forecasts, open for writing.
        starts: indices in the record of all initial times of the store.
        groups: positions in ``starts`` of the initial times that are run together.

    Yields:
        None, once for each initial time and lead time, to count the progress.
    """
    positions = {lead // 6: position for position, lead in enumerate(store.leads)}
    kept = [record.variables.index(name) for name in store.variables]
    ranges = allowed_ranges(record.variables)
    run = partial(
        ensembles,
        record,
        forcings,
        sampler,
        members=settings.members,
        steps=settings.steps,
        seed=settings.seed,
        noise_count=noise_count,
        prescribed=settings.forcings == "prescribed",
    )
    with in_background() as later:
        for rows in groups:
            stopped = np.zeros((rows.size, settings.members), dtype=np.intp)
            by = np.zeros_like(stopped)  # the number of the channel, counted from 1
            clipped = [Counter[str]() for _ in rows]
            held: list[NDArray[np.float32]] = []
            for step, states in enumerate(run(starts[rows]), start=1):
                leaves = left_range(states, ranges)
                first = leaves.any(axis=2) & (stopped == 0)
                stopped[first] = 6 * step
                by[first] = 1 + leaves[first].argmax(axis=1)
                states[stopped > 0] = np.nan
                if step in positions:
                    fields = states if kept == list(range(states.shape[2])) else states[:, :, kept]
                    clipped = [before + now for before, now in zip(clipped, clip(fields, store.variables), strict=True)]
                    held.append(fields)
                    if len(held) == LEADS_PER_CHUNK or positions[step] == len(positions) - 1:
                        block = np.stack(held, axis=2)
                        for row, of_start in zip(rows.tolist(), block, strict=True):
                            later(store.write, row, positions[step] + 1 - len(held), of_start)
                        held = []
                yield from (None for _ in rows)
            for position, row in enumerate(rows.tolist()):
                names = [record.variables[number - 1] if number else "" for number in by[position]]
                later(store.mark, row, Written(stopped[position].tolist(), names, dict(clipped[position])))


def allowed_ranges(variables: Sequence[str]) -> NDArray[np.float64]:
    """The lowest and the highest value that each channel of a forecast may have, (2, channel): its physical range and a margin."""
    lowest, highest = np.array([physical_range(name) for name in variables]).T
    margin = MARGIN * highest * [variable(name).non_negative for name in variables]
    return np.stack([lowest - margin, highest + margin])


def left_range(states: NDArray[np.float32], ranges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which channels of which members leave their range at any point, (start, member, channel).

    Args:
        states: (start, member, channel, latitude, longitude).
        ranges: from :func:`allowed_ranges`.
    """
    lowest, highest = ranges
    # The comparison is negated because NaN compares false: a member with NaN or infinity has left the range too.
    return ~((states.min(axis=(3, 4)) >= lowest) & (states.max(axis=(3, 4)) <= highest))


def clip(fields: NDArray[np.float32], variables: Sequence[str]) -> list[Counter[str]]:
    """Set negative values of channels that cannot be negative to zero.

    Args:
        fields: (start, member, channel, latitude, longitude), changed in place.
        variables: the channels.

    Returns:
        For each initial time the number of these values by channel.
    """
    counts = [Counter[str]() for _ in fields]
    for channel, name in enumerate(variables):
        if variable(name).non_negative:
            negative = fields[:, :, channel] < 0
            fields[:, :, channel][negative] = 0
            for of_start, number in zip(counts, negative.sum(axis=(1, 2, 3)).tolist(), strict=True):
                of_start[name] = number
    return counts
