"""Paths from noise to data: the blur, both forms of blur-noise diffusion, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from wsdcast.data.grid import Grid
from wsdcast.data.harmonics import SphericalHarmonics
from wsdcast.report.targets import RATIOS, target_powers, targets_figure
from wsdcast.warmstart import times as grids
from wsdcast.warmstart.evaluations import SOLVERS
from wsdcast.warmstart.flow import draw, edm_weight, training_loss
from wsdcast.warmstart.paths import STRAIGHT, Blur, BlurNoise, Straight, blur, cosine_transform
from wsdcast.warmstart.prior import InformedPrior
from wsdcast.weather.harmonic_transform import spherical_transform

IMAGE = (6, 5)
SPHERES = ["16x8", "16x9", "12x8"]  # without and with rows at the poles


def transforms():
    yield "image", cosine_transform(*IMAGE), IMAGE
    for name in SPHERES:
        grid = Grid.regular(name)
        yield name, spherical_transform(grid), grid.shape


TRANSFORMS = {name: (multiply, shape) for name, multiply, shape in transforms()}


def field(shape, seed=0, batch=3):
    return torch.randn(batch, 2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heat(multiply, x, tau):
    return multiply(x, lambda eigenvalues: torch.exp(-tau * eigenvalues)[None])


@pytest.fixture(params=list(TRANSFORMS))
def geometry(request):
    return TRANSFORMS[request.param]


def test_a_transform_and_its_inverse_are_the_identity(geometry):
    multiply, shape = geometry
    x = field(shape)
    torch.testing.assert_close(multiply(x, lambda eigenvalues: torch.ones_like(eigenvalues)[None]), x, rtol=0, atol=1e-12)


def test_blurs_add_up(geometry):
    multiply, shape = geometry
    x = field(shape)
    torch.testing.assert_close(heat(multiply, heat(multiply, x, 0.3), 0.9), heat(multiply, x, 1.2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_blur_without_end_leaves_the_mean(name):
    multiply, shape = TRANSFORMS[name]
    x = field(shape)
    weights = torch.ones(shape[0]) if name == "image" else torch.from_numpy(Grid.regular(name).area_weights)
    mean = (x * weights.to(x)[:, None]).mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(heat(multiply, x, 1e6), mean.expand_as(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SPHERES)
def test_a_blur_on_the_sphere_commutes_with_turning_it(name):
    multiply, shape = TRANSFORMS[name]
    x = field(shape)
    torch.testing.assert_close(heat(multiply, x.roll(3, dims=3), 0.7), heat(multiply, x, 0.7).roll(3, dims=3), rtol=0, atol=1e-12)


def test_images_use_the_cosine_transform_of_scipy():
    x, tau = field(IMAGE).numpy(), 0.8
    waves = scipy.fft.dctn(x, axes=(2, 3), norm="ortho")
    k, l = np.arange(IMAGE[0])[:, None], np.arange(IMAGE[1])  # noqa: E741
    waves *= np.exp(-tau * np.pi**2 * (k**2 / IMAGE[0] ** 2 + l**2 / IMAGE[1] ** 2))
    expected = scipy.fft.idctn(waves, axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(heat(cosine_transform(*IMAGE), torch.from_numpy(x), tau).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("order", "degree"), [(0, 1), (1, 2), (3, 4)])
def test_spherical_harmonics_fade_by_their_degree(order, degree):
    grid, tau = Grid.regular("32x16"), 0.5
    coefficients = np.zeros((6, 6), complex)
    coefficients[order, degree] = 1 + (0.5j if order else 0)
    wave = torch.from_numpy(SphericalHarmonics(5, grid.latitude, 32).synthesis(coefficients).T.copy())[None, None]
    faded = heat(spherical_transform(grid), wave, tau)
    # The grid's area weights are no exact quadrature, so a wave is an eigenvector of the grid's own basis to a per cent.
    torch.testing.assert_close(faded, np.exp(-tau * degree * (degree + 1) * (np.pi / 16) ** 2) * wave, rtol=0, atol=0.01)


def test_without_blur_the_path_is_the_straight_one(geometry):
    multiply, shape = geometry
    noise, data, t = field(shape, 1), field(shape, 2), torch.tensor([0.1, 0.5, 0.9]).double()
    x, target = BlurNoise(0.0, multiply).point(noise, data, t)
    straight, velocity = Straight().point(noise, data, t)
    torch.testing.assert_close(x, straight, rtol=0, atol=1e-12)
    torch.testing.assert_close(target, torch.cat([velocity, torch.zeros_like(velocity)], dim=1), rtol=0, atol=1e-11)
    torch.testing.assert_close(BlurNoise(0.0, multiply).velocity(target, x, t), velocity, rtol=0, atol=1e-11)


@pytest.mark.parametrize("path", [BlurNoise, Blur])
@pytest.mark.parametrize("bnr", [0.25, 2.0])
def test_the_velocity_of_exact_predictions_is_the_derivative_of_the_path(geometry, path, bnr):
    multiply, shape = geometry
    kind = path(bnr, multiply)
    noise, data, t = field(shape, 1), field(shape, 2), torch.tensor([0.15, 0.5, 0.9]).double()
    x, target = kind.point(noise, data, t)
    if path is Blur:
        target = data - x  # what turns the state, with its little noise, into the data
    step = 1e-5
    derivative = (kind.point(noise, data, t + step)[0] - kind.point(noise, data, t - step)[0]) / (2 * step)
    torch.testing.assert_close(kind.velocity(target, x, t), derivative, rtol=1e-6, atol=1e-6)


def test_estimates_are_the_blurred_data_and_what_the_blur_took(geometry):
    multiply, shape = geometry
    path, noise, data, t = BlurNoise(0.7, multiply), field(shape, 1), field(shape, 2), torch.tensor([0.15, 0.5, 0.9]).double()
    x, target = path.point(noise, data, t)
    blurred = torch.cat([heat(multiply, data[i : i + 1], (0.7 * (1 - t[i]) / t[i]) ** 2 / 2) for i in range(3)])
    denoised, lost = path.estimates(target, x, t)
    torch.testing.assert_close(denoised, blurred, rtol=0, atol=1e-11)
    torch.testing.assert_close(lost, data - blurred, rtol=0, atol=1e-11)


def test_targets_are_exact_up_to_the_end_of_the_path(geometry):
    """In float32 a time drawn in training may be 1 or almost 1: the deblurring target was 0 / 0, or only the rounding of the blur."""
    multiply, shape = geometry
    noise, data = field(shape, 1), field(shape, 2)
    t = torch.tensor([0.0, 1 - 1e-5, 1 - 2**-24, 1.0]).float()
    left = (1 - t.double()).clamp(min=1e-300).reshape(-1, 1, 1, 1)
    tau = (0.5 * (1 - t.double()) / t.double().clamp(min=1e-4)).square() / 2
    # The same with the difference from the data taken wave by wave.
    expected = multiply(data[:1].expand(4, *data.shape[1:]), lambda values: -torch.expm1(-tau.reshape(-1, *(1,) * values.dim()) * values))
    x, target = BlurNoise(0.5, multiply).point(noise[:1].float(), data[:1].float().expand(4, *data.shape[1:]), t)
    torch.testing.assert_close(target[:, 2:].double(), expected / left, rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(x[-1], data[0].float())


@pytest.mark.parametrize("path", [STRAIGHT, BlurNoise(0.5, cosine_transform(*IMAGE))], ids=["straight", "blur-noise"])
def test_the_loss_weighs_squared_errors_by_time_and_by_channel(path):
    """The weight of a time is that of Karras et al. (2022) for the error of an estimate x + (1 - t) v of data of standard deviation 1."""
    context, target, of_channels = field(IMAGE, 1), field(IMAGE, 2), torch.tensor([0.4, 1.6]).double()[:, None, None]
    draws = draw(target.shape, torch.Generator().manual_seed(0))
    prior = InformedPrior(field(IMAGE, 3), field(IMAGE, 4).exp())

    def generator(x, t, warmth):
        return x[:, : 2 * path.heads].sin()

    x, predicted = path.point(draws.noise, prior.blended(draws.warmth).normalise(target), draws.t)
    features = torch.cat([x, context], dim=1)[:, : 2 * path.heads]
    errors = (1 - draws.t)[:, None, None, None, None] * (features.sin() - predicted).unflatten(1, (path.heads, 2))
    sigma = (1 - draws.t) / draws.t
    of_times = ((sigma**2 + 1) / sigma**2)[:, None, None, None, None]
    expected = (of_times * of_channels * errors**2).sum(dim=1).mean()
    loss = training_loss(generator, prior, context, target, draws, path, edm_weight, of_channels)
    torch.testing.assert_close(loss, expected)


def gaussian(path, power):
    """The exact generator for data whose wave has variance ``power(eigenvalue)``: the conditional means of both targets."""

    def output(x, t):
        t = t.reshape(-1)

        def regression(eigenvalues):
            one, time = eigenvalues[None], t.reshape(-1, *(1,) * eigenvalues.dim())
            sigma = (1 - time) / time.clamp(min=1e-4)
            kept = time * torch.exp(-((path.bnr * sigma) ** 2) / 2 * one)
            return kept * power(one) / (kept**2 * power(one) + (1 - time) ** 2)

        data = path.multiply(x, regression)
        blurred, left = blur(path.bnr, path.multiply, data, t), 1 - t.reshape(-1, 1, 1, 1)
        return torch.cat([(blurred - x) / left, (data - blurred) / left], dim=1)

    return output


def power(eigenvalues):
    return 1 / (1 + eigenvalues)


def deviation(solve, steps, bnr=0.5):
    """Largest relative error of the standard deviation of a wave, of an image of Gaussian waves. Flow and data are linear in the noise."""
    multiply = cosine_transform(*IMAGE)
    path = BlurNoise(bnr, multiply)
    generator = gaussian(path, power)
    noise = field(IMAGE, batch=1)
    # Times end short of 1 for solvers that evaluate there: the conditional mean divides by 1 - t.
    times = grids.uniform(steps) * (1 - 1e-6)
    sample = solve(lambda x, t: path.velocity(generator(x, t), x, t.reshape(1)), path.start(noise), times)
    expected = multiply(noise, lambda eigenvalues: power(eigenvalues).sqrt()[None])
    waves = [scipy.fft.dctn(values.numpy(), axes=(2, 3), norm="ortho") for values in (sample, expected)]
    return float(np.abs(waves[0] / waves[1] - 1).max())


ORDERS = {"euler": (1, 64), "midpoint": (2, 64), "heun2": (2, 64), "heun3": (3, 16), "rk4": (4, 8), "ab2": (2, 64), "ab3": (3, 64)}
ORDERS |= {"ab4": (4, 16), "dpm2": (2, 64), "dpm3": (2, 64)}  # dpm3's third order shows with more steps only


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_the_solvers_along_the_blurred_path(name):
    order, steps = ORDERS[name]
    assert deviation(SOLVERS[name], 2 * steps) < deviation(SOLVERS[name], steps) / 2 ** (order - 0.5)


def test_the_midpoint_rule_gives_every_wave_its_variance_in_few_steps():
    assert deviation(SOLVERS["midpoint"], 4) < 0.02
    assert deviation(SOLVERS["midpoint"], 10) < 0.005


def blur_noise_step(path: BlurNoise, x: Tensor, denoised: Tensor, lost: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """One step of the reverse process of *Warm Diffusion*, for states of Karras et al., x_VE = B y + sigma z.

    x_s = x_t + (sigma_s - sigma_t) (x_t - D1) / sigma_t + V (M_s - M_t) V' (D1 + D2), which is of first order. The velocity of
    :class:`BlurNoise` is its limit for small steps.

    Args:
        path: its ratio and transform.
        x: x_t, (batch, channel, ...).
        denoised: D1, the same shape.
        lost: D2, the same shape.
        sigma: noise level of x_t, (1,).
        next_sigma: noise level of x_s, (1,).
    """
    after, now = (blur(path.bnr, path.multiply, denoised + lost, 1 / (1 + level)) for level in (next_sigma, sigma))
    return x + (next_sigma - sigma) * (x - denoised) / sigma + after - now


def test_the_step_of_the_paper_and_the_velocity_agree():
    multiply = cosine_transform(*IMAGE)
    path, x = BlurNoise(0.5, multiply), field(IMAGE)
    generator = gaussian(path, power)
    t = torch.tensor([0.4]).double()
    output = generator(x, t)
    velocity = path.velocity(output, x, t)
    errors = []
    for step in (1e-3, 1e-4):
        sigma, after = (1 - t) / t, (1 - t - step) / (t + step)
        stepped = blur_noise_step(path, x * (1 + sigma), *path.estimates(output, x, t), sigma, after)
        errors.append(((stepped / (1 + after) - x) / step - velocity).abs().max().item())
    assert errors[1] < errors[0] / 9
    assert errors[1] < 1e-2


def test_cold_diffusion_starts_from_the_mean_alone(geometry):
    multiply, shape = geometry
    start = Blur(1.0, multiply, delta=0.0).start(field(shape))
    torch.testing.assert_close(start, start[:, :, :1, :1].expand_as(start), rtol=0, atol=1e-10)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 2.0])
def test_powers_of_the_targets_are_those_of_the_blurred_waves(ratio):
    """White data of variance 1 at noise level 1: a wave keeps exp(-tau Lambda) of its amplitude, the deblurring target has the rest."""
    multiply, data = cosine_transform(8, 8), torch.randn(4000, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    k = np.arange(8)

    def power(fields):
        return np.square(scipy.fft.dctn(fields.numpy(), axes=(2, 3), norm="ortho")).mean(axis=(0, 1))[0]  # waves along rows

    powers = target_powers(data, multiply, power, ratio)
    kept = np.exp(-(ratio**2) / 2 * np.pi**2 * k**2 / 64)
    np.testing.assert_allclose(powers["denoising target"], kept**2 * powers["data"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(powers["deblurring target"], (1 - kept) ** 2 * powers["data"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(powers["state"], kept**2 + 1, rtol=0.12)


def test_the_figure_of_the_targets_has_each_power_over_the_wavenumber():
    multiply, data, k = cosine_transform(4, 4), field((4, 4)), np.array([1, 2, 4, 7])

    def power(fields):
        return fields.square().mean(dim=(0, 1, 2)).numpy()

    figure = targets_figure(data, multiply, power, k, "wavenumber")
    for axis, ratio in zip(figure.axes, RATIOS, strict=True):
        assert axis.get_title() == f"blur-to-noise ratio {ratio:g}"
        assert (axis.get_xlabel(), axis.get_xscale(), axis.get_yscale()) == ("wavenumber", "log", "log")
        powers, drawn = target_powers(data, multiply, power, ratio), {line.get_label(): line.get_data() for line in axis.lines}
        assert drawn.keys() == powers.keys()
        for name, (x, y) in drawn.items():
            np.testing.assert_array_equal(x, k)
            np.testing.assert_array_equal(y, [value if value > 0 else np.nan for value in powers[name]])
    assert figure.axes[0].get_ylim() == pytest.approx((1e-5 * power(data).max(), 3 * power(data).max()))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["state", "data", "denoising target", "deblurring target"]
    targets_figure(0 * data, multiply, power, k, "wavenumber")  # without power: the limits of the axis are matplotlib's
