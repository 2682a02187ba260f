"""The simulated planet as a source of wind: of the lower layer as the wind at 10 m, of the upper layer as the wind at 250 hPa."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from wsdcast.data.grid import Grid
from wsdcast.data.harmonics import Complex, SphericalHarmonics
from wsdcast.data.planet.source import LOWER, UPPER, Planet, PlanetSettings
from wsdcast.data.steps import STEP
from wsdcast.data.variables import DEFAULT, GRAVITY
from wsdcast.runs.errors import UserError

EPOCH = np.datetime64("2000-01-01", "ns")
LAYER_DEPTH = 5000.0
"""Depth of the lower layer in m. Mountains are shares of it, so it turns them into a surface geopotential."""

LAYERS = {DEFAULT: LOWER, ("u_component_of_wind@250", "v_component_of_wind@250"): UPPER}
"""The layer whose eastward and northward wind two channels are."""


@dataclass(frozen=True)
class Simulation:
    """A planet whose wind is read at the points of a grid.

    Attributes:
        times: (time,), 6 h apart.
        static: ``land_sea_mask`` (0 to 1) and ``geopotential_at_surface`` (m2 s-2), (latitude, longitude).
        grid: grid of the wind and of the static fields.
        seed: seed of the planet and of its weather.
        stirring: stirring of the planet, m/s per square root of an hour.
        channels: names of the channels.
    """

    times: NDArray[np.datetime64]
    static: dict[str, NDArray[np.float32]]
    grid: Grid
    seed: int
    stirring: float
    channels: tuple[str, ...]

    def blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of ``size`` consecutive times, each (time, channel, latitude, longitude) in m s-1. The last one may be shorter.

        Raises:
            UserError: if the stirring is too strong for the time step and the winds overflow.
        """
        planet, points = _planet(self.seed, self.stirring, self.grid)
        states = planet.run(seed=self.seed)
        for first in range(0, self.times.size, size):
            with threadpool_limits(limits=1), np.errstate(over="ignore", invalid="ignore"):  # overflow is reported below
                chunk = islice(states, min(size, self.times.size - first))
                block = np.stack([self._state(planet, planet.streamfunction(state), points) for state in chunk])
            if not np.isfinite(block).all():
                raise UserError(f"data.stirring {self.stirring:g}: the planet's winds grow without bounds; it is stable up to about 0.7")
            yield block

    def _state(self, planet: Planet, streamfunction: Complex, points: SphericalHarmonics) -> NDArray[np.float32]:
        """Return the channels of one state, (channel, latitude, longitude)."""
        fields: dict[str, NDArray[np.float32]] = {}
        for names, layer in LAYERS.items():
            if not set(names).isdisjoint(self.channels):
                fields |= zip(names, (field.T for field in planet.wind(streamfunction[..., layer], points)), strict=True)
        return np.stack([fields[name] for name in self.channels])


def simulation(days: int, seed: int, stirring: float, grid: Grid, channels: Sequence[str]) -> Simulation:
    """Return a simulation of ``days`` days whose channels are read at the points of ``grid``.

    Raises:
        UserError: if the planet has no such channel.
    """
    offered = [name for names in LAYERS for name in names]
    if absent := [name for name in channels if name not in offered]:
        raise UserError(f"the simulated planet has no {', '.join(absent)}; it has {', '.join(offered)}")
    planet, points = _planet(seed, stirring, grid)
    with threadpool_limits(limits=1):
        land, mountains = (points.synthesis(planet.harmonics.analysis(field)).T for field in (planet.land, planet.mountains))
    static = {"land_sea_mask": np.clip(land, 0, 1), "geopotential_at_surface": GRAVITY * LAYER_DEPTH * mountains}
    times = EPOCH + STEP * np.arange(days * 4)
    return Simulation(times, {name: field.astype(np.float32) for name, field in static.items()}, grid, seed, stirring, tuple(channels))


def _planet(seed: int, stirring: float, grid: Grid) -> tuple[Planet, SphericalHarmonics]:
    # One thread, as in Planet.run, so that the same seed gives the same bits.
    with threadpool_limits(limits=1):
        planet = Planet(PlanetSettings(stirring=stirring), seed=seed)
        return planet, SphericalHarmonics(planet.settings.truncation, grid.latitude, grid.longitude.size, dtype=np.float32)
