"""Ensembles of one evaluation that are trained on the CRPS, without a flow: the rivals of AIFS-ENS, FGN and FourCastNet 3.

The network maps a context and noise to a member. The noise is a few numbers or a few fields. Two members of each sample are trained on the
almost fair CRPS of every point and of every zonal wave.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsdcast.warmstart.prior import InformedPrior, of_shape

NOISE_NUMBERS = 32
"""Random numbers of a member, as many as FGN has (Alet et al. 2025)."""

MEMBERS = 2
"""Members of an ensemble in training. The CRPS needs two, and Swift and ACE have two as well."""

EnsembleLoss = Callable[[Tensor, Tensor], Tensor]
"""Maps members (member, batch, channel, row, column) and the truth (batch, channel, row, column) to a loss."""


def direct_sample(
    generator: Callable[..., Tensor],
    prior: InformedPrior,
    context: Tensor,
    noise: Tensor,
    noise_fields: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return one member for each context, mean + std g(context, noise), (batch, channel, ...), in the units of the data.

    Args:
        generator: g, ``generator(x, numbers)``. x has the context and the features of the prior, and the numbers are
            (batch, :data:`NOISE_NUMBERS`). With noise fields it is ``generator(x)``, and x has them too.
        prior: the prior of the contexts, whose mean and std give the member its place and scale. Nothing is drawn from it.
        context: C, (batch, channels, ...).
        noise: standard normal, (batch, channel, ...). Its first numbers are those of the member.
        noise_fields: maps the noise to the fields of the member, (batch, field, ...); None if the generator reads numbers.

    Raises:
        ValueError: if noise or the generator's output has not the shape of the prior's mean.
    """
    noise = of_shape("noise", noise, prior.mean)
    if noise_fields is None:
        result = generator(torch.cat([context, prior.features()], dim=1), noise.flatten(1)[:, :NOISE_NUMBERS])
    else:
        result = generator(torch.cat([context, prior.features(), noise_fields(noise)], dim=1))
    return prior.denormalise(result.to(noise.dtype))


def almost_fair_crps(members: Tensor, truth: Tensor, alpha: float) -> Tensor:
    """Return the almost fair CRPS of an ensemble (Lang et al. 2024, arXiv 2412.15832, Eq. 4), of the shape of the truth.

        mean_m |x_m - y| - (1 - (1 - alpha) / M) / (2 M (M - 1)) sum_{m, n} |x_m - x_n|

    With alpha = 1 it is the fair CRPS. With two members that one is zero whenever one of them is the truth, wherever the other is. A
    little unfairness keeps the other in place.

    Args:
        members: (member, ...), at least two, real or complex. For complex numbers it is the energy score in the plane.
        truth: (...), of the same shape as a member.
        alpha: share of fairness, 0 to 1.

    Raises:
        ValueError: if the truth has another shape.
    """
    count, truth = len(members), of_shape("truth", truth, members[0])
    error = (members - truth).abs().mean(dim=0)
    pairs = (members[:, None] - members[None]).abs().sum(dim=(0, 1))
    return error - (1 - (1 - alpha) / count) / (2 * count * (count - 1)) * pairs


def spectral_crps(members: Tensor, truth: Tensor, weights: Tensor, amplitude: Tensor, alpha: float) -> Tensor:
    """Return the almost fair CRPS of zonal Fourier coefficients, each weighted with amplitude^-1/2, divided by the sum of amplitude^1/2.

    The CRPS of points hardly notices small scales, where amplitudes are small. Members then have noise or nothing there. The exponent is
    that of ACE (ai2cm/ace, pull request 1303): it mended spectra at no cost, and -1 made rollouts unstable.

    Args:
        members, truth: as for :data:`EnsembleLoss`.
        weights: area weights of the rows, with mean 1, (row, 1).
        amplitude: root mean square of the coefficients in the data, (channel, wavenumber).
        alpha: as for :func:`almost_fair_crps`.
    """
    coefficients, of_truth = (torch.fft.rfft(x, dim=-1, norm="ortho") for x in (members, truth))
    amplitude = amplitude.clamp(min=1e-6 * amplitude.amax())  # a record may have no power at all at some wavenumber
    scores = (weights * almost_fair_crps(coefficients, of_truth, alpha)).mean(dim=(0, 2))
    return (scores * amplitude**-0.5).sum() / amplitude.sqrt().sum()


def ensemble_loss(weights: Tensor, scale: Tensor, amplitude: Tensor, alpha: float, spectral_weight: float) -> EnsembleLoss:
    """Return the loss of an ensemble: its almost fair CRPS in units of ``scale``, plus ``spectral_weight`` times that of its zonal waves.

    Args:
        weights: area weights of the rows, with mean 1, (row, 1).
        scale: the unit of each channel, the standard deviation of its change in 6 h, (channel, 1, 1).
        amplitude: as for :func:`spectral_crps`.
        alpha: as for :func:`almost_fair_crps`.
        spectral_weight: factor of :func:`spectral_crps`.
    """

    def loss(members: Tensor, truth: Tensor) -> Tensor:
        of_points = (weights * almost_fair_crps(members, truth, alpha) / scale).mean()
        return of_points + spectral_weight * spectral_crps(members, truth, weights, amplitude, alpha) if spectral_weight else of_points

    return loss
