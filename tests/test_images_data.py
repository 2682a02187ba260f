"""Images as data: sources, what is wrong with them, made images, and the prepared file."""

from __future__ import annotations

import io
import json
import socket
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from PIL import Image
from servers import serve

from wsdcast.errors import UserError
from wsdcast.images import cifar, decoding
from wsdcast.images.decoding import decoded, survey
from wsdcast.images.made import KINDS, made_images
from wsdcast.images.sources import Entry, Source, open_source
from wsdcast.images.store import open_images, prepare_images

CIFAR10 = SHARED / "cifar10"
needs_cifar10 = pytest.mark.skipif(not CIFAR10.is_dir(), reason="CIFAR-10 is not part of the repository; expected in ../shared/data")


def noise(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def folder_of(path: Path, images: np.ndarray) -> Path:
    path.mkdir(parents=True)
    for number, image in enumerate(images):
        (path / f"{number:03}.png").write_bytes(encoded(image))
    return path


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read(path: Path, crop: int | None = None, size: int | None = None) -> tuple[list[Entry], list[np.ndarray | str]]:
    source = open_source(path, 0)
    pairs = list(decoded(source, crop, size, survey(source, crop, size)[1], "most are"))
    return [entry for entry, _ in pairs], [image for _, image in pairs]


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


# Sources


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_in_pieces_with_its_labels(tmp_path, channels, save):
    images, labels = noise(600, 4, 5, channels), np.arange(600) % 7
    save(tmp_path / "a.npz", images=images, labels=labels[:, None], other=np.zeros((2, 2, 2, 2)))
    entries, found = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(np.stack(found), images)
    assert [entry.label for entry in entries] == labels.tolist()


def test_the_only_array_with_four_axes_is_the_images(tmp_path):
    images = noise(3, 4, 4, 3)
    np.savez(tmp_path / "a.npz", arr_0=images, arr_1=np.zeros(3))
    entries, found = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(np.stack(found), images)
    assert entries[0].label is None


def test_folder_zip_and_tar_give_the_same_images(tmp_path):
    images = noise(6, 8, 8, 3)
    folder = folder_of(tmp_path / "folder" / "below", images).parent
    (folder / "README.txt").write_text("not an image")
    (folder / "._000.png").write_text("what systems leave there")
    members = {f"below/{number:03}.png": encoded(image) for number, image in enumerate(images)} | {"__MACOSX/0.png": b"", "a.txt": b""}
    shuffled = dict(reversed(members.items()))
    for path in (folder, zip_of(tmp_path / "a.zip", shuffled), tar_of(tmp_path / "a.tar", members), tar_of(tmp_path / "a.tar.gz", members)):
        entries, found = read(path)
        np.testing.assert_array_equal(np.stack(found), images)
        assert [entry.name for entry in entries] == [f"below/{number:03}.png" for number in range(6)]


def test_a_tar_of_any_length_is_forgotten_as_it_is_read(tmp_path, monkeypatch):
    kept = []
    following = tarfile.TarFile.next
    monkeypatch.setattr(tarfile.TarFile, "next", lambda archive: (kept.append(len(archive.members)), following(archive))[1])
    image = encoded(noise(1, 4, 4, 3)[0])
    read(tar_of(tmp_path / "a.tar", {f"{number}.png": image for number in range(50)}))
    assert len(kept) > 100
    assert max(kept) <= 1


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
def test_images_are_opened_one_at_a_time(tmp_path, kind, monkeypatch):
    members = {f"{number}.png": encoded(image) for number, image in enumerate(noise(40, 4, 4, 3))}
    folder = folder_of(tmp_path / "folder", noise(40, 4, 4, 3))
    path = {"folder": folder, "zip": zip_of(tmp_path / "a.zip", members), "tar.gz": tar_of(tmp_path / "a.tar.gz", members)}[kind]
    source, seen = open_source(path, 0), []
    opening = Image.open
    monkeypatch.setattr(decoding.Image, "open", lambda *args, **options: (seen.append(1), opening(*args, **options))[1])
    images = decoded(source, None, None, (4, 4, 3), "most are")
    assert not seen
    next(images)
    assert len(seen) == 1
    images.close()


def test_crop_and_size_are_those_of_pillow(tmp_path):
    # As the field does with CelebA: of 178x218 pixels the 140x140 at (19, 39), then 64x64.
    image = noise(1, 218, 178, 3)[0]
    folder = folder_of(tmp_path / "a", image[None])
    whole = Image.fromarray(image)
    (found,) = read(folder, crop=140, size=64)[1]
    np.testing.assert_array_equal(found, np.asarray(whole.crop((19, 39, 159, 179)).resize((64, 64), Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(read(folder, crop=140)[1][0], image[39:179, 19:159])
    square = whole.crop((0, 20, 178, 198))
    np.testing.assert_array_equal(read(folder, size=89)[1][0], np.asarray(square.resize((89, 89), Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(read(folder)[1][0], image)


def test_palettes_and_other_formats(tmp_path):
    images = noise(1, 16, 16, 3)
    folder = folder_of(tmp_path / "a", images)
    plain = Image.fromarray(images[0])
    palette = plain.quantize(200)
    (folder / "b.png").write_bytes(encoded(palette))
    (folder / "c.BMP").write_bytes(encoded(plain, "BMP"))
    (folder / "d.tif").write_bytes(encoded(plain, "TIFF", compression="tiff_lzw"))
    (folder / "e.webp").write_bytes(encoded(plain, "WEBP", lossless=True))
    found = read(folder)[1]
    for number in (0, 2, 3, 4):
        np.testing.assert_array_equal(found[number], images[0])
    np.testing.assert_array_equal(found[1], np.asarray(palette.convert("RGB")))


# What is wrong with images


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
        "alpha.png": (encoded(np.dstack([image, image[..., :1]])), "has an alpha channel"),
        "grey-alpha.png": (encoded(Image.new("LA", (8, 8))), "has an alpha channel"),
        "key.png": (encoded(Image.fromarray(image), transparency=(0, 0, 0)), "has an alpha channel"),
        "deep.png": (deep, "more than 8 bits"),
        "deep-colour.png": (deep_colour(), "more than 8 bits"),
        "float.tif": (encoded(Image.new("F", (8, 8)), "TIFF"), "more than 8 bits"),
        "bits.png": (encoded(Image.new("1", (8, 8))), "neither greyscale nor RGB"),
        "cmyk.jpg": (encoded(Image.new("CMYK", (8, 8)), "JPEG"), "neither greyscale nor RGB"),
        "animated.webp": (animated, "several frames"),
        "wide.png": (encoded(noise(1, 8, 9, 3)[0]), "9x8 pixels, most are 8x8"),
    }


def deep_colour() -> bytes:
    """A PNG of 8x8 pixels with 16 bits a channel, which Pillow reads but does not write."""
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


def test_smaller_than_the_crop(tmp_path):
    folder = folder_of(tmp_path / "a", noise(10, 12, 12, 3))
    (folder / "small.png").write_bytes(encoded(noise(1, 6, 12, 3)[0]))
    with pytest.raises(UserError, match=r"1 of 11 .* small.png: 12x6 pixels, smaller than the crop of 8"):
        prepare_images(tmp_path / "out", folder, crop=8, size=4)
    with pytest.raises(UserError, match=r"none of its 11 images can be used: 000.png: 12x12 pixels, smaller than the crop of 14"):
        prepare_images(tmp_path / "out", folder, crop=14)
    np.savez(tmp_path / "a.npz", images=noise(10, 12, 12, 3))
    with pytest.raises(UserError, match=r"a.npz: 12x12 pixels, smaller than the crop of 14"):
        prepare_images(tmp_path / "out", tmp_path / "a.npz", crop=14)


def test_a_decompression_bomb_is_an_error(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "a", noise(10, 8, 8, 3))
    (folder / "bomb.png").write_bytes(encoded(Image.new("RGB", (16, 16))))
    (folder / "larger.png").write_bytes(encoded(Image.new("RGB", (32, 32))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # of which Pillow would only warn up to 400
    with pytest.raises(UserError, match=r"2 of 12 images .*bomb.png: too many pixels; .*larger.png: too many pixels"):
        prepare_images(tmp_path / "out", folder, size=8)


def test_a_name_cannot_break_the_line(tmp_path):
    members = {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 8, 8, 3))} | {"a\n\x1b[2Jb.png": b""}
    with pytest.raises(UserError, match=r"a\?\?\[2Jb.png: damaged") as caught:
        prepare_images(tmp_path / "out", tar_of(tmp_path / "a.tar", members))
    assert str(caught.value).isprintable()


def test_what_is_wrong_with_members_of_a_zip(tmp_path):
    members = {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 8, 8, 3))}
    content = bytearray(zip_of(tmp_path / "a.zip", members).read_bytes())
    content[content.index(b"IDAT") + 10] ^= 255
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"1 of 10 images cannot be used: 0.png: Bad CRC-32"):
        prepare_images(tmp_path / "out", tmp_path / "a.zip")


# What is wrong with archives and folders


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "b/../../a.png", "..\\a.png", "C:\\a.png", "C:/a.txt"])
@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_an_archive_that_climbs_out_is_refused(tmp_path, name, make):
    images = {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 8, 8, 3))}
    path = make(tmp_path / "a.archive", images | {name: b"x"})
    with pytest.raises(UserError, match=r"a.archive: member .* climbs out of the archive's folder"):
        prepare_images(tmp_path / "out", path, skip_bad=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tar_with_links_or_devices_is_refused(tmp_path, kind):
    path = tar_of(tmp_path / "a.tar", {"0.png": encoded(noise(1, 8, 8, 3)[0])})
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("link.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(UserError, match=r"a.tar: member link.png is a link or a device"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


def test_a_zip_with_links_is_refused(tmp_path):
    path = zip_of(tmp_path / "a.zip", {"0.png": encoded(noise(1, 8, 8, 3)[0])})
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo("link.png")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(UserError, match=r"a.zip: member link.png is a link"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_that_is_cut_short(tmp_path, name):
    path = tar_of(tmp_path / name, {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 64, 64, 3))})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"{name}: cannot be read, damaged or cut short"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


def test_a_member_that_claims_to_be_huge_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("wsdcast.images.archives.LARGEST", 2**20)
    members = {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 8, 8, 3))} | {"huge.png": bytes(2**20 + 1)}
    for path in (zip_of(tmp_path / "a.zip", members), tar_of(tmp_path / "a.tar.gz", members)):
        with pytest.raises(UserError, match=r"1 of 11 images cannot be used: huge.png: larger than 1 MiB"):
            prepare_images(tmp_path / "out", path)


def test_sources_that_are_none(tmp_path):
    for path, reason in {
        tmp_path / "absent": "absent: is not there; give",
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
        ({"images": np.zeros((3, 4, 4, 3))}, r"images is float64 \(3, 4, 4, 3\); wanted are uint8"),
        ({"images": np.zeros((3, 4, 4), np.uint8)}, r"images is uint8 \(3, 4, 4\); wanted"),
        ({"images": np.zeros((3, 4, 4, 4), np.uint8)}, r"\(3, 4, 4, 4\); wanted"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, r"\(0, 4, 4, 3\); wanted"),
        ({"images": np.asfortranarray(np.zeros((3, 4, 4, 3), np.uint8))}, "in column order"),
        ({"images": np.array([{"a": 1}])}, r"images is object \(1,\)"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": np.array([{}, 1, 2])}, "a.npz: .*Object arrays"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": np.zeros(2, int)}, r"labels are int64 \(2,\); wanted is one whole number"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": np.zeros(3)}, "labels are float64"),
        ({"a": np.zeros((3, 4, 4, 3), np.uint8), "b": np.zeros((3, 4, 4, 3), np.uint8)}, "neither an array named images nor just one"),
        ({"a": np.zeros(3)}, "neither an array named images nor just one with four axes among a"),
    ],
)
def test_an_npz_of_something_else(tmp_path, arrays, reason):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=reason) as caught:
        prepare_images(tmp_path / "out", tmp_path / "a.npz")
    assert str(caught.value).startswith(str(tmp_path / "a.npz"))


def test_a_damaged_npz(tmp_path):
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


# CIFAR-10


def cifar_members(count: int = 4) -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, list[int]]]]:
    """Records written pixel by pixel, and the images and labels that they are of."""
    members, truth = {}, {}
    for number, name in enumerate((*cifar.TRAINING, cifar.TEST)):
        images = noise(count, 32, 32, 3, seed=number)
        labels = [(number + record) % 10 for record in range(count)]
        content = bytearray()
        for image, label in zip(images, labels, strict=True):
            content.append(label)
            for channel in range(3):
                for row in range(32):
                    content.extend(int(image[row, column, channel]) for column in range(32))
        members[f"cifar-10-batches-bin/{name}"] = bytes(content)
        truth[name] = (images, labels)
    return members | {"cifar-10-batches-bin/readme.html": b"", "cifar-10-batches-bin/batches.meta.txt": b""}, truth


@pytest.mark.parametrize("kind", ["folder", "parent", "tar.gz", "zip"])
def test_cifar_records(tmp_path, kind):
    members, truth = cifar_members()
    path = tmp_path / f"a.{kind}"
    if kind in ("folder", "parent"):
        for name, content in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        path = path / "cifar-10-batches-bin" if kind == "folder" else path
    else:
        (tar_of if kind == "tar.gz" else zip_of)(path, members)
    facts = prepare_images(tmp_path / "out", path)
    prepared = open_images(tmp_path / "out")
    assert facts["images"] == "18 for training, 2 for validation, 4 for testing"
    assert facts["kinds"] == 9
    expected = {image.tobytes(): label for images, labels in truth.values() for image, label in zip(images, labels, strict=True)}
    found = {image.tobytes(): label for image, label in zip(prepared.images, prepared.labels, strict=True)}
    assert found == expected
    assert as_set(prepared.images[prepared.parts["test"]]) == as_set(truth[cifar.TEST][0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda members, name: members.update({name: members[name][:-1]}), "data_batch_3.bin: 12291 bytes are not whole records of 3073"),
        (lambda members, name: members.update({name: b""}), "data_batch_3.bin: 0 bytes are not whole"),
        (lambda members, name: members.update({name: b"\x0a" + members[name][1:]}), "data_batch_3.bin: label 10; CIFAR-10 has 0 to 9"),
        (lambda members, name: members.pop(name), "a.tar.gz: CIFAR-10 without data_batch_3.bin"),
    ],
)
def test_damaged_cifar(tmp_path, change, reason):
    members = cifar_members()[0]
    change(members, "cifar-10-batches-bin/data_batch_3.bin")
    with pytest.raises(UserError, match=reason):
        prepare_images(tmp_path / "out", tar_of(tmp_path / "a.tar.gz", members), skip_bad=True)


def test_the_python_version_of_cifar_is_never_read(tmp_path):
    members = {f"cifar-10-batches-py/{name}": b"cos\nsystem\n" for name in ("batches.meta", "data_batch_4", "data_batch_1")}
    with pytest.raises(UserError, match=r"version for Python, which is never read.* use the binary version"):
        prepare_images(tmp_path / "out", tar_of(tmp_path / "cifar-10-python.tar.gz", members))


def test_cifar_is_downloaded_once_and_checked(tmp_path, monkeypatch):
    import hashlib

    monkeypatch.setattr(cifar.pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    (tmp_path / "served").mkdir()
    archive = tar_of(tmp_path / "served" / "cifar-10-binary.tar.gz", cifar_members()[0])
    with serve(tmp_path / "served") as (url, server):
        monkeypatch.setattr(cifar, "URL", f"{url}/cifar-10-binary.tar.gz")
        with pytest.raises(UserError, match="what came is not that archive"):
            prepare_images(tmp_path / "out", "cifar10")
        monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
        before = server.requests.total()
        for name in ("first", "second"):
            prepare_images(tmp_path / name, "cifar10")
        assert server.requests.total() == before + 1
    assert len(open_images(tmp_path / "second").images) == 24


def test_no_network(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(cifar, "URL", f"http://127.0.0.1:{closed.getsockname()[1]}/cifar-10-binary.tar.gz")
        monkeypatch.setattr(cifar.pooch, "os_cache", lambda name: tmp_path / "cache" / name)
        with pytest.raises(UserError, match=r"cannot be downloaded \(ConnectionError\); give the path of cifar-10-binary.tar.gz instead"):
            prepare_images(tmp_path / "out", "cifar10")


# Made images


def radial_exponent(images: np.ndarray) -> float:
    """Exponent of the mean power spectrum of lightness between wavenumbers 2 and 10, by a Hann window against the edges."""
    lightness = images.astype(float).mean(-1)
    side = lightness.shape[-1]
    window = np.hanning(side)
    power = np.abs(np.fft.fft2((lightness - lightness.mean((1, 2), keepdims=True)) * np.outer(window, window))) ** 2
    wavenumber = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)) * side
    rings = np.arange(2, 11)
    spectrum = [power.mean(0)[np.abs(wavenumber - ring) < 0.5].mean() for ring in rings]
    return float(np.polyfit(np.log(rings), np.log(spectrum), 1)[0])


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray]:
    return made_images(400, seed=0)


def test_made_images_follow_their_seed_and_not_their_number(made):
    images, labels = made
    assert images.dtype == np.uint8
    assert images.shape == (400, 32, 32, 3)
    assert labels.dtype == np.int64
    fewer, kinds = made_images(7, seed=0)
    np.testing.assert_array_equal(fewer, images[:7])
    np.testing.assert_array_equal(kinds, labels[:7])
    assert not np.array_equal(made_images(7, seed=1)[0], fewer)
    assert made_images(2, seed=0, size=20)[0].shape == (2, 20, 20, 3)
    assert np.bincount(labels, minlength=len(KINDS)).min() > 70


def test_made_images_have_the_spectrum_of_natural_ones(made):
    # 1/f^2 power is what is said of photographs; -2.7 is what small ones have (next test).
    assert radial_exponent(made[0]) == pytest.approx(-2.7, abs=0.15)
    assert radial_exponent(noise(400, 32, 32, 3)) == pytest.approx(0, abs=0.1)


@needs_cifar10
def test_made_images_are_like_photographs(made):
    with np.load(CIFAR10 / "test_5k.npz") as arrays:
        photographs = arrays["images"][::10]
    assert radial_exponent(made[0]) == pytest.approx(radial_exponent(photographs), abs=0.3)
    covariance = [np.cov(images.reshape(-1, 3).astype(float).T) for images in (made[0], photographs)]
    # Standard deviation along the axes of colour: lightness, orange to blue, magenta to green.
    deviation = [np.sqrt(np.linalg.eigvalsh(matrix)) for matrix in covariance]
    np.testing.assert_allclose(deviation[0], deviation[1], rtol=0.25)


def test_light_comes_from_above(made):
    def difference(axis: int) -> float:
        steps = np.diff(made[0].astype(float), axis=axis)
        return float(steps[np.abs(steps) < 15].mean())  # within a leaf

    assert difference(1) < -1  # darker from row to row
    assert abs(difference(2)) < 0.2


# The prepared file


def test_round_trip(tmp_path):
    images, labels = noise(100, 4, 6, 3), np.arange(100)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    facts = prepare_images(tmp_path / "out", tmp_path / "a.npz", validation_share=0.2, test_share=0.25)
    assert facts == {
        "source": str(tmp_path / "a.npz"),
        "images": "60 for training, 15 for validation, 25 for testing",
        "pixels": "6x4, colour",
        "kinds": 100,
        "held-out images that are also in the training part": 0,
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["about.json", "images.npy", "labels.npy"]
    prepared = open_images(tmp_path / "out")
    assert isinstance(prepared.images, np.memmap)
    assert prepared.shape == (3, 4, 6)
    assert prepared.parts == {"train": slice(0, 60), "validation": slice(60, 75), "test": slice(75, 100)}
    np.testing.assert_array_equal(images[prepared.labels], prepared.images)  # all of them, each with its own label
    assert sorted(prepared.labels) == labels.tolist()
    batch = prepared.batch(torch.tensor([7, 3]))
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), prepared.images[[7, 3]].transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    assert prepared.batch(torch.arange(100)).aminmax() == (-1, 1)


def test_parts_do_not_depend_on_names_or_order(tmp_path):
    images = noise(50, 8, 8, 1)
    folder = folder_of(tmp_path / "a", images[..., 0])
    archive = tar_of(tmp_path / "b.tar", {f"x/{number}.png": encoded(images[number, ..., 0]) for number in range(49, -1, -1)})
    np.savez(tmp_path / "c.npz", images=np.roll(images, 7, axis=0))
    for path in (folder, archive, tmp_path / "c.npz"):
        prepare_images(tmp_path / f"{path.name}.out", path)
    first, *others = [np.load(tmp_path / f"{name}.out" / "images.npy") for name in ("a", "b.tar", "c.npz")]
    for other in others:
        np.testing.assert_array_equal(other, first)
    assert not (tmp_path / "a.out" / "labels.npy").exists()
    assert open_images(tmp_path / "a.out").labels is None


def test_files_sorted_by_kind_are_in_every_part(tmp_path):
    np.savez(tmp_path / "a.npz", images=noise(1000, 2, 2, 3), labels=np.repeat([0, 1], 500))
    prepare_images(tmp_path / "out", tmp_path / "a.npz")
    prepared = open_images(tmp_path / "out")
    for part in prepared.parts.values():
        assert prepared.labels[part].mean() == pytest.approx(0.5, abs=0.15)


def test_a_second_source_is_for_testing_and_repeated_images_are_counted(tmp_path):
    images = noise(40, 4, 4, 3)
    np.savez(tmp_path / "train.npz", images=images[:30], labels=np.zeros(30, int))
    np.savez(tmp_path / "test.npz", images=np.concatenate([images[30:], images[:12]]))
    facts = prepare_images(tmp_path / "out", tmp_path / "train.npz", tmp_path / "test.npz")
    prepared = open_images(tmp_path / "out")
    held_out, training = (as_set(prepared.images[prepared.parts[part]]) for part in ("test", "train"))
    assert held_out == as_set(images[30:]) | as_set(images[:12])
    assert facts["held-out images that are also in the training part"] == len(held_out & training) > 0
    assert facts["kinds"] == "not known"  # of those for testing
    assert facts["images"] == "27 for training, 3 for validation, 22 for testing"


def test_images_for_testing_of_another_shape(tmp_path):
    np.savez(tmp_path / "train.npz", images=noise(30, 4, 4, 3))
    np.savez(tmp_path / "test.npz", images=noise(6, 5, 4, 3))
    with pytest.raises(UserError, match="6 of 36 images cannot be used: image 0: 4x5 pixels, the training images are 4x4"):
        prepare_images(tmp_path / "out", tmp_path / "train.npz", tmp_path / "test.npz")
    with pytest.raises(UserError, match=r"test.npz: none of its images can be used: image 2: 4x5"):
        prepare_images(tmp_path / "out", tmp_path / "train.npz", tmp_path / "test.npz", skip_bad=True)
    with pytest.raises(UserError, match="has test images of its own"):
        prepare_images(tmp_path / "out", tar_of(tmp_path / "a.tar.gz", cifar_members()[0]), tmp_path / "test.npz", size=32)


def test_made_images_are_prepared(tmp_path):
    facts = prepare_images(tmp_path / "out", "made", count=40, size=16)
    assert facts["images"] == "32 for training, 4 for validation, 4 for testing"
    assert facts["kinds"] == 4
    assert as_set(open_images(tmp_path / "out").images) == as_set(made_images(40, seed=0, size=16)[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"validation_share": 0}, "validation share is 0; it must be between 0 and 1"),
        ({"test_share": 1.0}, "test share is 1.0"),
        ({"size": 0}, "size is 0 pixels"),
        ({"crop": -3}, "crop is -3 pixels"),
        ({"count": 2}, "2 usable images are too few"),
        ({"crop": 33}, "made: 32x32 pixels, smaller than the crop of 33"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, reason):
    with pytest.raises(UserError, match=reason):
        prepare_images(tmp_path / "out", "made", **({"count": 10} | options))


def test_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="needs 0 MB, but only 0 MB are free"):
        prepare_images(tmp_path / "out", "made", count=10)
    assert not (tmp_path / "out").exists()


def test_damaged_or_foreign_files_are_not_opened(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(UserError, match="no images that wsdcast prepared"):
        open_images(path)
    prepare_images(path, "made", count=10)
    content = {file.name: file.read_bytes() for file in path.iterdir()}
    about = json.loads(content["about.json"])
    other, objects = io.BytesIO(), io.BytesIO()
    np.save(other, np.zeros(10))
    np.save(objects, np.array([{}] * 10), allow_pickle=True)
    for name, damaged in [
        ("images.npy", content["images.npy"][:-1]),
        ("images.npy", b""),
        ("images.npy", other.getvalue()),
        ("labels.npy", other.getvalue()),
        ("labels.npy", objects.getvalue()),
        ("about.json", b"{}"),
        ("about.json", b"[]"),
        ("about.json", b"no"),
        ("about.json", json.dumps(about | {"parts": {"train": 9, "validation": 1, "test": 1}}).encode()),
        ("about.json", json.dumps(about | {"parts": {"train": 10, "validation": 1, "test": -1}}).encode()),
    ]:
        (path / name).write_bytes(damaged)
        with pytest.raises(UserError, match="out: no images that wsdcast prepared, or damaged"):
            open_images(path)
        (path / name).write_bytes(content[name])
    assert len(open_images(path).images) == 10


def test_a_source_is_never_in_memory(tmp_path):
    alive = most = 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def entries():
        nonlocal alive, most
        for number in range(300):
            alive += 1
            most = max(most, alive)
            yield Entry(f"{number}", np.full((4, 4, 3), number % 256, np.uint8).view(Counted))

    for _ in decoded(Source("counted", entries), None, None, (4, 4, 3), "most are"):
        pass
    assert most <= 3


@needs_cifar10
def test_real_photographs(tmp_path):
    with np.load(CIFAR10 / "train_18k.npz") as arrays:
        training = {image.tobytes(): label for image, label in zip(arrays["images"], arrays["labels"], strict=True)}
    with np.load(CIFAR10 / "test_5k.npz") as arrays:
        testing = as_set(arrays["images"])
    facts = prepare_images(tmp_path / "out", CIFAR10 / "train_18k.npz", CIFAR10 / "test_5k.npz")
    prepared = open_images(tmp_path / "out")
    assert facts["images"] == "16200 for training, 1800 for validation, 5000 for testing"
    assert facts["kinds"] == 10
    assert as_set(prepared.images[prepared.parts["test"]]) == testing
    rest = slice(0, 18000)
    found = {image.tobytes(): label for image, label in zip(prepared.images[rest], prepared.labels[rest], strict=True)}
    assert found == training
    assert (np.bincount(prepared.labels[prepared.parts["validation"]]) > 130).all()
