"""Stages for images that do not fit in memory are refused before they write anything. The estimates are near the measured memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from commands import refused
from image_files import most_memory, prepare_images
from image_runs import RECIPE, checksums, copy_of

from wsdcast.images import memory
from wsdcast.images.data.made import MEMORY, made_image
from wsdcast.images.data.store import Images, open_images
from wsdcast.images.evaluation import DRAWS
from wsdcast.images.frechet import FeatureStatistics, drawn_distances
from wsdcast.images.recipe import ImageData
from wsdcast.images.scores import VALUES_PER_PART, radial_power, sample_statistics
from wsdcast.images.stages.prepare import prepare
from wsdcast.images.stages.sample import sample
from wsdcast.images.stages.score import score
from wsdcast.images.stages.train import train
from wsdcast.runs import resources
from wsdcast.runs.errors import UserError
from wsdcast.runs.summary import Summary
from wsdcast.study.images import _about, inpaint_study


@pytest.fixture
def images(inpainted) -> Images:
    return open_images(inpainted / "run/images")


@pytest.fixture
def free(monkeypatch) -> Callable[[float], None]:
    """Return a function that sets how much memory is free."""
    return lambda size: monkeypatch.setattr(resources, "free_memory", lambda: size)


@pytest.mark.parametrize("size", [256, 500])
def test_the_estimate_for_a_synthetic_image_is_near_its_memory(size):
    assert 0.7 < most_memory(lambda: made_image(3, 0, size)) / (MEMORY * size**2) <= 1


@pytest.mark.parametrize(("contexts", "samples", "features"), [(3000, 1, 128), (500, 2, 128), (50, 2, 128), (300, 1, 512), (1500, 1, 512)])
def test_the_estimate_for_a_distance_and_its_draws_is_near_its_memory(contexts, samples, features):
    random = np.random.default_rng(0)
    sample_features = random.normal(size=(contexts, samples, features)).astype(np.float32)
    reference = FeatureStatistics.of(random.normal(size=(features + 9, features)))
    measured = most_memory(lambda: drawn_distances(sample_features, reference, DRAWS if features == 128 else 5))
    assert 0.5 < measured / memory.of_distance(contexts, samples, features) < 1.2


@pytest.mark.parametrize("shape", [(2, 8, 96, 96, 3), (1, 2, 400, 300, 1), (1, 2, 1200, 1200, 1)])
def test_the_estimate_for_statistics_of_samples_is_near_their_memory(shape):
    """The rings of wavenumbers of large images do not take gigabytes."""
    samples, hidden = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), np.ones((shape[0], *shape[2:4]), dtype=bool)
    sample_statistics(samples[:1, :, :8, :8], samples[:1, 0, :8, :8], hidden[:1, :8, :8])  # the first call compiles, which takes memory
    values = max(samples[0].size, min(VALUES_PER_PART, samples.size))
    assert 0.3 < most_memory(lambda: sample_statistics(samples, samples[:, 0], hidden)) / (memory.STATISTICS * values) < 1.7


def test_power_by_rings_is_that_of_a_full_mask():
    images = np.random.default_rng(0).normal(size=(4, 2, 12, 17, 3))
    rows, columns = (np.arange(size) * (12 / size) for size in (12, 17))
    ring = np.rint(np.hypot(rows[:, None], columns))
    import scipy.fft

    squared = np.square(scipy.fft.dctn(images, axes=(-3, -2), norm="ortho")).mean(axis=-1)
    expected = np.stack([squared[..., ring == wave].mean(axis=-1) for wave in range(1, 12)], axis=-1)
    np.testing.assert_allclose(radial_power(images), expected)


def test_estimates_grow_with_contexts_and_features(images):
    one = memory.of_scoring(images, 1000, 2, ["classifier_distance"])
    assert memory.of_scoring(images, 50_000, 2, ["classifier_distance"]) > one
    assert memory.of_scoring(images, 50_000, 1, ["classifier_distance", "fid"]) == pytest.approx(4.6e9, rel=0.2)  # 3.8 GB were measured
    assert memory.of_samples(images, 50_000, 2) == 100_000 * 16 * 16 * 3


def test_images_that_do_not_fit_are_not_prepared(tmp_path, free):
    free(21e9)
    line = refused("inpaint", "prepare", "--size", "8000", "--run", str(tmp_path / "run"))
    assert "preparing 6000 images of 8000x8000 needs 32 GB of memory, but only 21 GB are free" in line
    assert not (tmp_path / "run").exists()
    np.savez(tmp_path / "a.npz", images=np.zeros((100, 8, 8, 3), np.uint8))
    free(20_000)
    with pytest.raises(UserError, match=r"preparing 100 images of 8x8 needs .* of memory, but only 20 kB are free"):
        prepare_images(tmp_path / "out", tmp_path / "a.npz")
    assert not (tmp_path / "out").exists()


def test_large_images_of_an_array_are_read_one_by_one(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", images=random.integers(0, 256, (12, 40, 40, 3), dtype=np.uint8))
    prepare_images(tmp_path / "whole", tmp_path / "a.npz")
    monkeypatch.setattr("wsdcast.images.data.sources.BYTES_PER_PIECE", 100)
    prepare_images(tmp_path / "single", tmp_path / "a.npz")
    np.testing.assert_array_equal(open_images(tmp_path / "whole").images, open_images(tmp_path / "single").images)


def test_samples_that_do_not_fit_are_refused(inpainted, tmp_path, free, monkeypatch):
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator")
    before = checksums(run)
    free(1_000_000)
    line = refused("inpaint", "sample", "--samples", "7", "--run", str(run))
    assert "drawing 7 samples of each context at 16x16 needs " in line
    assert "but only 1 MB are free" in line
    assert checksums(run) == before
    # For a calibrated warmth 256 contexts go through the moments network at a time.
    monkeypatch.setattr(memory, "peak_memory", lambda network, *shapes, training: 10**6)
    free(200e6)
    memory.require_sampling(RECIPE, open_images(run / "images"), 3)
    with pytest.raises(UserError, match="needs 256 MB of memory, but only 200 MB"):
        memory.require_sampling(RECIPE, open_images(run / "images"), 3, calibrated=True)


def test_networks_on_a_gpu_take_no_memory_of_the_host(images, free, monkeypatch):
    monkeypatch.setattr("wsdcast.runs.devices.device", lambda: torch.device("cuda"))
    free(1000)
    memory.require_sampling(RECIPE, images, 3, calibrated=True)
    with pytest.raises(UserError, match="needs 2 kB"):
        memory.require_sampling(RECIPE, images, 3, kept=2000)


def test_scores_that_do_not_fit_are_refused(inpainted, tmp_path, free):
    """They are refused before a classifier is trained. Stored scores are still shown."""
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator", "samples")
    before = checksums(run)
    free(100_000)
    line = refused("inpaint", "score", "--run", str(run))
    assert "scoring 6 contexts of 3 samples each at 16x16 needs " in line
    assert checksums(run) == before
    assert "current" in score(run=inpainted / "run").facts


def test_sizes_are_columns_by_rows(tmp_path, free):
    np.savez(tmp_path / "a.npz", images=np.random.default_rng(0).integers(0, 256, (60, 16, 24, 3), np.uint8))
    prepare(RECIPE.model_copy(update={"data": ImageData(source=str(tmp_path / "a.npz"))}), tmp_path / "run")
    images = open_images(tmp_path / "run/images")
    assert ", 24x16; task: " in _about(RECIPE, images)
    free(100_000)
    for refused_stage in (lambda: train(run=tmp_path / "run"), lambda: memory.require_sampling(RECIPE, images, 3)):
        with pytest.raises(UserError, match="at 24x16 needs "):
            refused_stage()


def test_a_study_that_does_not_fit_is_refused_before_anything_is_trained(inpainted, tmp_path, free, monkeypatch):
    run = copy_of(inpainted, tmp_path / "run")
    before = checksums(run)
    free(1_000_000)
    with pytest.raises(UserError, match=r"drawing 2 samples of each context at 16x16 needs .* but only 1 MB are free"):
        inpaint_study(RECIPE, run)
    needed = memory.of_scoring(open_images(run / "images"), 6, 2, ["classifier_distance"])
    free(needed * 0.9)
    monkeypatch.setattr(memory, "require_sampling", lambda *arguments, **more: None)
    with pytest.raises(UserError, match="a study of 6 contexts of 2 samples each at 16x16 needs "):
        inpaint_study(RECIPE, run)
    assert checksums(run) == before


def test_tiny_images_are_not_refused(inpainted, tmp_path, free, monkeypatch):
    """One gigabyte is enough for them."""
    monkeypatch.setattr("wsdcast.images.stages.sample.EVALUATIONS", (2,))
    free(1e9)
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator", "classifier")
    assert isinstance(sample(run=run), Summary)
    assert score(run=run).scores
