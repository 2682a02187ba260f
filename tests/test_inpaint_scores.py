"""The stage `inpaint score`: every task, the classifier, the table from its definitions, FID, and both protocols."""

from __future__ import annotations

import base64
import csv
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from commands import invoke
from image_runs import RECIPE, checksums, copy_of, random_images
from PIL import Image
from typer.testing import CliRunner

from wsdcast.cli import app
from wsdcast.cli.show import IMAGE_SCORES, show
from wsdcast.images.classifier import IMAGES_PER_BATCH, _error_rate, extractors, features_of, statistics_of
from wsdcast.images.contexts import fixed_contexts
from wsdcast.images.data.store import open_images
from wsdcast.images.frechet import FeatureStatistics, frechet_distance
from wsdcast.images.recipe import ImageData
from wsdcast.images.stages.prepare import prepare
from wsdcast.images.stages.sample import sample
from wsdcast.images.stages.score import score
from wsdcast.images.stages.train import train
from wsdcast.runs.summary import Summary
from wsdcast.study.images import inpaint_study


@pytest.fixture
def few_pictures(monkeypatch):
    """Draw the pictures of the same noise with two evaluations only, which is faster."""
    monkeypatch.setattr("wsdcast.images.stages.sample.EVALUATIONS", (2,))


@pytest.fixture(scope="module")
def images(inpainted):
    return open_images(inpainted / "run/images")


@pytest.fixture(scope="module")
def rows(inpainted) -> dict[str, dict[str, float]]:
    """Return the rows of the table by what was scored."""
    with (inpainted / "run/scores.csv").open() as file:
        return {row.pop("scored"): {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)}


def fair_crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean distance to the truth minus half the mean distance of two samples. The first axis is that of the samples."""
    pairs = [abs(one - other) for one, other in combinations(samples, 2)]
    return abs(samples - truth).mean(axis=0) - np.mean(pairs, axis=0) / 2


def test_the_scores_name_the_calibrated_warmth(inpainted, tmp_path, few_pictures):
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator", "classifier")
    used = sample(RECIPE, run, warmth="calibrated").facts["evaluations"].split("warmth ")[1]
    assert score(run=run).facts["evaluations"] == f"4 a sample, midpoint, uniform times, warmth {used}, calibrated"
    stamp = json.loads((run / "samples/stamp.json").read_text())
    del stamp["warmth"]  # earlier versions did not write it
    (run / "samples/stamp.json").write_text(json.dumps(stamp))
    (run / "scores.nc").unlink()
    assert score(run=run).facts["evaluations"] == "4 a sample, midpoint, uniform times, warmth calibrated"


def test_one_sample_of_each_context_has_the_scores_that_need_no_second(inpainted, images, tmp_path, few_pictures):
    """Scores that need two samples are left out and named. The others equal their definitions, and no score is NaN."""
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator", "classifier")
    sample(run=run, samples=1, contexts=20)
    summary = score(run=run)
    words = "20 contexts of test images, 1 sample each, for which fair CRPS, spread/skill and diversity are not defined"
    assert words in summary.facts["scored"]
    page = (run / "report.html").read_text()
    assert words in page
    assert "fair CRPS of hidden pixels" not in page
    samples = np.load(run / "samples/samples.npy")
    contexts = fixed_contexts(images, "test", RECIPE.task)
    hidden = (contexts.context(torch.arange(20))[:, 3] == 0).numpy()
    error = abs(samples[:, 0] / 255 - images.images[contexts.chosen] / 255)
    row = summary.scores[0]
    assert row["crps_standard"] == pytest.approx(np.mean([error[n][hidden[n]].mean() for n in range(20)]), rel=1e-4)
    extract = extractors(RECIPE, run, images, None, Summary(""), False)["classifier_distance"]
    reference = FeatureStatistics.of(features_of(extract, images.images[images.parts["train"]]))
    distance = frechet_distance(FeatureStatistics.of(features_of(extract, samples)), reference)
    assert row["classifier_distance"] == pytest.approx(distance, rel=1e-5)
    for scores in summary.scores:
        assert not {"crps", "diversity", "spread_skill"} & set(scores)
        assert np.isfinite([value for name, value in scores.items() if name != "scored" and not name.endswith("_interval")]).all()
        assert np.isfinite([scores[f"{name}_interval"] for name in ("crps_standard", "psnr", "classifier_distance")]).all()
    table = CliRunner().invoke(app, ["inpaint", "score", "--run", str(run)]).stdout
    assert f"{row['crps_standard']:.4f}" in table


@pytest.mark.parametrize("kind", ["block", "super-resolution", "colourise", "denoise"])
def test_every_task_runs_through_all_stages(inpainted, images, tmp_path, few_pictures, kind):
    recipe = RECIPE.changed(task__kind=kind, task__visible_test=0.6)
    run = copy_of(inpainted, tmp_path / "run", "classifier")
    for stage in (train, sample):
        stage(recipe, run)
    rows = {row["scored"]: row for row in score(run=run).scores}
    contexts = fixed_contexts(images, "test", recipe.task, count=6)
    context = contexts.context(torch.arange(6))
    hidden = (context[:, 3] == 0).numpy()
    assert hidden.mean() == (pytest.approx(0.4, abs=0.1) if kind == "block" else 1)
    truth = images.images[contexts.chosen] / 255
    samples = np.load(run / "samples/samples.npy") / 255
    crps = [fair_crps(samples[n], truth[n])[hidden[n]].mean() for n in range(6)]
    assert rows["generator"]["crps"] == pytest.approx(np.mean(crps), rel=1e-4)
    visible = [((samples[n] - truth[n]) ** 2)[:, ~hidden[n]].mean() for n in range(6)] if kind == "block" else [np.nan]
    assert rows["generator"]["consistency"] == pytest.approx(np.mean(visible) ** 0.5, rel=1e-4, nan_ok=True)
    # The context shows what the task says.
    target, shown = contexts.target(torch.arange(6)), context[:, :3]
    if kind == "super-resolution":
        means = target.reshape(6, 3, 4, 4, 4, 4).mean(dim=(3, 5))
        torch.testing.assert_close(shown, means.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))
    elif kind == "colourise":
        assert torch.equal(shown[:, 0], shown[:, 2])
    elif kind == "denoise":
        assert (shown - target).std() == pytest.approx(0.5, rel=0.05)


def test_greyscale_images_without_labels_are_scored(tmp_path, few_pictures):
    """The classifier learns quarter turns of a square of each image. A name with HTML in it is escaped."""
    folder = random_images(tmp_path / "<script>alert(1)<", 40, mode="L")
    for path in folder.iterdir():
        Image.open(path).crop((0, 0, 12, 16)).save(path)
    run = tmp_path / "run"
    recipe = RECIPE.model_copy(update={"data": ImageData(source=str(folder))})
    for stage in (prepare, train, sample):
        stage(recipe, run)
    summary = score(run=run)
    assert "right on validation images, of quarter turns, as no labels tell images apart" in summary.written[str(run / "classifier")]
    assert np.load(run / "samples/samples.npy").shape == (4, 3, 16, 12, 1)  # a tenth of forty are held out
    assert {row["scored"] for row in summary.scores} == {"generator", "moments alone", "other images"}
    page = (run / "report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert "<script>alert" not in page


@pytest.mark.parametrize("colours", ["one", "each its own"])
def test_images_of_one_colour_have_all_scores_but_the_spectrum(tmp_path, few_pictures, colours):
    """They have no power, and the page says so."""
    values = np.random.default_rng(0).integers(0, 256, (40, 1, 1, 3), dtype=np.uint8)
    plain = np.broadcast_to(values[:1] if colours == "one" else values, (40, 12, 12, 3))
    np.savez(tmp_path / "plain.npz", images=plain)
    recipe, run = RECIPE.changed(data__source=str(tmp_path / "plain.npz"), generator__prior="standard"), tmp_path / "run"
    for stage in (prepare, train, sample, score):
        summary = stage(recipe, run)
    row = summary.scores[0]
    assert np.isnan(row["power_deviation"])
    assert np.isfinite([row[name] for name in ("crps", "psnr", "classifier_distance")]).all()
    page = (run / "report.html").read_text()
    assert "The true images have no power" in page
    assert "samples over power of true images" not in page
    study = inpaint_study(recipe, run, seeds=[0], nfe=[2], ablations=[], visible=[], warmths=[1], priors=["standard"], solvers=["midpoint"])
    assert np.isfinite(study.scores[0]["classifier_distance"])


def test_a_stopped_classifier_continues_to_the_same_weights(inpainted, images, tmp_path, monkeypatch, capsys):
    run, recipe, calls = copy_of(inpainted, tmp_path / "run"), RECIPE.changed(training__validate_every=2), []

    def stop_at_the_first(*arguments: object) -> float:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return 0.5

    with monkeypatch.context() as patch:
        patch.setattr("wsdcast.images.classifier._error_rate", stop_at_the_first)
        with pytest.raises(KeyboardInterrupt):
            extractors(recipe, run, images, None, Summary(""), False)
    assert not (run / "classifier").exists()
    extractors(recipe, run, images, None, Summary(""), False)
    assert "classifier: goes on at step 2 of 4" in capsys.readouterr().err
    assert checksums(run / "classifier")["weights.safetensors"] == checksums(inpainted / "run/classifier")["weights.safetensors"]


def test_the_classifier_depends_only_on_the_images(inpainted, images, tmp_path):
    run = copy_of(inpainted, tmp_path / "run")
    torch.rand(3)
    summary = Summary("")
    result = extractors(RECIPE.changed(seed=5, task__visible_test=0.5), run, images, None, summary, False)
    assert list(result) == ["classifier_distance"]
    assert list(summary.written) == [str(run / "classifier")]
    assert checksums(run / "classifier")["weights.safetensors"] == checksums(inpainted / "run/classifier")["weights.safetensors"]


def test_features_do_not_depend_on_the_batch(inpainted, images, monkeypatch):
    extract = extractors(RECIPE, inpainted / "run", images, None, Summary(""), False)["classifier_distance"]
    pixels = images.images[:40]
    features = features_of(extract, pixels)
    assert features.shape == (40, 128)
    assert features.std(axis=0).max() > 0
    np.testing.assert_allclose(features_of(extract, pixels.reshape(4, 10, 16, 16, 3))[2, 3], features[23], atol=1e-6)
    whole = statistics_of(extract, pixels)
    monkeypatch.setattr("wsdcast.images.classifier.IMAGES_PER_BATCH", 7)
    np.testing.assert_allclose(features_of(extract, pixels), features, atol=1e-6)
    parts = statistics_of(extract, pixels)
    assert parts.count == whole.count == 40
    np.testing.assert_allclose(parts.mean, features.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(parts.covariance, np.cov(features.T), atol=1e-7)


def test_the_error_rate_is_the_share_of_wrong_labels(images):
    part = images.parts["validation"]
    assert images.count("validation") < IMAGES_PER_BATCH
    _, labels = np.unique(images.labels, return_inverse=True)
    truth = torch.from_numpy(labels[part])

    def always(kind: int):
        return lambda batch: torch.nn.functional.one_hot(torch.full((len(batch),), kind), 4)

    assert _error_rate(lambda _: torch.nn.functional.one_hot(truth, 4), images, labels) == 0
    for kind in range(4):
        assert _error_rate(always(kind), images, labels) == pytest.approx(np.mean(labels[part] != kind))
    turns = [_error_rate(always(kind), images, None) for kind in range(4)]
    assert sum(turns) == pytest.approx(3)  # each image was turned in one of four ways
    assert max(turns) < 1


def test_a_single_label_is_no_label(inpainted, tmp_path):
    """A classifier of one class is right without training, and the distance would be by features of random weights."""
    weights = []
    for label in (3, None):
        run = copy_of(inpainted, tmp_path / f"run-{label}")
        labels = np.load(run / "images/labels.npy")
        np.save(run / "images/labels.npy", np.full_like(labels, 3))
        if label is None:
            (run / "images/labels.npy").unlink()
        extractors(RECIPE, run, open_images(run / "images"), None, Summary(""), False)
        weights.append((run / "classifier/weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_labels_may_be_any_numbers(inpainted, tmp_path):
    run = copy_of(inpainted, tmp_path / "run")
    labels = np.load(run / "images/labels.npy")
    np.save(run / "images/labels.npy", 10**12 - 5 * labels)
    extractors(RECIPE, run, open_images(run / "images"), None, Summary(""), False)
    assert (run / "classifier/weights.safetensors").stat().st_size < 3e6


def test_the_table_equals_the_definitions(inpainted, images, rows):
    assert list(rows) == ["generator", "moments alone", "other images"]
    samples = np.load(inpainted / "run/samples/samples.npy")
    contexts = fixed_contexts(images, "test", RECIPE.task, count=6)
    hidden = (contexts.context(torch.arange(6))[:, 3] == 0).numpy()
    truth = images.images[contexts.chosen] / 255
    random = np.random.default_rng(0)
    training = images.parts["train"]
    others = images.images[random.integers(training.start, training.stop, (6, 3)).ravel()].reshape(samples.shape)
    extract = extractors(RECIPE, inpainted / "run", images, None, Summary(""), False)["classifier_distance"]
    reference = FeatureStatistics.of(features_of(extract, images.images[training]))
    for name, ensemble in (("generator", samples), ("other images", others)):
        scaled, row = ensemble / 255, rows[name]
        error = (scaled.mean(axis=1) - truth) ** 2
        assert row["crps"] == pytest.approx(np.mean([fair_crps(scaled[n], truth[n])[hidden[n]].mean() for n in range(6)]), rel=1e-4)
        assert row["psnr"] == pytest.approx(np.mean([-10 * np.log10(error[n][hidden[n]].mean()) for n in range(6)]), rel=1e-5)
        assert row["psnr_whole"] == pytest.approx(np.mean(-10 * np.log10(error.mean(axis=(1, 2, 3)))), rel=1e-5)
        assert row["rmse"] == pytest.approx(np.mean([error[n][hidden[n]].mean() for n in range(6)]) ** 0.5, rel=1e-5)
        pairs = [[((a - b)[hidden[n]] ** 2).mean() ** 0.5 for a, b in combinations(scaled[n], 2)] for n in range(6)]
        assert row["diversity"] == pytest.approx(np.mean(pairs), rel=1e-4)
        distance = frechet_distance(FeatureStatistics.of(features_of(extract, ensemble)), reference)
        assert row["classifier_distance"] == pytest.approx(distance, rel=1e-5)
        for score_name in ("crps", "psnr", "classifier_distance"):
            assert row[f"{score_name}_low"] <= row[score_name] <= row[f"{score_name}_high"], (name, score_name)
        assert np.isnan(row["power_deviation_low"])
    with xr.open_dataset(inpainted / "run/scores.nc") as scores:
        np.testing.assert_allclose(scores["crps"].mean("context").values, [row["crps"] for row in rows.values()])
        # Six contexts with three samples have 18 images, so the floor takes the first 18 of 20 test images.
        held_out = FeatureStatistics.of(features_of(extract, images.images[images.parts["test"]][:18]))
        assert scores.attrs["floor_classifier_distance"] == pytest.approx(frechet_distance(held_out, reference), rel=1e-5)
        assert scores.attrs["about"] == ("6 contexts of test images, 3 samples each; reference set: all 162 training images")


def test_the_report_shows_the_pictures_and_names_its_scores(inpainted):
    page = (inpainted / "run/report.html").read_text()
    for name in ("grid", "process", "same_noise", "tails"):
        assert base64.b64encode((inpainted / f"run/samples/{name}.png").read_bytes()).decode() in page
    for words in (
        "moments alone",
        "other images",
        "test images",
        "classifier distance of 18 test images",
        "is not FID",
    ):
        assert words in page


def test_contexts_of_training_images_are_named_as_such(inpainted, images, tmp_path, few_pictures):
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator", "classifier")
    code, _ = invoke("inpaint", "sample", "--protocol", "paper", "--run", str(run))
    assert code == 0
    summary = score(run=run)
    words = "6 contexts of TRAINING images, as the reference implementation has it, 3 samples each"
    assert words in summary.facts["scored"]
    assert words in (run / "report.html").read_text()
    with xr.open_dataset(run / "scores.nc") as scores:
        assert words in scores.attrs["about"]
        samples = np.load(run / "samples/samples.npy")
        contexts = fixed_contexts(images, "train", RECIPE.task, count=6)
        assert contexts.chosen.tolist() == [0, 1, 2, 3, 4, 5]
        hidden = (contexts.context(torch.arange(6))[:, 3] == 0).numpy()
        crps = [fair_crps(samples[n] / 255, images.images[n] / 255)[hidden[n]].mean() for n in range(6)]
        np.testing.assert_allclose(scores["crps"].sel(scored="generator").values, crps, rtol=1e-4)


def colours(images: torch.Tensor) -> torch.Tensor:
    """Return the mean colour of each image as its features."""
    assert images.dtype == torch.uint8
    return images.float().mean(dim=(2, 3))


def test_fid_is_added_to_the_classifier_distance(inpainted, images, tmp_path, monkeypatch):
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator", "classifier", "samples")
    weight_files: list[Path] = []
    monkeypatch.setattr("wsdcast.images.classifier.inception", lambda weights: weight_files.append(weights) or colours)
    assert "fid" not in score(run=run).scores[0]
    summary = score(run=run, inception_weights=str(tmp_path / "weights.pth"))
    assert weight_files == [tmp_path / "weights.pth"]
    row = summary.scores[0]
    assert {"fid", "fid_interval", "classifier_distance"} <= set(row)
    samples = np.load(run / "samples/samples.npy").astype(float)
    training = images.images[images.parts["train"]].astype(float)
    a, b = (FeatureStatistics.of(pixels.mean(axis=(-3, -2))) for pixels in (samples, training))
    assert row["fid"] == pytest.approx(frechet_distance(a, b), rel=1e-4)
    assert "FID" in (run / "report.html").read_text()
    assert "fid of 18 test images" in summary.facts
    assert "current" in score(run=run, inception_weights="weights.pth").facts
    # Stored scores with FID are current when FID is not asked for.
    again = score(run=run)
    assert [row["fid"] for row in again.scores] == [row["fid"] for row in summary.scores]
    assert "current" in again.facts


def test_the_command_prints_its_scores(inpainted, tmp_path):
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator", "classifier", "samples")
    done = CliRunner().invoke(app, ["inpaint", "score", "--run", str(run), "--json"])
    summary = json.loads(done.stdout)
    assert [row["scored"] for row in summary["scores"]] == ["generator", "moments alone", "other images"]
    (run / "scores.nc").unlink()
    table = CliRunner().invoke(app, ["inpaint", "score", "--run", str(run)]).stdout
    assert "not FID" in table
    assert f"{summary['scores'][0]['crps']:.4f}" in table


@pytest.mark.parametrize("left_out", ["crps", "crps_standard"])
def test_the_table_with_fid_fits_in_80_columns(left_out, capsys, monkeypatch):
    """A table that is too wide is not wider than the terminal, but its cells are cut."""
    monkeypatch.setenv("COLUMNS", "80")
    usual = {"classifier_distance": 0.123, "crps": 0.1234, "crps_standard": 0.1234, "psnr": 20.1, "spread_skill": 0.99}
    usual |= {"fid": 123.4, "diversity": 0.123, "consistency": 0.001, "power_deviation": 0.12}
    row = {name: usual[name] for name in IMAGE_SCORES if name != left_out}
    show(Summary("inpaint score", scores=[row | {"scored": "moments alone"}]), json=False)
    table = capsys.readouterr().out
    assert "moments alone" in table
    assert "…" not in table
