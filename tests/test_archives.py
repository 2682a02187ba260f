"""Archives of images that are damaged, cut short or hostile: each is refused in one line, or its bad members are named."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from image_files import encoded, most_memory, noise, prepare_images, tar_of, zip_of

from wsdcast.images.data.archives import files_of
from wsdcast.images.data.store import open_images
from wsdcast.runs.errors import UserError


def test_a_member_of_a_zip_with_a_wrong_checksum_is_named(tmp_path):
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
    begin, end = whole.index(b"0.png") + 5, whole.index(b"1.png") - 30  # the content of the first member lies between
    damaged = []
    for position in range(begin, end, 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        damaged += [name for name, content in files_of(path, lambda name: True) if isinstance(content, Exception)]
    assert set(damaged) == {"0.png"}
    assert len(damaged) > 20  # some bytes have no effect


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "b/../../a.png", "..\\a.png", "C:\\a.png", "C:/a.txt"])
@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_an_archive_with_a_path_outside_its_folder_is_refused(tmp_path, name, make):
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
def test_a_tar_that_is_cut_short_is_refused(tmp_path, name):
    path = tar_of(tmp_path / name, {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 64, 64, 3))})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"{name}: cannot be read, damaged or cut short"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


def test_a_member_that_announces_a_huge_size_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("wsdcast.images.data.archives.LARGEST", 2**20)
    members = {f"{number}.png": encoded(image) for number, image in enumerate(noise(10, 8, 8, 3))} | {"huge.png": bytes(2**20 + 1)}
    for path in (zip_of(tmp_path / "a.zip", members), tar_of(tmp_path / "a.tar.gz", members)):
        with pytest.raises(UserError, match=r"1 of 11 images cannot be used: huge.png: larger than 1 MiB"):
            prepare_images(tmp_path / "out", path)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_announces_a_huge_size_is_not_read(tmp_path, kind, first):
    path, image = tmp_path / "a.tar.gz", encoded(noise(1, 8, 8, 3)[0])
    with tarfile.open(path, "w:gz") as archive:
        for name, content, member_kind in sorted([("0.png", image, tarfile.REGTYPE), ("header", bytes(20 << 20), kind)], reverse=first):
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), member_kind
            archive.addfile(member, io.BytesIO(content))

    def refused() -> None:
        with pytest.raises(UserError, match=r"a.tar.gz: cannot be read, .*header with 20971520 bytes to follow") as caught:
            prepare_images(tmp_path / "out", path, skip_bad=True)
        assert "\n" not in str(caught.value)

    assert most_memory(refused) < 5_000_000


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.REGTYPE])
def test_a_member_with_a_negative_size_is_not_read(tmp_path, kind):
    member = tarfile.TarInfo("a.png")
    member.size, member.type = -1000, kind  # tarfile would go back and read the same member again, or read the whole file
    path = tmp_path / "a.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(UserError, match=r"a.tar: cannot be read, .*header with -1000 bytes to follow"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


def pax_tar(path: Path, headers: dict[str, str]) -> Path:
    """Write a tar with two members. The first has a record in pax format with these headers."""
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
        # With such a size tarfile would go back to an earlier header, or before the first, or take pixels for the next header.
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
def test_impossible_pax_records_are_refused_in_one_line(tmp_path, name, headers, reason):
    path = pax_tar(tmp_path / name, headers)
    with pytest.raises(UserError, match=rf"{name}: cannot be read, damaged or cut short \(.*{reason}") as caught:
        list(files_of(path, lambda name: True))
    assert "\n" not in str(caught.value)


def test_valid_pax_records_are_read(tmp_path):
    path = pax_tar(tmp_path / "a.tar", {"size": "2000", "mtime": "1.5", "comment": "a camera's"})
    assert [(name, len(content)) for name, content in files_of(path, lambda name: True)] == [("0.png", 2000), ("1.png", 2000)]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_damaged_header_or_a_missing_end_is_refused(tmp_path, name):
    """Python's tarfile takes both for the end of the archive, and would leave out the members behind."""
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


def test_thousands_of_nested_headers_are_refused(tmp_path):
    header = tarfile.TarInfo("header")
    header.size, header.type = 512, tarfile.XHDTYPE
    path = tmp_path / "a.tar"
    path.write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b"9 path=a\n".ljust(512, b"\0")) * 2000 + bytes(10240))
    with pytest.raises(UserError, match=r"a.tar: cannot be read, damaged or cut short \(maximum recursion depth"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


def test_a_sparse_file_is_refused(tmp_path):
    member = tarfile.TarInfo("a.png")
    member.size, member.type = 512, tarfile.GNUTYPE_SPARSE
    path = tmp_path / "a.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(UserError, match=r"a.tar: cannot be read, damaged or cut short \(a.png is a sparse file"):
        prepare_images(tmp_path / "out", path, skip_bad=True)


def test_members_with_long_names_are_read(tmp_path):
    image = encoded(noise(1, 8, 8, 3)[0])
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"{form}.tar.gz"
        with tarfile.open(path, "w:gz", format=form) as archive:
            for number in range(10):
                member = tarfile.TarInfo(f"{'long/' * 100}{number}.png")
                member.size = len(image)
                archive.addfile(member, io.BytesIO(image))
        prepare_images(tmp_path / f"{form}", path)
        images = open_images(tmp_path / f"{form}").images
        assert images.shape == (10, 8, 8, 3)
        assert (images == noise(1, 8, 8, 3)[0]).all()
