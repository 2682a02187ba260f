"""Scores of images: their definitions written out, closed forms, and another library."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from without_numba import scoringrules

from wsdcast.images import scores
from wsdcast.images.evaluation import scored
from wsdcast.images.scores import drawn_metrics, metrics, radial_power, sample_statistics
from wsdcast.verification import bootstrap


def summarise(statistics: xr.Dataset, draws: int = bootstrap.DRAWS) -> dict[str, dict]:
    """Return each metric with its 95 % bootstrap interval over contexts, as :func:`wsdcast.images.evaluation.scored` does."""
    values, drawn = metrics(statistics.mean("context")), drawn_metrics(statistics, draws)
    summary = {}
    for name, value in values.data_vars.items():
        bounds = bootstrap.interval(drawn[name])
        low, high = (bounds.sel(bound=bound).values.tolist() for bound in ("low", "high"))
        summary[str(name)] = {"value": value.values.tolist(), "low": low, "high": high}
    summary["power_ratio"]["wavenumber"] = statistics["wavenumber"].values.tolist()
    return summary


@pytest.fixture
def pictures():
    """Return samples, truth and hidden pixels of six contexts. The last but one hides everything, the last one nothing."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)
    samples = np.clip(truth[:, None] + random.normal(5, 30, (6, 5, 8, 10, 3)), 0, 255).astype(np.uint8)
    hidden = random.random((6, 8, 10)) < 0.7
    hidden[4], hidden[5] = True, False
    return samples, truth, hidden


def test_statistics_equal_their_definitions(pictures):
    samples, truth, hidden = pictures
    statistics = sample_statistics(*pictures)
    for context, (ensemble, true, mask) in enumerate(zip(samples / 255, truth / 255, hidden, strict=True)):
        row = statistics.isel(context=context)
        hidden_samples, hidden_truth = ensemble[:, mask], true[mask]
        whole = np.mean((ensemble.mean(axis=0) - true) ** 2)
        assert row["psnr_whole"].item() == pytest.approx(10 * np.log10(1 / whole), rel=1e-5)
        if mask.any():
            crps = scoringrules.crps_ensemble(hidden_truth.ravel(), hidden_samples.reshape(5, -1).T, estimator="fair")
            squared = np.mean((hidden_samples.mean(axis=0) - hidden_truth) ** 2)
            pairs = [np.sqrt(np.mean((hidden_samples[i] - hidden_samples[j]) ** 2)) for i in range(5) for j in range(i)]
            assert row["crps"].item() == pytest.approx(crps.mean(), rel=1e-5)
            assert row["squared_error"].item() == pytest.approx(squared, rel=1e-5)
            assert row["psnr"].item() == pytest.approx(-10 * np.log10(squared), rel=1e-5)
            assert row["variance"].item() == pytest.approx(hidden_samples.var(axis=0, ddof=1).mean(), rel=1e-5)
            assert row["squared_error_debiased"].item() == pytest.approx(squared - hidden_samples.var(axis=0, ddof=1).mean() / 5, rel=1e-5)
            assert row["diversity"].item() == pytest.approx(np.mean(pairs), rel=1e-5)
        else:
            assert np.isnan([row[name].item() for name in ("crps", "squared_error", "psnr", "variance", "diversity")]).all()
        if mask.all():
            assert np.isnan(row["visible_squared_error"].item())
        else:
            assert row["visible_squared_error"].item() == pytest.approx(np.mean((ensemble[:, ~mask] - true[~mask]) ** 2), rel=1e-5)


def test_an_error_of_a_tenth_is_a_psnr_of_twenty():
    truth = np.full((1, 4, 4, 1), 100, dtype=np.uint8)
    # The mean of the samples is off by 0.1 of the range everywhere.
    samples = np.stack([truth, truth + 51], axis=1)
    statistics = sample_statistics(samples, truth, np.ones((1, 4, 4), dtype=bool))
    assert statistics["psnr"].item() == pytest.approx(20, abs=1e-4)
    assert statistics["diversity"].item() == pytest.approx(0.2, rel=1e-5)
    perfect = summarise(sample_statistics(truth[:, None].repeat(2, 1), truth, np.ones((1, 4, 4), dtype=bool)), draws=5)
    assert perfect["psnr"]["value"] == pytest.approx(20 * np.log10(255 * np.sqrt(12)))
    assert perfect["crps"] == {"value": 0, "low": 0, "high": 0}


def test_the_crps_of_one_sample_is_its_absolute_error(pictures):
    samples, truth, hidden = pictures
    statistics = sample_statistics(samples[:, :1], truth, hidden)
    error = np.abs(samples[:, 0] / 255 - truth / 255)
    expected = [error[context][hidden[context]].mean() for context in range(5)]
    np.testing.assert_allclose(statistics["crps_standard"][:5], expected, rtol=1e-5)
    several = sample_statistics(*pictures)
    # Statistics that need two samples are left out. The squared error of the mean is that of the sample.
    assert set(several) - set(statistics) == {"crps", "variance", "squared_error_debiased", "diversity"}
    assert set(statistics) - set(several) == {"crps_standard"}
    squared = [np.mean((samples[context, 0] / 255 - truth[context] / 255)[hidden[context]] ** 2) for context in range(5)]
    np.testing.assert_allclose(statistics["squared_error"][:5], squared, rtol=1e-5)
    np.testing.assert_allclose(statistics["power"], radial_power(samples[:, 0] / 255), rtol=1e-4)
    for values in (metrics(statistics.mean("context")), drawn_metrics(statistics, 3)):
        assert set(metrics(several.mean("context"))) - set(values) == {"crps", "spread", "spread_skill", "diversity"}
        assert all(np.isfinite(value).all() for value in values.data_vars.values())


def test_statistics_do_not_depend_on_order_orientation_or_parts(pictures, monkeypatch):
    samples, truth, hidden = pictures
    statistics = sample_statistics(*pictures)
    xr.testing.assert_allclose(sample_statistics(samples[:, ::-1], truth, hidden), statistics, rtol=1e-5)
    turned = sample_statistics(samples[:, :, ::-1, :, ::-1], truth[:, ::-1, :, ::-1], hidden[:, ::-1])
    xr.testing.assert_allclose(turned, statistics, rtol=1e-5)
    monkeypatch.setattr(scores, "VALUES_PER_PART", 2 * samples[0].size)
    xr.testing.assert_allclose(sample_statistics(*pictures), statistics, rtol=1e-6)


@pytest.mark.parametrize("size", [8, 9, 12, 30])
def test_images_of_one_colour_have_no_power(size):
    """The power is exactly zero. A rounding error instead of zero would make ratios meaningless."""
    colours = np.random.default_rng(0).integers(0, 256, (20, 2, 1, 1, 3), dtype=np.uint8)
    plain = np.broadcast_to(colours, (20, 2, size, size, 3))
    hidden = np.ones((20, size, size), dtype=bool)
    statistics = sample_statistics(plain, plain[:, 0], hidden)
    assert not statistics["power"].any()
    assert not statistics["power_truth"].any()
    values = metrics(statistics.mean("context"))
    assert np.isnan(values["power_ratio"]).all()
    assert np.isnan(values["power_deviation"])
    assert np.isfinite([values[name] for name in ("crps", "psnr", "rmse")]).all()
    speck = plain.copy()
    speck[..., size // 2, size // 3, 0] ^= 1  # the smallest possible change of one pixel has power
    assert (sample_statistics(speck, plain[:, 0], hidden)["power"].sum("wavenumber") > 0).all()


def test_reliable_samples_have_a_spread_skill_ratio_of_one():
    random = np.random.default_rng(0)
    centre = random.uniform(80, 170, (200, 1, 8, 8, 1))
    drawn = np.rint(centre + random.normal(0, 20, (200, 4, 8, 8, 1))).astype(np.uint8)
    summary = summarise(sample_statistics(drawn[:, 1:], drawn[:, 0], np.ones((200, 8, 8), dtype=bool)))
    assert summary["spread_skill"]["value"] == pytest.approx(1, abs=0.03)
    assert summary["spread"]["value"] == pytest.approx(20 / 255, rel=0.02)
    # CRPS of a perfect normal forecast: sigma / sqrt(pi).
    assert summary["crps"]["value"] == pytest.approx(20 / 255 / np.sqrt(np.pi), rel=0.02)
    # Two draws of a normal distribution are sqrt(2) sigma apart. The mean of roots over 64 pixels is slightly smaller.
    assert summary["diversity"]["value"] == pytest.approx(np.sqrt(2) * 20 / 255 * (1 - 1 / 256), rel=0.02)


def test_white_noise_has_its_variance_at_every_wavenumber():
    noise = np.random.default_rng(0).normal(3, 2, (2000, 16, 24, 2)).astype(np.float32)
    power = radial_power(noise).mean(axis=0)
    assert power.shape == (15,)
    np.testing.assert_allclose(power, 4, rtol=0.05)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_has_its_power_at_its_wavenumber(axis):
    position = (np.arange(32) + 0.5) / 32
    wave = np.cos(2 * np.pi * 3.5 * position)
    image = np.broadcast_to(wave[:, None] if axis == 0 else wave, (32, 32))[..., None]
    power = radial_power(image)
    assert (np.arange(1, 32) / 2)[power.argmax()] == 3.5
    assert power.sum() == pytest.approx(power.max())


def test_the_power_of_a_slope_falls_with_the_fourth_power_of_the_wavenumber():
    """A Fourier transform would see a jump between opposite borders, and fall as 1 / k^2. A cosine transform falls as 1 / k^4."""
    slope = np.broadcast_to((np.arange(32) + 0.5) / 32, (32, 32))[..., None]
    power = radial_power(slope)
    ring = np.rint(np.hypot(*np.mgrid[:32, :32]))

    def expected(k):
        angle = np.pi * k / 64
        return (np.cos(angle) / np.sin(angle) ** 2) ** 2 / (ring == k).sum()

    for k in (3, 11, 21):
        assert power[k - 1] / power[0] == pytest.approx(expected(k) / expected(1), rel=1e-6)
    np.testing.assert_allclose(power[1::2], 0, atol=1e-12)


def test_power_ratios_divide_means_of_power_over_samples():
    random = np.random.default_rng(0)
    strength = np.array([5, 40])[:, None, None, None]
    truth = np.rint(128 + strength * random.normal(0, 1, (2, 16, 16, 1))).astype(np.uint8)
    samples = np.rint(128 + np.array([10, 20])[:, None, None, None, None] * random.normal(0, 1, (2, 50, 16, 16, 1))).astype(np.uint8)
    statistics = sample_statistics(samples, truth, np.ones((2, 16, 16), dtype=bool))
    summary = summarise(statistics, draws=20)
    assert summary["power_ratio"]["wavenumber"] == [k / 2 for k in range(1, 16)]
    expected = statistics["power"].mean("context") / statistics["power_truth"].mean("context")
    np.testing.assert_allclose(summary["power_ratio"]["value"], expected)
    # The ratio of means is 500 / 1625. The mean of the ratios would be about 2.
    assert np.mean(summary["power_ratio"]["value"][4:]) == pytest.approx(500 / 1625, rel=0.2)
    assert summary["power_deviation"]["value"] == pytest.approx(float(abs(1 - expected).mean()))
    assert [name for name, score in scored([statistics], {}, 20).items() if "draws" not in score] == ["power_deviation"]


def test_metrics_average_before_they_take_roots(pictures):
    statistics = sample_statistics(*pictures)
    summary = summarise(statistics, draws=200)
    assert summary["rmse"]["value"] == pytest.approx(np.sqrt(np.nanmean(statistics["squared_error"])))
    assert summary["consistency"]["value"] == pytest.approx(np.sqrt(np.nanmean(statistics["visible_squared_error"])))
    assert summary["psnr"]["value"] == pytest.approx(np.nanmean(statistics["psnr"]))
    for name in ("crps", "rmse", "psnr", "spread", "diversity", "consistency"):
        assert summary[name]["low"] < summary[name]["value"] < summary[name]["high"]
    assert set(summary) == set(scores.ABOUT) - {"crps_standard"}  # only a single sample has it


def test_all_scores_draw_the_same_contexts(pictures):
    statistics = sample_statistics(*pictures)
    shifted = statistics.assign(crps=statistics["crps"] + 0.25)
    difference = drawn_metrics(shifted, 30)["crps"] - drawn_metrics(statistics, 30)["crps"]
    np.testing.assert_allclose(difference, 0.25)


def test_intervals_of_a_mean_cover_its_expectation():
    random = np.random.default_rng(0)
    template = sample_statistics(
        *(np.zeros(shape, dtype=np.uint8) for shape in ((1, 2, 4, 4, 1), (1, 4, 4, 1))), np.ones((1, 4, 4), dtype=bool)
    )
    covered = []
    for _ in range(40):
        many = template.isel(context=np.zeros(50, dtype=int))
        drawn = summarise(many.assign(crps=("context", random.exponential(size=50))), draws=200)["crps"]
        covered.append(drawn["low"] < 1 < drawn["high"])
    assert 0.8 < np.mean(covered) <= 1
