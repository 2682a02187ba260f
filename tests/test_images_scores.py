"""Scores of images: closed forms, brute force, and other libraries."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.linalg
import scoringrules
import torch
import xarray as xr

from wsdcast.images import scores
from wsdcast.images.data.resampling import context_weights
from wsdcast.images.features import FEATURES, INCEPTION, Classifier, classifier_loss, inception, mirrored, turned
from wsdcast.images.frechet import FeatureStatistics, drawn_distances, frechet_distance
from wsdcast.images.scores import drawn_metrics, metrics, radial_power, sample_statistics
from wsdcast.runs.errors import UserError
from wsdcast.verification import bootstrap
from wsdcast.verification.bootstrap import BOUNDS


def summarise(statistics: xr.Dataset, draws: int = bootstrap.DRAWS) -> dict[str, dict]:
    """Each metric and 95 % of bootstrap samples of contexts, as :func:`wsdcast.images.evaluation.scored` has them."""
    values, drawn = metrics(statistics.mean("context")), drawn_metrics(statistics, draws)
    found = {}
    for name, value in values.data_vars.items():
        of = {"value": value.values.tolist()}
        if not str(name).startswith("power_deviation"):
            bounds = bootstrap.interval(drawn[name])
            of |= {bound: bounds.sel(bound=bound).values.tolist() for bound in ("low", "high")}
        found[str(name)] = of
    found["power_ratio"]["wavenumber"] = statistics["wavenumber"].values.tolist()
    return found


def gaussian(count, mean, covariance):
    """Statistics of infinitely many features would have these moments; given as those of ``count``."""
    mean, covariance = np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float)
    return FeatureStatistics(count, count * mean, (count - 1) * covariance + count * np.outer(mean, mean))


# Fréchet distance


def test_distance_of_known_gaussians():
    a = gaussian(100, [0, 0, 1], np.diag([1, 4, 9]))
    b = gaussian(50, [3, 0, 1], np.diag([4, 4, 1]))
    # Diagonal covariances: |mean difference|^2 and squared differences of standard deviations.
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 0 + 4)
    assert frechet_distance(b, a) == pytest.approx(14)


def test_distance_agrees_with_a_matrix_square_root():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 7)) @ random.normal(size=(7, 7)), random.normal(size=(90, 7)) @ random.normal(size=(7, 7)) + 1
    a, b = np.cov(x.T), np.cov(y.T)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y)) == pytest.approx(expected, rel=1e-10)


def test_statistics_of_parts_add_up():
    features = np.random.default_rng(1).normal(3, 1, (40, 5)).astype(np.float32)
    whole, parts = FeatureStatistics.of(features), FeatureStatistics.of(features[:11]) + FeatureStatistics.of(features[11:])
    np.testing.assert_allclose(parts.covariance, np.cov(features.astype(float).T), rtol=1e-12)
    np.testing.assert_allclose(parts.mean, features.astype(float).mean(0), rtol=1e-12)
    assert parts.count == 40
    assert frechet_distance(whole, parts) == pytest.approx(0, abs=1e-6)


def test_fewer_images_than_features():
    random = np.random.default_rng(2)
    # All in two dimensions out of fifty, where the distance is known.
    turn = np.linalg.qr(random.normal(size=(50, 50)))[0]
    x = np.zeros((8, 50))
    x[:, :2] = random.normal(size=(8, 2))
    y = x * 3
    a, b = FeatureStatistics.of(x @ turn), FeatureStatistics.of(y @ turn)
    expected = 4 * (np.square(x.mean(0)).sum() + x.var(axis=0, ddof=1).sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("features", [4, 60], ids=["more samples than features", "fewer"])
def test_draws_are_distances_of_resampled_contexts(features):
    random = np.random.default_rng(3)
    samples, reference = random.normal(size=(10, 3, features)), FeatureStatistics.of(random.normal(0.5, 2, size=(100, features)))
    found, draws = drawn_distances(samples, reference, draws=7)
    assert found == pytest.approx(frechet_distance(FeatureStatistics.of(samples), reference))
    expected = []
    for weight in context_weights(10, 7):
        drawn = np.repeat(samples, np.rint(10 * weight).astype(int), axis=0)
        assert drawn.shape == samples.shape
        expected.append(frechet_distance(FeatureStatistics.of(drawn), reference))
    np.testing.assert_allclose(draws - draws.mean(), np.array(expected) - np.mean(expected), atol=1e-6)
    assert draws.mean() == pytest.approx(found)
    alone, none = drawn_distances(samples, reference, draws=0)
    assert alone == found
    assert none.shape == (0,)


def test_intervals_of_the_distance_cover():
    """The expectation at this number of contexts, about which distances of new contexts scatter, is in 19 of 20 intervals."""
    random, reference = np.random.default_rng(5), gaussian(1000, np.zeros(4), np.eye(4))

    def features():
        # Samples of one context are alike.
        return 0.3 + random.normal(size=(60, 1, 4)) + 0.5 * random.normal(size=(60, 3, 4))

    expected = np.mean([frechet_distance(FeatureStatistics.of(features()), reference) for _ in range(1000)])
    inside = [
        low < expected < high for low, high in (np.quantile(drawn_distances(features(), reference, 200)[1], BOUNDS) for _ in range(100))
    ]
    assert 0.88 < np.mean(inside) < 0.99


# The classifier


@pytest.mark.parametrize(("channels", "size"), [(3, 16), (1, 28), (3, 32), (3, 64)])
def test_the_classifier_takes_images_of_any_size(channels, size):
    torch.manual_seed(0)
    network, x = Classifier(channels, 10), torch.rand(5, channels, size, size) * 2 - 1
    assert network(x).shape == (5, 10)
    assert network.features(x).shape == (5, FEATURES)
    assert 2.5e5 < sum(parameter.numel() for parameter in network.parameters()) < 3.5e5
    # What else is in the batch does not matter.
    torch.testing.assert_close(network.features(x)[2:3], network.features(x[2:3]), rtol=1e-4, atol=1e-5)


def test_the_classifier_learns():
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    network = Classifier(1, 2)
    labels = torch.arange(64) % 2
    # Stripes one way or the other.
    stripes = torch.sin(torch.arange(16) * 1.5 + 6 * torch.rand(64, 1, 1, generator=random)).expand(64, 16, 16)
    images = torch.where(labels[:, None, None] == 0, stripes, stripes.mT)[:, None]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(20):
        optimiser.zero_grad()
        classifier_loss(network, images, labels).backward()
        optimiser.step()
    assert (network(images).argmax(1) == labels).all()


def test_quarter_turns_are_what_they_say():
    images = torch.randint(0, 256, (40, 3, 6, 6), dtype=torch.uint8)
    found, turns = turned(images, torch.Generator().manual_seed(0))
    assert set(turns.tolist()) == {0, 1, 2, 3}
    for image, given, turn in zip(found, images, turns.tolist(), strict=True):
        np.testing.assert_array_equal(image.movedim(0, -1).numpy(), np.rot90(given.movedim(0, -1).numpy(), turn))


def test_half_of_the_images_are_mirrored():
    images = torch.randint(0, 256, (400, 2, 3, 5), dtype=torch.uint8)
    found = mirrored(images, torch.Generator().manual_seed(0))
    same = (found == images).all(dim=(1, 2, 3))
    assert (same | (found == images.flip(3)).all(dim=(1, 2, 3))).all()
    assert same.float().mean() == pytest.approx(0.5, abs=0.08)


# Inception

OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


@pytest.fixture(scope="module")
def fidelity():
    """torch-fidelity's network. It imports torchvision, for other things; one made for CUDA lacks its operators beside a torch without."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torch_fidelity.feature_extractor_inceptionv3 as module

    return module


@pytest.fixture(scope="module")
def weights(fidelity, tmp_path_factory):
    """Random weights of Inception v3, and their checksum."""
    torch.manual_seed(0)
    with mock.patch.object(fidelity.FeatureExtractorInceptionV3, "load_state_dict"), mock.patch.object(torch, "load"):
        network = fidelity.FeatureExtractorInceptionV3("random", ["2048"], "none")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_inception_features_are_those_of_torchmetrics(weights):
    from torchmetrics.image.fid import NoTrainInceptionV3

    path, checksum = weights
    features = inception(path, checksum)
    colour, grey = (torch.randint(0, 256, (1, channels, 32, 32), dtype=torch.uint8) for channels in (3, 1))
    found = torch.cat([features(colour), features(grey)])
    assert found.shape == (2, 2048)
    assert found.std() > 0
    expected = NoTrainInceptionV3("inception", ["2048"], str(path), antialias=False)
    # Grey images are colour images with three equal channels.
    torch.testing.assert_close(found, expected(torch.cat([colour, grey.repeat(1, 3, 1, 1)])).clone())


@pytest.mark.slow
def test_the_inception_distance_is_that_of_torchmetrics(weights):
    from torchmetrics.image.fid import FrechetInceptionDistance

    path, checksum = weights
    random = torch.Generator().manual_seed(0)
    true = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=random)
    false = torch.randint(0, 128, (10, 3, 32, 32), dtype=torch.uint8, generator=random)
    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(path), antialias=False)
    metric.update(true, real=True)
    metric.update(false, real=False)
    features = inception(path, checksum)
    a, b = (FeatureStatistics.of(features(images).numpy()) for images in (true, false))
    assert frechet_distance(a, b) == pytest.approx(metric.compute().item(), rel=1e-3)


@pytest.mark.usefixtures("fidelity")
def test_the_distance_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Means(torch.nn.Module):
        num_features = 12

        def forward(self, x):
            return x.float().reshape(len(x), 12, -1).mean(dim=2)

    random = torch.Generator().manual_seed(0)
    true, false = (torch.randint(0, top, (30, 3, 8, 8), dtype=torch.uint8, generator=random) for top in (256, 200))
    metric = FrechetInceptionDistance(feature=Means())
    metric.update(true, real=True)
    metric.update(false, real=False)
    a, b = (FeatureStatistics.of(Means()(images).numpy()) for images in (true, false))
    assert frechet_distance(a, b) == pytest.approx(metric.compute().item(), rel=1e-3)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.usefixtures("fidelity")
def test_weights_are_never_executed(tmp_path, legacy):
    trap, path = tmp_path / "sprung", tmp_path / "weights.pth"
    torch.save({"fc.weight": Trap(trap)}, path, _use_new_zipfile_serialization=not legacy)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="not those of Inception v3"):
        inception(path, checksum)
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists()  # it was a trap


@pytest.mark.usefixtures("fidelity")
def test_files_that_are_not_the_weights(tmp_path):
    path = tmp_path / INCEPTION
    with pytest.raises(UserError, match=f"{INCEPTION}: cannot be read"):
        inception(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="SHA-256 begins with 6726825d"):
        inception(path)
    for content in (b"<html>not found</html>", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not those of Inception v3"):
            inception(path, hashlib.sha256(content).hexdigest())
    torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="not those of Inception v3"):
        inception(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match="pip install 'wsdcast\\[fid\\]'") as caught:
        inception(tmp_path / INCEPTION)
    assert "\n" not in str(caught.value)


# Scores


@pytest.fixture
def pictures():
    """Samples, truth and hidden pixels of six contexts, the last two of which hide all and nothing."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)
    samples = np.clip(truth[:, None] + random.normal(5, 30, (6, 5, 8, 10, 3)), 0, 255).astype(np.uint8)
    hidden = random.random((6, 8, 10)) < 0.7
    hidden[4], hidden[5] = True, False
    return samples, truth, hidden


def test_statistics_by_brute_force(pictures):
    samples, truth, hidden = pictures
    found = sample_statistics(*pictures)
    for context, (ensemble, true, mask) in enumerate(zip(samples / 255, truth / 255, hidden, strict=True)):
        of = found.isel(context=context)
        away, there = ensemble[:, mask], true[mask]
        whole = np.mean((ensemble.mean(axis=0) - true) ** 2)
        assert of["psnr_whole"].item() == pytest.approx(10 * np.log10(1 / whole), rel=1e-5)
        if mask.any():
            crps = scoringrules.crps_ensemble(there.ravel(), away.reshape(5, -1).T, estimator="fair")
            squared = np.mean((away.mean(axis=0) - there) ** 2)
            pairs = [np.sqrt(np.mean((away[i] - away[j]) ** 2)) for i in range(5) for j in range(i)]
            assert of["crps"].item() == pytest.approx(crps.mean(), rel=1e-5)
            assert of["squared_error"].item() == pytest.approx(squared, rel=1e-5)
            assert of["psnr"].item() == pytest.approx(-10 * np.log10(squared), rel=1e-5)
            assert of["variance"].item() == pytest.approx(away.var(axis=0, ddof=1).mean(), rel=1e-5)
            assert of["squared_error_debiased"].item() == pytest.approx(squared - away.var(axis=0, ddof=1).mean() / 5, rel=1e-5)
            assert of["diversity"].item() == pytest.approx(np.mean(pairs), rel=1e-5)
        else:
            assert np.isnan([of[name].item() for name in ("crps", "squared_error", "psnr", "variance", "diversity")]).all()
        if mask.all():
            assert np.isnan(of["visible_squared_error"].item())
        else:
            assert of["visible_squared_error"].item() == pytest.approx(np.mean((ensemble[:, ~mask] - true[~mask]) ** 2), rel=1e-5)


def test_psnr_by_hand():
    truth = np.full((1, 4, 4, 1), 100, dtype=np.uint8)
    # Their mean is off by 0.1 of the range everywhere.
    samples = np.stack([truth, truth + 51], axis=1)
    found = sample_statistics(samples, truth, np.ones((1, 4, 4), dtype=bool))
    assert found["psnr"].item() == pytest.approx(20, abs=1e-4)
    assert found["diversity"].item() == pytest.approx(0.2, rel=1e-5)
    perfect = summarise(sample_statistics(truth[:, None].repeat(2, 1), truth, np.ones((1, 4, 4), dtype=bool)), draws=5)
    assert perfect["psnr"]["value"] == pytest.approx(20 * np.log10(255 * np.sqrt(12)))
    assert perfect["crps"] == {"value": 0, "low": 0, "high": 0}


def test_one_sample_has_its_absolute_error(pictures):
    samples, truth, hidden = pictures
    found = sample_statistics(samples[:, :1], truth, hidden)
    error = np.abs(samples[:, 0] / 255 - truth / 255)
    expected = [error[context][hidden[context]].mean() for context in range(5)]
    np.testing.assert_allclose(found["crps_standard"][:5], expected, rtol=1e-5)
    several = sample_statistics(*pictures)
    # What needs two is left out, the others are as they are defined: of the squared error of the mean that is the sample's own.
    assert set(several) - set(found) == {"crps", "variance", "squared_error_debiased", "diversity"}
    assert set(found) - set(several) == {"crps_standard"}
    squared = [np.mean((samples[context, 0] / 255 - truth[context] / 255)[hidden[context]] ** 2) for context in range(5)]
    np.testing.assert_allclose(found["squared_error"][:5], squared, rtol=1e-5)
    np.testing.assert_allclose(found["power"], radial_power(samples[:, 0] / 255), rtol=1e-4)
    for values in (metrics(found.mean("context")), drawn_metrics(found, 3)):
        assert set(metrics(several.mean("context"))) - set(values) == {"crps", "spread", "spread_skill", "diversity"}
        assert all(np.isfinite(value).all() for value in values.data_vars.values())


def test_neither_order_nor_chunks_matter(pictures, monkeypatch):
    samples, truth, hidden = pictures
    found = sample_statistics(*pictures)
    xr.testing.assert_allclose(sample_statistics(samples[:, ::-1], truth, hidden), found, rtol=1e-5)
    turned_round = sample_statistics(samples[:, :, ::-1, :, ::-1], truth[:, ::-1, :, ::-1], hidden[:, ::-1])
    xr.testing.assert_allclose(turned_round, found, rtol=1e-5)
    monkeypatch.setattr(scores, "VALUES_PER_PART", 2 * samples[0].size)
    xr.testing.assert_allclose(sample_statistics(*pictures), found, rtol=1e-6)


@pytest.mark.parametrize("size", [8, 9, 12, 30])
def test_images_of_one_colour_have_no_power(size):
    """None at all, and not what rounding leaves, over which a ratio would be anything."""
    colours = np.random.default_rng(0).integers(0, 256, (20, 2, 1, 1, 3), dtype=np.uint8)
    plain = np.broadcast_to(colours, (20, 2, size, size, 3))
    hidden = np.ones((20, size, size), dtype=bool)
    statistics = sample_statistics(plain, plain[:, 0], hidden)
    assert not statistics["power"].any()
    assert not statistics["power_truth"].any()
    found = metrics(statistics.mean("context"))
    assert np.isnan(found["power_ratio"]).all()
    assert np.isnan(found["power_deviation"])
    assert np.isfinite([found[name] for name in ("crps", "psnr", "rmse")]).all()
    speck = plain.copy()
    speck[..., size // 2, size // 3, 0] ^= 1  # the least that one pixel can differ by has its power
    assert (sample_statistics(speck, plain[:, 0], hidden)["power"].sum("wavenumber") > 0).all()


def test_reliable_samples_have_a_ratio_of_one():
    random = np.random.default_rng(0)
    centre = random.uniform(80, 170, (200, 1, 8, 8, 1))
    drawn = np.rint(centre + random.normal(0, 20, (200, 4, 8, 8, 1))).astype(np.uint8)
    found = summarise(sample_statistics(drawn[:, 1:], drawn[:, 0], np.ones((200, 8, 8), dtype=bool)))
    assert found["spread_skill"]["value"] == pytest.approx(1, abs=0.03)
    assert found["spread"]["value"] == pytest.approx(20 / 255, rel=0.02)
    # CRPS of a perfect normal forecast: sigma / sqrt(pi).
    assert found["crps"]["value"] == pytest.approx(20 / 255 / np.sqrt(np.pi), rel=0.02)
    # Two draws of a normal distribution are sqrt(2) sigma apart; single pairs of 64 pixels a little less in the mean of roots.
    assert found["diversity"]["value"] == pytest.approx(np.sqrt(2) * 20 / 255 * (1 - 1 / 256), rel=0.02)


# Spectra


def test_white_noise_has_its_variance_at_every_wavenumber():
    noise = np.random.default_rng(0).normal(3, 2, (2000, 16, 24, 2)).astype(np.float32)
    power = radial_power(noise).mean(axis=0)
    assert power.shape == (15,)
    np.testing.assert_allclose(power, 4, rtol=0.05)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_is_at_its_wavenumber(axis):
    at = (np.arange(32) + 0.5) / 32
    wave = np.cos(2 * np.pi * 3.5 * at)
    image = np.broadcast_to(wave[:, None] if axis == 0 else wave, (32, 32))[..., None]
    power = radial_power(image)
    assert (np.arange(1, 32) / 2)[power.argmax()] == 3.5
    assert power.sum() == pytest.approx(power.max())


def test_a_slope_is_hardly_fine_structure():
    """Between opposite borders it jumps, and a plain transform falls as 1 / k^2; this one as 1 / k^4, at odd multiples of half a wave."""
    slope = np.broadcast_to((np.arange(32) + 0.5) / 32, (32, 32))[..., None]
    power = radial_power(slope)
    ring = np.rint(np.hypot(*np.mgrid[:32, :32]))

    def expected(k):
        angle = np.pi * k / 64
        return (np.cos(angle) / np.sin(angle) ** 2) ** 2 / (ring == k).sum()

    for k in (3, 11, 21):
        assert power[k - 1] / power[0] == pytest.approx(expected(k) / expected(1), rel=1e-6)
    np.testing.assert_allclose(power[1::2], 0, atol=1e-12)


def test_power_is_of_samples_and_ratios_come_last():
    random = np.random.default_rng(0)
    strength = np.array([5, 40])[:, None, None, None]
    truth = np.rint(128 + strength * random.normal(0, 1, (2, 16, 16, 1))).astype(np.uint8)
    samples = np.rint(128 + np.array([10, 20])[:, None, None, None, None] * random.normal(0, 1, (2, 50, 16, 16, 1))).astype(np.uint8)
    found = sample_statistics(samples, truth, np.ones((2, 16, 16), dtype=bool))
    summary = summarise(found, draws=20)
    assert summary["power_ratio"]["wavenumber"] == [k / 2 for k in range(1, 16)]
    expected = found["power"].mean("context") / found["power_truth"].mean("context")
    np.testing.assert_allclose(summary["power_ratio"]["value"], expected)
    # 500 / 1625, far from the mean of the ratios, about 2.
    assert np.mean(summary["power_ratio"]["value"][4:]) == pytest.approx(500 / 1625, rel=0.2)
    assert summary["power_deviation"]["value"] == pytest.approx(float(abs(1 - expected).mean()))
    assert "low" not in summary["power_deviation"]


# Intervals


def test_the_summary_averages_before_roots(pictures):
    found = sample_statistics(*pictures)
    summary = summarise(found, draws=200)
    assert summary["rmse"]["value"] == pytest.approx(np.sqrt(np.nanmean(found["squared_error"])))
    assert summary["consistency"]["value"] == pytest.approx(np.sqrt(np.nanmean(found["visible_squared_error"])))
    assert summary["psnr"]["value"] == pytest.approx(np.nanmean(found["psnr"]))
    for name in ("crps", "rmse", "psnr", "spread", "diversity", "consistency"):
        assert summary[name]["low"] < summary[name]["value"] < summary[name]["high"]
    assert set(summary) == set(scores.ABOUT) - {"crps_standard"}  # of one sample alone


def test_draws_are_of_the_same_contexts(pictures):
    found = sample_statistics(*pictures)
    shifted = found.assign(crps=found["crps"] + 0.25)
    difference = drawn_metrics(shifted, 30)["crps"] - drawn_metrics(found, 30)["crps"]
    np.testing.assert_allclose(difference, 0.25)


def test_intervals_of_a_mean_cover():
    random = np.random.default_rng(0)
    like = sample_statistics(
        *(np.zeros(shape, dtype=np.uint8) for shape in ((1, 2, 4, 4, 1), (1, 4, 4, 1))), np.ones((1, 4, 4), dtype=bool)
    )
    covered = []
    for _ in range(40):
        many = like.isel(context=np.zeros(50, dtype=int))
        drawn = summarise(many.assign(crps=("context", random.exponential(size=50))), draws=200)["crps"]
        covered.append(drawn["low"] < 1 < drawn["high"])
    assert 0.8 < np.mean(covered) <= 1
