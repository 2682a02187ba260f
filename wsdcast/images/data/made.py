"""Generated images with the statistics of natural images: dead leaves.

Leaves of one kind (discs, squares, triangles or bars) cover one another. The density of their radii r is r^-3, so that no scale stands
out (Lee, Mumford & Huang 2001, "Occlusion models for natural images", IJCV 41). Colours vary most in lightness, less between orange and
blue, and least between green and magenta, as in photographs (Ohta, Kanade & Sakai 1980, "Color information for region segmentation", CGIP
13). This holds for the leaves of an image, and for the mean colours of images. Leaves are tilted only a little, like things under gravity.
Each is lit from above and has a texture with a power spectrum of about k^-2. The grain of the texture depends on the kind: even, along
rows, along columns or finer. A network has to learn edges, occlusion, texture, light and the kind, which is the label.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

KINDS = ("discs", "squares", "triangles", "bars")
# For each kind: the length of the grain along rows over that along columns, and the exponent p of the texture's amplitudes k^-p.
GRAINS = ((1.0, 1.0), (4.0, 1.0), (0.25, 1.0), (1.0, 0.3))

LEAVES = 90  # at most 256, since a byte holds the number of the visible leaf; with fewer leaves there are holes
SMALLEST, LARGEST = 0.07, 2.0  # radius of a leaf (of a disc with the same area), in sides of the image
FINER = 2  # images are drawn with this many times the pixels per side, then averaged

# Axes in RGB: lightness, orange to blue, magenta to green. Then the standard deviations of leaves and of whole images along them (of 255).
AXES = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
OF_LEAF, OF_IMAGE = np.array([85, 22, 9]), np.array([45, 25, 8])
MEAN = np.array([122, 118, 108])
LIGHT, TEXTURE = 22, 14  # of 255
MEMORY = 450  # bytes per pixel of an image while it is made; 384 to 445 were measured
TILT = 0.15  # standard deviation of the leaves' angle, radians

# Radii of the leaves that touch the image, and the cumulative distribution of these radii (not normalised). Its density is r^-3 times the
# area (1 + 2r)^2 in which the centre can lie.
RADII = np.geomspace(SMALLEST, LARGEST, 400)
SHARES = np.cumsum(RADII**-3 * (1 + 2 * RADII) ** 2 * np.gradient(RADII))

Real = NDArray[np.float64]


def made_image(number: int, seed: int, size: int) -> tuple[NDArray[np.uint8], int]:
    """Return the image ``number`` of those with a seed, uint8 (size, size, 3), and the index of its kind in :data:`KINDS`."""
    random = np.random.default_rng([seed, number])
    kind = int(random.integers(len(KINDS)))
    side = FINER * size
    radius = side * np.interp(random.uniform(SHARES[0], SHARES[-1], LEAVES), SHARES, RADII)
    # A centre is at most one radius away from the image: other leaves could not be visible.
    centre = random.uniform(-radius, side + radius, (2, LEAVES))
    leaf = _drawn(kind, centre, radius, random.normal(0, TILT, LEAVES), side)

    colour = MEAN + (random.normal(size=3) * OF_IMAGE + random.normal(size=(LEAVES, 3)) * OF_LEAF) @ AXES
    rows, columns = np.mgrid[:side, :side]
    light = np.clip((centre[1][leaf] - rows) / radius[leaf], -1, 1)
    shift = random.integers(0, side, (2, LEAVES))
    roughness = random.exponential(TEXTURE, LEAVES)
    texture = _texture(random, side, *GRAINS[kind])[(rows + shift[0][leaf]) % side, (columns + shift[1][leaf]) % side]
    lightness = LIGHT * light + roughness[leaf] * texture
    fine = colour[leaf] + lightness[..., None]
    image = Image.fromarray(np.clip(fine, 0, 255).astype(np.uint8)).reduce(FINER)
    return np.asarray(image), kind


def _drawn(kind: int, centre: Real, radius: Real, angle: Real, side: int) -> NDArray[np.uint8]:
    """Return the number of the leaf that is visible at each pixel, (side, side). Leaf 0 fills the background."""
    canvas = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    if KINDS[kind] == "discs":
        for leaf, box in enumerate(np.concatenate([centre - radius, centre + radius]).T.tolist()):
            draw.ellipse(box, fill=leaf)
    else:
        corners = centre.T[:, None] + radius[:, None, None] * _turned(_corners(kind), angle)
        for leaf, polygon in enumerate(corners.reshape(LEAVES, -1).tolist()):
            draw.polygon(polygon, fill=leaf)
    return np.asarray(canvas)


def _corners(kind: int) -> Real:
    """Return the corners of a leaf with the area of the unit disc, (corner, 2)."""
    if KINDS[kind] == "triangles":
        direction = 2 * math.pi * np.arange(3) / 3 - math.pi / 2  # one corner points up
        return math.sqrt(4 * math.pi / (3 * math.sqrt(3))) * np.stack([np.cos(direction), np.sin(direction)], 1)
    length = 1 if KINDS[kind] == "squares" else 4  # length over width
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * math.sqrt(math.pi) / 2 * [math.sqrt(length), 1 / math.sqrt(length)]


def _turned(corners: Real, angle: Real) -> Real:
    """Return the corners turned by each angle, (angle, corner, 2)."""
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
    return np.einsum("aij,cj->aci", turn, corners)


def _texture(random: np.random.Generator, side: int, length: float, exponent: float) -> Real:
    """Return periodic noise of unit variance, (side, side), with amplitudes k^-exponent; ``length`` as in :data:`GRAINS`."""
    noise = np.fft.irfft2(np.fft.rfft2(random.normal(size=(side, side))) / _wavenumber(side, length) ** exponent, (side, side))
    return noise / noise.std()


@cache
def _wavenumber(side: int, length: float) -> Real:
    """Return the wavenumber of each Fourier coefficient of :func:`_texture`, infinite for the mean, whose amplitude becomes 0."""
    wavenumber = np.hypot(np.fft.fftfreq(side)[:, None] / math.sqrt(length), np.fft.rfftfreq(side) * math.sqrt(length))
    wavenumber[0, 0] = np.inf
    return wavenumber
