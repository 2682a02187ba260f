"""Appendix C: contexts that show only the class of an image, and the prior with mean and standard deviation over the class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import invoke, refused
from image_runs import RECIPE, copy_of, random_images

from wsdcast.images.contexts import fixed_contexts, training_pairs
from wsdcast.images.data.store import Images, open_images
from wsdcast.images.networks import fixed_moments_of, moments_by_class
from wsdcast.images.stages.prepare import prepare
from wsdcast.images.stages.sample import sample
from wsdcast.images.stages.score import score
from wsdcast.images.stages.train import train
from wsdcast.runs.errors import UserError
from wsdcast.study.images import inpaint_study
from wsdcast.warmstart.prior import frozen_prior

CLASSES = RECIPE.changed(task__kind="class", generator__prior="class-climatology")


@pytest.fixture(scope="module")
def images(inpainted) -> Images:
    return open_images(inpainted / "run/images")


def labelled(labels: list[int], channels: int, training: int) -> Images:
    pixels = np.zeros((len(labels), 4, 4, channels), np.uint8)
    count = len(labels)
    parts = {"train": slice(0, training), "validation": slice(training, count), "test": slice(count, count)}
    return Images(pixels, np.array(labels), parts, {})


@pytest.mark.parametrize(("kinds", "channels"), [(1, 3), (2, 1), (8, 3), (9, 3), (10, 3), (10, 1), (27, 3), (100, 3), (256, 1)])
def test_every_class_has_its_own_colour(kinds, channels):
    """Colours are in the range of images, and as far apart as a regular grid allows. Labels may be any numbers."""
    images = labelled([10**9 - 7 * kind for kind in range(kinds)], channels, kinds)
    numbers, colours = images.classes
    assert sorted(numbers.tolist()) == list(range(kinds))
    assert colours.shape == (kinds, channels)
    assert colours.abs().max() <= 1
    levels = next(levels for levels in range(2, 300) if levels**channels >= kinds)
    distances = torch.cdist(colours.double(), colours.double()) + 9 * torch.eye(kinds)
    assert distances.min() >= 2 / (levels - 1) - 1e-6
    cards = images.class_images(torch.arange(kinds))
    assert cards.shape == (kinds, channels, 4, 4)
    assert torch.equal(cards, colours[torch.from_numpy(numbers)][:, :, None, None].expand_as(cards))


def test_a_context_shows_the_class_and_nothing_else(images):
    contexts = fixed_contexts(images, "test", CLASSES.task)
    context = contexts.context(torch.arange(20))
    assert context.shape == (20, 4, 16, 16)
    assert (context[:, -1] == 0).all()
    labels = images.labels[images.parts["test"]]
    cards = {tuple(card.unique(dim=1).ravel().tolist()): label for card, label in zip(context[:, :3].flatten(2), labels, strict=True)}
    assert sorted(cards.values()) == sorted(set(labels.tolist()))
    chosen = torch.arange(12)
    pairs = training_pairs(images, CLASSES.task, torch.Generator().manual_seed(0))(chosen, slice(2, 9))
    torch.testing.assert_close(pairs.context, torch.cat([images.class_images(chosen), torch.zeros(12, 1, 16, 16)], dim=1)[2:9])
    plain = images.batch(chosen)[2:9]
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(pairs.target, plain, strict=True))


def test_moments_are_those_of_the_class_over_the_training_images(images, monkeypatch):
    monkeypatch.setattr("wsdcast.images.networks.CHUNK", 50)
    contexts = fixed_contexts(images, "test", CLASSES.task)
    mean, std = fixed_moments_of(CLASSES, images)(contexts.context(torch.arange(20)))
    part = images.parts["train"]
    training, labels = images.images[part].astype(np.float64).transpose(0, 3, 1, 2) / 127.5 - 1, images.labels[part]
    for number, label in enumerate(images.labels[images.parts["test"]]):
        same_class = training[labels == label]
        np.testing.assert_allclose(mean[number], same_class.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(std[number], np.maximum(same_class.std(axis=0), 0.01), atol=1e-5)
    # These moments minimise Eq. 5 over the class: others have a smaller likelihood.
    same_class = torch.from_numpy(training[labels == labels[0]]).float()
    cards = images.class_images(torch.arange(part.start, part.stop)[labels == labels[0]])
    context = torch.cat([cards, torch.zeros_like(cards[:, :1])], dim=1)
    moments = fixed_moments_of(CLASSES, images)

    def likelihood(shift: float, scale: float) -> float:
        prior = frozen_prior(lambda context: (moments(context)[0] + shift, moments(context)[1] * scale))(context)
        return prior.log_prob(same_class).mean().item()

    best = likelihood(0, 1)
    assert all(likelihood(*other) < best for other in ((0.05, 1), (-0.05, 1), (0, 1.1), (0, 0.9)))


def test_the_climatology_of_all_images_follows_from_the_classes(images):
    """Total expectation and total variance, with the classes weighted by their numbers of images."""
    recipe = CLASSES.changed(generator__prior="climatology")
    mean, std = (field[0].double() for field in fixed_moments_of(recipe, images)(torch.zeros(1, 4, 16, 16)))
    kinds, colours = images.classes
    share = torch.from_numpy(np.bincount(kinds[images.parts["train"]]) / images.count("train"))[:, None, None, None]
    card = torch.cat([colours, torch.zeros(len(colours), 1)], dim=1)[:, :, None, None].expand(-1, -1, 16, 16)
    means, stds = (field.double() for field in fixed_moments_of(CLASSES, images)(card))
    torch.testing.assert_close((share * means).sum(0), mean, atol=1e-5, rtol=0)
    torch.testing.assert_close((share * (stds**2 + (means - mean) ** 2)).sum(0), std**2, atol=1e-4, rtol=0)


def test_the_class_is_recognised_in_bfloat16():
    """There the colours of a card are rounded."""
    colours = torch.tensor([[-1.0, 1 / 3, 1.0], [-1.0, -1 / 3, 1.0]])
    mean = torch.arange(2.0)[:, None, None, None].expand(2, 3, 4, 4)
    moments = moments_by_class(mean, mean + 1, colours)
    context = torch.cat([colours.flip(0), torch.zeros(2, 1)], dim=1)[:, :, None, None].expand(2, 4, 4, 4).bfloat16()
    means, std = moments(context)
    assert means.dtype == torch.bfloat16
    assert means[:, 0, 0, 0].tolist() == [1, 0]
    assert std[:, 0, 0, 0].tolist() == [2, 1]


@pytest.mark.slow
def test_all_stages_and_the_study_run_on_classes(inpainted, tmp_path, monkeypatch):
    monkeypatch.setattr("wsdcast.images.stages.sample.EVALUATIONS", (2,))
    run = copy_of(inpainted, tmp_path / "run", "classifier")
    for stage in (train, sample):
        stage(CLASSES, run)
    assert not (run / "moments").exists()
    summary = score(run=run)
    assert [row["scored"] for row in summary.scores] == ["generator", "other images"]
    assert np.isnan(summary.scores[0]["consistency"])  # no pixel is visible
    study = inpaint_study(
        CLASSES, run, seeds=[0], priors=["class-climatology", "standard"], ablations=["climatology"], ablation_nfe=[2], nfe=[2, 4],
        solvers=["midpoint"],
    )  # fmt: skip
    assert {(row["prior"], row["nfe"], row["cost"]) for row in study.scores} == {
        ("class-climatology", 2, 2), ("class-climatology", 4, 4), ("standard", 2, 2), ("standard", 4, 4), ("climatology", 2, 2)
    }  # fmt: skip
    steps = {
        prior: json.loads((run / f"study/{prior}-0/generator/stamp.json").read_text())["recipe"]["generator"]["steps"]
        for prior in ("class-climatology", "standard")
    }
    assert len(set(steps.values())) == 1


def test_classes_that_are_not_known_are_refused(inpainted, tmp_path):
    run = inpainted / "run"
    words = "the prior class-climatology needs contexts that show the class: task.kind is inpaint, not class"
    assert words in refused("inpaint", "train", "--prior", "class-climatology", "--run", str(run))
    assert words in refused("inpaint", "study", "--priors", "class-climatology", "--run", str(run))
    (tmp_path / "wrong.yaml").write_text("name: wrong\ngenerator: {prior: class-climatology}\n")
    assert words in refused("inpaint", "prepare", "--recipe", str(tmp_path / "wrong.yaml"), "--run", str(tmp_path / "run"))
    recipe = CLASSES.changed(data__source=str(random_images(tmp_path / "photos", 30)))
    prepare(recipe, tmp_path / "run")
    for stage in (train, inpaint_study):
        with pytest.raises(UserError, match="classes come from labels, and these images have no labels"):
            stage(recipe, tmp_path / "run")
    with pytest.raises(UserError, match="have the label 7, which no training image has"):
        _ = labelled([3, 3, 7], 3, 2).classes


def test_the_prior_can_be_given_as_an_option(inpainted, tmp_path: Path):
    run = copy_of(inpainted, tmp_path / "run")
    (tmp_path / "classes.yaml").write_text(json.dumps(RECIPE.changed(task__kind="class").dump()))
    code, line = invoke("inpaint", "train", "--recipe", str(tmp_path / "classes.yaml"), "--prior", "class-climatology", "--run", str(run))
    assert code == 0, line
