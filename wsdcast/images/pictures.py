"""Pictures of sampling: the process, grids of samples, and the same noise at several numbers of evaluations (Figs. 3, 4, 11 to 15).

Every pixel of an image becomes a square with a whole number of figure pixels, so that nothing is smoothed. Only large mosaics are reduced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wsdcast.report.style import LOOK
from wsdcast.runs.positions import evenly_spread

Values = NDArray[np.floating]
"""Floating-point values, with channels before height and width; data lie in [-1, 1]."""
Image = NDArray[np.uint8]
"""(height, width, channel), 1 or 3 channels."""
Place = tuple[float, float]
"""Row and column in a mosaic, in cells. A fraction places an image between two cells."""

HIDDEN = 128
"""The grey of hidden pixels."""
NORMALISED_LIMIT = 3.0
"""Normalised values from -3 to 3 are shown from black to full colour."""
MOST_STATES = 21
"""The most states of the process that are shown; if there are more, this many are chosen evenly."""

_RESOLUTION = 110  # pixels per inch of a figure
# In pixels of the figure: its largest side, the largest side of an image, the gap between images, the height of a line of text, the margin,
# and the width of the names on the left.
_MOST, _SIDE, _GAP, _LINE, _EDGE, _NAMES = 2000, 128, 4, 18, 6, 44


@matplotlib.rc_context(LOOK | {"font.size": 10})
def sampling_process(context: Values, truth: Image, mean: Values, std: Values, normalised: Values, states: Values, times: Values) -> Figure:
    """Draw Fig. 3: the context, the predicted moments, and the states of the solver from noise to sample, in normalised and in data space.

    Args:
        context: (channel, height, width) as the network reads it; the last channel is the mask, 1 where visible.
        truth: (height, width, channel).
        mean, std: predicted moments, (channel, height, width).
        normalised, states: states from noise to sample in normalised space and in data space, (step + 1, channel, height, width).
        times: flow time from 0 to 1, (step + 1,).
    """
    shown = evenly_spread(len(times), MOST_STATES)
    first, last = 2, 2.15 + len(shown)
    white = float(std.max())
    scales = f"normalised values from -{NORMALISED_LIMIT:g} to {NORMALISED_LIMIT:g},\ndata from -1 to 1;\nvalues beyond are clipped"
    images: dict[Place, Image] = {
        (0.5, 0): _of_context(context),
        (0, 1): _of_values(mean),
        (1, 1): _of_std(std, white),
        (1, last): _coloured(truth),
    }
    above = {(0.5, 0.0): "context", (0, 1): "mean", (1, last): "truth"}
    for column, step in enumerate(shown):
        images[0, first + column] = _of_values(normalised[step] / NORMALISED_LIMIT)
        images[1, first + column] = _of_values(states[step])
        above[0, first + column] = f"{times[step]:.3g}"
    above[0, first] = f"flow time\n{above[0, first]}"
    below = {
        (1.0, 1.0): f"standard deviation,\nblack 0, white {white:.2g}",
        (1, first + (len(shown) - 1) / 2): scales,
    }
    return _mosaic(images, above, below, {(0, first): "normalised\nspace", (1, first): "data\nspace"})


@matplotlib.rc_context(LOOK | {"font.size": 10})
def sample_grid(context: Values, truth: Image, mean: Values, std: Values, samples: Image) -> Figure:
    """Draw Figs. 4, 14 and 15: a row for each context with its predicted moments, some samples and the truth.

    Args:
        context: (row, channel, height, width), as for :func:`sampling_process`.
        truth: (row, height, width, channel).
        mean, std: predicted moments, (row, channel, height, width).
        samples: (row, sample, height, width, channel).
    """
    first, white = 3.15, float(std.max())
    last = first + samples.shape[1] + 0.15
    above: dict[Place, str] = {(0, 0): "context", (0, 1): "mean", (0, 2): "standard\ndeviation", (0, last): "truth"}
    above |= {(0, first + number): f"sample {number + 1}" for number in range(samples.shape[1])}
    images: dict[Place, Image] = {}
    for row in range(len(context)):
        images[row, 0] = _of_context(context[row])
        images[row, 1] = _of_values(mean[row])
        images[row, 2] = _of_std(std[row], white)
        images |= {(row, first + number): _coloured(sample) for number, sample in enumerate(samples[row])}
        images[row, last] = _coloured(truth[row])
    return _mosaic(images, above, {(len(context) - 1, 2): f"black 0,\nwhite {white:.2g}"}, {})


@matplotlib.rc_context(LOOK | {"font.size": 10})
def same_noise(context: Values, truth: Image, samples: Mapping[str, Mapping[int, Image]]) -> Figure:
    """Draw Figs. 11 and 12: samples of the same noise with increasing numbers of evaluations. A context has one row for each prior.

    Args:
        context: (block, channel, height, width), as for :func:`sampling_process`.
        truth: (block, height, width, channel).
        samples: for each prior and number of evaluations the samples, (block, height, width, channel).
    """
    numbers = sorted({nfe for of_prior in samples.values() for nfe in of_prior})
    first, last = 1, 1.15 + len(numbers)
    above: dict[Place, str] = {(0, first + column): str(nfe) for column, nfe in enumerate(numbers)}
    above[0, first] = f"evaluations\n{numbers[0]}"
    images: dict[Place, Image] = {}
    left: dict[Place, str] = {}
    for block in range(len(context)):
        top = block * (len(samples) + 0.15)
        middle = top + (len(samples) - 1) / 2
        images[middle, 0], images[middle, last] = _of_context(context[block]), _coloured(truth[block])
        if block == 0:
            above |= {(middle, 0): "context", (middle, last): "truth"}
        for row, (prior, of_prior) in enumerate(samples.items()):
            left[top + row, first] = prior
            images |= {(top + row, first + numbers.index(nfe)): _coloured(images_of[block]) for nfe, images_of in of_prior.items()}
    return _mosaic(images, above, {}, left)


def _mosaic(images: Mapping[Place, Image], above: Mapping[Place, str], below: Mapping[Place, str], left: Mapping[Place, str]) -> Figure:
    """Draw images at their places, with text above and below them, and vertical text left of one column.

    The figure has one axis, whose units are pixels of the figure from the upper left corner. It shows the images in their order.
    """
    height, width = next(iter(images.values())).shape[:2]
    rows, columns = (max(place[axis] for place in images) + 1 for axis in (0, 1))
    named = min((column for _, column in left), default=columns)
    names = _NAMES if left else 0
    largest = min(_SIDE, (_MOST - 2 * _EDGE - names) / columns - _GAP, (_MOST - 4 * _LINE) / rows - _GAP) / max(height, width)
    scale = int(largest) if largest >= 1 else largest
    cell = (round(scale * height), round(scale * width))
    # Room for the lines of text above the first row and below the last.
    top = _EDGE + _LINE * max([text.count("\n") + 1 for (row, _), text in above.items() if row == 0], default=0)
    bottom = _EDGE + _LINE * max([text.count("\n") + 1 for (row, _), text in below.items() if row == rows - 1], default=0)
    total = (top + round(rows * (cell[0] + _GAP)) - _GAP + bottom, 2 * _EDGE + names + round(columns * (cell[1] + _GAP)) - _GAP)
    figure = Figure(figsize=(total[1] / _RESOLUTION, total[0] / _RESOLUTION), dpi=_RESOLUTION)

    def corner(place: Place) -> tuple[int, int]:
        """Return the upper left corner of a cell (down, right), in pixels from the upper left corner of the figure."""
        row, column = place
        return top + round(row * (cell[0] + _GAP)), _EDGE + round(column * (cell[1] + _GAP)) + names * (column >= named)

    def write(place: Place, down: float, right: float, text: str, **how: Any) -> None:
        y, x = corner(place)
        figure.text((x + right) / total[1], 1 - (y + down) / total[0], text, ha=how.pop("ha", "center"), **how)

    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, total[1]), ylim=(total[0], 0))
    axis.set_axis_off()
    for place, image in images.items():
        y, x = corner(place)
        axis.imshow(image, interpolation="nearest", aspect="auto", extent=(x, x + cell[1], y + cell[0], y))
    for place, text in above.items():
        write(place, -3, cell[1] / 2, text, va="bottom")
    for place, text in below.items():
        write(place, cell[0] + 3, cell[1] / 2, text, va="top")
    for place, text in left.items():
        write(place, cell[0] / 2, -3, text, ha="right", va="center", multialignment="center", rotation=90)
    return figure


def _coloured(image: Image) -> Image:
    """Return the image with three channels."""
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _of_values(values: Values) -> Image:
    """Return the image of values (channel, height, width): -1 is black, 1 full colour, and values beyond are clipped."""
    return _coloured(np.round((np.moveaxis(values, 0, -1).clip(-1, 1) + 1) * 127.5).astype(np.uint8))


def _of_std(std: Values, white: float) -> Image:
    """Return the grey image of the root mean square over channels: 0 is black, and ``white`` is white."""
    return _of_values(2 * np.sqrt((std**2).mean(axis=0, keepdims=True)) / white - 1)


def _of_context(context: Values) -> Image:
    """Return the visible pixels, with hidden ones in grey; if no pixel is visible, the degraded image."""
    visible, degraded = context[-1][:, :, None] > 0, _of_values(context[:-1])
    return np.where(visible, degraded, np.uint8(HIDDEN)) if visible.any() else degraded
