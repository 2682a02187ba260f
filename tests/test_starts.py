"""Starts of other methods (`moments.std`): a learned noise level per channel, a fixed one, and one that follows the change of the mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from commands import refused
from conftest import new_run
from image_runs import RECIPE as IMAGES
from image_runs import copy_of
from safetensors.torch import load_file
from small_training import WIND
from torch import nn

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.images.contexts import fixed_contexts
from wsdcast.images.data.store import open_images
from wsdcast.images.networks import moments_model as image_moments_model
from wsdcast.images.networks import trained as trained_on_images
from wsdcast.images.recipe import ImageMomentsNetwork, Task
from wsdcast.images.stages.train import train as train_images
from wsdcast.runs.moments_section import MomentsNetwork
from wsdcast.warmstart.flow import Draws, joint_loss
from wsdcast.warmstart.moments import MINIMUM_STD, MomentsModel, Std, negative_log_likelihood
from wsdcast.warmstart.prior import PRIOR_MAKERS, frozen_prior
from wsdcast.weather.network_sections import Moments
from wsdcast.weather.networks import moments_model
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.trained import trained

pytestmark = pytest.mark.usefixtures("without_animation")

STDS: list[Std] = ["channel", "change", 0.3]


def inverse_softplus(std: torch.Tensor) -> torch.Tensor:
    """Return the raw levels that give this std."""
    return std.expm1().log() + 1.5


def linear_model(std: Std, channels: int = 2) -> MomentsModel:
    """Return a model whose mean adds a linear map of the channels at each point to the state now. Untrained, the mean is the state now."""
    network = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.zeros_(network.weight)
    return MomentsModel(network, channels, std=std).double()


def test_one_level_per_channel_is_learned_to_the_minimum_of_the_loss():
    """With a linear mean the optimum is known: the least-squares fit, and the standard deviation of its residuals."""
    random = torch.Generator().manual_seed(0)
    true_std, matrix = torch.tensor([0.1, 0.4]).double(), torch.tensor([[0.8, 0.3], [-0.2, 0.5]]).double()
    now = torch.randn(400, 2, 5, 5, generator=random).double()
    noise = torch.randn(now.shape, generator=random).double() * true_std[:, None, None]
    target = torch.einsum("ij,bjrc->birc", matrix, now) + noise
    model = linear_model("channel")
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=300, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = negative_log_likelihood(model, now, target)
        loss.backward()
        return loss

    optimiser.step(closure)
    rows, answers = (field.transpose(0, 1).flatten(1).T for field in (now, target))
    solution = torch.linalg.lstsq(rows, answers).solution
    best_std = (answers - rows @ solution).square().mean(dim=0).sqrt()
    std = model(now)[1]
    torch.testing.assert_close(std, best_std[:, None, None].expand_as(std), rtol=1e-5, atol=0)
    torch.testing.assert_close(model.network.weight[:, :, 0, 0] + torch.eye(2), solution.T, atol=1e-5, rtol=0)
    minimum = (0.5 * math.log(2 * math.pi) + best_std.log() + 0.5).mean()
    assert negative_log_likelihood(model, now, target).item() == pytest.approx(minimum.item(), abs=1e-9)
    # The standard error of an estimated std is std / sqrt(2 n).
    assert ((std[0, :, 0, 0] / true_std - 1).abs() < 4 / math.sqrt(2 * len(rows))).all()


@pytest.fixture(scope="module")
def changing() -> tuple[MomentsModel, torch.Tensor, torch.Tensor]:
    """Return a model with known floors and slopes, contexts, and targets drawn from the model."""
    model, random = linear_model("change"), torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.network.weight[:, :, 0, 0] = torch.tensor([[0.4, -0.3], [0.2, 0.5]])
        model.levels.copy_(inverse_softplus(torch.tensor([[0.05, 0.1], [0.3, 0.15]]).double()))
        now = torch.randn(200, 2, 25, 25, generator=random).double()
        mean, std = model(now)
        target = mean + std * torch.randn(mean.shape, generator=random).double()
    return model, now, target


def gradients(model: MomentsModel, now: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the gradient of Eq. 5 with respect to all parameters for each batch of four samples, (batch, parameter)."""
    batches = zip(now.split(4), target.split(4), strict=True)
    by_batch = [torch.autograd.grad(negative_log_likelihood(model, *batch), list(model.parameters())) for batch in batches]
    return torch.stack([torch.cat([gradient.flatten() for gradient in of_batch]) for of_batch in by_batch])


def test_the_std_is_floor_plus_slope_times_the_change(changing):
    model, now, _ = changing
    mean, std = model(now)
    floor, slope = torch.tensor([[0.05, 0.1], [0.3, 0.15]]).double()[:, :, None, None]
    torch.testing.assert_close(std, floor + slope * (mean - now).abs())
    assert std.max() < model.maximum_std


def test_the_loss_is_stationary_at_the_true_floor_and_slope(changing):
    """Each mean gradient is zero within four standard errors there, and is not at other values."""
    model, now, target = changing
    at_truth = gradients(model, now, target)
    error = at_truth.std(dim=0) / math.sqrt(len(at_truth))
    assert (at_truth.mean(dim=0).abs() < 4 * error).all()
    for row in range(2):
        with torch.no_grad():
            moved = inverse_softplus(torch.tensor([[0.05, 0.1], [0.3, 0.15]]).double())
            moved[row] += 0.1
        other = linear_model("change")
        other.load_state_dict(model.state_dict() | {"levels": moved})
        elsewhere = gradients(other, now, target)
        of_levels = elsewhere[:, :4].reshape(-1, 2, 2)[:, row]  # the levels come before the weights of the network
        assert (of_levels.mean(dim=0) > 4 * of_levels.std(dim=0) / math.sqrt(len(elsewhere))).all()


def test_the_mean_is_trained_as_if_the_std_were_given(changing):
    model, now, target = changing
    mean, std = model(now)
    (expected,) = torch.autograd.grad((0.5 * ((target - mean) / std.detach()) ** 2).mean(), model.network.weight)
    (weight, _) = torch.autograd.grad(negative_log_likelihood(model, now, target), [model.network.weight, model.levels])
    torch.testing.assert_close(weight, expected)


@pytest.mark.parametrize("std", ["channel", "change"])
@pytest.mark.parametrize(("raw", "expected"), [(-50.0, MINIMUM_STD), (50.0, 0.7)])
def test_learned_levels_stay_within_the_bounds(std, raw, expected):
    model = MomentsModel(lambda context: torch.ones_like(context), channels=2, maximum_std=0.7, std=std)
    nn.init.constant_(model.levels, raw)
    predicted_std = model(torch.zeros(3, 2, 4, 4))[1]
    assert predicted_std.shape == (3, 2, 4, 4)
    torch.testing.assert_close(predicted_std, torch.full_like(predicted_std, expected))


@pytest.mark.parametrize("s", [0.01, 0.3, 1.0])
def test_a_number_is_the_std_everywhere(s):
    random = torch.Generator().manual_seed(2)
    now, target = torch.randn(2, 3, 2, 4, 5, generator=random)
    model = MomentsModel(nn.Conv2d(2, 2, 1), 2, std=s)
    mean, std = model(now)
    prior = frozen_prior(model, PRIOR_MAKERS["warm"])(now)
    assert (std == torch.tensor(s)).all()
    assert torch.equal(prior.normalise(target), (target - mean) / s)
    # Eq. 5 is then the mean squared error, scaled and shifted.
    expected = 0.5 * (target - mean).square().mean().item() / s**2 + math.log(s) + 0.5 * math.log(2 * math.pi)
    assert negative_log_likelihood(model, now, target).item() == pytest.approx(expected, rel=1e-5)
    if s == 1:
        for w in (0.0, 0.3, 1.0):
            blended, other = (PRIOR_MAKERS[name](mean, std).blended(torch.tensor([w])) for name in ("warm", "mean-only"))
            torch.testing.assert_close(blended.normalise(target), other.normalise(target))
            torch.testing.assert_close(blended.features(), other.features())


def test_calibration_scales_the_learned_levels():
    for std in ("channel", "change"):
        model, now = MomentsModel(nn.Conv2d(2, 2, 1), 2, math.inf, std), torch.randn(3, 2, 4, 5)
        before = model(now)[1]
        model.calibration.copy_(torch.tensor([1.5, 0.5]))
        torch.testing.assert_close(model(now)[1], before * torch.tensor([1.5, 0.5])[:, None, None])


@pytest.mark.parametrize("std", ["point", "channel", "change"])
@pytest.mark.parametrize(("raw", "factor", "expected"), [(50.0, 1.5, 0.7), (-50.0, 0.5, MINIMUM_STD), (50.0, 0.5, 0.35)])
def test_a_scaled_std_stays_within_the_bounds(std, raw, factor, expected):
    """The factor was measured with the bounds, so it scales the std that has them."""
    model = MomentsModel(lambda context: torch.full((3, 4 if std == "point" else 2, 4, 4), raw), 2, maximum_std=0.7, std=std)
    if std != "point":
        nn.init.constant_(model.levels, raw)
    model.calibration.fill_(factor)
    predicted_std = model(torch.zeros(3, 2, 4, 4))[1]
    torch.testing.assert_close(predicted_std, torch.full_like(predicted_std, expected))


@pytest.mark.parametrize("std", ["point", *STDS])
def test_the_network_has_no_outputs_that_are_not_used(std):
    wind, images = (
        moments_model(Moments(widths=(8, 8), std=std), WIND),
        image_moments_model(ImageMomentsNetwork(widths=(8, 8), std=std), 3),
    )
    fields, learned = (2, 0) if std == "point" else (1, {"channel": 1, "change": 2}.get(std, 0))
    for model, channels in ((wind, 2), (images, 3)):
        assert model.network.last.weight.shape[0] == fields * channels
        own = {name: value.shape for name, value in model.named_parameters() if not name.startswith("network.")}
        assert own == ({"levels": (learned, channels)} if learned else {})
    context = torch.randn(2, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    mean, predicted_std = wind(context)
    assert torch.equal(mean, context[:, :2])
    torch.testing.assert_close(predicted_std, torch.full_like(predicted_std, std if isinstance(std, float) else math.log1p(math.exp(-1.5))))


@pytest.mark.parametrize("std", STDS)
def test_the_moments_have_the_precision_of_the_context(std):
    model = moments_model(Moments(widths=(8, 8), std=std), WIND)
    nn.init.normal_(model.network.last.weight)
    context = torch.randn(3, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert [field.dtype for field in model(context)] == [torch.float32] * 2


@pytest.mark.parametrize("std", STDS)
def test_in_joint_training_the_flow_does_not_train_the_std(std):
    random, model = torch.Generator().manual_seed(0), linear_model(std).float()
    generator = lambda x, t, w: x[:, :2] * x[:, -2:]  # noqa: E731  # reads the state and log(std)
    now, target, noise = torch.randn(3, 4, 2, 5, 5, generator=random)
    draws = Draws(torch.full((4,), 0.5), torch.full((4,), 0.4), noise)
    make_prior, parameters = PRIOR_MAKERS["warm"], list(model.parameters())
    both = torch.autograd.grad(joint_loss(generator, model, make_prior, now, target, draws), parameters)
    alone = torch.autograd.grad(negative_log_likelihood(model, now, target), parameters)
    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture(scope="module")
def images(inpainted):
    return open_images(inpainted / "run/images")


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("known", [True, False])
def test_visible_pixels_are_known_if_the_recipe_says_so(images, std, known):
    contexts = fixed_contexts(images, "validation", Task(visible_test=0.5))
    context = contexts.context(torch.arange(4))
    model = image_moments_model(ImageMomentsNetwork(widths=(8, 8), std=std, known_pixels=known), 3)
    nn.init.normal_(model.network.last.weight, std=0.3)
    mean, predicted_std = model(context)
    visible = (context[:, -1:] == 1).expand_as(mean)
    assert torch.equal(mean[visible], context[:, :3][visible]) == known
    assert (predicted_std[visible] == MINIMUM_STD).all() == known
    if std == 0.3:
        assert (predicted_std[~visible] == torch.tensor(0.3)).all()


@pytest.mark.parametrize("kind", [Moments, ImageMomentsNetwork])
@pytest.mark.parametrize(
    ("value", "expected"), [("point", "point"), ("channel", "channel"), ("change", "change"), (1, 1.0), (0.01, 0.01), (0.3, 0.3)]
)
def test_the_key_takes_names_and_numbers(kind: type[MomentsNetwork], value, expected):
    std = kind(std=value).std
    assert std == expected
    assert type(std) is type(expected)
    assert MomentsNetwork(std=MINIMUM_STD).std == MINIMUM_STD  # a recipe can ask for the smallest std that networks can have


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("moments.std=everywhere", "expected point, channel, change or a number of at least 0.01, not 'everywhere'"),
        ("moments.std=0", "expected point, channel, change or a number of at least 0.01, not 0"),
        ("moments.std=-0.5", "or a number of at least 0.01, not -0.5"),
        ("moments.std=.nan", "or a number of at least 0.01, not nan"),
        ("moments.std=true", "or a number of at least 0.01, not True"),
        ("moments.std=null", "or a number of at least 0.01, not None"),
        ("moments.std=[1, 2]", "or a number of at least 0.01, not [1, 2]"),
        ("moments.std=1.5", "std 1.5 is above maximum_std 1"),
    ],
)
def test_other_values_are_refused_in_one_line(changes, message, tmp_path):
    for command in (["prepare"], ["inpaint", "prepare"]):
        line = refused(*command, "--run", str(tmp_path / "run"), "-o", changes)
        assert message in line
        assert line.count("moments") == 1, line


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("changes", [{}, {"moments__folds": 2}, {"generator__moments": "joint"}], ids=["frozen", "folds", "joint"])
def test_wind_is_trained_and_rolled_out(prepared, tmp_path, std, changes):
    recipe = load_recipe(prepared / "tiny.yaml").changed(moments__std=std, **changes)
    run = new_run(prepared, tmp_path)
    summary = wsdcast.train(recipe, run)
    wsdcast.rollout(run=run, warmth=0.9)
    with xr.open_zarr(run / "forecast.zarr") as forecast:
        assert np.isfinite(forecast["10m_u_component_of_wind"].values).all()
    joint = "generator__moments" in changes
    stored = load_file(run / ("generator" if joint else "moments") / "weights.safetensors")
    levels = stored.get("moments.levels" if joint else "levels")
    assert (levels is None) == isinstance(std, float)
    assert levels is None or levels.all()  # they were trained
    if "moments__folds" in changes:
        outcome, ratio = str(summary.facts["moments, out of fold"]), stored["calibration"]
        assert outcome.endswith("std is fixed by the recipe" if isinstance(std, float) else "std scaled by it")
        assert torch.equal(ratio, torch.ones(2)) == isinstance(std, float)


@pytest.mark.parametrize("std", STDS)
def test_images_are_trained_and_sampled(inpainted, images, tmp_path, std):
    recipe = IMAGES.changed(moments__std=std)
    run = copy_of(inpainted, tmp_path / "run")
    train_images(recipe, run)
    networks = trained_on_images(recipe, run, images)
    context = fixed_contexts(images, "test", recipe.task).context(torch.arange(3))
    prior = networks.prior_of(context)
    visible = (context[:, -1:] == 1).expand_as(prior.std)
    assert (prior.std[visible] == MINIMUM_STD).all()
    assert (prior.std[~visible].unique().numel() <= 3) == (std != "change")


def test_a_model_of_the_user_is_used_unchanged(prepared, tmp_path):
    recipe = load_recipe(prepared / "tiny.yaml").changed(moments__std="change", generator__prior="given")
    run = new_run(prepared, tmp_path)
    model = lambda context: (context[:, :2], torch.full_like(context[:, :2], 0.3))  # noqa: E731
    wsdcast.train(recipe, run, moments=model)
    assert not (run / "moments").exists()
    wsdcast.rollout(run=run, moments=model)
    context = torch.randn(3, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    prior = trained(recipe, run, open_analysis(run / "analysis.zarr"), model).prior_of(context)
    assert torch.equal(prior.mean, context[:, :2])
    assert (prior.std == torch.tensor(0.3)).all()
