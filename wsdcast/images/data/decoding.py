"""Decode images into arrays of one shape, and say why an image cannot be used.

A source is read twice. The first time only the header of each file is read, to find the shape that most images have. The second time the
images are decoded. Both times images are read one after the other, because two threads are no faster for images of this size (tried
with JPEGs of 178x218 pixels, 0.8 ms each).
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
"""Formats that Pillow may decode. Some of its other formats start programs."""

CHANNELS = {"1": 1, "L": 1, "LA": 1, "La": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3, "RGBa": 3, "RGBX": 3}
"""Channels by Pillow's mode, for black and white images and those with 8 bits per channel. An image with a palette always becomes RGB."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns an image upright, by its EXIF tag Orientation. 1 is upright; other values are undefined (EXIF 2.3, 4.6.4)."""

SMALLEST_SIDE = 2
"""The fewest pixels per side. A smaller image has no waves, and the power spectrum is scored."""

PROBLEMS_SHOWN = 4
"""The number of unusable images that an error message names."""

Shape = tuple[int, int, int]
"""(height, width, channels)"""


def survey(source: Source, crop: int | None, size: int | None) -> tuple[int, Shape]:
    """Return the number of images of a source, and the shape that most of them have after cropping and resizing.

    Args:
        source: of images.
        crop: pixels per side of the centre crop. None keeps the whole image, or with ``size`` the largest square.
        size: pixels per side after resizing. None means no resizing.

    Raises:
        UserError: if no image can be used.
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
        except Exception as error:  # a decoder can raise anything for a damaged file
            if len(problems) < PROBLEMS_SHOWN:
                problems.append(f"{shown(entry.name)}: {_reason(error)}")
    if not shapes:
        raise UserError(f"{source.name}: none of its {count} images can be used: {'; '.join(problems)}{'; ...' * (count > PROBLEMS_SHOWN)}")
    return count, shapes.most_common(1)[0][0]


def decoded(
    source: Source, crop: int | None, size: int | None, shape: Shape, others: str
) -> Iterator[tuple[Entry, NDArray[np.uint8] | str]]:
    """Yield each image of a source as uint8 (height, width, channels), or the reason why it cannot be used.

    An image is first turned upright according to its EXIF data. Then the centre is cropped; its upper left corner is rounded down. This is
    usual for CelebA's aligned images of 178x218 pixels: 140 pixels are kept and resized to 64 (``datasets.py`` of
    yang-song/score_sde_pytorch). Resizing averages over the area of each new pixel (Pillow's bilinear filter, like that code).

    Args:
        others: which images have that shape, with the verb, for the reason: "most are".
    """
    for entry in source.entries():
        yield entry, _decoded(entry.data, crop, size, shape, others)


def _decoded(data: NDArray[np.uint8] | Content, crop: int | None, size: int | None, shape: Shape, others: str) -> NDArray[np.uint8] | str:
    try:
        with _opened(data) as image:
            own_shape = _shape(image, crop, size)
            if own_shape != shape:
                return _difference(own_shape, shape, others)
            image.load()  # decodes all pixels, so that a truncated file is an error
            plain = _upright(_opaque(image))
            box, (height, width) = _frame(*plain.size, crop, size)
            return np.array(plain.crop(box).resize((width, height), Image.Resampling.BILINEAR)).reshape(shape)
    except Exception as error:  # a decoder can raise anything for a damaged file
        return _reason(error)


@contextmanager
def _opened(data: NDArray[np.uint8] | Content) -> Iterator[Image.Image]:
    """Open an image. Only its header is read."""
    if isinstance(data, Exception):
        raise data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other oddities of a file do not matter
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if isinstance(data, np.ndarray):
            yield Image.fromarray(data if data.shape[-1] == 3 else data[..., 0])
        else:
            with Image.open(data if isinstance(data, Path) else io.BytesIO(data), formats=FORMATS) as image:
                yield image


def _shape(image: Image.Image, crop: int | None, size: int | None) -> Shape:
    """Return the shape that an image will have when it is turned upright, cropped and resized. Only its header is read.

    Raises:
        ValueError: if it has more than 8 bits per channel, several frames or an unknown mode, or is too small.
    """
    # Pillow reports images with 16 bits per colour as RGB, and drops eight of the bits. The tile still names the stored format.
    if image.mode[0] in "IF" or any(re.search(";16[BLN]", str(tile[3])) for tile in getattr(image, "tile", [])):
        raise ValueError("has more than 8 bits a channel")
    if image.mode not in CHANNELS:
        raise ValueError(f"is neither greyscale nor RGB (Pillow's mode {image.mode}); convert it to RGB first")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO files of cameras are JPEGs with previews as further frames
        raise ValueError("has several frames")
    width, height = image.size
    # Turning does not change the shape of a square, so its EXIF data are not read here; they can come after the pixels.
    if width != height and crop is None and size is None and _orientation(image) in (5, 6, 7, 8):
        width, height = height, width
    return (*_frame(width, height, crop, size)[1], CHANNELS[image.mode])


def _orientation(image: Image.Image) -> object:
    """Return the EXIF tag Orientation of an image; 1 (upright) if it is missing or the EXIF data cannot be read."""
    if image.format == "TIFF":  # Pillow turns TIFF images itself
        return 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the parser can raise anything for damaged EXIF data
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned upright according to its EXIF data."""
    turn = UPRIGHT.get(_orientation(image))  # type: ignore[call-overload]
    return image if turn is None else image.transpose(turn)


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image as greyscale or RGB without alpha channel.

    Raises:
        ValueError: if a pixel is not fully opaque, because its colour would depend on the background.
    """
    grey = CHANNELS[image.mode] == 1
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        lowest = image.getchannel("A").getextrema()[0]
        if lowest < 255:  # type: ignore[operator]
            raise ValueError(f"is transparent in places (alpha down to {lowest} of 255); put it on a background first")
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _frame(width: int, height: int, crop: int | None, size: int | None) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Return the box of an image that is kept, (left, upper, right, lower), and the final (height, width).

    Raises:
        ValueError: if the image is too small.
    """
    if crop is not None and min(width, height) < crop:
        raise ValueError(f"{width}x{height} pixels, smaller than the crop of {crop}")
    wide, high = width, height
    if crop is not None:
        wide = high = crop
    elif size is not None:
        wide = high = min(width, height)
    if min(wide, high) < SMALLEST_SIDE:
        raise ValueError(f"{width}x{height} pixels; at least {SMALLEST_SIDE}x{SMALLEST_SIDE} are needed")
    left, upper = (width - wide) // 2, (height - high) // 2
    return (left, upper, left + wide, upper + high), (high, wide) if size is None else (size, size)


def _difference(own: Shape, shape: Shape, others: str) -> str:
    """Return in words how the shape of an image differs from that of the others."""
    kinds = {1: "greyscale", 3: "colour"}
    if own[2] != shape[2]:
        return f"is {kinds[own[2]]}, {others} {kinds[shape[2]]}"
    return f"{own[1]}x{own[0]} pixels, {others} {shape[1]}x{shape[0]}"


def _reason(error: Exception) -> str:
    """Return in words why an image cannot be decoded."""
    if isinstance(error, UnidentifiedImageError):
        return "damaged, or none of " + ", ".join(FORMATS)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels; a decompression bomb?"
    return shown(str(error)) or type(error).__name__
