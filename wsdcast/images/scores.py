"""Scores of samples given the true images, in units of the images' range from 0 to 1.

Statistics are means for one context and are only ever averaged over contexts, each counting as much, so that parts scored apart can be
joined; roots and ratios come last, in :func:`metrics`.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.sparse
import xarray as xr
from numpy.typing import NDArray

from wsdcast.images.data.resampling import context_weights
from wsdcast.verification.bootstrap import DRAWS
from wsdcast.verification.kernels import debiased_squared_error, fair_crps, ranked, squared_error, standard_crps, variance

Real = NDArray[np.floating]
Bytes = NDArray[np.uint8]

RANGE = 255
"""The largest value of a stored image, and the peak of PSNR."""
ROUNDING = 1 / (12 * RANGE**2)
"""Mean squared error that rounding to 8 bits leaves; a smaller one counts as this, 58.9 dB, as perfect images would have no finite mean."""
AT_ONCE = 2**22
"""Values of samples that are worked on at a time, some hundred MB with all that is made of them."""

ABOUT = {
    "crps": ("fair continuous ranked probability score at hidden pixels", "1"),
    "crps_standard": ("continuous ranked probability score of one sample, which is its absolute error, at hidden pixels", "1"),
    "rmse": ("root mean squared error of the ensemble mean at hidden pixels", "1"),
    "psnr": ("peak signal-to-noise ratio of the ensemble mean at hidden pixels, mean over images", "dB"),
    "psnr_whole": ("peak signal-to-noise ratio of the ensemble mean over the whole image, mean over images", "dB"),
    "spread": ("root mean variance of the samples at hidden pixels", "1"),
    "spread_skill": ("spread over the root mean squared error less what the number of samples adds to it, at hidden pixels", "1"),
    "diversity": ("root mean squared difference of two samples at hidden pixels, mean over pairs and images", "1"),
    "consistency": ("root mean squared difference to the truth at visible pixels", "1"),
    "power_ratio": ("power of samples over that of the truth, by wavenumber", "1"),
    "power_deviation": ("mean |1 - power ratio| over wavenumbers", "1"),
    "power_deviation_largest": ("largest |1 - power ratio| of a wavenumber", "1"),
}
"""What metrics are, and their units."""


def sample_statistics(samples: Bytes, truth: Bytes, hidden: NDArray[np.bool_]) -> xr.Dataset:
    """What samples of each context are worth, by ``context``; means over pixels are over channels too.

    Over hidden pixels: fair ``crps``, ``squared_error`` of the ensemble mean, ``squared_error_debiased`` less what the finite number of
    samples adds, ``psnr``, ``variance`` (the number of samples less one in the denominator), and ``diversity``, the mean over pairs of
    samples of their root mean squared difference. Over all pixels: ``psnr_whole``. Over visible ones: ``visible_squared_error`` of single
    samples. NaN where there are no such pixels. Of one sample ``crps_standard``, its absolute error, stands in the place of ``crps``, and
    what needs two is left out: ``variance``, ``squared_error_debiased`` and ``diversity``.

    ``power`` and ``power_truth`` by ``wavenumber`` as in :func:`radial_power`, of samples, never of their mean.

    Args:
        samples: (context, sample, height, width, channel).
        truth: (context, height, width, channel).
        hidden: which pixels the context does not show, (context, height, width).
    """
    at_once = max(1, AT_ONCE // samples[0].size)
    parts = [slice(first, first + at_once) for first in range(0, len(samples), at_once)]
    return xr.concat([_statistics(samples[part], truth[part], hidden[part]) for part in parts], dim="context")


def _statistics(samples: Bytes, truth: Bytes, hidden: NDArray[np.bool_]) -> xr.Dataset:
    ensemble, true = samples.astype(np.float32) / RANGE, truth.astype(np.float32) / RANGE
    of = ranked(np.ascontiguousarray(ensemble.swapaxes(0, 1)), true)
    error = squared_error(of, true)
    everywhere = np.ones_like(hidden)
    if of.members == 1:
        found = {"crps_standard": _mean(standard_crps(of), hidden)}
    else:
        found = {
            "crps": _mean(fair_crps(of), hidden),
            "squared_error_debiased": _mean(debiased_squared_error(of, true), hidden),
            "variance": _mean(variance(of), hidden),
            "diversity": _diversity(ensemble, hidden),
        }
    found |= {
        "squared_error": _mean(error, hidden),
        "psnr": _decibels(_mean(error, hidden)),
        "psnr_whole": _decibels(_mean(error, everywhere)),
        "visible_squared_error": _mean(np.square(ensemble - true[:, None]).mean(axis=1), ~hidden),
    }
    power, power_truth = radial_power(ensemble).mean(axis=1), radial_power(true)
    wavy = ("context", "wavenumber")
    return xr.Dataset(
        {name: ("context", values) for name, values in found.items()} | {"power": (wavy, power), "power_truth": (wavy, power_truth)},
        coords={"wavenumber": np.arange(1, power.shape[1] + 1) / 2},
    )


def _mean(field: Real, pixels: NDArray[np.bool_]) -> Real:
    """Of (context, height, width, channel) over channels and the pixels of each context."""
    count = pixels.sum(axis=(1, 2), dtype=np.float64)
    total = np.einsum("chw,chw->c", field.mean(axis=-1, dtype=np.float64), pixels)
    return np.divide(total, count, out=np.full(len(field), np.nan), where=count > 0)


def _decibels(error: Real) -> Real:
    return -10 * np.log10(np.maximum(error, ROUNDING))


def _diversity(ensemble: Real, hidden: NDArray[np.bool_]) -> Real:
    """From the products of all samples' differences from their mean."""
    contexts, members = ensemble.shape[:2]
    differences = ((ensemble - ensemble.mean(axis=1, keepdims=True)) * hidden[:, None, ..., None]).reshape(contexts, members, -1)
    products = np.matmul(differences, differences.swapaxes(1, 2), dtype=np.float64)
    squared = np.einsum("cmm->cm", products)
    distances = np.sqrt(np.maximum(squared[:, :, None] + squared[:, None] - 2 * products, 0))
    values = hidden.sum(axis=(1, 2)) * float(ensemble.shape[-1])
    total = distances.sum(axis=(1, 2)) / (members * (members - 1))
    return np.divide(total, np.sqrt(values), out=np.full(contexts, np.nan), where=values > 0)


def radial_power(images: Real) -> Real:
    """Power by the number of waves across the shorter side in any direction, 0.5, 1, 1.5, ..., mean over channels, (..., wavenumber).

    Each channel, less its mean, is continued by its mirror image and Fourier transformed: the discrete cosine transform (Denis et al.
    2002). An image is not periodic, and the jump from one border to the other would be read as fine structure, more of it than natural
    images have; a tapering window would hide what is at the borders, where things are hidden as elsewhere. Power is the mean of
    squared coefficients in rings half a wave wide, so that white noise has its variance at every wavenumber. The corners beyond the
    finest wave along an axis are left out.

    Args:
        images: (..., height, width, channel).
    """
    height, width = images.shape[-3:-1]
    shorter = min(height, width)
    shifted = images - images[..., :1, :1, :]  # so that an image of one colour has no power at all, and not that of rounding
    squared = np.square(scipy.fft.dctn(shifted, axes=(-3, -2), norm="ortho")).mean(axis=-1, dtype=np.float64)
    rows, columns = (np.arange(size) * (shorter / size) for size in (height, width))
    ring = np.rint(np.hypot(rows[:, None], columns)).astype(np.intp).ravel()
    inside = (ring > 0) & (ring < shorter)
    which = ring[inside] - 1
    # Sparse: of an image of 1500 points a side the whole matrix has 25 GiB.
    share = scipy.sparse.csr_array((1 / np.bincount(which)[which], (np.flatnonzero(inside), which)), (height * width, shorter - 1))
    return (squared.reshape(-1, height * width) @ share).reshape(*squared.shape[:-2], -1)


def metrics(mean: xr.Dataset) -> xr.Dataset:
    """Metrics, as in :data:`ABOUT`, from statistics that were averaged over contexts, without those that one sample does not have.

    ``spread_skill`` is sqrt(mean variance) / sqrt(mean debiased squared error); 1 for a reliable ensemble of any size. The power ratio is
    mean power over mean power, never a mean of ratios.
    """
    ratio = mean["power"] / mean["power_truth"].where(mean["power_truth"] > 0)
    deviation = abs(1 - ratio)
    found = {name: mean[name] for name in ("crps", "crps_standard", "diversity") if name in mean}
    if "variance" in mean:
        skilful = mean["squared_error_debiased"].where((mean["variance"] > 0) & (mean["squared_error_debiased"] > 0))
        found |= {"spread": mean["variance"] ** 0.5, "spread_skill": (mean["variance"] / skilful) ** 0.5}
    found |= {
        "rmse": mean["squared_error"] ** 0.5,
        "psnr": mean["psnr"],
        "psnr_whole": mean["psnr_whole"],
        "consistency": mean["visible_squared_error"] ** 0.5,
        "power_ratio": ratio,
        "power_deviation": deviation.mean("wavenumber"),
        "power_deviation_largest": deviation.max("wavenumber"),
    }
    return xr.Dataset(found)


def drawn_metrics(statistics: xr.Dataset, draws: int = DRAWS) -> xr.Dataset:
    """Metrics of bootstrap samples of contexts, by ``draw``; the same contexts for as many contexts.

    Args:
        statistics: by ``context``; those that are NaN for a context are averaged over the others.
        draws: how many.
    """
    weights = xr.DataArray(context_weights(statistics.sizes["context"], draws), dims=("draw", "context"))

    def resampled(field: xr.DataArray) -> xr.DataArray:
        share = xr.dot(field.notnull().astype(float), weights, dim="context")
        return xr.dot(field.fillna(0), weights, dim="context") / share.where(share > 0)

    return metrics(xr.Dataset({name: resampled(field) for name, field in statistics.data_vars.items()}))
