"""Contexts of images: what each task shows of an image and what it hides."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from wsdcast.images.contexts import maker_of
from wsdcast.images.data import tasks
from wsdcast.images.recipe import Task


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(64, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_inpainting_shows_pixels_as_they_are_and_nothing_of_the_others(images):
    context = tasks.inpaint(images, source(), (0.1, 0.1))
    shown, known = context[:, :3], context[:, 3:]
    assert set(known.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(shown, torch.where(known == 1, images, 0.0), atol=0, rtol=0)
    # 24,576 draws of probability 0.1: a mean within 5 standard errors.
    assert known.mean().item() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / known.numel()))


def test_every_image_has_its_own_share_of_the_range(images):
    shares = tasks.inpaint(images.repeat(8, 1, 1, 1), source(), (0.1, 0.5))[:, 3].mean(dim=(1, 2))
    noise = np.sqrt(0.25 / (16 * 24))
    assert 0.1 - 4 * noise < shares.min() < 0.16
    assert 0.44 < shares.max() < 0.5 + 4 * noise
    assert shares.mean().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("visible", [0.5, 0.75, 0.9])
def test_a_block_of_the_given_share_is_hidden_somewhere(images, visible):
    known = tasks.block(images, source(), (visible, visible))[:, 3]
    hidden = known == 0
    rows, columns = hidden.any(dim=2), hidden.any(dim=1)
    # Exactly a rectangle is hidden, within a row and a column of the size that is asked for.
    assert (hidden == rows[:, :, None] & columns[:, None, :]).all()
    side = np.sqrt(1 - visible)
    assert (rows.sum(dim=1) - 16 * side).abs().max() <= 1
    assert (columns.sum(dim=1) - 24 * side).abs().max() <= 1
    places = rows.float().argmax(dim=1)
    assert places.min() == 0
    assert places.max() >= 16 * (1 - side) - 1


@pytest.mark.parametrize("factor", [2, 4, 5])
def test_super_resolution_keeps_means_of_squares(images, factor):
    context = tasks.super_resolution(images, source(), factor)
    assert not context[:, 3].any()
    for row in range(0, 16, factor):
        for column in range(0, 24, factor):
            square = (..., slice(row, row + factor), slice(column, column + factor))
            mean = images[square].mean(dim=(2, 3), keepdim=True)
            torch.testing.assert_close(context[:, :3][square], mean.expand_as(images[square]))


def test_colourise_shows_only_the_brightness(images):
    context = tasks.colourise(images, source())
    assert torch.equal(context[:, 0], context[:, 1])
    assert torch.equal(context[:, 1], context[:, 2])
    torch.testing.assert_close(context[:, 0], 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2])
    grey = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(tasks.colourise(grey, source())[:, :3], grey)


def test_noise_has_its_standard_deviation(images):
    context = tasks.denoise(images, source(), (0.5, 0.5))
    assert (context[:, :3] - images).std().item() == pytest.approx(0.5, rel=0.01)
    assert not context[:, 3].any()


@pytest.mark.parametrize("make", [lambda x, r: tasks.inpaint(x, r, (0.1, 0.5)), lambda x, r: tasks.block(x, r, (0.2, 0.8))])
def test_the_same_source_draws_the_same(images, make):
    assert torch.equal(make(images, source(3)), make(images, source(3)))
    assert not torch.equal(make(images, source(3)), make(images, source(4)))


def test_a_task_without_a_function_is_refused_and_not_taken_for_another():
    sharpen = Task.model_construct(kind="sharpen")
    with pytest.raises(KeyError, match="sharpen"):
        maker_of(sharpen, (0.1, 0.1), (0.5, 0.5))
    with pytest.raises(KeyError, match="sharpen"):
        _ = sharpen.tested
    for kind in get_args(Task.model_fields["kind"].annotation):
        task = Task(kind=kind)
        assert callable(maker_of(task, task.visible, task.noise))
        assert task.tested.startswith(kind)
