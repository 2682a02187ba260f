"""Images and arrays that cannot be used: each is named with its reason."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import as_set, encoded, folder_of, most_memory, noise, prepare_images, tar_of, zip_of
from PIL import Image

from wsdcast.images.data.store import open_images
from wsdcast.runs.errors import UserError


def bad_images() -> dict[str, tuple[bytes, str]]:
    image = noise(1, 8, 8, 3)[0]
    good = encoded(image)
    deep = encoded(Image.new("I;16", (8, 8)))
    animated = encoded(Image.fromarray(image), "WEBP", save_all=True, append_images=[Image.fromarray(255 - image)])
    return {
        "truncated.png": (good[:-60], "truncated"),
        "truncated.jpg": (encoded(noise(1, 8, 8, 3)[0], "JPEG")[:-100], "[Tt]runcated"),
        "corrupt.png": (b"\x89PNG but not really", "damaged, or none of"),
        "empty.png": (b"", "damaged, or none of"),
        "grey.png": (encoded(image[..., 0]), "is greyscale, most are colour"),
        "alpha.png": (encoded(np.dstack([image, image[..., :1]])), "is transparent in places"),
        "grey-alpha.png": (encoded(Image.new("LA", (8, 8))), "is greyscale, most are colour"),
        "key.png": (encoded(Image.fromarray(image), transparency=tuple(image[3, 4].tolist())), "is transparent in places"),
        "deep.png": (deep, "more than 8 bits"),
        "deep-colour.png": (deep_colour(), "more than 8 bits"),
        "float.tif": (encoded(Image.new("F", (8, 8)), "TIFF"), "more than 8 bits"),
        "bits.png": (encoded(Image.new("1", (8, 8))), "is greyscale, most are colour"),
        "cmyk.jpg": (encoded(Image.new("CMYK", (8, 8)), "JPEG"), "neither greyscale nor RGB"),
        "animated.webp": (animated, "several frames"),
        "wide.png": (encoded(noise(1, 8, 9, 3)[0]), "9x8 pixels, most are 8x8"),
    }


def deep_colour() -> bytes:
    """Return a PNG of 8x8 pixels with 16 bits for each channel. Pillow reads such files but does not write them."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes(8 * (1 + 8 * 6)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", bad_images())
def test_a_bad_image_is_named_with_its_reason(tmp_path, name):
    content, reason = bad_images()[name]
    folder = folder_of(tmp_path / "a", noise(20, 8, 8, 3))
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"a: 1 of 21 images cannot be used: {name}: .*({reason}).* \(--skip-bad") as caught:
        prepare_images(tmp_path / "out", folder)
    assert "\n" not in str(caught.value)
    facts = prepare_images(tmp_path / "skipped", folder, skip_bad=True)
    assert facts["left out"].startswith(f"1: {name}: ")
    prepared = open_images(tmp_path / "skipped")
    assert as_set(prepared.images) == as_set(noise(20, 8, 8, 3))
    assert prepared.about["skipped"][0].startswith(name)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_all_bad_images_are_counted_and_the_first_are_named(tmp_path, kind):
    members = {f"{number:03}.png": encoded(image) for number, image in enumerate(noise(20, 8, 8, 3))}
    members |= {f"bad{number}.png": b"nothing" for number in range(6)}
    path = tmp_path / f"a.{kind}"
    if kind == "folder":
        path.mkdir()
        for name, content in members.items():
            (path / name).write_bytes(content)
    else:
        (zip_of if kind == "zip" else tar_of)(path, members)
    with pytest.raises(UserError, match=r"6 of 26 images cannot be used: bad0.*; bad3[^;]*; \.\.\. \(--skip-bad"):
        prepare_images(tmp_path / "out", path)
    facts = prepare_images(tmp_path / "skipped", path, skip_bad=True)
    assert [f"bad{number}" in facts["left out"] for number in range(6)] == [True] * 6


def test_images_smaller_than_the_crop_are_refused(tmp_path):
    folder = folder_of(tmp_path / "a", noise(10, 12, 12, 3))
    (folder / "small.png").write_bytes(encoded(noise(1, 6, 12, 3)[0]))
    with pytest.raises(UserError, match=r"1 of 11 .* small.png: 12x6 pixels, smaller than the crop of 8"):
        prepare_images(tmp_path / "out", folder, crop=8, size=4)
    with pytest.raises(UserError, match=r"none of its 11 images can be used: 000.png: 12x12 pixels, smaller than the crop of 14"):
        prepare_images(tmp_path / "out", folder, crop=14)
    np.savez(tmp_path / "a.npz", images=noise(10, 12, 12, 3))
    with pytest.raises(UserError, match=r"a.npz: 12x12 pixels, smaller than the crop of 14"):
        prepare_images(tmp_path / "out", tmp_path / "a.npz", crop=14)


@pytest.mark.parametrize("size", [None, 16])
def test_images_of_one_row_or_column_are_refused(tmp_path, size):
    np.savez(tmp_path / "a.npz", images=noise(20, 1, 9, 3))
    with pytest.raises(UserError, match=r"a.npz: 9x1 pixels; at least 2x2 are needed"):
        prepare_images(tmp_path / "out", tmp_path / "a.npz", size=size)
    folder = folder_of(tmp_path / "a", noise(10, 9, 1, 3))
    with pytest.raises(UserError, match=r"a: none of its 10 images can be used: 000.png: 1x9 pixels; at least 2x2"):
        prepare_images(tmp_path / "out", folder, size=size)


def test_a_decompression_bomb_is_an_error(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "a", noise(10, 8, 8, 3))
    (folder / "bomb.png").write_bytes(encoded(Image.new("RGB", (16, 16))))
    (folder / "larger.png").write_bytes(encoded(Image.new("RGB", (32, 32))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # Pillow only warns up to twice this number
    with pytest.raises(UserError, match=r"2 of 12 images .*bomb.png: too many pixels; .*larger.png: too many pixels"):
        prepare_images(tmp_path / "out", folder, size=8)


def test_control_characters_in_a_name_are_not_printed(tmp_path):
    members = {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 8, 8, 3))} | {"a\n\x1b[2Jb.png": b""}
    with pytest.raises(UserError, match=r"a\?\?\[2Jb.png: damaged") as caught:
        prepare_images(tmp_path / "out", tar_of(tmp_path / "a.tar", members))
    assert str(caught.value).isprintable()


def test_an_array_that_announces_a_long_header_is_not_read(tmp_path):
    header = b"\x93NUMPY\x02\x00" + (200 << 20).to_bytes(4, "little") + bytes(200)
    path = zip_of(tmp_path / "a.npz", {"images.npy": header})
    with pytest.raises(UserError, match=r"a.npz: not an npz file of arrays, damaged or cut short \(array format \(2, 0\)"):
        prepare_images(tmp_path / "out", path)


def test_paths_without_images_are_refused(tmp_path):
    for path, reason in {
        tmp_path / "absent": "absent: does not exist; give",
        tmp_path / "empty": r"empty: no images in it \(files that end in .bmp",
        tmp_path / "text.txt": "text.txt: neither a folder nor an npz file nor an archive",
        tmp_path / "cut.tar.gz": "cut.tar.gz: neither a folder nor an npz file nor an archive",
    }.items():
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "text.txt").write_text("words")
        (tmp_path / "cut.tar.gz").write_bytes(b"\x1f\x8b\x08\0\0\0")
        with pytest.raises(UserError, match=reason):
            prepare_images(tmp_path / "out", path)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros((3, 4, 4, 3))}, r"images is float64 \(3, 4, 4, 3\); it must be uint8"),
        ({"images": np.zeros((3, 4, 4), np.uint8)}, r"images is uint8 \(3, 4, 4\); it must be uint8"),
        ({"images": np.zeros((3, 4, 4, 4), np.uint8)}, r"\(3, 4, 4, 4\); it must be uint8"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, r"\(0, 4, 4, 3\); it must be uint8"),
        ({"images": np.asfortranarray(np.zeros((3, 4, 4, 3), np.uint8))}, "in column order"),
        ({"images": np.array([{"a": 1}])}, r"images is object \(1,\)"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": np.array([{}, 1, 2])}, r"labels are object \(3,\); they must be"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": np.zeros(2, int)}, r"labels are int64 \(2,\); they must be one"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": np.zeros(3)}, "labels are float64"),
        ({"a": np.zeros((3, 4, 4, 3), np.uint8), "b": np.zeros((3, 4, 4, 3), np.uint8)}, "needs an array named images, or exactly one"),
        ({"a": np.zeros(3)}, "needs an array named images, or exactly one with four axes; has a"),
    ],
)
def test_an_npz_with_other_arrays_is_refused(tmp_path, arrays, reason):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=reason) as caught:
        prepare_images(tmp_path / "out", tmp_path / "a.npz")
    assert str(caught.value).startswith(str(tmp_path / "a.npz"))


def test_a_damaged_npz_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=noise(30, 8, 8, 3))
    whole = path.read_bytes()
    for content in (b"", b"words", whole[: len(whole) // 2], whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a.npz: not an npz file of arrays, damaged or cut short"):
            prepare_images(tmp_path / "out", path)
    zip_of(path, {"images.npy": b"no array"})
    with pytest.raises(UserError, match=r"a.npz: not an npz file of arrays"):
        prepare_images(tmp_path / "out", path)


def test_labels_that_do_not_match_the_images_are_never_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=noise(30, 8, 8, 3), labels=np.zeros(20_000_000, np.int8))

    def refused() -> None:
        with pytest.raises(UserError, match=r"a.npz: labels are int8 \(20000000,\); they must be one whole number for each of 30 images"):
            prepare_images(tmp_path / "out", tmp_path / "a.npz")

    assert most_memory(refused) < 5_000_000
