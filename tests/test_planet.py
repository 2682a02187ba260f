"""The simulated planet: its conservation laws, its forcing and its wind, spectrum and error growth."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest

from wsdcast.data.grid import Grid
from wsdcast.data.harmonics import SphericalHarmonics
from wsdcast.data.planet.simulation import simulation
from wsdcast.data.planet.source import LOWER, UPPER, Planet, PlanetSettings, mean_square
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError

SMALL = PlanetSettings(truncation=21)


@pytest.fixture(scope="module")
def precise() -> Planet:
    return Planet(SMALL, dtype=np.float64)


@pytest.fixture(scope="module")
def weather(precise: Planet) -> np.ndarray:
    """Return a state after spin-up."""
    return next(precise.run(spin_up=20 * 86400.0))


def energy(planet: Planet, state: np.ndarray) -> float:
    """Return the kinetic and available potential energy of the two layers, -1/2 of psi times q, m2 s-2."""
    product = planet.streamfunction(state).conj() * state
    return -0.5 * float((product[0].sum() + 2 * product[1:].sum()).real)


def enstrophy(planet: Planet, state: np.ndarray) -> float:
    return 0.5 * float(mean_square(state + planet.constant_vorticity).sum())


def test_inversion_gives_back_the_potential_vorticity(precise, weather):
    np.testing.assert_allclose(precise.potential_vorticity(precise.streamfunction(weather))[:, 1:], weather[:, 1:], atol=1e-18)


def test_the_energy_equals_that_of_the_winds(precise, weather):
    streamfunction = precise.streamfunction(weather)
    u, v = precise.wind(streamfunction)
    kinetic = 0.5 * ((u**2 + v**2) * precise.cell_area[:, None]).sum()
    shear = streamfunction[..., UPPER] - streamfunction[..., LOWER]
    available = 0.5 * mean_square(shear) / SMALL.deformation_radius**2
    assert energy(precise, weather) == pytest.approx(kinetic + available, rel=1e-10)


def test_advection_alone_conserves_energy_and_potential_enstrophy(precise, weather):
    state, h = weather, 900.0
    for _ in range(96):
        k1 = precise.tendency(state, sources=False)
        k2 = precise.tendency(state + h / 2 * k1, sources=False)
        k3 = precise.tendency(state + h / 2 * k2, sources=False)
        k4 = precise.tendency(state + h * k3, sources=False)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    # The flow has changed, but the two invariants have not.
    assert mean_square(state - weather).sum() > 0.02 * mean_square(weather).sum()
    assert energy(precise, state) == pytest.approx(energy(precise, weather), rel=1e-5)
    assert enstrophy(precise, state) == pytest.approx(enstrophy(precise, weather), rel=1e-5)


def test_relaxation_draws_energy_from_the_jet_and_drag_takes_it(precise, weather):
    rest = np.zeros_like(weather)
    warming = precise.tendency(rest)
    shear = precise.streamfunction(warming)
    growth = shear[..., UPPER] - shear[..., LOWER]
    assert (growth * precise.equilibrium_shear.conj()).real.sum() > 0
    still = PlanetSettings(truncation=21, jet=0.0, relaxation_time=1e30)
    slowed = Planet(still, dtype=np.float64)
    change = (slowed.streamfunction(weather).conj() * slowed.tendency(weather)).real
    assert -(change[0].sum() + 2 * change[1:].sum()) < 0


def test_stirring_has_the_amplitude_that_is_asked_for(precise, weather):
    random = np.random.default_rng(0)
    squares = []
    for _ in range(50):
        vorticity = precise.stirring(weather, random)
        u, v = precise.wind(vorticity * precise.inverse_barotropic)
        squares.append(((u**2 + v**2) * precise.cell_area).sum() / 2)
    expected = SMALL.stirring * np.sqrt(SMALL.time_step / 3600)
    # The random wind also has divergence, which the vorticity does not keep, so the result is a little smaller.
    assert 0.6 * expected < np.sqrt(np.mean(squares)) <= expected


@pytest.mark.slow
def test_a_seed_gives_the_same_bits_on_any_number_of_threads():
    script = (
        "import hashlib\nfrom wsdcast.data.grid import Grid\nfrom wsdcast.data.planet.simulation import simulation\n"
        "from wsdcast.data.variables import DEFAULT\n"
        "blocks = simulation(1, 0, 0.35, Grid.regular('64x32'), DEFAULT).blocks(4)\n"
        "print(hashlib.sha256(b''.join(block.tobytes() for block in blocks)).hexdigest())"
    )
    digests = set()
    for threads in ("1", "2"):
        environment = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_other_seeds_give_other_planets_and_other_weather():
    first, second = (next(Planet(SMALL).run(seed=seed, spin_up=86400.0)) for seed in (0, 1))
    waves = first.copy()
    waves[0] = 0  # without the zonal mean, which is the same at the beginning of both
    assert mean_square(first - second).sum() > 0.05 * mean_square(waves).sum()
    assert np.abs(Planet(SMALL, seed=1).land - Planet(SMALL, seed=0).land).max() > 0.5


@pytest.mark.slow
def test_the_wind_spectrum_and_error_growth_are_those_documented():
    """The default planet has the winds, spectrum and error growth that the documentation states."""
    planet = Planet()
    states = list(islice(planet.run(spin_up=50 * 86400.0, interval=86400.0), 20))
    u, v = planet.wind(np.stack([planet.streamfunction(state)[..., LOWER] for state in states], axis=-1))
    size = [float(np.sqrt((wind**2 * planet.cell_area[:, None]).sum(axis=(0, 1)).mean())) for wind in (u, v)]
    assert size[0] == pytest.approx(9, abs=1.2)
    assert size[1] == pytest.approx(7, abs=1.2)

    degree = planet.harmonics.degree
    power = np.mean([np.abs(planet.streamfunction(state)[..., LOWER]) ** 2 for state in states], axis=0)
    kinetic = (power[0] + 2 * power[1:].sum(axis=0)) * degree * (degree + 1)
    band = slice(10, 30)
    slope = np.polyfit(np.log(degree[band]), np.log(kinetic[band]), 1)[0]
    assert -4.2 < slope < -2.6

    twin = states[-1] + planet.potential_vorticity(1e-3 * planet.streamfunction(states[0]))
    one, noise_one, noise_two = states[-1], np.random.default_rng(5), np.random.default_rng(5)
    distance = []
    for _ in range(6):
        distance.append(float(mean_square(planet.streamfunction(one - twin)[..., LOWER] * planet.harmonics.degree)))
        for _ in range(16):
            one, twin = planet.step(one, noise_one), planet.step(twin, noise_two)
    doubling = np.log(2) / (0.5 * np.polyfit(np.arange(2, 6), np.log(distance[2:]), 1)[0])
    assert 0.7 < doubling < 4  # days


def test_wind_is_given_at_the_points_of_a_grid_with_poles():
    planet = Planet(SMALL)
    streamfunction = planet.streamfunction(next(planet.run(spin_up=86400.0)))[..., LOWER]
    latitudes = np.linspace(90, -90, 13)
    u, v = planet.wind(streamfunction, SphericalHarmonics(21, latitudes, 24, dtype=np.float32))
    assert np.isfinite(u).all()
    assert np.isfinite(v).all()
    assert np.abs(np.delete(np.fft.rfft(u[:, 0]), 1)).max() < 1e-3 * np.abs(np.fft.rfft(u[:, 0])).max()


@pytest.mark.slow
def test_the_simulation_is_stable_for_ten_years():
    planet = Planet()
    for state in islice(planet.run(interval=5 * 86400.0), 730):
        u, v = planet.wind(planet.streamfunction(state))
        assert np.hypot(u, v).max() < 200


def test_a_planet_that_is_stirred_too_much_is_refused():
    """Its winds overflow in the spin-up. Without the check they would be stored as zeros."""
    with pytest.raises(UserError, match=r"data.stirring 5: the planet's winds grow without bounds; it is stable up to about 0.7"):
        list(simulation(2, 0, 5.0, Grid.regular("16x8"), DEFAULT).blocks(4))


@pytest.mark.slow
def test_the_upper_layer_is_offered_as_wind_at_250_hectopascals():
    """The lower layer keeps its bits, the order is that of the names, and the jets lie above."""
    grid, upper = Grid.regular("16x8"), ("u_component_of_wind@250", "v_component_of_wind@250")
    (lower,) = simulation(1, 0, 0.35, grid, DEFAULT).blocks(4)
    (both,) = simulation(1, 0, 0.35, grid, (*upper, *DEFAULT)).blocks(4)
    (turned,) = simulation(1, 0, 0.35, grid, (DEFAULT[1], upper[0])).blocks(4)
    np.testing.assert_array_equal(both[:, 2:], lower)
    np.testing.assert_array_equal(turned, both[:, [3, 0]])
    planet = Planet(seed=0)
    state = planet.streamfunction(next(planet.run(seed=0)))[..., UPPER]
    points = SphericalHarmonics(planet.settings.truncation, grid.latitude, grid.longitude.size, dtype=np.float32)
    np.testing.assert_allclose(both[0, :2], np.stack([field.T for field in planet.wind(state, points)]), rtol=1e-5, atol=1e-4)
    assert both[:, 0].mean() > lower[:, 0].mean() + 5


def test_a_variable_that_the_planet_does_not_have_is_named():
    with pytest.raises(UserError, match=r"has no 2m_temperature; it has 10m_u_component_of_wind, .*v_component_of_wind@250"):
        simulation(1, 0, 0.35, Grid.regular("16x8"), (*DEFAULT, "2m_temperature"))
