"""What is wrong with images and with what they lie in."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import as_set, encoded, folder_of, noise, tar_of, zip_of
from PIL import Image

from wsdcast.images.data.archives import files_of
from wsdcast.images.data.store import open_images, prepare_images
from wsdcast.runs.errors import UserError


def most_memory(action: Callable[[], None]) -> int:
    """Bytes that were allocated at a time."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


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


@pytest.mark.parametrize("size", [None, 16])
def test_images_of_one_row_have_no_waves_to_score(tmp_path, size):
    np.savez(tmp_path / "a.npz", images=noise(20, 1, 9, 3))
    with pytest.raises(UserError, match=r"a.npz: 9x1 pixels; at least 2x2 are needed"):
        prepare_images(tmp_path / "out", tmp_path / "a.npz", size=size)
    folder = folder_of(tmp_path / "a", noise(10, 9, 1, 3))
    with pytest.raises(UserError, match=r"a: none of its 10 images can be used: 000.png: 1x9 pixels; at least 2x2"):
        prepare_images(tmp_path / "out", folder, size=size)
    with pytest.raises(UserError, match=r"the size is 1 pixels; it must be at least 2"):
        prepare_images(tmp_path / "out", "made", size=1)


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


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_of_a_zip_is_left_out_however_it_is_compressed(tmp_path, compression):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for number, image in enumerate(noise(10, 8, 8, 3)):
            archive.writestr(f"{number}.png", encoded(image))
    whole = path.read_bytes()
    begin, end = whole.index(b"0.png") + 5, whole.index(b"1.png") - 30  # what is between is the content of the first member
    damaged = []
    for place in range(begin, end, 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        damaged += [name for name, content in files_of(path, lambda name: True) if isinstance(content, Exception)]
    assert set(damaged) == {"0.png"}
    assert len(damaged) > 20  # some bytes are of no effect


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "b/../../a.png", "..\\a.png", "C:\\a.png", "C:/a.txt"])
@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_an_archive_that_climbs_out_is_refused(tmp_path, name, make):
    images = {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 8, 8, 3))}
    path = make(tmp_path / "a.archive", images | {name: b"x"})
    with pytest.raises(UserError, match=r"a.archive: member .* lies outside of the archive's folder"):
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
    monkeypatch.setattr("wsdcast.images.data.archives.LARGEST", 2**20)
    members = {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 8, 8, 3))} | {"huge.png": bytes(2**20 + 1)}
    for path in (zip_of(tmp_path / "a.zip", members), tar_of(tmp_path / "a.tar.gz", members)):
        with pytest.raises(UserError, match=r"1 of 11 images cannot be used: huge.png: larger than 1 MiB"):
            prepare_images(tmp_path / "out", path)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_claims_to_be_huge_is_not_read(tmp_path, kind, first):
    path, image = tmp_path / "a.tar.gz", encoded(noise(1, 8, 8, 3)[0])
    with tarfile.open(path, "w:gz") as archive:
        for name, content, what in sorted([("0.png", image, tarfile.REGTYPE), ("header", bytes(20 << 20), kind)], reverse=first):
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), what
            archive.addfile(member, io.BytesIO(content))

    def refused() -> None:
        with pytest.raises(UserError, match=r"a.tar.gz: cannot be read, .*header with 20971520 bytes to follow") as caught:
            prepare_images(tmp_path / "out", path, skip_bad=True)
        assert "\n" not in str(caught.value)

    assert most_memory(refused) < 5_000_000


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.REGTYPE])
def test_a_member_that_claims_to_be_less_than_empty_is_not_read(tmp_path, kind):
    member = tarfile.TarInfo("a.png")
    member.size, member.type = -1000, kind  # of which tarfile goes back and reads the same again, or all there is
    path = tmp_path / "a.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(UserError, match=r"a.tar: cannot be read, .*header with -1000 bytes to follow"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


def pax_tar(path: Path, headers: dict[str, str]) -> Path:
    """Two images, of the first of which a record in pax format says more."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(2):
            member = tarfile.TarInfo(f"{number}.png")
            member.size, member.pax_headers = 2000, {} if number else headers
            archive.addfile(member, io.BytesIO(2000 * b"x"))
    return path


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        # Of which tarfile goes back to a header that it has read, or to before the first, or takes pixels for the next header.
        *(({"size": size}, f"0.png has a size of {size} bytes") for size in ("-1", "-1000", "-1536", "-2048", "-3072", "-" + 30 * "9")),
        *(({"size": size}, f"0.png has a size of {size} bytes") for size in ("many", "1e3", "")),
        *(({"size": size}, "cannot fit") for size in (30 * "9", str(2**63 - 1))),
        ({"size": "3000"}, "no header where the next one should be"),
        ({"size": "1000"}, "no header where the next one should be"),
        *(({"GNU.sparse.map": holes, "GNU.sparse.size": "-7"}, "0.png is a sparse file") for holes in ("0,10", "0,10,-5,20")),
        ({"GNU.sparse.map": "a,b"}, "invalid literal"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "100"}, "not enough values"),
    ],
)
def test_records_that_say_what_cannot_be_are_one_line(tmp_path, name, headers, reason):
    path = pax_tar(tmp_path / name, headers)
    with pytest.raises(UserError, match=rf"{name}: cannot be read, damaged or cut short \(.*{reason}") as caught:
        list(files_of(path, lambda name: True))
    assert "\n" not in str(caught.value)


def test_records_that_say_what_can_be_are_read(tmp_path):
    path = pax_tar(tmp_path / "a.tar", {"size": "2000", "mtime": "1.5", "comment": "a camera's"})
    assert [(name, len(content)) for name, content in files_of(path, lambda name: True)] == [("0.png", 2000), ("1.png", 2000)]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_members_behind_a_damaged_header_or_a_lost_end_are_not_passed_over(tmp_path, name):
    """Python's tarfile takes either for the end of the archive."""
    images = {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 8, 8, 3))}
    plain = tar_of(tmp_path / "whole.tar", images).read_bytes()
    path = tmp_path / name

    def read(content: bytes) -> int:
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return len(list(files_of(path, lambda name: True)))

    assert read(plain) == 10
    third = plain.index(b"3.png")
    with pytest.raises(UserError, match="no header where the next one should be"):
        read(plain[: third + 5] + b"?" + plain[third + 6 :])
    for cut, words in ((third, "no mark of its end"), (third + 100, "no header where the next one should be")):
        with pytest.raises(UserError, match=words):
            read(plain[:cut])
    end = len(plain.rstrip(b"\0"))
    whole_blocks = -(-end // 512) * 512
    with pytest.raises(UserError, match="no mark of its end"):
        read(plain[:whole_blocks])
    assert read(plain[:whole_blocks] + bytes(512)) == 10


def test_headers_of_headers_of_headers_are_not_read(tmp_path):
    header = tarfile.TarInfo("header")
    header.size, header.type = 512, tarfile.XHDTYPE
    path = tmp_path / "a.tar"
    path.write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b"9 path=a\n".ljust(512, b"\0")) * 2000 + bytes(10240))
    with pytest.raises(UserError, match=r"a.tar: cannot be read, damaged or cut short \(maximum recursion depth"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


def test_a_sparse_file_is_not_read(tmp_path):
    member = tarfile.TarInfo("a.png")
    member.size, member.type = 512, tarfile.GNUTYPE_SPARSE
    path = tmp_path / "a.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(UserError, match=r"a.tar: cannot be read, damaged or cut short \(a.png is a sparse file"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


def test_an_array_whose_header_claims_to_be_long_is_not_read(tmp_path):
    header = b"\x93NUMPY\x02\x00" + (200 << 20).to_bytes(4, "little") + bytes(200)
    path = zip_of(tmp_path / "a.npz", {"images.npy": header})
    with pytest.raises(UserError, match=r"a.npz: not an npz file of arrays, damaged or cut short \(array format \(2, 0\)"):
        prepare_images(tmp_path / "out", path)


def test_names_of_any_sensible_length_are_read(tmp_path):
    image = encoded(noise(1, 8, 8, 3)[0])
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"{form}.tar.gz"
        with tarfile.open(path, "w:gz", format=form) as archive:
            for number in range(10):
                member = tarfile.TarInfo(f"{'long/' * 100}{number}.png")
                member.size = len(image)
                archive.addfile(member, io.BytesIO(image))
        prepare_images(tmp_path / f"{form}", path)
        found = open_images(tmp_path / f"{form}").images
        assert found.shape == (10, 8, 8, 3)
        assert (found == noise(1, 8, 8, 3)[0]).all()


def test_sources_that_are_none(tmp_path):
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


def test_labels_of_another_number_than_the_images_are_never_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=noise(30, 8, 8, 3), labels=np.zeros(20_000_000, np.int8))

    def refused() -> None:
        with pytest.raises(UserError, match=r"a.npz: labels are int8 \(20000000,\); they must be one whole number for each of 30 images"):
            prepare_images(tmp_path / "out", tmp_path / "a.npz")

    assert most_memory(refused) < 5_000_000
