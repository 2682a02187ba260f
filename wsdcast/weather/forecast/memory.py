"""The memory that ensembles need while they run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK
from wsdcast.nets.peak import peak_memory
from wsdcast.runs import devices
from wsdcast.runs.resources import require_memory
from wsdcast.sampling.batches import at_once
from wsdcast.weather.forcings import ForcingFields
from wsdcast.weather.forecast.past_errors import MOST
from wsdcast.weather.forecast.running import groups
from wsdcast.weather.recipe import Rollout
from wsdcast.weather.samplers import noise_count_of
from wsdcast.weather.trained import Trained


def fields_of_member(record: Analysis, forcings: ForcingFields, noise_count: int) -> int:
    """The most fields (latitude, longitude), float32, that one member of :func:`wsdcast.weather.forecast.running.ensembles` has at once.

    States: those at the initial time and before, which stay until the last is replaced, those that replaced the others, those in the
    context, the new state twice (in its batch and among all members), and twice in its units (one on its way out, one that is being made).
    Noise: that of this step and of the next. Forcings: those of this step by themselves and in the context; forcing variables are also
    repeated for each member before.
    """
    states = (1 + record.past_states) + record.past_states + (1 + record.past_states) + 2 + 2
    return (states + 2 * noise_count) * len(record.variables) + (3 if forcings.variables else 2) * forcings.channels


def require_memory_of_rollout(
    networks: Trained, record: Analysis, starts: NDArray[np.intp], settings: Rollout, batch: int, kept: int
) -> None:
    """Check before a rollout that its ensembles fit in memory. There is no check on a GPU, where torch fails in the first step.

    ``kept`` is the number of variables that are stored.

    Raises:
        UserError: if they do not fit.
    """
    if devices.device().type != "cpu":
        return
    together = max(group.size for group in groups(np.arange(starts.size), settings.members, batch, devices.device())) * settings.members
    waiting = 2 * LEADS_PER_CHUNK * kept  # states that wait for writing
    of_member = fields_of_member(record, networks.forcings, noise_count_of(networks, settings))
    of_baseline = MOST * len(record.variables)
    fields = (together * (of_member + waiting) + of_baseline) * 4 * record.grid.size
    shapes = networks.generator.input_shapes(*record.grid.shape)
    at_a_time = min(at_once(batch, devices.device()), -(-together // batch) * batch)
    needed = fields + at_a_time * peak_memory(networks.generator, *shapes, training=False)
    task = f"rolling out {together} members side by side at {record.grid.name}, {at_a_time // batch} batches of {batch} at a time,"
    require_memory(needed, task)
