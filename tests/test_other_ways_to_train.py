"""The script examples/other_ways_to_train.py: its three changes against their definitions, and its table on a tiny planet."""

from __future__ import annotations

import importlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_examples import EXAMPLES, tiny

from wsdcast.warmstart.paths import cosine_transform


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("other_ways_to_train")


def test_the_assignment_has_the_smallest_sum_of_squared_distances(script):
    data, noise = torch.randn(2, 6, 2, 3, generator=torch.Generator().manual_seed(0))
    found = script.assigned(data, noise)

    def cost(order) -> float:
        return (data - noise[list(order)]).square().sum().item()

    assert (data - found).square().sum().item() == pytest.approx(min(map(cost, itertools.permutations(range(6)))))
    assert sorted(found.flatten().tolist()) == sorted(noise.flatten().tolist())


def test_easy_times_are_the_noisiest_part_of_all(script):
    t = torch.randn(100_001, generator=torch.Generator().manual_seed(0)).sigmoid()
    easy = script.easier(t, 0.4)
    assert easy.max() <= t.quantile(0.4) + 0.01
    for quantile in (0.25, 0.5, 0.75):
        assert easy.quantile(quantile).item() == pytest.approx(t.quantile(0.4 * quantile).item(), abs=0.01)
    assert torch.equal(script.easier(t, 1.0), t)


def test_fifths_are_added_until_all_are_in_at_four_tenths_of_the_steps(script, monkeypatch):
    shares = []
    monkeypatch.setattr(script, "easier", lambda t, share: shares.append(share) or t)

    class Nested:
        draws = property(lambda self: self)
        t = 0.5

        def _replace(self, **changes):
            return self

    batch_of = script.easy_to_hard(lambda indices, local: Nested(), 20)
    for _ in range(20):
        batch_of(None, None)
    assert [min(share, 1.0) for share in shares] == pytest.approx([0.2] * 2 + [0.4] * 2 + [0.6] * 2 + [0.8] * 2 + [1.0] * 12)


SPECTRUM = torch.tensor([25.0, 4.0, 1.0, 0.3, 0.01])


def test_the_variance_of_a_wave_moves_on_the_shortest_path(script):
    """The shortest path of the Fisher metric between variances 1 and S is S^p."""
    path = script.ShortestPath(SPECTRUM, None)
    t = torch.tensor([0.1, 0.5, 0.9]).double()
    a, b, of_a, of_b = path.shares(t)
    variance = a**2 * SPECTRUM + b**2
    torch.testing.assert_close(variance, SPECTRUM.double() ** (math.pi * t / 2).sin()[:, None] ** 2, rtol=1e-5, atol=0)
    step = 1e-6
    later, earlier = path.shares(t + step), path.shares(t - step)
    for share, derivative in ((0, of_a), (1, of_b)):
        torch.testing.assert_close(derivative, (later[share] - earlier[share]) / (2 * step), rtol=1e-5, atol=1e-6)
    # It begins at the noise and ends at the data.
    ends = path.shares(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends[0], torch.tensor([[0.0], [1.0]]).double().expand(2, 5), atol=2e-3, rtol=0)
    # Halfway the ratio of signal to noise is sqrt(S), where the straight path has S: it sharpens the data and blurs the noise.
    torch.testing.assert_close(a[1] ** 2 * SPECTRUM / b[1] ** 2, SPECTRUM.double().sqrt(), rtol=1e-5, atol=0)


def test_a_state_mixes_data_and_noise_by_wave(script):
    """On one row of pixels, with waves by hand."""
    count = len(SPECTRUM)
    points, waves = np.arange(count), np.arange(count)
    cosines = np.cos(np.pi / count * waves[:, None] * (points + 0.5)) * np.sqrt(2 / count)
    cosines[0] /= np.sqrt(2)
    transform = torch.from_numpy(cosines)
    multiply = cosine_transform(1, count)
    by_wave = lambda x, factor: multiply(x, lambda eigenvalues: factor(eigenvalues[0])[:, None, :])  # noqa: E731
    path = script.ShortestPath(SPECTRUM, by_wave)
    noise, data = torch.randn(2, 3, 2, 1, count, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor([0.2, 0.5, 0.7]).double()
    x, target = path.point(noise, data, t)
    a, b, of_a, of_b = (share[:, None, None] for share in path.shares(t))
    torch.testing.assert_close(x @ transform.T, a * (data @ transform.T) + b * (noise @ transform.T))
    torch.testing.assert_close(target @ transform.T, of_a * (data @ transform.T) + of_b * (noise @ transform.T))
    many = torch.randn(20_000, 1, 1, count, generator=torch.Generator().manual_seed(1)).double()
    coloured = by_wave(many, lambda _: SPECTRUM.double().sqrt()[None])
    torch.testing.assert_close(script.spectrum_of(by_wave, coloured).double(), SPECTRUM.double(), rtol=0.05, atol=0)


@pytest.mark.slow
def test_other_ways_to_train(script, monkeypatch, tmp_path: Path, capsys):
    for name, value in {"SEEDS": (0, 1), "STARTS": 3, "MEMBERS": 3, "EVALUATIONS": (2, 4), "CORRELATED_BATCHES": 8}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "recipe_of", lambda stirring: tiny("tiny", data__stirring=stirring))
    script.main(tmp_path)
    printed = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in printed[2:-2]]
    keys = itertools.product(script.PRIORS, script.WAYS, ("2", "4"))
    assert [tuple(row[:3]) for row in rows] == list(keys)
    assert all(row[4] == "+0.0 (+0.0 to +0.0)" for row in rows if row[1] == "as it is")
    assert all(math.isfinite(float(row[column])) for row in rows for column in (3, 5, 7))
    # The generator as it is is that of ``wsdcast train``; the others are not.
    for prior in script.PRIORS:
        place = tmp_path / f"study/{prior}-1"
        expected, *others = (load_file(place / way / "weights.safetensors") for way in ("generator", "immiscible-noise", "easy-to-hard"))
        assert all(torch.equal(value, expected[name]) for name, value in load_file(place / "as-it-is/weights.safetensors").items())
        assert all(any(not torch.equal(value, expected[name]) for name, value in other.items()) for other in others)
        before, after = (float(word) for word in printed[-2 + script.PRIORS.index(prior)].split() if word[-1].isdigit())
        assert abs(before) < 0.05
        assert after > before + 0.005
    # Nothing is trained again.
    monkeypatch.setattr(script, "fit", None)
    script.main(tmp_path)
    assert capsys.readouterr().out.splitlines() == printed
