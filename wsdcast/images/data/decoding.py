"""From files to arrays of one shape: what most images of a source are like, and why others cannot be used.

A source is gone through twice. The first time only what each file says of itself is read, which tells what most images are like; the
second time they are decoded. Both are done one image after the other: two threads are no faster on images as small as these (tried with
JPEGs of 178x218 pixels, 0.8 ms each).
"""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from wsdcast.images.data.archives import Content, shown
from wsdcast.images.data.sources import Entry, Source
from wsdcast.runs.errors import UserError

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""Of those that Pillow knows; some others start programs."""

CHANNELS = {"1": 1, "L": 1, "LA": 1, "La": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3, "RGBa": 3, "RGBX": 3}
"""By Pillow's mode, for images that are black and white or of 8 bits a channel. Colours from a palette become RGB, whatever they are."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the value of its EXIF tag Orientation; 1 is upright, others mean nothing (EXIF 2.3, section 4.6.4)."""

LEAST = 2
"""Pixels a side; fewer have no waves, of which power is scored."""

NAMED = 4
"""How many of the images that cannot be used an error names."""

Shape = tuple[int, int, int]
"""(height, width, channels)"""


def survey(source: Source, crop: int | None, size: int | None) -> tuple[int, Shape]:
    """How many images a source has, and the shape of most of them when cropped and resized.

    Args:
        source: of images.
        crop: pixels a side that are kept at the centre; None for all, or with ``size`` the largest square.
        size: pixels a side that this is resized to; None to leave it.

    Raises:
        UserError: if none can be used.
    """
    if source.known is not None:
        count, (height, width, channels) = source.known
        try:
            return count, (*_frame(width, height, crop, size)[1], channels)
        except ValueError as error:
            raise UserError(f"{source.name}: {error}") from None
    count, shapes, problems = 0, Counter[Shape](), list[str]()
    for entry in source.entries():
        count += 1
        try:
            with _opened(entry.data) as image:
                shapes[_shape(image, crop, size)] += 1
        except Exception as error:  # whatever a decoder meets in a damaged file
            if len(problems) < NAMED:
                problems.append(f"{shown(entry.name)}: {_reason(error)}")
    if not shapes:
        raise UserError(f"{source.name}: none of its {count} images can be used: {'; '.join(problems)}{'; ...' * (count > NAMED)}")
    return count, shapes.most_common(1)[0][0]


def decoded(
    source: Source, crop: int | None, size: int | None, shape: Shape, others: str
) -> Iterator[tuple[Entry, NDArray[np.uint8] | str]]:
    """Each image of a source as uint8 (height, width, channels), or why it cannot be used.

    The centre is cropped first (its upper left corner rounded down), as is usual for CelebA's aligned images of 178x218 pixels, where 140
    are kept and resized to 64 (``datasets.py`` of yang-song/score_sde_pytorch); resizing averages over what becomes one pixel (Pillow's
    bilinear filter, like theirs). Before all that an image is turned upright, as its EXIF data say.

    Args:
        source: of images.
        crop: as for :func:`survey`.
        size: as for :func:`survey`.
        shape: what all of them are to be like.
        others: who is like that, for the reason.
    """
    for entry in source.entries():
        yield entry, _decoded(entry.data, crop, size, shape, others)


def _decoded(data: NDArray[np.uint8] | Content, crop: int | None, size: int | None, shape: Shape, others: str) -> NDArray[np.uint8] | str:
    try:
        with _opened(data) as image:
            found = _shape(image, crop, size)
            if found != shape:
                return _difference(found, shape, others)
            image.load()  # all of it, so that a file that is cut short does not pass
            plain = _upright(_opaque(image))
            box, (height, width) = _frame(*plain.size, crop, size)
            return np.array(plain.crop(box).resize((width, height), Image.Resampling.BILINEAR)).reshape(shape)
    except Exception as error:  # as above
        return _reason(error)


@contextmanager
def _opened(data: NDArray[np.uint8] | Content) -> Iterator[Image.Image]:
    """An image of which nothing but the head has been read."""
    if isinstance(data, Exception):
        raise data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what else is odd about a file
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if isinstance(data, np.ndarray):
            yield Image.fromarray(data if data.shape[-1] == 3 else data[..., 0])
        else:
            with Image.open(data if isinstance(data, Path) else io.BytesIO(data), formats=FORMATS) as image:
                yield image


def _shape(image: Image.Image, crop: int | None, size: int | None) -> Shape:
    """Shape of an image when turned upright, cropped and resized, from its head.

    Raises:
        ValueError: if it is not one of at most 8 bits a channel, or too small.
    """
    # Of 16-bit colours Pillow says RGB and drops eight of the bits; it still knows what it decodes them from.
    if image.mode[0] in "IF" or any(re.search(";16[BLN]", str(tile[3])) for tile in getattr(image, "tile", [])):
        raise ValueError("has more than 8 bits a channel")
    if image.mode not in CHANNELS:
        raise ValueError(f"is neither greyscale nor RGB (Pillow's mode {image.mode}); convert it to RGB first")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # cameras' MPO are JPEGs with previews of themselves
        raise ValueError("has several frames")
    width, height = image.size
    # A square stays one however it is turned: its EXIF data, which can come after the pixels, are not looked for yet.
    if width != height and crop is None and size is None and _orientation(image) in (5, 6, 7, 8):
        width, height = height, width
    return (*_frame(width, height, crop, size)[1], CHANNELS[image.mode])


def _orientation(image: Image.Image) -> object:
    """The EXIF tag Orientation of an image as Pillow holds it; 1 (upright) where there is none or the EXIF data cannot be read."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever the parser of EXIF data meets in damaged ones
        return 1


def _upright(image: Image.Image) -> Image.Image:
    turn = UPRIGHT.get(_orientation(image))  # type: ignore[call-overload]
    return image if turn is None else image.transpose(turn)


def _opaque(image: Image.Image) -> Image.Image:
    """The image as greyscale or RGB without alpha channel.

    Raises:
        ValueError: if any pixel is not wholly opaque: what its colour would be depends on the background.
    """
    grey = CHANNELS[image.mode] == 1
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        least = image.getchannel("A").getextrema()[0]
        if least < 255:  # type: ignore[operator]
            raise ValueError(f"is transparent in places (alpha down to {least} of 255); put it on a background first")
    wanted = "L" if grey else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _frame(width: int, height: int, crop: int | None, size: int | None) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """What is kept of an image (left, upper, right, lower), and its height and width in the end.

    Raises:
        ValueError: if it is too small.
    """
    if crop is not None and min(width, height) < crop:
        raise ValueError(f"{width}x{height} pixels, smaller than the crop of {crop}")
    side = crop if crop is not None else min(width, height) if size is not None else None
    wide, high = (width, height) if side is None else (side, side)
    if min(wide, high) < LEAST:
        raise ValueError(f"{width}x{height} pixels; at least {LEAST}x{LEAST} are needed")
    left, upper = (width - wide) // 2, (height - high) // 2
    return (left, upper, left + wide, upper + high), (high, wide) if size is None else (size, size)


def _difference(found: Shape, shape: Shape, others: str) -> str:
    kinds = {1: "greyscale", 3: "colour"}
    if found[2] != shape[2]:
        return f"is {kinds[found[2]]}, {others} {kinds[shape[2]]}"
    return f"{found[1]}x{found[0]} pixels, {others} {shape[1]}x{shape[0]}"


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "damaged, or none of " + ", ".join(FORMATS)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels; a decompression bomb?"
    return shown(str(error)) or type(error).__name__
