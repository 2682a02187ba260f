"""Sources of images: npz files, folders, archives, CIFAR-10, and synthetic images."""

from __future__ import annotations

import io
import socket
import tarfile

import numpy as np
import pytest
from image_files import (
    CIFAR10,
    as_set,
    cifar_members,
    encoded,
    folder_of,
    made_images,
    needs_cifar10,
    noise,
    prepare_images,
    read,
    tar_of,
    zip_of,
)
from PIL import Image
from servers import serve

from wsdcast.images.data import cifar, decoding
from wsdcast.images.data.decoding import decoded
from wsdcast.images.data.made import KINDS
from wsdcast.images.data.sources import open_source
from wsdcast.images.data.store import open_images
from wsdcast.runs.errors import UserError


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_in_pieces_with_its_labels(tmp_path, channels, save):
    images, labels = noise(600, 4, 5, channels), np.arange(600) % 7
    save(tmp_path / "a.npz", images=images, labels=labels[:, None], other=np.zeros((2, 2, 2, 2)))
    entries, result = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(np.stack(result), images)
    assert [entry.label for entry in entries] == labels.tolist()


def test_the_only_array_with_four_axes_holds_the_images(tmp_path):
    images = noise(3, 4, 4, 3)
    np.savez(tmp_path / "a.npz", arr_0=images, arr_1=np.zeros(3))
    entries, result = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(np.stack(result), images)
    assert entries[0].label is None


def test_arrays_of_an_npz_need_no_suffix(tmp_path):
    images, labels = noise(5, 4, 4, 3), np.arange(5)
    members = {}
    for name, array in {"images": images, "labels": labels}.items():
        content = io.BytesIO()
        np.save(content, array)
        members[name] = content.getvalue()
    entries, result = read(zip_of(tmp_path / "a.npz", members))
    np.testing.assert_array_equal(np.stack(result), images)
    assert [entry.label for entry in entries] == labels.tolist()


def test_folder_zip_and_tar_give_the_same_images(tmp_path):
    images = noise(6, 8, 8, 3)
    folder = folder_of(tmp_path / "folder" / "below", images).parent
    (folder / "README.txt").write_text("not an image")
    (folder / "._000.png").write_text("macOS writes such files")
    members = {f"below/{number:03}.png": encoded(image) for number, image in enumerate(images)} | {"__MACOSX/0.png": b"", "a.txt": b""}
    shuffled = dict(reversed(members.items()))
    for path in (folder, zip_of(tmp_path / "a.zip", shuffled), tar_of(tmp_path / "a.tar", members), tar_of(tmp_path / "a.tar.gz", members)):
        entries, result = read(path)
        np.testing.assert_array_equal(np.stack(result), images)
        assert [entry.name for entry in entries] == [f"below/{number:03}.png" for number in range(6)]


def test_members_of_a_tar_are_not_kept_in_memory(tmp_path, monkeypatch):
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
    source, opened = open_source(path, 0, None), []
    opening = Image.open
    monkeypatch.setattr(decoding.Image, "open", lambda *args, **options: (opened.append(1), opening(*args, **options))[1])
    images = decoded(source, None, None, (4, 4, 3), "most are")
    assert not opened
    next(images)
    assert len(opened) == 1
    images.close()


def test_crop_and_size_are_those_of_pillow(tmp_path):
    # The usual crop of CelebA: the 140x140 pixels at (19, 39) of 178x218, then resized to 64x64.
    image = noise(1, 218, 178, 3)[0]
    folder = folder_of(tmp_path / "a", image[None])
    whole = Image.fromarray(image)
    (result,) = read(folder, crop=140, size=64)[1]
    np.testing.assert_array_equal(result, np.asarray(whole.crop((19, 39, 159, 179)).resize((64, 64), Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(read(folder, crop=140)[1][0], image[39:179, 19:159])
    square = whole.crop((0, 20, 178, 198))
    np.testing.assert_array_equal(read(folder, size=89)[1][0], np.asarray(square.resize((89, 89), Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(read(folder)[1][0], image)


def test_palettes_and_other_formats_are_read(tmp_path):
    images = noise(1, 16, 16, 3)
    folder = folder_of(tmp_path / "a", images)
    plain = Image.fromarray(images[0])
    palette = plain.quantize(200)
    (folder / "b.png").write_bytes(encoded(palette))
    (folder / "c.BMP").write_bytes(encoded(plain, "BMP"))
    (folder / "d.tif").write_bytes(encoded(plain, "TIFF", compression="tiff_lzw"))
    (folder / "e.webp").write_bytes(encoded(plain, "WEBP", lossless=True))
    result = read(folder)[1]
    for number in (0, 2, 3, 4):
        np.testing.assert_array_equal(result[number], images[0])
    np.testing.assert_array_equal(result[1], np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["folder", "parent", "tar.gz", "zip"])
def test_cifar_records_are_read_with_their_labels_and_split(tmp_path, kind):
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
    stored = {image.tobytes(): label for image, label in zip(prepared.images, prepared.labels, strict=True)}
    assert stored == expected
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
def test_damaged_cifar_files_are_refused(tmp_path, change, reason):
    members = cifar_members()[0]
    change(members, "cifar-10-batches-bin/data_batch_3.bin")
    with pytest.raises(UserError, match=reason):
        prepare_images(tmp_path / "out", tar_of(tmp_path / "a.tar.gz", members), skip_bad=True)


def test_the_python_version_of_cifar_is_never_read(tmp_path):
    members = {f"cifar-10-batches-py/{name}": b"cos\nsystem\n" for name in ("batches.meta", "data_batch_4", "data_batch_1")}
    with pytest.raises(UserError, match=r"version for Python is never read.* use the binary version"):
        prepare_images(tmp_path / "out", tar_of(tmp_path / "cifar-10-python.tar.gz", members))


def test_cifar_is_downloaded_once_and_checked(tmp_path, monkeypatch):
    import hashlib

    monkeypatch.setattr(cifar.pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    (tmp_path / "served").mkdir()
    archive = tar_of(tmp_path / "served" / "cifar-10-binary.tar.gz", cifar_members()[0])
    with serve(tmp_path / "served") as (url, server):
        monkeypatch.setattr(cifar, "URL", f"{url}/cifar-10-binary.tar.gz")
        with pytest.raises(UserError, match="wrong checksum"):
            prepare_images(tmp_path / "out", "cifar10")
        monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
        before = server.requests.total()
        for name in ("first", "second"):
            prepare_images(tmp_path / name, "cifar10")
        assert server.requests.total() == before + 1
    assert len(open_images(tmp_path / "second").images) == 24


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(cifar, "URL", f"http://127.0.0.1:{closed.getsockname()[1]}/cifar-10-binary.tar.gz")
        monkeypatch.setattr(cifar.pooch, "os_cache", lambda name: tmp_path / "cache" / name)
        with pytest.raises(UserError, match=r"cannot be downloaded \(ConnectionError\); give the path of cifar-10-binary.tar.gz instead"):
            prepare_images(tmp_path / "out", "cifar10")


def radial_exponent(images: np.ndarray) -> float:
    """Return the exponent of the mean power spectrum of lightness between wavenumbers 2 and 10. A Hann window suppresses the edges."""
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


def test_made_images_depend_on_the_seed_and_not_on_their_number(made):
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
    # Photographs are known for 1/f^2. Small ones have an exponent of about -2.7 (next test).
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


def test_made_images_are_lit_from_above(made):
    def difference(axis: int) -> float:
        steps = np.diff(made[0].astype(float), axis=axis)
        return float(steps[np.abs(steps) < 15].mean())  # only steps within a leaf

    assert difference(1) < -1  # darker from row to row
    assert abs(difference(2)) < 0.2
