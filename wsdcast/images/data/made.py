"""Images made on the spot that have the statistics of natural ones: dead leaves.

Leaves of one kind (discs, squares, triangles or bars) lie on one another, their radii r distributed as r^-3, so that no scale stands out
(Lee, Mumford & Huang 2001, "Occlusion models for natural images", IJCV 41). Their colours vary most in lightness, less between orange and
blue and least between green and magenta, as in photographs (Ohta, Kanade & Sakai 1980, "Color information for region segmentation", CGIP
13), and so do whole images. Leaves stand upright but for a little, as things under gravity do; each is lit from above and has a
texture with a power spectrum of about k^-2, whose grain is that of its kind: even, along rows, along columns or finer. What is to be
learned: edges, occlusion, texture, light, and the kind, which is the label.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

KINDS = ("discs", "squares", "triangles", "bars")
# Of each kind: how much longer its grain is along rows than along columns, and the exponent of its spectrum's root.
GRAINS = ((1.0, 1.0), (4.0, 1.0), (0.25, 1.0), (1.0, 0.3))

LEAVES = 90  # at most 256, so that a byte says which leaf is seen; fewer leave holes
SMALLEST, LARGEST = 0.07, 2.0  # radius of a leaf, in sides of the image; that of a disc of the same area
FINER = 2  # drawn with so many times the pixels, then averaged

# Lightness, orange to blue, magenta to green: in RGB, and how far a leaf and a whole image depart in each (of 255).
AXES = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
OF_LEAF, OF_IMAGE = np.array([85, 22, 9]), np.array([45, 25, 8])
MEAN = np.array([122, 118, 108])
LIGHT, TEXTURE = 22, 14  # of 255
MEMORY = 450  # bytes for each of an image's pixels while it is made; 384 to 445 were measured
TILT = 0.15  # standard deviation, radians

# Radii of the leaves that touch the image, and the share of them that are smaller: density r^-3, times the area (1 + 2r)^2 in which their
# centres may be.
RADII = np.geomspace(SMALLEST, LARGEST, 400)
SHARES = np.cumsum(RADII**-3 * (1 + 2 * RADII) ** 2 * np.gradient(RADII))

Real = NDArray[np.float64]


def made_image(number: int, seed: int, size: int = 32) -> tuple[NDArray[np.uint8], int]:
    """An image of dead leaves and its kind.

    Args:
        number: which of the images with this seed.
        seed: of all that is random.
        size: pixels a side.

    Returns:
        uint8 (size, size, 3), and the number of its kind in :data:`KINDS`.
    """
    random = np.random.default_rng([seed, number])
    kind = int(random.integers(len(KINDS)))
    side = FINER * size
    radius = side * np.interp(random.uniform(SHARES[0], SHARES[-1], LEAVES), SHARES, RADII)
    # Only leaves that can be seen, that is with centres no farther from the image than their radius.
    centre = random.uniform(-radius, side + radius, (2, LEAVES))
    seen = _drawn(kind, centre, radius, random.normal(0, TILT, LEAVES), side)

    colour = MEAN + (random.normal(size=3) * OF_IMAGE + random.normal(size=(LEAVES, 3)) * OF_LEAF) @ AXES
    rows, columns = np.mgrid[:side, :side]
    light = np.clip((centre[1][seen] - rows) / radius[seen], -1, 1)
    shift = random.integers(0, side, (2, LEAVES))
    roughness = random.exponential(TEXTURE, LEAVES)
    texture = _texture(random, side, *GRAINS[kind])[(rows + shift[0][seen]) % side, (columns + shift[1][seen]) % side]
    lightness = LIGHT * light + roughness[seen] * texture
    fine = colour[seen] + lightness[..., None]
    image = Image.fromarray(np.clip(fine, 0, 255).astype(np.uint8)).reduce(FINER)
    return np.asarray(image), kind


def _drawn(kind: int, centre: Real, radius: Real, angle: Real, side: int) -> NDArray[np.uint8]:
    """Which leaf is seen at each pixel, (side, side); the first lies at the bottom and fills what no other covers."""
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
    """Corners of a leaf of the area of the unit disc, (corner, 2)."""
    if KINDS[kind] == "triangles":
        around = 2 * math.pi * np.arange(3) / 3 - math.pi / 2  # one corner up
        return math.sqrt(4 * math.pi / (3 * math.sqrt(3))) * np.stack([np.cos(around), np.sin(around)], 1)
    length = 1 if KINDS[kind] == "squares" else 4  # of the sides, in widths
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * math.sqrt(math.pi) / 2 * [math.sqrt(length), 1 / math.sqrt(length)]


def _turned(corners: Real, angle: Real) -> Real:
    """By each angle: (angle, corner, 2)."""
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
    return np.einsum("aij,cj->aci", turn, corners)


def _texture(random: np.random.Generator, side: int, length: float, exponent: float) -> Real:
    """Periodic noise of unit variance, (side, side), of amplitudes k^-exponent, ``length`` times as long along rows as along columns."""
    noise = np.fft.irfft2(np.fft.rfft2(random.normal(size=(side, side))) / _wavenumber(side, length) ** exponent, (side, side))
    return noise / noise.std()


@cache
def _wavenumber(side: int, length: float) -> Real:
    wavenumber = np.hypot(np.fft.fftfreq(side)[:, None] / math.sqrt(length), np.fft.rfftfreq(side) * math.sqrt(length))
    wavenumber[0, 0] = np.inf  # no mean
    return wavenumber
