"""A simulated planet: two layers of quasi-geostrophic flow on the rotating sphere. It is not the Earth.

The potential vorticity of the upper and the lower layer,

    q1 = laplacian(psi1) - (psi1 - psi2) / R^2 + f,
    q2 = laplacian(psi2) + (psi1 - psi2) / R^2 + f + f h / H,

is carried by each layer's own wind (Phillips 1954; Marshall and Molteni 1993, Eq. 1). The sources are: relaxation of the shear
psi1 - psi2 toward a jet in each hemisphere; drag on the lower layer, which is stronger over continents; damping of the shortest waves;
stochastic stirring. Continents, mountains and the waves in the jets come from one seed, the initial state and the stirring from another.

By default only the wind of the lower layer is used as data. The upper layer stays hidden, and the stirring scales with its wind, so two
states of the lower layer do not determine the next one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from wsdcast.data.harmonics import Complex, Real, SphericalHarmonics, gaussian_latitudes

RADIUS = 6.371e6  # m; not the Earth's radius of wsdcast.data.grid, because another radius would change all results on the planet
ROTATION = 7.292e-5  # s-1
DAY = 86400.0  # s
UPPER, LOWER = 0, 1


@dataclass(frozen=True)
class PlanetSettings:
    """Physical settings of the planet. The defaults give winds of about 9 (u) and 7 m/s (v) rms in the lower layer."""

    truncation: int = 42
    deformation_radius: float = 700e3  # m
    jet: float = 35.0  # m/s, shear between the layers at 45 N toward which the flow is relaxed
    southern_jet: float = 0.9  # jet at 45 S as a share of the jet at 45 N
    jet_waves: float = 0.25  # rms of the streamfunction of zonal waves 1 to 3, relative to that of the jet
    relaxation_time: float = 20 * DAY
    drag_time: float = 3 * DAY  # over sea
    land_drag: float = 2.5  # times the drag over sea
    mountain_height: float = 0.35  # highest mountain as a share of the layer's depth
    damping_time: float = 0.15 * DAY  # of the shortest wave kept
    damping_order: int = 4  # power of the Laplacian
    stirring: float = 0.35  # m/s per square root of an hour, rms of the random wind
    stirring_degrees: tuple[int, int] = (6, 20)

    @property
    def time_step(self) -> float:
        """Time step in seconds, a divisor of 6 h: 5400 at T42, and shorter in proportion at higher truncations."""
        return 21600.0 / max(1, math.ceil(self.truncation / 10.5))


class Planet:
    """The model: its surface, its forcing and the tendency of its potential vorticity.

    A state is the potential vorticity without its constant part (planetary vorticity and mountains), as complex coefficients
    (m, l, layer) in s-1.

    Args:
        settings: physical settings. Default: those of :class:`PlanetSettings`.
        seed: seed of the continents, the mountains and the waves of the jets.
        dtype: precision of the states. Single precision is enough for weather and halves the time. Double precision shows that
            advection conserves energy and enstrophy.
    """

    def __init__(self, settings: PlanetSettings | None = None, seed: int = 0, dtype: type[np.floating] = np.float32) -> None:
        self.settings = settings = settings or PlanetSettings()
        truncation = settings.truncation
        # This is the smallest grid that integrates products of three fields exactly. Enstrophy is conserved only then.
        latitudes, weights = gaussian_latitudes((3 * truncation + 2) // 2)
        longitudes = 2 * latitudes.size
        self.harmonics = harmonics = SphericalHarmonics(truncation, latitudes, longitudes, weights)
        self.cell_area = weights / longitudes  # share of the sphere, (latitude,)
        degree = harmonics.degree
        self.laplacian = laplacian = -degree * (degree + 1) / RADIUS**2
        with np.errstate(divide="ignore"):
            self.inverse_barotropic = np.where(degree > 0, 1 / laplacian, 0.0)
        self.inverse_baroclinic = 1 / (laplacian - 2 / settings.deformation_radius**2)
        steepness = (degree * (degree + 1) / (truncation * (truncation + 1))) ** settings.damping_order
        self.damping = np.exp(-settings.time_step / settings.damping_time * steepness)

        surface = np.random.default_rng([seed, 1])
        ocean_depth = _smooth_field(harmonics, surface, 1, 8)
        self.land = 1 / (1 + np.exp(-6 * (ocean_depth - np.quantile(ocean_depth, 0.68))))
        ridges = np.maximum(_smooth_field(harmonics, surface, 4, 16), 0) * self.land
        self.mountains = settings.mountain_height * ridges / ridges.max()
        self.drag = (1 + (settings.land_drag - 1) * self.land) / settings.drag_time
        planetary = 2 * ROTATION * np.sin(np.deg2rad(latitudes))
        constant = np.stack([np.broadcast_to(planetary, self.land.shape), planetary * (1 + self.mountains)], axis=-1)
        self.constant_vorticity = harmonics.analysis(constant)
        self.equilibrium_shear = self._jets(surface)

        self.harmonics = SphericalHarmonics(truncation, latitudes, longitudes, weights, dtype)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, value.astype(np.result_type(dtype, 1j) if np.iscomplexobj(value) else dtype))

    def _jets(self, random: np.random.Generator) -> Complex:
        """Return the streamfunction (m, l) toward which the shear is relaxed: sin^2(2 latitude) jets and zonal waves 1 to 3."""
        latitude = np.deg2rad(self.harmonics.latitudes)
        speed = self.settings.jet * np.sin(2 * latitude) ** 2 * np.where(latitude > 0, 1.0, self.settings.southern_jet)
        # u = -(1/a) d(psi)/d(latitude). psi is the inverse Laplacian of the relative vorticity.
        ones = np.ones((self.harmonics.longitudes, 1))
        zonal = self._vorticity(ones * speed, np.zeros_like(ones * speed)) * self.inverse_barotropic
        longitude = 2 * np.pi * np.arange(self.harmonics.longitudes) / self.harmonics.longitudes
        phases = random.uniform(0, 2 * np.pi, 3)
        waves = sum(np.cos(m * longitude + phase) for m, phase in zip((1, 2, 3), phases, strict=True))
        wavy = self.harmonics.analysis(np.outer(waves, np.sin(2 * latitude) ** 2))
        return zonal + wavy * self.settings.jet_waves * np.sqrt(mean_square(zonal) / mean_square(wavy))

    def _vorticity(self, u: Real, v: Real) -> Complex:
        return self.harmonics.divergence(v, -u) / RADIUS

    def streamfunction(self, state: Complex) -> Complex:
        """Return the streamfunction in m2 s-1. The potential vorticity is inverted separately in the barotropic and the baroclinic mode."""
        mean = (state[..., UPPER] + state[..., LOWER]) / 2 * self.inverse_barotropic
        half_difference = (state[..., UPPER] - state[..., LOWER]) / 2 * self.inverse_baroclinic
        return np.stack([mean + half_difference, mean - half_difference], axis=-1)

    def potential_vorticity(self, streamfunction: Complex) -> Complex:
        """Return the inverse of :meth:`streamfunction`, in s-1."""
        stretching = (streamfunction[..., UPPER] - streamfunction[..., LOWER]) / self.settings.deformation_radius**2
        vorticity = streamfunction * self.laplacian[:, None]
        return vorticity + np.stack([-stretching, stretching], axis=-1)

    def wind(self, streamfunction: Complex, harmonics: SphericalHarmonics | None = None) -> tuple[Real, Real]:
        """Return u and v in m/s, each (longitude, latitude, ...), on the model's own grid or on that of ``harmonics``."""
        eastward, northward = (harmonics or self.harmonics).gradient(streamfunction)
        return -northward / RADIUS, eastward / RADIUS

    def tendency(self, state: Complex, sources: bool = True) -> Complex:
        """Return d(state)/dt in s-2.

        Without ``sources`` only advection is left. It conserves energy exactly and potential enstrophy to rounding.
        """
        streamfunction = self.streamfunction(state)
        u, v = self.wind(streamfunction)
        vorticity = self.harmonics.synthesis(state + self.constant_vorticity)
        eastward, northward = u * vorticity, v * vorticity
        if sources:  # the curl of a force (x, y) is the divergence of (y, -x), so the drag is added to the flux
            eastward[..., LOWER] += self.drag * v[..., LOWER]
            northward[..., LOWER] -= self.drag * u[..., LOWER]
        change = -self.harmonics.divergence(eastward, northward) / RADIUS
        if sources:
            shear = streamfunction[..., UPPER] - streamfunction[..., LOWER] - self.equilibrium_shear
            relaxation = shear / (self.settings.relaxation_time * self.settings.deformation_radius**2)
            change[..., UPPER] += relaxation
            change[..., LOWER] -= relaxation
        return change

    def step(self, state: Complex, random: np.random.Generator) -> Complex:
        """Return the state one time step later: a Runge-Kutta step of fourth order, then damping of short waves and stirring."""
        h = self.settings.time_step
        k1 = self.tendency(state)
        k2 = self.tendency(state + h / 2 * k1)
        k3 = self.tendency(state + h / 2 * k2)
        k4 = self.tendency(state + h * k3)
        stirring = self.stirring(state, random)[..., None]
        return (state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)) * self.damping[:, None] + stirring

    def stirring(self, state: Complex, random: np.random.Generator) -> Complex:
        """Return the random change of vorticity in one time step, (m, l). It is the same in both layers.

        It is the vorticity of a random non-divergent wind, white in time, times the local speed of the upper layer. So storms are less
        certain than calm regions.
        """
        settings, harmonics = self.settings, self.harmonics
        eastward, northward = harmonics.gradient(_random_flow(harmonics, random, *settings.stirring_degrees))
        speed = np.hypot(*self.wind(self.streamfunction(state)[..., UPPER]))
        push_u, push_v = -northward * speed, eastward * speed
        size = math.sqrt(((push_u**2 + push_v**2) * self.cell_area).sum() / 2)
        return self._vorticity(push_u, push_v) * (settings.stirring * math.sqrt(settings.time_step / 3600) / size)

    def initial_state(self, random: np.random.Generator) -> Complex:
        """Return the initial state (m, l, layer): half of the equilibrium shear in the upper layer and small random waves in both."""
        noise = _random_flow(self.harmonics, random, 2, 12)
        noise *= 0.05 * math.sqrt(mean_square(self.equilibrium_shear) / mean_square(noise))
        return self.potential_vorticity(np.stack([0.5 * self.equilibrium_shear + noise, noise], axis=-1))

    def run(self, seed: int = 0, spin_up: float = 60 * DAY, interval: float = 21600.0) -> Iterator[Complex]:
        """Yield states (m, l, layer) without end, ``interval`` seconds apart. The first comes ``spin_up`` seconds after the initial state.

        Numerical libraries run on one thread during this. The number of threads changes the last bit of a product, and chaos turns
        that into different weather. With one thread the same seed gives the same bits on one machine, whatever its thread settings.
        """
        random = np.random.default_rng([seed, 2])
        state = self.initial_state(random)
        steps = round(spin_up / self.settings.time_step)
        while True:
            with threadpool_limits(limits=1):
                for _ in range(steps):
                    state = self.step(state, random)
            yield state
            steps = round(interval / self.settings.time_step)


def mean_square(coefficients: Complex) -> Real:
    """Return the mean square over the sphere of the field with coefficients (m, l, ...), shape (...), by Parseval's identity."""
    power = (np.abs(coefficients) ** 2).sum(axis=1)
    return np.asarray(power[0] + 2 * power[1:].sum(axis=0))


def _random_flow(harmonics: SphericalHarmonics, random: np.random.Generator, low: int, high: int) -> Complex:
    """Return the streamfunction (m, l) of a random wind with equal energy in each degree from low to high."""
    real, imaginary = random.standard_normal((2, *harmonics.triangle.shape))
    imaginary[0] = 0.0
    real[0] *= np.sqrt(2)
    degree = np.maximum(harmonics.degree, 1)
    band = (harmonics.degree >= low) & (harmonics.degree <= high)
    size = harmonics.triangle * band / np.sqrt(degree * (degree + 1.0) * (2 * degree + 1.0))
    return ((real + 1j * imaginary) * size).astype(harmonics.dtype)


def _smooth_field(harmonics: SphericalHarmonics, random: np.random.Generator, low: int, high: int) -> Real:
    """Return a random field of unit variance, (longitude, latitude)."""
    coefficients = _random_flow(harmonics, random, low, high)
    return harmonics.synthesis(coefficients / np.sqrt(mean_square(coefficients)))
