"""Scores of the networks during training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from wsdcast.training import predictions, validation
from wsdcast.training.predictions import batches_of, errors, overall_errors, write_predictions
from wsdcast.training.validation import ensemble_scores, flow_scores, moments_scores
from wsdcast.warmstart.paths import STRAIGHT
from wsdcast.warmstart.prior import InformedPrior

COUNT = 40
CONTEXTS, TARGETS = torch.randn((COUNT, 8, 4, 6), generator=torch.Generator().manual_seed(0)).split((6, 2), dim=1)


class Samples:
    """Random samples, whose contexts have 144 numbers each."""

    shape = TARGETS.shape[1:]

    def __len__(self) -> int:
        return COUNT

    def context(self, indices: Tensor) -> Tensor:
        return CONTEXTS[indices]

    def target(self, indices: Tensor) -> Tensor:
        return TARGETS[indices]


@pytest.mark.parametrize(("most", "together"), [(1, {1}), (3 * 144, {3, 2}), (10**9, {32, 8})])
def test_scores_of_large_fields_are_those_of_whole_batches_in_smaller_parts(monkeypatch, most, together):
    """The batches of 40 samples have 32 and 8. The draws belong to the batch, so only the rounding of the means depends on the parts."""

    def scores() -> dict[str, float]:
        sizes.clear()

        def evaluated(x: Tensor, *_: Tensor) -> Tensor:
            sizes.add(len(x))
            return x[:, :2].sin()

        flow = flow_scores(evaluated, lambda context: InformedPrior(context[:, :2], context[:, 2:4].exp()), Samples(), STRAIGHT)
        return flow | ensemble_scores(lambda context, noise: evaluated(context + 1) + noise, Samples(), torch.rand(4, 1))

    sizes: set[int] = set()
    torch.manual_seed(0)
    whole = scores()
    assert sizes == {32, 8}
    monkeypatch.setattr(validation, "MOST_NUMBERS", most)
    torch.manual_seed(0)
    assert scores() == pytest.approx(whole, rel=1e-5)
    assert sizes == together


WEIGHTS = torch.tensor([0.4, 1.0, 1.5, 1.1])[:, None]


def root_mean_square(values: np.ndarray) -> np.ndarray:
    """Over samples and area, by channel."""
    return np.sqrt(np.mean(WEIGHTS.numpy() * values**2, axis=(0, 2, 3)))


def test_scores_of_moments_are_those_written_out():
    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        return context[:, :2], context[:, 2:4].exp()

    mean, std, target = *(values.numpy() for values in moments(CONTEXTS)), TARGETS.numpy()
    error, standardised = root_mean_square(target - mean), root_mean_square((target - mean) / std)
    # Two models, of which each predicts a part of the samples.
    halves = [(moments, torch.arange(35)), (lambda context: moments(context), torch.arange(35, COUNT))]
    np.testing.assert_allclose(errors(halves, Samples(), WEIGHTS), [error, standardised], rtol=1e-5)
    of_all = [np.sqrt(np.mean(values**2)) for values in (error, standardised)]
    assert overall_errors(moments, Samples(), WEIGHTS) == pytest.approx(of_all, rel=1e-5)
    scores = moments_scores(moments, Samples(), WEIGHTS)
    expected = {"NLL": -norm.logpdf(target, mean, std).mean(), "std of (x - mean) / std": of_all[1], "error": of_all[0]}
    assert scores == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("most", "together"), [(1, {1}), (3 * 24, {3, 1}), (2**21, {32, 8})])
def test_moments_of_large_fields_are_predicted_in_smaller_batches(tmp_path, monkeypatch, most, together):
    """On a grid of 1440x721 points 32 samples would take 222 GB. Samples have 24 points here."""

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        sizes.add(len(context))
        return context[:, :2], context[:, 2:4].exp()

    def results() -> list:
        everything = [(moments, torch.arange(COUNT))]
        write_predictions(tmp_path, everything, Samples(), {})
        in_file = np.load(tmp_path / "moments.npy")
        return [in_file, errors(everything, Samples(), WEIGHTS), [*moments_scores(moments, Samples(), WEIGHTS).values()]]

    sizes: set[int] = set()
    whole = results()
    monkeypatch.setattr(predictions, "MOST_POINTS", most)
    sizes.clear()
    for ours, expected in zip(results(), whole, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert sizes == together


@pytest.mark.parametrize(("grid", "size"), [((121, 240), 32), ((181, 360), 32), ((721, 1440), 2), ((2161, 4320), 1)])
def test_batches_of_predictions_keep_their_size_up_to_one_degree(monkeypatch, grid, size):
    """Each has its own seed of dropout, so another size would change the predictions."""
    monkeypatch.setattr(Samples, "shape", (24, *grid))
    assert batches_of(Samples(), torch.arange(64))[0].numel() == size


def test_scores_of_ensembles_are_those_written_out():
    drawn = []

    def sampler(context: Tensor, noise: Tensor) -> Tensor:
        drawn.append(context[:, :2] + noise)
        return drawn[-1]

    scores = ensemble_scores(sampler, Samples(), WEIGHTS)
    assert ensemble_scores(lambda context, noise: context[:, :2] + noise, Samples(), WEIGHTS) == scores  # with the same noise
    first, second = (torch.cat(drawn[member::2]).numpy() for member in (0, 1))  # of each batch the first member, then the second
    weights, truth = WEIGHTS.numpy(), TARGETS.numpy()
    crps = (np.abs(first - truth) + np.abs(second - truth) - np.abs(first - second)) / 2
    spread, skill = np.mean(weights * (first - second) ** 2 / 2), np.mean(weights * ((first + second) / 2 - truth) ** 2)
    # As in all scores: the squared error less what two members add to it. The ratio of an ensemble that is not calibrated depends on this.
    expected = {"CRPS": np.mean(weights * crps), "spread/skill": np.sqrt(spread / (skill - spread / 2))}
    assert scores == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("spread", [0, 1])
def test_an_ensemble_whose_error_is_not_above_what_two_members_add_to_it_has_no_ratio(spread):
    targets, signs = TARGETS.split(32), iter([1, -1, 1, -1])
    scores = ensemble_scores(lambda context, noise: targets[len(noise) == 8] + spread * next(signs), Samples(), WEIGHTS)
    assert scores == pytest.approx({"CRPS": 0, "spread/skill": np.nan}, abs=1e-6, nan_ok=True)


def test_a_validation_uses_few_samples_that_are_evenly_spread(monkeypatch):
    monkeypatch.setattr(validation, "MOST_SAMPLES", 15)  # of 40, so every third one
    scores = moments_scores(lambda context: (0 * context[:, :2], context[:, :2].exp()), Samples(), WEIGHTS)
    assert scores["error"] == pytest.approx(np.sqrt(np.mean(root_mean_square(TARGETS.numpy()[::3]) ** 2)), rel=1e-5)


def test_scores_of_a_flow_are_its_losses_at_each_warmth():
    evaluations = []

    def generator(x: Tensor, t: Tensor, warmth: Tensor) -> Tensor:
        evaluations.append((x[:, :2], t, warmth))
        return x[:, :2].sin()

    def prior_of(context: Tensor) -> InformedPrior:
        return InformedPrior(context[:, :2], context[:, 2:4].exp())

    scores = flow_scores(generator, prior_of, Samples(), STRAIGHT)
    count = len(evaluations)
    assert flow_scores(generator, prior_of, Samples(), STRAIGHT) == scores
    squares: dict[str, list[Tensor]] = {}
    for number, (x, t, warmth) in enumerate(evaluations[:count]):
        batch = slice(0, 32) if number < 5 else slice(32, COUNT)
        data = prior_of(CONTEXTS[batch]).blended(warmth).normalise(TARGETS[batch])
        velocity = (data - x) / (1 - t)[:, None, None, None]
        squares.setdefault(f"w = {warmth[0]:g}", []).append((x.sin() - velocity).square())
    expected = {name: torch.cat(parts).mean().item() for name, parts in squares.items()}
    assert list(expected) == ["w = 0", "w = 0.25", "w = 0.5", "w = 0.75", "w = 1"]
    assert scores == pytest.approx({"flow loss": np.mean(list(expected.values())), **expected}, rel=1e-4)
