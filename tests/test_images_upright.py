"""Images are read as viewers show them: turned upright, and without an alpha channel that is opaque everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_files import noise, prepare_images
from PIL import ExifTags, Image

from wsdcast.images.data.store import open_images
from wsdcast.runs.errors import UserError

SHOWN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}
"""From stored pixels (row, column) to those that a viewer shows, by the value of the tag Orientation (EXIF 2.3, section 4.6.4)."""


def prepared(directory: Path, **options: object) -> np.ndarray:
    prepare_images(directory / "out", str(directory / "images"), **options)  # type: ignore[arg-type]
    return open_images(directory / "out").images[:]


def write(directory: Path, images: list[Image.Image], suffix: str, **options: object) -> None:
    (directory / "images").mkdir()
    for number, image in enumerate(images):
        image.save(directory / "images" / f"{number:03d}.{suffix}", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_images_of_every_orientation_are_turned_upright(tmp_path, orientation, suffix):
    """Quarter turns exchange the sides. A JPEG is not exact, so only the place of its red corner is compared."""
    stored = noise(10, 8, 12, 3)
    if suffix == "jpg":
        stored[:], stored[:, :4, :4] = 0, (255, 0, 0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"exif": exif} | ({"lossless": True} if suffix == "webp" else {})
    write(tmp_path, [Image.fromarray(image) for image in stored], suffix, **options)
    result = prepared(tmp_path)
    expected = np.stack([SHOWN[orientation](image) for image in stored])
    assert result.shape == expected.shape
    if suffix == "jpg":
        np.testing.assert_array_equal(result[..., 0] > 128, expected[..., 0] > 128)
    else:
        assert sorted(image.tobytes() for image in result) == sorted(np.ascontiguousarray(image).tobytes() for image in expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
def test_opaque_images_of_other_modes_keep_their_colours(tmp_path, mode):
    images = [Image.fromarray(image).convert("L" if mode in ("LA", "1") else "RGB").convert(mode) for image in noise(10, 8, 8, 3)]
    expected = np.stack([np.array(image.convert("L" if mode in ("LA", "1") else "RGB")).reshape(8, 8, -1) for image in images])
    write(tmp_path, images, "png")
    result = prepared(tmp_path)
    assert sorted(image.tobytes() for image in result) == sorted(image.tobytes() for image in expected)


def test_one_pixel_that_is_not_opaque_is_refused_and_named(tmp_path):
    images = [Image.fromarray(image).convert("RGBA") for image in noise(10, 8, 8, 3)]
    images[3].putpixel((2, 5), (1, 2, 3, 254))
    write(tmp_path, images, "png")
    with pytest.raises(UserError, match=r"003\.png: is transparent in places \(alpha down to 254 of 255\)"):
        prepared(tmp_path)
