"""Prepared images: what is stored, how it is split, and which files are refused."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from image_files import CIFAR10, as_set, cifar_members, encoded, folder_of, made_images, needs_cifar10, noise, prepare_images, tar_of

from wsdcast.images.data.decoding import decoded
from wsdcast.images.data.sources import Entry, Source
from wsdcast.images.data.store import open_images
from wsdcast.images.stages.prepare import prepare
from wsdcast.runs.errors import UserError


def test_prepared_images_have_their_labels_and_splits(tmp_path):
    images, labels = noise(100, 4, 6, 3), np.arange(100)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    facts = prepare_images(tmp_path / "out", tmp_path / "a.npz", validation_share=0.2, test_share=0.25)
    assert facts == {
        "source": str(tmp_path / "a.npz"),
        "images": "60 for training, 15 for validation, 25 for testing",
        "pixels": "6x4, colour",
        "kinds": 100,
        "test images that are also in the training split": 0,
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["about.json", "images.npy", "labels.npy"]
    prepared = open_images(tmp_path / "out")
    assert isinstance(prepared.images, np.memmap)
    assert prepared.shape == (3, 4, 6)
    assert prepared.parts == {"train": slice(0, 60), "validation": slice(60, 75), "test": slice(75, 100)}
    np.testing.assert_array_equal(images[prepared.labels], prepared.images)  # every image has its own label
    assert sorted(prepared.labels) == labels.tolist()
    batch = prepared.batch(torch.tensor([7, 3]))
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), prepared.images[[7, 3]].transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    assert prepared.batch(torch.arange(100)).aminmax() == (-1, 1)


def test_the_splits_do_not_depend_on_names_or_order(tmp_path):
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


def test_files_sorted_by_class_are_spread_over_the_splits(tmp_path):
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
    assert facts["test images that are also in the training split"] == len(held_out & training) > 0
    assert facts["kinds"] == "not known"  # the test images have no labels
    assert facts["images"] == "27 for training, 3 for validation, 22 for testing"


def test_test_images_of_another_shape_are_refused(tmp_path):
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
        ({"count": 2}, "2 usable images are too few"),
        ({"crop": 33}, "made: 32x32 pixels, smaller than the crop of 33"),
    ],
)
def test_impossible_options_are_refused(tmp_path, options, reason):
    with pytest.raises(UserError, match=reason):
        prepare_images(tmp_path / "out", "made", **({"count": 10} | options))


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"validation_share": 0}, "--validation-share: .* greater than 0, not 0"),
        ({"test_share": 1.0}, "--test-share: .* less than 1, not 1.0"),
        ({"size": 1}, "--size: .* greater than or equal to 2, not 1"),
        ({"crop": -3}, "--crop: .* greater than or equal to 2, not -3"),
    ],
)
def test_impossible_keys_are_refused(tmp_path, option, reason):
    with pytest.raises(UserError, match=reason):
        prepare("made", tmp_path / "run", **option)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"needs .* on disk, but only .* are free"):
        prepare_images(tmp_path / "out", "made", count=10)
    assert not (tmp_path / "out").exists()


def test_damaged_or_foreign_files_are_not_opened(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(UserError, match="not images that wsdcast prepared"):
        open_images(path)
    prepare_images(path, "made", count=10)
    content = {file.name: file.read_bytes() for file in path.iterdir()}
    about = json.loads(content["about.json"])
    foreign, objects = io.BytesIO(), io.BytesIO()
    np.save(foreign, np.zeros(10))
    np.save(objects, np.array([{}] * 10), allow_pickle=True)
    for name, damaged in [
        ("images.npy", content["images.npy"][:-1]),
        ("images.npy", b""),
        ("images.npy", foreign.getvalue()),
        ("labels.npy", foreign.getvalue()),
        ("labels.npy", objects.getvalue()),
        ("about.json", b"{}"),
        ("about.json", b"[]"),
        ("about.json", b"no"),
        ("about.json", json.dumps(about | {"parts": {"train": 9, "validation": 1, "test": 1}}).encode()),
        ("about.json", json.dumps(about | {"parts": {"train": 10, "validation": 1, "test": -1}}).encode()),
    ]:
        (path / name).write_bytes(damaged)
        with pytest.raises(UserError, match="out: not images that wsdcast prepared, or damaged"):
            open_images(path)
        (path / name).write_bytes(content[name])
    assert len(open_images(path).images) == 10


def test_at_most_three_images_are_in_memory(tmp_path):
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
def test_photographs_are_stored_with_their_labels(tmp_path):
    with np.load(CIFAR10 / "train_18k.npz") as arrays:
        training = {image.tobytes(): label for image, label in zip(arrays["images"], arrays["labels"], strict=True)}
    with np.load(CIFAR10 / "test_5k.npz") as arrays:
        testing = as_set(arrays["images"])
    facts = prepare_images(tmp_path / "out", CIFAR10 / "train_18k.npz", CIFAR10 / "test_5k.npz")
    prepared = open_images(tmp_path / "out")
    assert facts["images"] == "16200 for training, 1800 for validation, 5000 for testing"
    assert facts["kinds"] == 10
    assert as_set(prepared.images[prepared.parts["test"]]) == testing
    first = slice(0, 18000)  # training and validation images
    stored = {image.tobytes(): label for image, label in zip(prepared.images[first], prepared.labels[first], strict=True)}
    assert stored == training
    assert (np.bincount(prepared.labels[prepared.parts["validation"]]) > 130).all()
