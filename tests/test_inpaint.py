"""The stages for images: the files that they write, what they skip, what they refuse, and the shipped recipes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import invoke, refused
from image_runs import RECIPE, checksums, copy_of, random_images
from PIL import Image

from wsdcast.images.data.store import open_images
from wsdcast.images.networks import generator_model, moments_model
from wsdcast.images.recipe import ImageRecipe
from wsdcast.images.stages.prepare import prepare
from wsdcast.images.stages.sample import sample
from wsdcast.images.stages.score import score
from wsdcast.images.stages.train import train
from wsdcast.runs import recipes as experiment
from wsdcast.runs.artefact import read_stamp
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import GENERATOR
from wsdcast.runs.unfinished import claim, claim_of
from wsdcast.study.images import inpaint_study

STAGES = ("prepare", "train", "sample", "score")


def test_the_stages_write_their_artefacts_and_nothing_else(inpainted):
    names = {path.name for path in (inpainted / "run").iterdir()}
    assert names == {"images", "moments", "generator", "samples", "classifier", "scores.nc", "scores.csv", "report.html"}
    assert {path.name for path in (inpainted / "run/samples").iterdir()} == {
        "samples.npy",
        "grid.png",
        "process.png",
        "same_noise.png",
        "tails.png",
        "targets.png",
        "stamp.json",
    }
    samples = np.load(inpainted / "run/samples/samples.npy")
    assert (samples.shape, samples.dtype) == ((6, 3, 16, 16, 3), np.uint8)


def test_current_artefacts_are_skipped(inpainted, capsys):
    before = {path: path.stat().st_mtime_ns for path in (inpainted / "run").rglob("*")}
    for stage in (prepare, train, sample, score):
        summary = stage(inpainted / "tiny.yaml", inpainted / "run")
        assert "current" in summary.facts
        assert not summary.written
        assert "current" in stage(run=inpainted / "run").facts  # the recipe is that of the run
    assert {path: path.stat().st_mtime_ns for path in (inpainted / "run").rglob("*")} == before


def test_artefacts_of_another_recipe_are_refused_and_kept(inpainted, tmp_path):
    before = checksums(inpainted / "run")
    files = {}
    for name, changes in {"steps": {"classifier__steps": 5}, "widths": {"generator__widths": (4, 4)}}.items():
        files[name] = tmp_path / f"{name}.yaml"
        files[name].write_text(yaml.safe_dump(RECIPE.changed(**changes).dump()))
    for arguments, message in (
        (
            ("prepare", "--recipe", str(inpainted / "tiny.yaml"), "--size", "8"),
            "images was made from another recipe (data.size: 16 there, 8 here)",
        ),
        (("train", "--prior", "standard"), "generator was made from another recipe (generator.prior: warm there, standard here)"),
        (("sample", "--nfe", "6"), "samples was made from another recipe (sample.nfe: 4 there, 6 here)"),
        (("sample", "--visible", "0.3"), "(task.visible_test: 0.1 there, 0.3 here)"),
        (("sample", "--recipe", str(files["widths"])), f"run `wsdcast inpaint train --run {inpainted / 'run'} --overwrite` with the same"),
        (("score", "--recipe", str(files["steps"])), "scores.nc was made from another recipe (classifier.steps: 4 there, 5 here)"),
        (("run", str(files["steps"])), "replace it with --overwrite"),
    ):
        assert message in refused("inpaint", *arguments, "--run", str(inpainted / "run"))
        assert checksums(inpainted / "run") == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sample.nfe": 3}, "sample.nfe 3: the solver midpoint cannot make this number"),
        ({"sample.momentum": 0.5}, "sample.solver midpoint has no momentum"),
        ({"sample.solver": "sde1", "generator.path": "blur"}, "sample.solver sde1: works on the straight path only"),
        ({"sample.grid_in_time": "sgmse", "generator.path": "blur"}, "sample.grid_in_time sgmse: begins with noise"),
    ],
    ids=str,
)
def test_a_recipe_whose_own_samples_are_impossible_is_refused_before_anything_is_made(inpainted, tmp_path, changes, words):
    """It was trained to the end, and then refused by the stage that samples."""
    run, options = tmp_path / "run", [word for key, value in changes.items() for word in ("-o", f"{key}={value}")]
    assert words in refused("inpaint", "run", inpainted / "tiny.yaml", "--run", run, *options)
    assert not run.exists()


def test_train_says_that_the_own_samples_are_impossible(inpainted):
    """Options of the stage that samples may make them possible, so the networks are trained."""
    recipe = experiment.load(inpainted / "tiny.yaml", ImageRecipe).changed(sample__nfe=3)
    summary = train(recipe, inpainted / "run")
    assert not summary.written
    assert "impossible: sample.nfe 3: the solver midpoint cannot make this number" in summary.facts["own samples"]


def test_no_moments_are_trained_for_a_generator_that_is_refused(inpainted, tmp_path):
    run = copy_of(inpainted, tmp_path / "run")
    train(inpainted / "tiny.yaml", run, prior="standard")
    assert not (run / "moments").exists()
    with pytest.raises(UserError, match=r"generator.prior: standard there, warm here"):
        train(inpainted / "tiny.yaml", run)
    assert not (run / "moments").exists()
    claim(run / ".generator.partial", claim_of(read_stamp(run / "generator")), False)
    (run / "generator").rename(run / ".generator.partial")
    with pytest.raises(UserError, match=r"\.generator\.partial is unfinished and of another recipe"):
        train(inpainted / "tiny.yaml", run)
    assert not (run / "moments").exists()
    assert "warm" in json.loads((inpainted / "run/generator/stamp.json").read_text())["recipe"]["generator"]["prior"]
    train(inpainted / "tiny.yaml", run, overwrite=True)
    assert checksums(run / "generator")["weights.safetensors"] == checksums(inpainted / "run/generator")["weights.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "--visible", "0"), "--visible 0: the share"),
        (("sample", "--visible", "1"), "--visible 1: the share"),
        (("sample", "--visible", "1.5"), "--visible 1.5: the share"),
        (("sample", "--visible", "nan"), "--visible nan: the share"),
        (("study", "--visible", "0.1,1"), "--visible: input should be less than 1, not '1'"),
        (("study", "--visible", "some"), "--visible: input should be a valid number"),
        (("sample", "--contexts", "-1"), "--contexts: input should be greater than or equal to 2, not -1"),
        (("sample", "--samples", "0"), "--samples: input should be greater than or equal to 1, not 0"),
        (("sample", "--nfe", "5"), "evaluations; the nearest possible numbers are 4 and 6"),
        (("sample", "--nfe", "0"), "--nfe: input should be greater than 0, not 0"),
        (("sample", "--solver", "auto"), "--solver: auto works for wind only; choose another solver"),
        (("sample", "--warmth", "1.1"), "--warmth: input should be less than or equal to 1"),
        (("sample", "--seed", "-1"), "--seed: input should be greater than or equal to 0"),
        (("study", "--solvers", "auto"), "--solvers: auto works for wind only"),
        (("study", "--solvers", "best"), "--solvers: input should be 'auto', 'euler'"),
        (("study", "--priors", "warmer"), "--priors: input should be 'warm', 'standard'"),
        (("study", "--priors", ""), "--priors: expected at least one value"),
        (("study", "--nfe", "3"), "nothing to study: nfe 3: the solver midpoint cannot make this number of evaluations"),
        (("study", "--warmths", "2"), "--warmths: input should be less than or equal to 1"),
        (("score", "--inception-weights", "nowhere.pth"), "Inception "),
        (("train", "--recipe", "nowhere"), "recipe 'nowhere': neither a .yaml file nor one of the shipped: celeba, cifar10"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_impossible_options_are_refused_in_one_line(inpainted, arguments, message):
    assert message in refused("inpaint", *arguments, "--run", str(inpainted / "run"))


@pytest.mark.parametrize("key", ["size", "crop"])
def test_a_size_of_one_pixel_is_refused(key, tmp_path):
    line = refused("inpaint", "prepare", f"--{key}", "1", "--run", str(tmp_path / "run"))
    assert f"--{key}: input should be greater than or equal to 2, not 1" in line


def test_the_smallest_images_go_through_all_stages(tmp_path):
    for stage in (prepare, train, sample, score):
        summary = stage(RECIPE.changed(data__size=2), tmp_path / "run")
    assert np.isfinite([summary.scores[0][name] for name in ("crps", "power_deviation", "classifier_distance")]).all()


def test_tasks_that_show_no_pixels_have_no_visible_share(tmp_path):
    with pytest.raises(UserError, match=r"--visible 0.3: the task colourise has no visible pixels"):
        sample(RECIPE.changed(task__kind="colourise"), tmp_path, visible=0.3)


def test_an_unknown_name_ends_with_exit_code_2(inpainted):
    for arguments in (("sample", "--solver", "best"), ("sample", "--protocol", "loose"), ("train", "--prior", "given")):
        assert invoke("inpaint", *arguments, "--run", str(inpainted / "run"))[0] == 2


def test_stages_name_the_stage_to_run_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage, needed in (("train", "prepare"), ("sample", "prepare"), ("score", "prepare"), ("study", "prepare")):
        assert f"run `wsdcast inpaint {needed}` first" in refused("inpaint", stage, "--run", "nowhere")


def test_a_source_that_holds_the_run_is_refused(tmp_path, monkeypatch):
    """Pictures of the runs below it were images of the next preparation."""
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(f"{number}.png")
    with pytest.raises(UserError, match=r"^runs/made/images: lies in \., which this command reads; choose another --run$"):
        prepare(source=".")
    assert not Path("runs").exists()


def test_damaged_artefacts_are_named(inpainted, tmp_path):
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator", "samples", "classifier")
    for artefact, command in (
        ("samples/samples.npy", "score"),
        ("classifier/weights.safetensors", "score"),
        ("generator/weights.safetensors", "sample"),
    ):
        whole = (run / artefact).read_bytes()
        (run / artefact).write_bytes(whole[: len(whole) // 2])
        assert f"{artefact}: cannot be read" in refused("inpaint", command, "--run", str(run))
        (run / artefact).write_bytes(whole)


def test_greyscale_images_cannot_be_colourised(tmp_path):
    recipe = RECIPE.changed(data__source=str(random_images(tmp_path / "photos", 30, mode="L")), task__kind="colourise")
    prepare(recipe, tmp_path / "run")
    before = checksums(tmp_path / "run")
    for stage in (train, inpaint_study):
        with pytest.raises(UserError, match="colourise needs colour images, and these are greyscale"):
            stage(recipe, tmp_path / "run")
        assert checksums(tmp_path / "run") == before


def test_one_bad_image_of_many_loses_nothing(inpainted, tmp_path):
    run = copy_of(inpainted, tmp_path / "run")
    before, folder = checksums(run), random_images(tmp_path / "photos", 30)
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:200])
    line = refused("inpaint", "prepare", "--source", str(folder), "--run", str(run), "--overwrite")
    assert "1 of 30 images cannot be used: 7.png" in line
    assert checksums(run) == before
    code, _ = invoke("inpaint", "prepare", "--source", str(folder), "--run", str(run), "--overwrite", "--skip-bad")
    assert code == 0
    assert open_images(run / "images").images.shape == (29, 16, 16, 3)
    random_images(tmp_path / "others", 30)
    (tmp_path / "others/3.png").replace(folder / "7.png")
    assert "other inputs (the source files changed since)" in refused(
        "inpaint", "prepare", "--source", str(folder), "--run", str(run), "--skip-bad"
    )


@pytest.mark.parametrize("name", experiment.shipped_recipes(ImageRecipe))
def test_shipped_recipes_have_networks(name):
    recipe = experiment.load(name, ImageRecipe)
    assert recipe.name == name
    with torch.device("meta"):
        moments, generator = moments_model(recipe.moments, 3), generator_model(recipe.generator, 3)
        side = recipe.data.size or 32
        assert generator(torch.zeros(2, 13, side, side), torch.zeros(2), torch.zeros(2)).shape == (2, 3, side, side)
        assert [part.shape for part in moments(torch.zeros(2, 4, side, side))] == [(2, 3, side, side)] * 2
    counts = [sum(weight.numel() for weight in network.parameters()) / 1e6 for network in (moments, generator)]
    if name in ("cifar10", "celeba"):  # appendix B
        assert counts == pytest.approx([10.7, 56.0], rel=0.01)
    else:
        assert max(counts) < 1


def test_the_documented_recipe_has_every_key():
    shown = yaml.safe_load((experiment._shipped_directory() / "inpaint/made.yaml").read_text())
    full = ImageRecipe(name="made").dump()
    assert set(shown) == set(full)
    for section, values in full.items():
        if isinstance(values, dict):
            assert set(shown[section]) == set(values), section


def test_a_generator_without_a_moments_network_does_not_depend_on_it():
    other = RECIPE.changed(moments__widths=[4, 4])
    assert other.parts(GENERATOR) != RECIPE.parts(GENERATOR)
    for prior in ("standard", "climatology"):
        assert other.changed(generator__prior=prior).parts(GENERATOR) == RECIPE.changed(generator__prior=prior).parts(GENERATOR)
