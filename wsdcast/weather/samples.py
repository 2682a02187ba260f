"""Training samples: the context (the state now, past states and forcings) and the target (the state 6 h later)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsdcast.data.store.analysis import Analysis, Part
from wsdcast.data.store.states import PackedStates
from wsdcast.runs.devices import sent
from wsdcast.weather.forcings import ForcingFields, elapsed_fractions


@dataclass(frozen=True)
class Samples:
    """Samples of one split of the record.

    Attributes:
        packed: the whole record, (time, channel, latitude, longitude), int16, on the device if it fits there.
        scale: unit of the integers of each channel (:class:`wsdcast.data.store.zarr_store.Packing`), (channel, 1, 1), on the device.
        mean, std: of each channel, in the record's units, (channel, 1, 1), on the device. The packing's offset is taken off the mean.
        now: index in the record of each sample's state now, (sample,), on the CPU.
        elapsed: fractions of the day and of the year at all times of the record, (time, 2), on the device.
        forcings: the forcings of the record's grid.
        variables: number of the record's channels that are forecast, which come first. The others are forcing variables.
        past_states: number of states before the state now in a context.
    """

    packed: Tensor
    scale: Tensor
    mean: Tensor
    std: Tensor
    now: Tensor
    elapsed: Tensor
    forcings: ForcingFields
    variables: int
    past_states: int

    def __len__(self) -> int:
        return self.now.numel()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a state, (variable, latitude, longitude)."""
        return (self.variables, *self.packed.shape[2:])

    def subset(self, indices: Tensor) -> Samples:
        """Only the samples with these ``indices`` (sample,)."""
        return replace(self, now=self.now[indices])

    def longer(self, steps: int) -> Samples:
        """Only the samples that have ``steps`` states after the state now, 6 h apart and without a gap."""
        following = self.now[:, None] + torch.arange(steps)
        return self.subset(torch.nonzero(torch.isin(following, self.now).all(dim=1))[:, 0])

    def states(self, indices: Tensor) -> Tensor:
        """Normalised states at ``indices`` (batch,) of the record: (batch, variable, latitude, longitude)."""
        return self._normalised(indices, slice(0, self.variables))

    def _normalised(self, indices: Tensor, channels: slice) -> Tensor:
        packed = self.packed[sent(indices, self.packed.device), channels]
        fields = sent(packed, self.mean.device).float() * self.scale[channels]
        return (fields - self.mean[channels]) / self.std[channels]

    def context(self, chosen: Tensor) -> Tensor:
        """The context C of the ``chosen`` samples (batch,): state now, the states before it from the last to the first, forcings.

        Returns:
            (batch, channel, latitude, longitude).
        """
        return torch.cat([*self.states_of_context(chosen), self.forcings_after(chosen, 0)], dim=1)

    def states_of_context(self, chosen: Tensor) -> list[Tensor]:
        """The state now of the ``chosen`` samples (batch,) and the states before it, each (batch, channel, latitude, longitude)."""
        return [self.target(chosen, -steps) for steps in range(1 + self.past_states)]

    def forcings_after(self, chosen: Tensor, steps: int) -> Tensor:
        """The forcings ``steps`` steps of 6 h after the state now of the ``chosen`` samples: (batch, channel, latitude, longitude).

        The record's forcing variables at that time come last.
        """
        times = self.now[chosen] + steps
        fixed = self.forcings.at_elapsed(self.elapsed[sent(times, self.elapsed.device)])
        return torch.cat([fixed, self._normalised(times, slice(self.variables, None))], dim=1) if self.forcings.variables else fixed

    def target(self, chosen: Tensor, steps: int = 1) -> Tensor:
        """The states ``steps`` steps of 6 h after the state now of the ``chosen`` samples: (batch, channel, latitude, longitude)."""
        return self.states(self.now[chosen] + steps)


def samples_of(record: Analysis, forcings: ForcingFields, *parts: Part) -> list[Samples]:
    """All samples of each split in ``parts``.

    The splits share one copy of the record. It is on the device of ``forcings``, unless that is a GPU and two thirds of its free memory
    cannot hold the record: then the record stays on the CPU.

    Raises:
        TypeError: if the record was not opened with ``whole=True``.
    """
    if not isinstance(record.states, PackedStates):
        raise TypeError("samples need the whole record; open it with whole=True")
    device = forcings.static.device
    values, packing = record.states.values, record.states.packing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of read-only arrays; nothing writes to this one
        packed = torch.from_numpy(values)
    if device.type == "cuda" and values.nbytes < torch.cuda.mem_get_info(device)[0] * 2 / 3:
        packed = packed.to(device)
    per_channel = (packing.scale, record.mean - packing.offset, record.std)
    scale, mean, std = (torch.from_numpy(field).to(device)[:, None, None] for field in per_channel)
    elapsed = elapsed_fractions(record.times).to(device)
    return [
        Samples(
            packed=packed,
            scale=scale,
            mean=mean,
            std=std,
            now=torch.from_numpy(record.now(part)),
            elapsed=elapsed,
            forcings=forcings,
            variables=len(record.variables),
            past_states=record.past_states,
        )
        for part in parts
    ]
