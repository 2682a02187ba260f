"""What a study of images samples, and how its tasks are described."""

from __future__ import annotations

from image_runs import RECIPE

from wsdcast.runs.summary import Summary
from wsdcast.study.images import settings_of


def test_what_is_listed_twice_is_studied_once():
    """Settings that were there twice ended in a traceback when all was trained and sampled."""
    twice = {"nfe": [4, 2, 4], "solvers": ["midpoint", "midpoint"], "visible": [0.5, 0.5], "warmths": ["calibrated", 1.0, "calibrated"]}
    once = {"nfe": [4, 2], "solvers": ["midpoint"], "visible": [0.5], "warmths": ["calibrated", 1.0]}
    of_each = [
        settings_of(RECIPE.changed(**{f"study__{key}": value for key, value in given.items()}), "warm", Summary("study"))
        for given in (twice, once)
    ]
    assert of_each[0] == of_each[1]
    assert len(set(of_each[0])) == len(of_each[0])


def test_tasks_without_a_mask_have_no_visible_share():
    settings = settings_of(RECIPE.changed(task__kind="denoise"), "warm", Summary("study"))
    assert {setting.kind for setting in settings} == {"curve"}


def test_tasks_are_described_by_what_is_scored():
    tested = {
        kind: RECIPE.changed(task__kind=kind).task.tested for kind in ("inpaint", "block", "super-resolution", "colourise", "denoise")
    }
    assert tested["inpaint"] == "inpaint, 10 % visible"
    assert tested["block"] == "block, 10 % visible"
    assert tested["super-resolution"] == "super-resolution, factor 4"
    assert tested["colourise"] == "colourise"
    assert tested["denoise"] == "denoise, noise 0.5"
