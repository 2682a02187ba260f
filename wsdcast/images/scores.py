"""Scores of samples against the true images, in units in which images range from 0 to 1.

First, statistics are computed for each context. They are averaged over contexts with equal weights, so that statistics of different
parts can be joined. Roots and ratios come after the average, in :func:`metrics`.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.sparse
import xarray as xr
from numpy.typing import NDArray

from wsdcast.images.data.resampling import context_weights
from wsdcast.verification.kernels import fair_crps, ranked, squared_error, squared_error_debiased, standard_crps, variance

Real = NDArray[np.floating]
Bytes = NDArray[np.uint8]

RANGE = 255
"""The largest value of a stored image, and the peak of PSNR."""
ROUNDING = 1 / (12 * RANGE**2)
"""Mean squared error of rounding to 8 bits. PSNR counts a smaller error as this one, 58.9 dB, since that of a perfect image is infinite."""
VALUES_PER_PART = 2**22
"""Values of samples that are processed at a time; with all intermediate results they take some hundred MB."""

ABOUT = {
    "crps": ("fair continuous ranked probability score at hidden pixels", "1"),
    "crps_standard": ("continuous ranked probability score of one sample, which is its absolute error, at hidden pixels", "1"),
    "rmse": ("root mean squared error of the ensemble mean at hidden pixels", "1"),
    "psnr": ("peak signal-to-noise ratio of the ensemble mean at hidden pixels, mean over images", "dB"),
    "psnr_whole": ("peak signal-to-noise ratio of the ensemble mean over the whole image, mean over images", "dB"),
    "spread": ("root mean variance of the samples at hidden pixels", "1"),
    "spread_skill": ("spread over the root mean squared error less what the number of samples adds to it, at hidden pixels", "1"),
    "diversity": ("root mean squared difference of two samples at hidden pixels, mean over pairs and images", "1"),
    "consistency": ("root mean squared error of samples at visible pixels; 0 if they are kept as they are", "1"),
    "power_ratio": ("power of samples over that of the truth, by wavenumber", "1"),
    "power_deviation": ("mean |1 - power ratio| over wavenumbers", "1"),
    "power_deviation_largest": ("largest |1 - power ratio| of a wavenumber", "1"),
}
"""Description and unit of each metric."""


def sample_statistics(samples: Bytes, truth: Bytes, hidden: NDArray[np.bool_]) -> xr.Dataset:
    """Return the statistics of the samples of each context, with dimension ``context``. Means over pixels are means over channels too.

    - Over hidden pixels: fair ``crps``; ``squared_error`` of the ensemble mean; ``squared_error_debiased``, without the part that the
      finite number of samples adds; ``psnr``; ``variance``, with the number of samples less one in the denominator; and ``diversity``,
      the root mean squared difference of two samples, averaged over pairs of samples.
    - Over all pixels: ``psnr_whole``.
    - Over visible pixels: ``visible_squared_error`` of single samples.
    - By ``wavenumber``: ``power`` of samples (not of their mean) and ``power_truth``, as in :func:`radial_power`.

    A statistic is NaN if a context has no such pixels. With one sample per context ``crps_standard``, its absolute error, replaces
    ``crps``, and ``variance``, ``squared_error_debiased`` and ``diversity`` are left out, because they need two samples.

    Args:
        samples: (context, sample, height, width, channel).
        truth: (context, height, width, channel).
        hidden: which pixels the context does not show, (context, height, width).
    """
    contexts = max(1, VALUES_PER_PART // samples[0].size)
    parts = [slice(first, first + contexts) for first in range(0, len(samples), contexts)]
    return xr.concat([_statistics(samples[part], truth[part], hidden[part]) for part in parts], dim="context")


def _statistics(samples: Bytes, truth: Bytes, hidden: NDArray[np.bool_]) -> xr.Dataset:
    ensemble, true = samples.astype(np.float32) / RANGE, truth.astype(np.float32) / RANGE
    ranks = ranked(np.ascontiguousarray(ensemble.swapaxes(0, 1)), true)
    error = squared_error(ranks)
    everywhere = np.ones_like(hidden)
    if ranks.members == 1:
        statistics = {"crps_standard": _mean(standard_crps(ranks), hidden)}
    else:
        statistics = {
            "crps": _mean(fair_crps(ranks), hidden),
            "squared_error_debiased": _mean(squared_error_debiased(ranks), hidden),
            "variance": _mean(variance(ranks), hidden),
            "diversity": _diversity(ensemble, hidden),
        }
    statistics |= {
        "squared_error": _mean(error, hidden),
        "psnr": _decibels(_mean(error, hidden)),
        "psnr_whole": _decibels(_mean(error, everywhere)),
        "visible_squared_error": _mean(np.square(ensemble - true[:, None]).mean(axis=1), ~hidden),
    }
    power, power_truth = radial_power(ensemble).mean(axis=1), radial_power(true)
    dims = ("context", "wavenumber")
    return xr.Dataset(
        {name: ("context", values) for name, values in statistics.items()} | {"power": (dims, power), "power_truth": (dims, power_truth)},
        coords={"wavenumber": np.arange(1, power.shape[1] + 1) / 2},
    )


def _mean(field: Real, pixels: NDArray[np.bool_]) -> Real:
    """Return the mean of a field (context, height, width, channel) over channels and over the chosen pixels of each context."""
    count = pixels.sum(axis=(1, 2), dtype=np.float64)
    total = np.einsum("chw,chw->c", field.mean(axis=-1, dtype=np.float64), pixels)
    return np.divide(total, count, out=np.full(len(field), np.nan), where=count > 0)


def _decibels(error: Real) -> Real:
    return -10 * np.log10(np.maximum(error, ROUNDING))


def _diversity(ensemble: Real, hidden: NDArray[np.bool_]) -> Real:
    """Return the root mean squared difference of two samples at hidden pixels, averaged over pairs, for each context.

    |a - b|^2 = |a|^2 + |b|^2 - 2 ab, so all pairs come from the inner products of the samples' deviations from their mean.
    """
    contexts, members = ensemble.shape[:2]
    differences = ((ensemble - ensemble.mean(axis=1, keepdims=True)) * hidden[:, None, ..., None]).reshape(contexts, members, -1)
    products = np.matmul(differences, differences.swapaxes(1, 2), dtype=np.float64)
    squared = np.einsum("cmm->cm", products)
    distances = np.sqrt(np.maximum(squared[:, :, None] + squared[:, None] - 2 * products, 0))
    values = hidden.sum(axis=(1, 2)) * float(ensemble.shape[-1])
    total = distances.sum(axis=(1, 2)) / (members * (members - 1))
    return np.divide(total, np.sqrt(values), out=np.full(contexts, np.nan), where=values > 0)


def radial_power(images: Real) -> Real:
    """Return the power by wavenumber, averaged over directions and channels, (..., wavenumber).

    The wavenumber is the number of waves across the shorter side: 0.5, 1, 1.5, ... Each channel is extended by its mirror image and
    Fourier transformed; this is the discrete cosine transform (Denis et al. 2002). An image is not periodic: without the mirror image,
    the jump from one border to the other would count as fine structure, more than natural images have. A tapering window would hide the
    pixels at the borders, which are scored like all others. The power is the mean of the squared coefficients in a ring half a wave wide,
    so that white noise has its variance at every wavenumber. The mean of the channel, and the corners of the spectrum beyond the finest
    wave along an axis, are left out.

    Args:
        images: (..., height, width, channel).
    """
    height, width = images.shape[-3:-1]
    shorter = min(height, width)
    shifted = images - images[..., :1, :1, :]  # so that an image of one colour has exactly zero power, not that of rounding errors
    squared = np.square(scipy.fft.dctn(shifted, axes=(-3, -2), norm="ortho")).mean(axis=-1, dtype=np.float64)
    rows, columns = (np.arange(size) * (shorter / size) for size in (height, width))
    ring = np.rint(np.hypot(rows[:, None], columns)).astype(np.intp).ravel()
    inside = (ring > 0) & (ring < shorter)
    which = ring[inside] - 1
    # The matrix is sparse; for an image of 1500 pixels a side the dense one would take 25 GiB.
    share = scipy.sparse.csr_array((1 / np.bincount(which)[which], (np.flatnonzero(inside), which)), (height * width, shorter - 1))
    return (squared.reshape(-1, height * width) @ share).reshape(*squared.shape[:-2], -1)


def metrics(mean: xr.Dataset) -> xr.Dataset:
    """Return the metrics of :data:`ABOUT` from statistics that were averaged over contexts.

    Metrics that need two samples per context are left out if there is only one. ``spread_skill`` is sqrt(mean variance) / sqrt(mean
    debiased squared error); it is 1 for a reliable ensemble of any size. ``power_ratio`` is a ratio of mean powers, not a mean of ratios.
    """
    ratio = mean["power"] / mean["power_truth"].where(mean["power_truth"] > 0)
    deviation = abs(1 - ratio)
    scores = {name: mean[name] for name in ("crps", "crps_standard", "diversity") if name in mean}
    if "variance" in mean:
        error = mean["squared_error_debiased"].where((mean["variance"] > 0) & (mean["squared_error_debiased"] > 0))
        scores |= {"spread": mean["variance"] ** 0.5, "spread_skill": (mean["variance"] / error) ** 0.5}
    scores |= {
        "rmse": mean["squared_error"] ** 0.5,
        "psnr": mean["psnr"],
        "psnr_whole": mean["psnr_whole"],
        "consistency": mean["visible_squared_error"] ** 0.5,
        "power_ratio": ratio,
        "power_deviation": deviation.mean("wavenumber"),
        "power_deviation_largest": deviation.max("wavenumber"),
    }
    return xr.Dataset(scores)


def drawn_metrics(statistics: xr.Dataset, draws: int) -> xr.Dataset:
    """Return the metrics of bootstrap samples of contexts, with dimension ``draw``.

    The same contexts are drawn for all statistics with the same number of contexts.

    Args:
        statistics: statistics with dimension ``context``. NaN in a context is left out of the average.
        draws: number of bootstrap samples.
    """
    weights = xr.DataArray(context_weights(statistics.sizes["context"], draws), dims=("draw", "context"))

    def resampled(field: xr.DataArray) -> xr.DataArray:
        share = xr.dot(field.notnull().astype(float), weights, dim="context")
        return xr.dot(field.fillna(0), weights, dim="context") / share.where(share > 0)

    return metrics(xr.Dataset({name: resampled(field) for name, field in statistics.data_vars.items()}))
