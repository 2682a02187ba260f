"""Paths from noise (flow time 0) to data (flow time 1), in the normalised space of the prior.

Given the data y and noise z ~ N(0, 1), the state at time t is x_t = t B_t y + (1 - t) z. B_t is the identity on the straight path and a
blur on the path blur-noise. With the noise level sigma = (1 - t) / t the state is x_t = x_VE / (1 + sigma), where x_VE = B y + sigma z is
the state of Karras et al. (2022). The path blur has no such noise: x_t = B_t y. One flow time, one set of solvers and one set of grids
serve all paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wsdcast.runs.devices import without_autocast
from wsdcast.runs.names import PathName
from wsdcast.warmstart.prior import per_sample

Multiply = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]
"""``multiply(x, factor)`` returns V factor(Lambda) V' x for x of shape (batch, channel, ...).

V holds the eigenvectors of minus the Laplacian, and Lambda its eigenvalues. ``factor`` takes Lambda, of any shape S, and returns factors of
shape (batch, *S) or (1, *S).
"""


class Path(Protocol):
    """A path from noise to data, and what the generator predicts on it."""

    @property
    def name(self) -> PathName:
        """The name of the path in recipes."""

    @property
    def heads(self) -> int:
        """The number of fields that the generator predicts for each channel of the state."""

    def point(self, noise: Tensor, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state (batch, channel, ...) at times t (batch,), and the generator's target (batch, heads * channel, ...)."""

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return dx/dt (batch, channel, ...) from the generator's output (batch, heads * channel, ...) at state x and time t.

        t has the shape (batch,) or (1,).
        """

    def start(self, noise: Tensor) -> Tensor:
        """Return the state at t = 0 (batch, channel, ...) for standard normal noise of the same shape."""


@dataclass(frozen=True)
class Straight:
    """The path x_t = (1 - t) z + t y of flow matching (Lipman et al. 2023). The target is its velocity, y - z."""

    name: PathName = "straight"
    heads: int = 1

    def point(self, noise: Tensor, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`Path`."""
        t = per_sample(t, data)
        return (1 - t) * noise + t * data, data - noise

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """As in :class:`Path`: the output itself."""
        return output

    def start(self, noise: Tensor) -> Tensor:
        """As in :class:`Path`: the noise itself."""
        return noise


STRAIGHT = Straight()


@dataclass(frozen=True)
class BlurNoise:
    """Blur and noise in a constant ratio, as in *Warm Diffusion* (arXiv 2511.16904): x_t = t B_t y + (1 - t) z.

    B_t = V exp(-tau Lambda) V' blurs as diffusion over the time tau = (bnr sigma)^2 / 2 does, with sigma = (1 - t) / t. The paper has two
    predictions: D1, the state without its noise but still blurred, and D2, what the blur took. The generator predicts both as velocities u1
    and u2, whose targets are of the size of the data at every time:

        D1 = B y     = x + (1 - t) u1,    u1 = B y - z,
        D2 = y - B y = (1 - t) u2,        u2 = (y - B y) / (1 - t).

    The velocity follows from dB/dt = V (bnr^2 sigma / t^2) Lambda exp(-tau Lambda) V':

        dx/dt = u1 + t dB/dt (D1 + D2).

    The public text of the paper has no equations. The process is derived from its captions (docs/method.md says which part is whose).

    Attributes:
        bnr: blur-to-noise ratio: width of the blur, in pixels or in rows of a grid, for noise of standard deviation 1; at least 0. With 0
            the path is straight.
        multiply: the spectral transform of the grid.
    """

    bnr: float
    multiply: Multiply
    name: PathName = "blur-noise"
    heads: int = 2

    def point(self, noise: Tensor, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`Path`."""
        lost, shaped = blur_rate(self.bnr, self.multiply, data, t), per_sample(t, data)
        blurred = data - (1 - shaped) * lost
        return (1 - shaped) * noise + shaped * blurred, torch.cat([blurred - noise, lost], dim=1)

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """As in :class:`Path`."""
        denoised, lost = self.estimates(output, x, t)
        return output.chunk(2, dim=1)[0] + per_sample(t, x) * sharpening(self.bnr, self.multiply, denoised + lost, t)

    def start(self, noise: Tensor) -> Tensor:
        """As in :class:`Path`: the noise itself, because nothing is left of the data."""
        return noise

    def estimates(self, output: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return D1 and D2, each (batch, channel, ...), from the generator's output at state x and time t."""
        u1, u2 = output.chunk(2, dim=1)
        left = 1 - per_sample(t, x)
        return x + left * u1, left * u2


@dataclass(frozen=True)
class Blur:
    """Cold diffusion: the blur of :class:`BlurNoise` without its noise, x_t = B_t y + delta z, an ablation.

    As in inverse heat dissipation (Rissanen et al. 2023) a little noise stays, so that the network does not read the data from the last
    digits of the state. The generator predicts what the blur took, y - B y. The start has the mean of the noise and no other wave.

    Attributes:
        bnr: width of the blur at sigma = (1 - t) / t = 1, in pixels or in rows of a grid; above 0.
        multiply: the spectral transform of the grid.
        delta: standard deviation of the noise, 0.01 as published.
    """

    bnr: float
    multiply: Multiply
    delta: float = 0.01
    name: PathName = "blur"
    heads: int = 1

    def point(self, noise: Tensor, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`Path`."""
        blurred = blur(self.bnr, self.multiply, data, t)
        return blurred + self.delta * noise, data - blurred

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """As in :class:`Path`."""
        return sharpening(self.bnr, self.multiply, x + output, t)

    def start(self, noise: Tensor) -> Tensor:
        """As in :class:`Path`."""
        return blur(self.bnr, self.multiply, noise, noise.new_zeros(1)) + self.delta * noise


def path_of(name: PathName, bnr: float, transform: Callable[[], Multiply]) -> Path:
    """The path of a name.

    Args:
        name: the name.
        bnr: blur-to-noise ratio.
        transform: makes the spectral transform of the grid; called if the path blurs.
    """
    if name == "straight":
        return STRAIGHT
    return BlurNoise(bnr, transform()) if name == "blur-noise" else Blur(bnr, transform())


def blur(bnr: float, multiply: Multiply, data: Tensor, t: Tensor) -> Tensor:
    """Return B_t y (batch, channel, ...) for times t, (batch,) or (1,)."""
    tau = (bnr * noise_level(t)).square() / 2
    return multiply(data, lambda eigenvalues: torch.exp(-per_sample(tau, eigenvalues[None]) * eigenvalues))


def blur_rate(bnr: float, multiply: Multiply, data: Tensor, t: Tensor) -> Tensor:
    """Return (y - B_t y) / (1 - t) (batch, channel, ...) for times t, (batch,) or (1,); at t = 1 the limit, which is 0.

    It is divided wave by wave. The difference of the fields would be mere rounding where t is almost 1.
    """
    tau = (bnr * noise_level(t)).square() / 2
    left = (1 - t).clamp(min=torch.finfo(t.dtype).tiny)
    return multiply(data, lambda values: -torch.expm1(-per_sample(tau, values[None]) * values) / per_sample(left, values[None]))


def sharpening(bnr: float, multiply: Multiply, data: Tensor, t: Tensor) -> Tensor:
    """Return dB_t/dt y = V (bnr^2 sigma / t^2) Lambda exp(-tau Lambda) V' y, (batch, channel, ...)."""
    sigma = noise_level(t)
    # 1 / t = 1 + sigma. At t = 0 the exponential is 0 for every wave with an eigenvalue, and the product stays finite.
    scale, tau = bnr**2 * sigma * (1 + sigma).square(), (bnr * sigma).square() / 2

    def factor(eigenvalues: Tensor) -> Tensor:
        one = eigenvalues[None]
        return per_sample(scale, one) * one * torch.exp(-per_sample(tau, one) * one)

    return multiply(data, factor)


def noise_level(t: Tensor) -> Tensor:
    """Return sigma = (1 - t) / t. It is 1e4 at t = 0 instead of infinite. A ratio of 0.1 still blurs away every wave but the mean there."""
    return (1 - t) / t.clamp(min=1e-4)


def cosine_transform(rows: int, columns: int, device: torch.device | None = None, dtype: torch.dtype = torch.float64) -> Multiply:
    """The cosine transform of images, whose waves are even about each edge, as a function of :data:`Multiply`.

    The eigenvalue of wave (k, l) is pi^2 (k^2 / rows^2 + l^2 / columns^2), so lengths are in pixels.

    Args:
        rows, columns: size of the images.
        device, dtype: of the tables. Images elsewhere or of another type are transformed too, with a copy of the tables each time.
    """
    down, across = _cosines(rows), _cosines(columns)
    wave = [torch.pi * torch.arange(count, dtype=torch.float64) / count for count in (rows, columns)]
    tables = [table.to(device, dtype) for table in (down, across, wave[0][:, None] ** 2 + wave[1] ** 2)]

    def multiply(x: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
        v, w, eigenvalues = (table.to(x) for table in tables)
        with without_autocast(x):
            return v.T @ ((v @ x @ w.T) * factor(eigenvalues)[:, None]) @ w

    return multiply


def _cosines(count: int) -> Tensor:
    """The orthonormal discrete cosine transform (DCT-II), (wave, point)."""
    points = torch.arange(count, dtype=torch.float64)
    waves = torch.cos(torch.pi / count * points[:, None] * (points + 0.5))
    waves[0] /= 2**0.5
    return waves * (2 / count) ** 0.5
